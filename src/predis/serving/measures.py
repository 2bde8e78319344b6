"""The numbers of one version of one endpoint: handles made once, so that a batch costs a few additions."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from predis.errors import DeadlineExceeded, InvalidInput, PredisError, Unavailable
from predis.metrics import Counter, Metrics, Numbers


class VersionMetrics:
    """What is counted of a version's requests."""

    def __init__(self, metrics: Metrics, tenant: str, *, endpoint: str, version: int) -> None:
        labels = {"tenant": tenant, "endpoint": endpoint, "version": str(version)}

        def outcome(name: str) -> Counter:
            return metrics.counter("predis_requests_total", outcome=name, **labels)

        self.ok, self.rejected, self.failed = outcome("ok"), outcome("rejected"), outcome("failed")
        self.shed, self.late = outcome("shed"), outcome("deadline")
        self.rows = metrics.counter("predis_rows_total", **labels)
        self.request_s = metrics.histogram("predis_request_seconds", **labels)
        self.queue_s = metrics.histogram("predis_queue_seconds", **labels)
        self.predict_s = metrics.histogram("predis_predict_seconds", **labels)
        self.batch_rows = metrics.histogram("predis_batch_rows", **labels)
        self.shadow_dropped = metrics.counter("predis_shadow_dropped_total", **labels)
        self._last = metrics.gauge("predis_last_request_time_seconds", **labels)
        self._loaded = metrics.gauge("predis_version_loaded", **labels)
        self._loaded.set(1)

    def refused(self, error: PredisError) -> None:
        """Count a request that was not predicted."""
        if isinstance(error, DeadlineExceeded):
            self.late.add()
        elif isinstance(error, Unavailable):
            self.shed.add()
        elif isinstance(error, InvalidInput):
            self.rejected.add()
        else:
            self.failed.add()

    def predicted(
        self, rows: int, seconds: float, *, requests: Sequence[float], queued: Sequence[float]
    ) -> None:
        """Count a batch that was answered.

        Args:
            seconds: what the prediction took.
            requests: what each request took, in seconds.
            queued: how long each waited before it was predicted, in seconds.
        """
        self.ok.add(len(requests))
        self.rows.add(rows)
        self.request_s.observe(requests)
        self.queue_s.observe(queued)
        self.predict_s.observe((seconds,))
        self.batch_rows.observe((rows,))
        self._last.set(time.time())

    def cached(self, seconds: float) -> None:
        """Count a request that was answered without a prediction."""
        self.ok.add()
        self.request_s.observe((seconds,))

    def unloaded(self) -> None:
        self._loaded.set(0)


class Totals:
    """What all workers together have counted of one version. Durations are nanoseconds."""

    def __init__(self, numbers: Numbers, tenant: str, *, endpoint: str, version: int) -> None:
        self._numbers = numbers
        self._labels = {"tenant": tenant, "endpoint": endpoint, "version": str(version)}

    def outcome(self, *names: str) -> int:
        """Requests that ended one of these ways."""
        return round(sum(sum(self._cells("predis_requests_total", outcome=name)) for name in names))

    def rows(self) -> int:
        return round(sum(self._cells("predis_rows_total")))

    def last_ms(self) -> int:
        """When the version last answered, in milliseconds since 1970; 0: never."""
        return round(max(self._cells("predis_last_request_time_seconds"), default=0.0) * 1e3)

    def spent(self, histogram: str) -> tuple[int, int]:
        """How many durations were observed, and their sum."""
        series = list(self._series(histogram))
        count = sum(sum(cells[:-1]) for cells in series)
        return round(count), round(sum(cells[-1] for cells in series) * 1e9)

    def _cells(self, metric: str, **more: str) -> list[float]:
        return [cells[0] for cells in self._series(metric, **more)]

    def _series(self, metric: str, **more: str) -> Iterable[list[float]]:
        wanted = {**self._labels, **more}.items()
        return (cells for labels, cells in self._numbers[metric].items() if wanted <= dict(labels).items())
