"""Loading and unloading endpoints: the protocol's model repository extension.

Workers do not load what they are told by a client each for itself; they follow the state database. So a load or unload is a change of the
endpoint's configuration there, made by whoever has the right to operate, and is answered when the workers have followed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from predis.access import Caller
from predis.access.audit import Audit
from predis.clock import Clock
from predis.errors import EndpointNotFound, NotReady, Unavailable
from predis.serving.follower import alive
from predis.serving.plane import Plane
from predis.serving.store import ServingStore
from predis.state.engine import Database

_PATIENCE_S = 30.0
_LOOK_S = 0.02


class Repository:
    """Takes endpoints into memory and out of it, on every worker.

    Args:
        follow_s: how long another worker may take to notice a change.
    """

    def __init__(self, database: Database, plane: Plane, *, clock: Clock, follow_s: float) -> None:
        self._database = database
        self._store = ServingStore(database)
        self._audit = Audit(database, clock)
        self._plane = plane
        self._clock = clock
        self._follow_s = follow_s

    async def load(self, caller: Caller, endpoint: str) -> None:
        """Have an endpoint's versions in memory.

        Raises:
            EndpointNotFound, Unavailable
            NotReady: the endpoint has no version, or one that cannot be loaded.
        """
        await self._set(caller, endpoint, loaded=True)

    async def unload(self, caller: Caller, endpoint: str) -> None:
        """Take an endpoint's versions out of memory, until it is loaded again. Its Route stays.

        Raises:
            EndpointNotFound, Unavailable
        """
        await self._set(caller, endpoint, loaded=False)

    async def _set(self, caller: Caller, endpoint: str, *, loaded: bool) -> None:
        caller.require("operate")
        route = await asyncio.to_thread(self._write, caller, endpoint, loaded=loaded)
        changed_at = self._clock.time_ns()
        if not await _until(
            lambda: self._has_followed(caller.tenant, endpoint, serving=loaded and route > 0)
        ):
            raise NotReady(
                f"endpoint {endpoint!r} could not be {'loaded' if loaded else 'unloaded'}; the worker's log says why"
            )
        if loaded and route == 0:
            raise NotReady(
                f"endpoint {endpoint!r} has no version yet; deploy one with: predis deploy {endpoint} VERSION"
            )
        # A worker that signs in after it has had time to look has seen the change.
        seen_after = changed_at + int(self._follow_s * 2e9)
        await _until(lambda: self._others_signed_in(seen_after))

    def _write(self, caller: Caller, name: str, *, loaded: bool) -> int:
        endpoint = self._store.endpoint(caller.tenant, name)
        if endpoint is None:
            raise EndpointNotFound(f"there is no endpoint {name!r}; `predis endpoint list` shows them")
        with self._database.write() as connection:
            config = {**self._store.config_now(connection, endpoint), "loaded": loaded}
            self._store.set_config(connection, endpoint, config=config)
            self._audit.add(
                connection,
                caller.tenant,
                actor=caller.name,
                action="endpoint.load" if loaded else "endpoint.unload",
                target=name,
                detail={},
            )
        return endpoint.route

    def _has_followed(self, tenant: str, endpoint: str, *, serving: bool) -> bool:
        applied = self._plane.applied(tenant, endpoint)
        return applied is not None and bool(applied.versions) == serving

    def _others_signed_in(self, after_ns: int) -> bool:
        try:
            workers = self._store.workers()
        except Unavailable:
            return True  # they cannot follow either, and will when it is back
        return all(w.seen_at > after_ns for w in workers if alive(w, self._clock.time_ns()))


async def _until(happened: Callable[[], bool]) -> bool:
    """Whether it happened while there was patience."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        if await asyncio.to_thread(happened):
            return True
        await asyncio.sleep(_LOOK_S)
    return False
