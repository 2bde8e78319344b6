"""The gateway of one worker: its clients, and what they share."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
import ssl
import time
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from predis.cache.accesses import TURN_S, Observe, Observers
from predis.cache.commands import described
from predis.cache.door import LOGINS, Door
from predis.cache.link import Link as Aside
from predis.cache.link import LinkDown
from predis.cache.resp import Requests, error
from predis.cache.session import Session
from predis.cache.verbs import CONTROL, Verbs
from predis.cache.watching import watching
from predis.metrics import NOTHING, Metrics

if TYPE_CHECKING:
    from predis.cache.prefetching import Prefetcher
    from predis.cache.reading import Reader
    from predis.cache.upstream import Link
    from predis.cache.writing import Writer

log = logging.getLogger(__name__)

_BACKLOG = 4_096
_LOOK_S, _KEYS_S = 0.1, 1.0
# For a client to make a TLS connection, and to end one; for connections that were cut to close.
_HANDSHAKE_S, _CUT_S = 10.0, 1.0
_SILENCE_S = 300  # after it a client's host is asked whether it is still there, as Valkey does


class Upstream(Protocol):
    """Where sessions get their connections to Valkey from."""

    async def connect(self, session: Session) -> Link:
        """A connection for a client.

        Raises:
            Unreachable
        """


class Counts:
    """What a gateway counts. What is counted with every command is kept here and goes to the metrics when ``tell`` is called."""

    def __init__(self, metrics: Metrics) -> None:
        self.commands = self.received = self.sent = 0
        self.timed_at = 0  # the number of commands at which one is timed next
        self._told = (0, 0, 0)
        self._totals = tuple(
            metrics.counter(f"predis_gateway_{what}_total")
            for what in ("commands", "received_bytes", "sent_bytes")
        )
        self.upstream = metrics.histogram("predis_gateway_upstream_seconds")
        self.added = metrics.histogram("predis_gateway_added_seconds")
        self.connections = metrics.gauge("predis_gateway_connections")
        self.accepted = metrics.counter("predis_gateway_accepted_total")
        self.refused = metrics.counter("predis_gateway_refused_total")
        self.unreachable = metrics.counter("predis_gateway_upstream_errors_total", reason="unreachable")
        self.lost = metrics.counter("predis_gateway_upstream_errors_total", reason="lost")
        self.broken = metrics.counter("predis_gateway_upstream_errors_total", reason="broken")

    def tell(self) -> None:
        """Bring the metrics up to date."""
        now = (self.commands, self.received, self.sent)
        for total, count, told in zip(self._totals, now, self._told, strict=True):
            total.add(count - told)
        self._told = now


class Gateway:
    """Answers Redis clients out of one upstream.

    Args:
        upstream: the Valkey behind it.
        database: the one that its connections begin in.
        most: connections at once; more are refused.
    """

    def __init__(
        self, upstream: Upstream, *, database: int = 0, most: int = 100_000, metrics: Metrics = NOTHING
    ) -> None:
        self.upstream = upstream
        self.database = database
        self.greeting: Sequence[tuple[bytes, ...]] = ()
        """What a connection to Valkey begins with; a client that resets its own begins with it again."""
        self.counts = Counts(metrics)
        self.writer: Writer | None = None
        self.prefetcher: Prefetcher | None = None
        self.door: Door | None = None
        self.verbs = self._plain = Verbs({**CONTROL, **LOGINS})
        self._watching: Verbs | None = None
        self._reader: Reader | None = None
        self._aside: Aside | None = None
        self._observers = Observers(None)
        self._most = most
        self._numbers = itertools.count(1)
        self._sessions: set[Session] = set()
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._empty: asyncio.Event | None = None  # while draining: set when the last client is gone
        self._started = time.monotonic()

    def read_through(
        self, reader: Reader, writer: Writer | None, *, aside: Aside, observers: Observers | None = None
    ) -> None:
        """Look at reads and writes of keys that have a source, from when there are sources or observers, and Valkey has said its commands.

        Args:
            aside: a connection of the gateway's own.
        """
        self._reader, self.writer, self._aside = reader, writer, aside
        self._observers = observers or self._observers
        self.spawn(self._follow(reader, aside))

    def guard(self, door: Door) -> None:
        """Let in only who may come in. ``door`` has looked once."""
        self.door = door
        self.spawn(self._watch_door(door))

    async def start(self, sockets: Sequence[socket.socket], *, tls: ssl.SSLContext | None = None) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        handshake_s = _HANDSHAKE_S if tls else None
        for bound in sockets:
            _ask_after_silence(bound)
            server = await loop.create_server(
                lambda: Session(self),
                sock=bound,
                backlog=_BACKLOG,
                ssl=tls,
                ssl_handshake_timeout=handshake_s,
                ssl_shutdown_timeout=handshake_s,
            )
            self._servers.append(server)

    async def drain(self, within_s: float) -> int:
        """Take no more, answer what was asked, close. How many connections had to be cut."""
        for server in self._servers:
            server.close()
        for session in list(self._sessions):
            session.end()
        self._empty = asyncio.Event()
        await self._emptied(within_s)
        cut = len(self._sessions)
        for session in list(self._sessions):
            session.abort()
        await self._emptied(_CUT_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._observers.close()
        self.counts.tell()
        return cut

    async def _emptied(self, within_s: float) -> None:
        """Wait until no connection is left."""
        assert self._empty is not None
        if self._sessions:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), within_s)

    def came(self, session: Session) -> bool:
        """A client connected; whether it may stay."""
        if len(self._sessions) >= self._most:
            self.counts.refused.add()
            session.transport.write(error("ERR max number of clients reached"))
            session.transport.close()
            return False
        self._sessions.add(session)
        self.counts.accepted.add()
        self.counts.connections.set(len(self._sessions))
        session.number = next(self._numbers)
        session.observe = self._observers.for_client(
            session.number, lambda observe: self._observed(session, observe)
        )
        self.changed(session)
        return True

    def changed(self, session: Session) -> None:
        """A client came or is somebody else, or what is looked at of it is other than before."""
        door = self.door
        outside = door is not None and door.closed and session.caller is None
        session.limit(outside)
        if outside:
            assert door is not None
            session.verbs = door.outside
        elif session.observe is not None and self._watching is not None:
            session.verbs = self._watching
        else:
            session.verbs = self.verbs

    def went(self, session: Session) -> None:
        """A client's connections are closed, both."""
        self._sessions.discard(session)
        if self._empty is not None and not self._sessions:
            self._empty.set()
        self._observers.gone(session.number)
        self.counts.connections.set(len(self._sessions))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the sessions. What goes wrong in it is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def ask_aside(self, raw: bytes) -> None:
        """Have a command done on the gateway's own connection.

        Raises:
            LinkDown
        """
        assert self._aside is not None
        await self._aside.ask([args for args, _ in Requests().feed(raw)])

    def stats(self) -> dict[str, Any]:
        """What PREDIS STATS tells of this worker."""
        counts = self.counts
        return {
            "up_s": round(time.monotonic() - self._started, 1),
            "connections": len(self._sessions),
            "commands": counts.commands,
            "received_bytes": counts.received,
            "sent_bytes": counts.sent,
            "sources": bool(self._reader and self._reader.active),
        }

    def stats_text(self) -> bytes:
        return orjson.dumps(self.stats())

    async def _follow(self, reader: Reader, aside: Aside) -> None:
        """Learn Valkey's commands, then see when there are sources and when there are none, and let observers take their turns."""
        turned = time.monotonic()
        while True:
            if self._watching is None:
                await self._learn(reader, aside)
            verbs = self._watching if self._watching is not None and reader.active else self._plain
            if verbs is not self.verbs:
                self.verbs = verbs
                for session in self._sessions:
                    self.changed(session)
            if time.monotonic() - turned >= TURN_S:
                turned = time.monotonic()
                self._observers.turn()
                self.counts.tell()
            await asyncio.sleep(_LOOK_S)

    async def _learn(self, reader: Reader, aside: Aside) -> None:
        try:
            (commands,) = await aside.ask([("COMMAND",)])
        except LinkDown:
            return
        if isinstance(commands, Exception):
            log.warning(
                "Valkey does not say which commands it has (%s): sources are not read through", commands
            )
            return
        self._watching = Verbs({**watching(described(commands), reader), **LOGINS})

    def _observed(self, session: Session, observe: Observe | None) -> None:
        session.observe = observe
        self.changed(session)

    async def _watch_door(self, door: Door) -> None:
        """See when keys come and go. Who showed one that is gone goes too."""
        while True:
            await asyncio.sleep(_KEYS_S)
            if not await door.look():
                continue
            for session in list(self._sessions):
                if session.key and door.recognises(session.key) is None:
                    session.transport.close()
                else:
                    self.changed(session)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failed := task.exception()) is not None:
            log.error("a task of the gateway failed", exc_info=failed)


def _ask_after_silence(bound: socket.socket) -> None:
    """Have the kernel close connections whose other end has vanished; those that are accepted do as the socket that listens."""
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):  # not on every system
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENCE_S)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _SILENCE_S // 3)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
