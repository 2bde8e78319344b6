"""Loads versions beside the following of Routes: a model that takes long holds up no other endpoint, and no heartbeat.

get ── not known ──► loading, in a thread ── it is there ──► get returns it
                                        └── it failed ───► get raises why; the next get tries again
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable

from predis.registry.model import Version
from predis.serving.served import ServedVersion
from predis.serving.threads import Threads

VersionKey = tuple[str, str, int]
"""Tenant, endpoint, number of a version."""

# Loading takes memory and a core; more at once would take them from those who ask.
_AT_ONCE = 4


class _Load:
    """One version on its way into memory."""

    def __init__(self, version: Version, endpoint: str) -> None:
        self.version = version
        self.endpoint = endpoint
        self.done = threading.Event()
        self.served: ServedVersion | None = None
        self.error: Exception | None = None


class Loader:
    """Opens versions in threads. Its methods are called by one thread, the follower's.

    Args:
        open: the version in memory, files read and warmed, for an endpoint.
    """

    def __init__(self, open: Callable[[Version, str], ServedVersion]) -> None:
        self._open = open
        self._loads: dict[VersionKey, _Load] = {}
        self._new: list[_Load] = []
        self._threads = Threads(_AT_ONCE, "load")

    def get(self, key: VersionKey, version: Version) -> ServedVersion | None:
        """The version, which is the caller's from now on. None while it is being loaded, which this begins.

        Raises:
            Exception: whatever kept it from being loaded.
        """
        load = self._loads.get(key)
        if load is None:
            load = self._loads[key] = _Load(version, key[1])
            self._new.append(load)
            self._threads.submit(lambda: self._run(load))
        if not load.done.is_set():
            return None
        del self._loads[key]
        if load.error is not None:
            raise load.error
        return load.served

    def wait(self, seconds: float) -> None:
        """Until all that is being loaded is there, or has failed, or the time is over."""
        _wait(self._loads.values(), seconds)

    def wait_for_new(self, seconds: float) -> bool:
        """The same for what has begun since this was last called. Whether there was any."""
        new, self._new = self._new, []
        _wait(new, seconds)
        return bool(new)

    def unwanted(self, wanted: Collection[VersionKey]) -> dict[VersionKey, ServedVersion]:
        """Versions that were loaded in vain: meanwhile nobody wants them. They are the caller's from now on."""
        found = {}
        for key, load in list(self._loads.items()):
            if key not in wanted and load.done.is_set():
                del self._loads[key]
                if load.served is not None:
                    found[key] = load.served
        return found

    def close(self) -> bool:
        """Load nothing more. Whether nothing is being loaded: what is cannot be stopped."""
        return self._threads.close()

    def _run(self, load: _Load) -> None:
        try:
            load.served = self._open(load.version, load.endpoint)
        except Exception as error:
            load.error = error
        finally:
            load.done.set()


def _wait(loads: Iterable[_Load], seconds: float) -> None:
    until = time.monotonic() + seconds
    for load in loads:
        load.done.wait(max(0.0, until - time.monotonic()))
