"""Follows Routes: what makes a worker serve what the state database says, and go on serving when it is silent.

A thread looks at the endpoints' Route numbers. For a new one it has the versions loaded and warmed that the worker does not hold yet,
and only then swaps the Route in: traffic never meets a model that is not in memory. Loading goes on beside the looks, so that one model
that takes long holds up neither other endpoints nor its own, whose Route may change again meanwhile. A version that cannot be loaded leaves
the old Route in place and is reported; the rollout that asked for it sees the report and turns back. Every Route applied is also kept in a
local file, with the digests of the files it needs, so that a worker restarted while the database is away serves all the same.
A version that could not be loaded is tried again now and then: a store that was away comes back, a damaged file is restored.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from predis.access import Keys
from predis.clock import NANOSECONDS, Clock
from predis.errors import PredisError, Unavailable
from predis.metrics import NOTHING, Metrics
from predis.registry.model import Version
from predis.serving.config import ServingConfig
from predis.serving.loading import Loader, VersionKey
from predis.serving.plane import AppliedRoute, Plane
from predis.serving.route import Route
from predis.serving.served import ServedVersion
from predis.serving.snapshot import Remembered, Snapshot
from predis.serving.store import Endpoint, ServingStore, Worker

log = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
RETRY_S = 30.0
# A worker that has not been heard of for this long does not hold up a rollout any more.
ALIVE_S = 5.0
# Most versions are in memory sooner than this; a look waits so long for those it has begun to load, and applies them at once.
_MOMENT_S = 0.25


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
    metrics: Metrics = NOTHING


Key = tuple[str, str]
Seen = tuple[int, dict[str, Any]]  # an endpoint's Route number and configuration, as they were last looked at


class _Retired(NamedTuple):
    """A version that no Route names any more. ``settled``: whoever met a Route that did has been taken on, or refused."""

    served: ServedVersion
    settled: threading.Event


class Follower:
    """Keeps one worker's plane at the Routes in the database.

    Args:
        worker: the worker's name, under which it reports.
        after_look: called after every look of ``run``.
    """

    def __init__(
        self,
        plane: Plane,
        sources: Sources,
        *,
        worker: str,
        clock: Clock,
        after_look: Callable[[], None] = lambda: None,
    ) -> None:
        self._plane = plane
        self._metrics = sources.metrics
        self._store, self._keys = sources.store, sources.keys
        self._library, self._snapshot = sources.library, sources.snapshot
        self._loader = Loader(sources.library.open)
        self._clock = clock
        self._worker = worker
        self._after_look = after_look
        self._held: dict[VersionKey, ServedVersion] = {}
        self._retired: dict[VersionKey, _Retired] = {}
        self._awaited: set[VersionKey] = set()  # of Routes that wait for one of their versions to be loaded
        self._problems: dict[str, dict[str, Any]] = {}
        self._looked_at: dict[Key, Seen] = {}
        self._failed_at: dict[Key, float] = {}
        self._applied: dict[Key, Remembered] = {}
        self._changed = False
        self._kept_keys: dict[str, list[str]] | None = None
        self._started_at = clock.time_ns()
        self._beat_at = float("-inf")
        self._silent = False
        self._stop = threading.Event()

    def catch_up(self) -> None:
        """Look until every version that can be loaded is in memory: what a worker does before it listens."""
        self.look()
        while self._awaited and not self._silent:
            self._loader.wait(HEARTBEAT_S)
            self.look()

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
        late = self._follow_those([endpoint for endpoint in found if self._is_due(endpoint)])
        if late and self._loader.wait_for_new(_MOMENT_S):
            self._follow_those(late)
        for key in set(self._applied) - {(endpoint.tenant, endpoint.name) for endpoint in found}:
            self._forget(key)
            self._changed = True
        self._take_unwanted()
        self._plane.following = True
        # What changed stays so until it is kept: the database may go silent halfway through a look.
        changed, keys = self._changed, self._keys.snapshot()
        if changed or keys != self._kept_keys:
            self._release()
            self._snapshot.save(self._applied.values(), keys)
            self._changed, self._kept_keys = False, keys
        elif self._retired:
            self._close_retired()
        self._beat(force=changed)
        return changed

    def _is_due(self, endpoint: Endpoint) -> bool:
        key = (endpoint.tenant, endpoint.name)
        if self._looked_at.get(key) != (endpoint.route, endpoint.config):
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
                self._after_look()
            except Exception:
                log.exception("following Routes failed; trying again")

    def stop(self) -> bool:
        """Sign off. Whether nothing is being loaded any more: what is cannot be stopped."""
        self._stop.set()
        try:
            self._store.leave(self._worker)
        except PredisError:
            log.info("could not sign off from the state database")
        return self._loader.close()

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
        left = [i for i in remembered if (i.endpoint.tenant, i.endpoint.name) not in self._looked_at]
        while left := [item for item in left if not self._restore(item)]:
            self._loader.wait(HEARTBEAT_S)
        self._plane.following = True

    def _restore(self, item: Remembered) -> bool:
        versions = {version.number: version for version in item.versions}
        return self._apply(item.endpoint, item.route, versions=versions)

    def _follow_those(self, endpoints: list[Endpoint]) -> list[Endpoint]:
        """Follow these endpoints; those that wait for a version to be loaded."""
        self._awaited.clear()
        return [endpoint for endpoint in endpoints if not self._follow(endpoint)]

    def _follow(self, endpoint: Endpoint) -> bool:
        """Apply the endpoint's Route, or report why not. False: not yet, versions of it are being loaded."""
        route = self._store.route(endpoint.tenant, endpoint.name, number=endpoint.route)
        try:
            versions = {number: self._library.version(endpoint, number) for number in route.versions()}
        except Unavailable:
            raise  # It says nothing of the version.
        except PredisError as error:
            self._report(endpoint, route, error=error)
        else:
            if not self._apply(endpoint, route, versions=versions):
                return False
        self._looked_at[endpoint.tenant, endpoint.name] = (route.number, endpoint.config)
        self._changed = True
        return True

    def _apply(self, endpoint: Endpoint, route: Route, *, versions: dict[int, Version]) -> bool:
        try:
            config = ServingConfig.from_dict(endpoint.config)
            served = self._in_memory(endpoint, versions if config.loaded else {})
        except PredisError as error:
            self._report(endpoint, route, error=error)
        except Exception as error:  # of a library or an object store; it must not hold up the other endpoints
            log.exception("route %d of %s/%s", route.number, endpoint.tenant, endpoint.name)
            self._report(endpoint, route, error=PredisError(f"{type(error).__name__}: {error}"))
        else:
            if served is None:
                return False
            self._put(endpoint, route, versions=versions, served=served, config=config)
            self._metrics.gauge("predis_route", tenant=endpoint.tenant, endpoint=endpoint.name).set(
                route.number
            )
            self._problems.pop(f"{endpoint.tenant}/{endpoint.name}", None)
            self._failed_at.pop((endpoint.tenant, endpoint.name), None)
        return True

    def _put(
        self,
        endpoint: Endpoint,
        route: Route,
        *,
        versions: dict[int, Version],
        served: dict[int, ServedVersion],
        config: ServingConfig,
    ) -> None:
        # An unloaded endpoint is known by the number of its Route, and answers nothing.
        shown = route if config.loaded else Route(route.endpoint, route.number, {})
        self._plane.apply(AppliedRoute(endpoint.tenant, shown, endpoint.model, served, config))
        remembered = Remembered(endpoint, route, tuple(versions.values()))
        self._applied[endpoint.tenant, endpoint.name] = remembered

    def _report(self, endpoint: Endpoint, route: Route, *, error: PredisError) -> None:
        name = f"{endpoint.tenant}/{endpoint.name}"
        log.error("route %d of %s cannot be applied: %s", route.number, name, error)
        self._problems[name] = {"route": route.number, "code": error.code, "message": error.message}
        self._failed_at[endpoint.tenant, endpoint.name] = self._clock.monotonic_s()
        applied = self._plane.applied(endpoint.tenant, endpoint.name)
        if applied is None or applied.problem:
            nothing = Route(endpoint.name, 0, {})
            self._plane.apply(
                AppliedRoute(endpoint.tenant, nothing, endpoint.model, {}, problem=error.message)
            )
            self._applied[endpoint.tenant, endpoint.name] = Remembered(endpoint, nothing, ())

    def _in_memory(self, endpoint: Endpoint, versions: dict[int, Version]) -> dict[int, ServedVersion] | None:
        """The versions; None while one of them is being loaded.

        Raises:
            Exception: whatever kept one from being loaded.
        """
        found = {number: self._served(endpoint, version) for number, version in versions.items()}
        complete = {number: served for number, served in found.items() if served is not None}
        if len(complete) == len(found):
            return complete
        self._awaited.update((endpoint.tenant, endpoint.name, number) for number in found)
        return None

    def _served(self, endpoint: Endpoint, version: Version) -> ServedVersion | None:
        key = (endpoint.tenant, endpoint.name, version.number)
        if key in self._retired:
            self._held[key] = self._retired.pop(key).served
        if key not in self._held:
            served = self._loader.get(key, version)
            if served is None:
                return None
            self._held[key] = served
        return self._held[key]

    def _take_unwanted(self) -> None:
        """Hold what was loaded for a Route that is not the newest any more, so that it is released like the rest."""
        unwanted = self._loader.unwanted(self._awaited)
        self._held.update(unwanted)
        self._changed |= bool(unwanted)

    def _release(self) -> None:
        """Retire versions that no Route names; a later look closes them."""
        self._close_retired()
        settled = self._plane.settled()
        for key in self._held.keys() - self._awaited:
            tenant, name, number = key
            applied = self._plane.applied(tenant, name)
            if applied is None or number not in applied.versions:
                self._retired[key] = _Retired(self._held.pop(key), settled)

    def _close_retired(self) -> None:
        """Give memory back, of versions that no request can come to any more and whose last ones are answered."""
        for key, retired in list(self._retired.items()):
            if retired.settled.is_set() and not retired.served.pending:
                retired.served.close()
                del self._retired[key]

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
