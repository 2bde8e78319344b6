"""From the files of all processes to a batch: what was added since the last one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from predis.clock import Clock
from predis.metrics import TABLE, Metric, collected
from predis.metrics.exposition import Labels
from predis.monitoring.exporters.batch import Batch, Health, Sample

Cells = tuple[float, ...]


class Gathering:
    """Makes the batches. What was counted before the first one is nobody's news: it is where counting begins.

    Args:
        folder: where the processes of the installation have their metrics.
        only: patterns of metrics' names, such as ``predis_request*``; empty: all.
    """

    def __init__(self, folder: Path, *, clock: Clock, only: Sequence[str] = ()) -> None:
        self._folder = folder
        self._clock = clock
        self._metrics = [m for m in TABLE.values() if not only or any(fnmatchcase(m.name, p) for p in only)]
        self._origin_ns = self._at_ns = clock.time_ns()
        self._seen: dict[tuple[str, Labels], tuple[Cells, Cells]] | None = (
            None  # cells as read, and added since
        )

    def gather(self, health: Iterable[Health] = ()) -> Batch:
        """What was added since the last call. Reads files, some milliseconds."""
        began, self._at_ns = self._at_ns, self._clock.time_ns()
        numbers = collected(self._folder)
        seen: dict[tuple[str, Labels], tuple[Cells, Cells]] = {}
        samples = []
        for metric in self._metrics:
            for labels, cells in sorted(numbers[metric.name].items()):
                sample = self._sample(metric, labels, cells=tuple(cells))
                seen[metric.name, labels] = tuple(cells), sample.total
                samples.append(sample)
        self._seen = seen
        return Batch(
            origin_ns=self._origin_ns,
            began_ns=began,
            at_ns=self._at_ns,
            samples=tuple(samples),
            health=tuple(health),
        )

    def _sample(self, metric: Metric, labels: Labels, *, cells: Cells) -> Sample:
        if metric.kind == "gauge":
            return Sample(metric, labels, cells, cells)
        zeros = _zeros(len(cells))
        if self._seen is None:
            return Sample(metric, labels, zeros, zeros)
        before, total = self._seen.get((metric.name, labels), (zeros, zeros))
        if sum(cells[: len(metric.buckets) + 1]) < sum(before[: len(metric.buckets) + 1]):
            before = zeros  # a file was lost, and counting began anew
        if cells == before:
            return Sample(metric, labels, zeros, total)
        delta = tuple(max(0.0, now - then) for now, then in zip(cells, before, strict=True))
        return Sample(metric, labels, delta, tuple(a + b for a, b in zip(total, delta, strict=True)))


@cache
def _zeros(count: int) -> Cells:
    """Shared by all that stand still, which may be many."""
    return (0.0,) * count
