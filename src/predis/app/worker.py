"""The serving role, put together. It imports no HTTP framework: a worker starts in a fraction of a second."""

from __future__ import annotations

import math
import threading

from predis.access import Keys
from predis.clock import Clock, SystemClock
from predis.events import Bus
from predis.registry import Registry, Version
from predis.serving import runtimes
from predis.serving.follower import Follower, Sources
from predis.serving.plane import Plane, ServedVersion
from predis.serving.protocol import Limits
from predis.serving.rest import RestApp
from predis.serving.snapshot import Snapshot
from predis.serving.store import Endpoint, ServingStore
from predis.settings import Settings
from predis.state import ArtifactStore, Database, JournalWriter


class Library:
    """Where a worker's versions come from: rows from the registry, files from the artifact store."""

    def __init__(self, registry: Registry, limits: Limits) -> None:
        self._registry = registry
        self._limits = limits

    def version(self, endpoint: Endpoint, number: int) -> Version:
        return self._registry.version(endpoint.tenant, endpoint.model, reference=number)

    def open(self, version: Version, endpoint: str) -> ServedVersion:
        contents = self._registry.read_files(version)
        runtime = runtimes.load(version.format, contents, signature=version.signature)
        return ServedVersion(version, runtime, endpoint=endpoint, limits=self._limits)


class ServingWorker:
    """One serving process: the plane, its journal stream, and the thread that follows Routes.

    Args:
        index: the worker's place among those of this home; names its journal stream.
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
        limits = Limits(batch_rows=settings.max_batch_rows, tensors=settings.max_tensors)
        self.plane = Plane(
            clock=clock,
            sink=self._journal,
            limits=limits,
            inline_s=settings.inline_predict_ms / 1000,
            max_pending=settings.max_pending,
        )
        keys = Keys(database, clock, refresh_s=math.inf)
        registry = Registry(
            database, ArtifactStore(settings.store_url), clock=clock, bus=Bus(), inspect=runtimes.inspect
        )
        sources = Sources(
            ServingStore(database), keys, Library(registry, limits), Snapshot(settings.home / "routes.json")
        )
        self.follower = Follower(self.plane, sources, worker=self.name, clock=clock)
        self.app = RestApp(self.plane, keys, max_body_bytes=settings.max_body_bytes)
        self._thread = threading.Thread(
            target=self.follower.run, args=(settings.route_poll_ms / 1000,), daemon=True
        )

    def start(self) -> None:
        """Apply the Routes as they are, then follow them."""
        self.follower.look()
        self._thread.start()

    def stop(self) -> None:
        self.follower.stop()
        if self._thread.is_alive():
            self._thread.join(2.0)
        self._journal.close()
        self._database.close()
