"""Follows Routes: what makes a worker serve what the state database says, and go on serving when it is silent.

A thread looks at the endpoints' Route numbers. For a new one it loads and warms the versions the worker does not hold yet, and
only then swaps the Route in: traffic never meets a model that is not in memory. A version that cannot be loaded leaves the old
Route in place and is reported; the rollout that asked for it sees the report and turns back. Every Route applied is also kept in a
local file, with the digests of the files it needs, so that a worker restarted while the database is away serves all the same.
A version that could not be loaded is tried again now and then: a store that was away comes back, a damaged file is restored.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from typing import Any, Protocol

from predis.access import Keys
from predis.clock import NANOSECONDS, Clock
from predis.errors import PredisError, Unavailable
from predis.registry.model import Version
from predis.serving.plane import AppliedRoute, Plane, ServedVersion
from predis.serving.route import Route
from predis.serving.snapshot import Remembered, Snapshot
from predis.serving.store import Endpoint, ServingStore, Worker

log = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
RETRY_S = 30.0
# A worker that has not been heard of for this long does not hold up a rollout any more.
ALIVE_S = 5.0


class Library(Protocol):
    """Where versions come from."""

    def version(self, endpoint: Endpoint, number: int) -> Version:
        """The version's row, from the database."""

    def open(self, version: Version, endpoint: str) -> ServedVersion:
        """The version in memory: files read, digests checked, warmed."""


@dataclass(frozen=True)
class Sources:
    """What a follower reads from and writes to."""

    store: ServingStore
    keys: Keys
    library: Library
    snapshot: Snapshot


Key = tuple[str, str]


class Follower:
    """Keeps one worker's plane at the Routes in the database.

    Args:
        worker: the worker's name, under which it reports.
    """

    def __init__(self, plane: Plane, sources: Sources, *, worker: str, clock: Clock) -> None:
        self._plane = plane
        self._store, self._keys = sources.store, sources.keys
        self._library, self._snapshot = sources.library, sources.snapshot
        self._clock = clock
        self._worker = worker
        self._held: dict[tuple[str, str, int], ServedVersion] = {}
        self._problems: dict[str, dict[str, Any]] = {}
        self._looked_at: dict[Key, int] = {}
        self._failed_at: dict[Key, float] = {}
        self._applied: dict[Key, Remembered] = {}
        self._changed = False
        self._kept_keys: dict[str, list[str]] | None = None
        self._started_at = clock.time_ns()
        self._beat_at = float("-inf")
        self._silent = False
        self._stop = threading.Event()

    def look(self) -> bool:
        """One look: apply what is new, report, and say whether anything changed."""
        try:
            changed = self._look()
        except Unavailable as error:
            self._fall_back(error)
            return False
        self._silent = False
        return changed

    def _look(self) -> bool:
        found = self._store.endpoints()
        self._keys.refresh()
        for endpoint in found:
            if self._is_due(endpoint):
                self._follow(endpoint)
                self._changed = True
        for key in set(self._applied) - {(endpoint.tenant, endpoint.name) for endpoint in found}:
            self._forget(key)
            self._changed = True
        self._plane.following = True
        # What changed stays so until it is kept: the database may go silent halfway through a look.
        changed, keys = self._changed, self._keys.snapshot()
        if changed or keys != self._kept_keys:
            self._release()
            self._snapshot.save(self._applied.values(), keys)
            self._changed, self._kept_keys = False, keys
        self._beat(force=changed)
        return changed

    def _is_due(self, endpoint: Endpoint) -> bool:
        key = (endpoint.tenant, endpoint.name)
        if self._looked_at.get(key) != endpoint.route:
            return True
        failed_at = self._failed_at.get(key)
        return failed_at is not None and self._clock.monotonic_s() - failed_at >= RETRY_S

    def _forget(self, key: Key) -> None:
        self._plane.remove(*key)
        for known in (self._looked_at, self._failed_at, self._applied):
            known.pop(key, None)
        self._problems.pop("/".join(key), None)

    def run(self, poll_s: float) -> None:
        """Look until ``stop``; whatever goes wrong in one look is logged and tried again in the next."""
        while not self._stop.wait(poll_s):
            try:
                self.look()
            except Exception:
                log.exception("following Routes failed; trying again")

    def stop(self) -> None:
        self._stop.set()
        try:
            self._store.leave(self._worker)
        except PredisError:
            log.info("could not sign off from the state database")

    def _fall_back(self, error: PredisError) -> None:
        """The database is silent: go on with what is applied, or with what was applied before this process started."""
        if not self._silent:
            log.warning("%s; serving goes on with the last Routes", error)
        self._silent = True
        if self._plane.following:
            return
        remembered, keys = self._snapshot.load()
        if keys is None:
            return
        if self._keys.snapshot() is None:
            self._keys.restore(keys)
        for item in remembered:
            if (item.endpoint.tenant, item.endpoint.name) not in self._looked_at:
                versions = {version.number: version for version in item.versions}
                self._apply(item.endpoint, item.route, versions=versions)
        self._plane.following = True

    def _follow(self, endpoint: Endpoint) -> None:
        route = self._store.route(endpoint.tenant, endpoint.name, number=endpoint.route)
        try:
            versions = {number: self._library.version(endpoint, number) for number in route.weights}
        except Unavailable:
            raise  # It says nothing of the version.
        except PredisError as error:
            self._report(endpoint, route, error=error)
        else:
            self._apply(endpoint, route, versions=versions)
        self._looked_at[endpoint.tenant, endpoint.name] = route.number

    def _apply(self, endpoint: Endpoint, route: Route, *, versions: dict[int, Version]) -> None:
        try:
            served = {number: self._served(endpoint, version) for number, version in versions.items()}
        except PredisError as error:
            self._report(endpoint, route, error=error)
        except Exception as error:  # of a library or an object store; it must not hold up the other endpoints
            log.exception("route %d of %s/%s", route.number, endpoint.tenant, endpoint.name)
            self._report(endpoint, route, error=PredisError(f"{type(error).__name__}: {error}"))
        else:
            self._put(endpoint, route, versions=versions, served=served)
            self._problems.pop(f"{endpoint.tenant}/{endpoint.name}", None)
            self._failed_at.pop((endpoint.tenant, endpoint.name), None)

    def _put(
        self,
        endpoint: Endpoint,
        route: Route,
        *,
        versions: dict[int, Version],
        served: dict[int, ServedVersion],
    ) -> None:
        self._plane.apply(AppliedRoute.of(endpoint.tenant, route, model=endpoint.model, versions=served))
        remembered = Remembered(endpoint, route, tuple(versions.values()))
        self._applied[endpoint.tenant, endpoint.name] = remembered

    def _report(self, endpoint: Endpoint, route: Route, *, error: PredisError) -> None:
        name = f"{endpoint.tenant}/{endpoint.name}"
        log.error("route %d of %s cannot be applied: %s", route.number, name, error)
        self._problems[name] = {"route": route.number, "code": error.code, "message": error.message}
        self._failed_at[endpoint.tenant, endpoint.name] = self._clock.monotonic_s()
        if self._plane.applied(endpoint.tenant, endpoint.name) is None:
            self._put(endpoint, Route(endpoint.name, 0, {}), versions={}, served={})

    def _served(self, endpoint: Endpoint, version: Version) -> ServedVersion:
        key = (endpoint.tenant, endpoint.name, version.number)
        if key not in self._held:
            self._held[key] = self._library.open(version, endpoint.name)
        return self._held[key]

    def _release(self) -> None:
        """Forget versions that no applied Route names. A request that still holds one keeps it until it is answered."""
        for tenant, name, number in list(self._held):
            applied = self._plane.applied(tenant, name)
            if applied is None or number not in applied.versions:
                del self._held[tenant, name, number]

    def _beat(self, *, force: bool) -> None:
        now = self._clock.monotonic_s()
        if not force and now - self._beat_at < HEARTBEAT_S:
            return
        applied = {}
        for tenant, name in self._applied:
            current = self._plane.applied(tenant, name)
            if current is not None:
                applied[f"{tenant}/{name}"] = current.route.number
        self._store.beat(
            Worker(
                self._worker,
                os.getpid(),
                self._started_at,
                self._clock.time_ns(),
                applied,
                dict(self._problems),
            )
        )
        self._beat_at = now


def alive(worker: Worker, now_ns: int) -> bool:
    """Whether a worker has been heard of lately."""
    return now_ns - worker.seen_at < ALIVE_S * NANOSECONDS
