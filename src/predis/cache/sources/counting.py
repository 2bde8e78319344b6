"""What is counted of each source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from predis.cache.sources.source import Source
from predis.clock import NANOSECONDS
from predis.metrics import Metrics

OUTCOMES = ("loaded", "none", "failed", "shed")
WRITTEN = ("written", "queued", "refused", "failed")


class Counts:
    """The handles of one source's metrics."""

    def __init__(self, metrics: Metrics, source: Source) -> None:
        labels = {"tenant": source.tenant, "source": source.name}
        self._metrics, self._labels = metrics, labels
        self.reads = {
            found: metrics.counter("predis_source_reads_total", found=found, **labels)
            for found in ("hit", "stale", "miss", "none")
        }
        self.loads = {
            outcome: metrics.counter("predis_source_loads_total", outcome=outcome, **labels)
            for outcome in OUTCOMES
        }
        self.calls = metrics.counter("predis_source_calls_total", **labels)
        self.seconds = metrics.histogram("predis_source_call_seconds", **labels)
        self.refreshes = metrics.counter("predis_source_refreshes_total", **labels)
        self.uncached = metrics.counter("predis_source_uncached_total", **labels)
        self.writes = {
            outcome: metrics.counter("predis_source_writes_total", outcome=outcome, **labels)
            for outcome in WRITTEN
        }
        self.broken = metrics.gauge("predis_source_breaker_open", **labels)

    def forget(self) -> None:
        self._metrics.forget(**self._labels)


class QueueGauges:
    """What waits to be written, of every source that a queue was ever seen of."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._seen: set[tuple[str, str]] = set()

    def set(self, depths: Sequence[Mapping[str, Any]], *, now: int) -> None:
        """``depths``: rows of ``WriteStore.depths``; ``now``: nanoseconds since the epoch."""
        by_source = {(row["tenant"], row["source"]): row for row in depths}
        self._seen |= set(by_source)
        for tenant, source in self._seen:
            row = by_source.get((tenant, source), {"waiting": 0, "oldest": None, "set_aside": 0})
            age_s = (now - row["oldest"]) / NANOSECONDS if row["oldest"] else 0.0
            gauge = partial(self._metrics.gauge, tenant=tenant, source=source)
            gauge("predis_source_queue_writes").set(float(row["waiting"]))
            gauge("predis_source_queue_age_seconds").set(max(0.0, age_s))
            gauge("predis_source_set_aside_writes").set(float(row["set_aside"]))
