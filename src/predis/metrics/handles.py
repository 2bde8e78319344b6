"""Handles: what a part of Predis keeps to count with. Counting costs a tenth of a microsecond.

Threads may share a handle without a lock, which would cost twice as much as the counting: CPython changes threads only where a
function begins, after a call and at a jump back, so that one ``cells[i] += n`` on numbers is done as a whole. A test with many
threads holds us to it. ``self._cells`` is looked up for each of them, because the numbers may move (``leave``).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from predis.metrics.file import Cells
from predis.metrics.table import Metric


def memory(cells: int) -> Cells:
    """Numbers that only this process sees."""
    return memoryview(bytearray(8 * cells)).cast("d")


class Handle:
    """Refers to the numbers of one series, wherever they are."""

    __slots__ = ("_bounds", "_cells")

    def __init__(self, metric: Metric, cells: Cells) -> None:
        self._bounds = metric.buckets
        self._cells = cells

    def leave(self) -> None:
        """Go on in memory, from where it stands: the place in the file is needed."""
        kept = memory(len(self._cells))
        kept[:] = self._cells
        self._cells = kept


class Counter(Handle):
    """A number that only rises."""

    __slots__ = ()

    @property
    def value(self) -> float:
        return self._cells[0]

    def add(self, n: float = 1) -> None:
        """Count ``n`` more, which is not negative."""
        self._cells[0] += n

    def advance(self, total: float) -> None:
        """Count up to a total that is kept elsewhere; a lower one changes nothing. For one thread."""
        self._cells[0] = max(self._cells[0], total)


class Gauge(Handle):
    """A number that goes up and down."""

    __slots__ = ()

    @property
    def value(self) -> float:
        return self._cells[0]

    def set(self, value: float) -> None:
        self._cells[0] = value

    def add(self, n: float = 1) -> None:
        self._cells[0] += n


class Histogram(Handle):
    """How often values fell into each bucket, and their sum."""

    __slots__ = ()

    @property
    def count(self) -> float:
        """Values observed."""
        return sum(self._cells[:-1])

    @property
    def sum(self) -> float:
        return self._cells[-1]

    def observe(self, values: Sequence[float]) -> None:
        """Take in the values of a batch at once: sorted, they cost one search per bucket that they touch, not one each.

        What is not a number (NaN) is left out: it belongs to no bucket and would spoil the sum for ever.
        """
        total = sum(values)
        if total != total:
            values = [value for value in values if value == value]
            total = sum(values)
        ordered = sorted(values)
        count = len(ordered)
        bounds = self._bounds
        self._cells[-1] += total
        start = 0
        while start < count:
            bucket = bisect_left(bounds, ordered[start])
            stop = bisect_right(ordered, bounds[bucket], start) if bucket < len(bounds) else count
            self._cells[bucket] += stop - start
            start = stop
