"""Spans of rows: which are done, which are left, which parts make up the whole. Pure arithmetic on half-open intervals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """Rows ``start`` up to, but not including, ``stop``, counted over the whole data set."""

    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


def left(done: Iterable[Span], rows: int) -> list[Span]:
    """What is not in ``done`` of ``rows`` rows.

    >>> left([Span(0, 4), Span(8, 10), Span(2, 5)], 12)
    [Span(start=5, stop=8), Span(start=10, stop=12)]
    """
    found, at = [], 0
    for span in sorted(done):
        if span.start > at:
            found.append(Span(at, span.start))
        at = max(at, span.stop)
    return [*found, Span(at, rows)] if at < rows else found


def units(spans: Iterable[Span], size: int) -> list[Span]:
    """The spans cut at every multiple of ``size``.

    >>> units([Span(5, 8), Span(10, 25)], 10)
    [Span(start=5, stop=8), Span(start=10, stop=20), Span(start=20, stop=25)]
    """
    return [
        Span(max(at, span.start), min(at + size, span.stop))
        for span in spans
        for at in range(span.start // size * size, span.stop, size)
    ]


def cover(done: Sequence[Span], rows: int) -> Iterator[tuple[int, Span]]:
    """Which rows to take from which of ``done``, by place, so that every one of ``rows`` rows comes once, in order.

    Parts may overlap: a worker that was lost had written some of what the next one wrote again, with the same values.

    >>> list(cover([Span(0, 4), Span(0, 2), Span(2, 6)], 6))
    [(0, Span(start=0, stop=4)), (2, Span(start=4, stop=6))]

    Raises:
        ValueError: a row is in none of them.
    """
    at = 0
    for place in sorted(range(len(done)), key=lambda place: (done[place].start, -done[place].stop)):
        span = done[place]
        if span.start > at:
            break
        if span.stop > at:
            yield place, Span(at, min(span.stop, rows))
            at = span.stop
    if at < rows:
        raise ValueError(f"no part holds row {at}")
