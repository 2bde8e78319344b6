"""The serving role, put together. It imports no HTTP framework: a worker starts in a fraction of a second."""

from __future__ import annotations

import asyncio
import math
import threading

from predis.access import Keys
from predis.app.home import open_registry
from predis.cache.embedded import url_of
from predis.clock import Clock, SystemClock
from predis.events import Bus
from predis.metrics import Metrics, collected, exposition
from predis.registry import Registry, Version
from predis.serving import runtimes
from predis.serving.batching import BatchPolicy
from predis.serving.cache import PredictionCache, Valkey
from predis.serving.capture import Capture
from predis.serving.follower import Follower, Sources
from predis.serving.observing import Observing
from predis.serving.plane import Admission, Plane
from predis.serving.protocol import Limits
from predis.serving.repository import Repository
from predis.serving.rest import RestApp
from predis.serving.served import ServedVersion
from predis.serving.snapshot import Snapshot
from predis.serving.store import Endpoint, ServingStore
from predis.settings import Settings
from predis.state import Database, JournalWriter
from predis.telemetry import AccessLog
from predis.tracing import tracer
from predis.valkeys import Clustered

_TIDY_S = 1.0


class Library:
    """Where a worker's versions come from: rows from the registry, files from the artifact store."""

    def __init__(self, registry: Registry, limits: Limits, *, metrics: Metrics) -> None:
        self._registry = registry
        self._limits = limits
        self._metrics = metrics

    def version(self, endpoint: Endpoint, number: int) -> Version:
        return self._registry.version(endpoint.tenant, endpoint.model, reference=number)

    def open(self, version: Version, endpoint: str) -> ServedVersion:
        contents = self._registry.read_files(version)
        runtime = runtimes.load(version.format, contents, signature=version.signature)
        return ServedVersion(version, runtime, endpoint=endpoint, limits=self._limits, metrics=self._metrics)


class ServingWorker:
    """One serving process: the plane, its journal stream, and the thread that follows Routes.

    Args:
        index: the worker's place among those of this home; names its journal stream and its metrics.
    """

    def __init__(self, settings: Settings, index: int, *, clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        self.settings = settings
        self.name = f"serving-{index}"
        self._database = database = Database(settings.database_url)
        self._journal = JournalWriter(
            settings.journal_folder / self.name,
            segment_bytes=settings.journal_segment_bytes,
            limit_bytes=settings.journal_limit_bytes,
        )
        self._told_lost = 0
        self.metrics = Metrics(settings.metrics_folder, self.name)
        self.limits = _limits(settings)
        self.caches = PredictionCache(_valkey(settings, self.metrics), metrics=self.metrics)
        self.plane = Plane(
            Capture(self._journal if settings.capture else None, clock),
            admission=Admission(settings.max_pending, settings.max_wait_ms / 1000, settings.tenant_pending),
            policy=BatchPolicy(
                settings.batch_rows, settings.batch_ms / 1000, settings.inline_predict_ms / 1000
            ),
            caches=self.caches,
            threads=settings.predict_threads,
        )
        self.keys = Keys(database, clock, refresh_s=math.inf)
        registry = open_registry(settings, database, clock=clock, bus=Bus())
        sources = Sources(
            ServingStore(database),
            self.keys,
            Library(registry, self.limits, metrics=self.metrics),
            Snapshot(settings.home / "routes.json"),
            self.metrics,
        )
        poll_s = settings.route_poll_ms / 1000
        self.follower = Follower(
            self.plane, sources, worker=self.name, clock=clock, after_look=self._tell_vitals
        )
        self.repository = Repository(database, self.plane, clock=clock, follow_s=poll_s)
        self.observing = Observing(
            self._exposition,
            lambda: collected(settings.metrics_folder),
            tracer(settings, self.name, metrics=self.metrics),
            AccessLog(self.name, style=settings.log_format, metrics=self.metrics)
            if settings.access_log
            else None,
        )
        self.rest = RestApp(
            self.plane,
            self.keys,
            limits=self.limits,
            repository=self.repository,
            observing=self.observing,
            insecure=settings.insecure,
        )
        self._thread = threading.Thread(target=self.follower.run, args=(poll_s,), daemon=True)

    def start(self) -> None:
        """Apply the Routes as they are, then follow them."""
        self.follower.catch_up()
        self._thread.start()

    async def tidy(self) -> None:
        """Give back the memory of predictions whose time is over, for as long as the loop runs."""
        try:
            while True:
                await asyncio.sleep(_TIDY_S)
                self.caches.expire()
        finally:
            await self.caches.close()

    def stop(self) -> bool:
        """Close everything. Whether no model's code runs any more, so that the process can end of itself."""
        still = self.follower.stop()
        if self._thread.is_alive():
            self._thread.join(2.0)
        still = self.plane.close() and still
        self.observing.close()
        self._journal.close()
        self.metrics.close()
        self._database.close()
        return still

    def _exposition(self, tenant: str) -> bytes:
        self._tell_vitals()
        return exposition(self.settings.metrics_folder, tenant=tenant if self.keys.exist() else None)

    def _tell_vitals(self) -> None:
        """Bring the numbers that nobody counts as they happen up to date."""
        self.metrics.gauge("predis_in_flight").set(self.plane.pending)
        lost = self._journal.lost
        self.metrics.counter("predis_journal_lost_total").add(lost - self._told_lost)
        self._told_lost = lost


def _valkey(settings: Settings, metrics: Metrics) -> Valkey | None:
    url = url_of(settings)
    if not url or Clustered.is_url(url):  # predictions are asked for many keys at once, of any slots
        return None
    return Valkey(url, timeout_s=settings.cache_timeout_ms / 1000, metrics=metrics)


def _limits(settings: Settings) -> Limits:
    return Limits(
        batch_rows=settings.max_batch_rows,
        tensors=settings.max_tensors,
        nesting=settings.max_nesting,
        body_bytes=settings.max_body_bytes,
        capture_columns=settings.capture_columns,
    )
