"""One process of a load test: an event loop that opens connections, sends, and takes down what comes back.

``ClosedLoop`` sends on a connection as soon as it is answered. ``OpenLoop`` hands requests out when they are due, to a connection that is
free, and counts each from the moment it was due: not from the moment it could be sent. So a stall of the server, or of this process, is in
the latencies of every request that had to wait for it.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator

from predis.loadtest.alarm import Alarm
from predis.loadtest.connection import Connection, HttpConnection
from predis.loadtest.load import Load, Target
from predis.loadtest.recorder import Recorder

_REOPEN_S = 0.05
_SWEEP_S = 0.1


class Generator(ABC):
    """What both loops share: connections that are opened again when they end, time limits, and the end.

    Args:
        load: this process's share.
        first: where in the target's requests to begin, so that processes do not send the same ones at once.
    """

    def __init__(self, target: Target, load: Load, *, recorder: Recorder, first: int = 0) -> None:
        self._target, self._load, self._recorder = target, load, recorder
        place = first % len(target.requests)
        self._requests = itertools.cycle((*target.requests[place:], *target.requests[:place]))
        self._connections: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()

    async def connect(self) -> None:
        """Open all connections, before the test: it is not about how fast a server accepts.

        Raises:
            OSError: one cannot be opened.
        """
        await asyncio.gather(*(self._connect() for _ in range(self._load.connections)))

    async def run(self) -> None:
        """Send until the window's end, then wait for what is in flight, at most as long as a request may take."""
        self.begin()
        end = self._recorder.end
        while (now := time.perf_counter()) < end or (self.in_flight() and now < end + self._load.timeout_s):
            await asyncio.sleep(_SWEEP_S if now >= end else min(_SWEEP_S, end - now))
            self.give_up(time.perf_counter() - self._load.timeout_s)
        self.finish()

    @abstractmethod
    def begin(self) -> None:
        """Start to send."""

    def in_flight(self) -> int:
        """Requests that are asked and not answered."""
        return sum(connection.busy for connection in self._connections)

    def give_up(self, oldest: float) -> None:
        """Count requests from before ``oldest`` as timed out."""
        for connection in [c for c in self._connections if c.busy and c.started < oldest]:
            self._recorder.failed(connection.started, "timeout")
            connection.busy = False
            connection.abort()

    def finish(self) -> None:
        """Close everything; what is still in flight has timed out."""
        self.give_up(math.inf)
        for task in self._opening:
            task.cancel()
        for connection in list(self._connections):
            connection.abort()

    # -- what connections tell -----------------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)

    @abstractmethod
    def answered(self, connection: Connection, error: str, *, body: bytes) -> None: ...

    def broken(self, connection: Connection, reason: str) -> None:
        self._connections.discard(connection)
        if connection.busy:
            self._recorder.failed(connection.started, reason)
        if time.perf_counter() < self._recorder.end:
            self._open_another()

    def refused(self, reason: str) -> None:
        """A connection could not be opened."""
        self._recorder.failed(time.perf_counter(), reason)

    def _take_down(self, connection: Connection, error: str, *, body: bytes, now: float) -> None:
        if error:
            self._recorder.failed(connection.started, error, sample=body.decode("utf-8", "replace"))
        else:
            self._recorder.answered(connection.started, now)

    # -- opening -------------------------------------------------------------------------------------------------------

    def _open_another(self) -> None:
        """Open one more connection in the background, trying until the window's end."""
        task = asyncio.get_running_loop().create_task(self._keep_connecting())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _keep_connecting(self) -> None:
        while time.perf_counter() < self._recorder.end:
            try:
                await self._connect()
            except OSError as error:
                self.refused(reason_of(error))
                await asyncio.sleep(_REOPEN_S)
            else:
                return

    async def _connect(self) -> None:
        target = self._target
        if target.grpc:
            from predis.loadtest.grpc import GrpcConnection

            await GrpcConnection.open(self, target, timeout_s=self._load.timeout_s)
            return
        opening = asyncio.get_running_loop().create_connection(
            lambda: HttpConnection(self), target.host, target.port, ssl=target.tls or None
        )
        await asyncio.wait_for(opening, self._load.timeout_s)


class ClosedLoop(Generator):
    """Every connection sends its next request when the last one is answered."""

    _begun = False

    def begin(self) -> None:
        self._begun = True
        for connection in list(self._connections):
            self._send(connection, time.perf_counter())

    def opened(self, connection: Connection) -> None:
        super().opened(connection)
        if self._begun:
            self._send(connection, time.perf_counter())

    def answered(self, connection: Connection, error: str, *, body: bytes) -> None:
        now = time.perf_counter()
        self._take_down(connection, error, body=body, now=now)
        if not connection.closing:
            self._send(connection, now)

    def _send(self, connection: Connection, now: float) -> None:
        if now < self._recorder.end:
            connection.send(next(self._requests), now)


class OpenLoop(Generator):
    """Requests fall due at their own moments, which ``schedule`` names. One that finds no free connection waits for one."""

    _alarm: Alarm | None = None

    def __init__(self, target: Target, load: Load, *, recorder: Recorder, first: int = 0) -> None:
        super().__init__(target, load, recorder=recorder, first=first)
        self._moments: Iterator[float] = iter(())
        self._next = math.inf
        self._backlog: deque[float] = deque()
        # First in, first out: the load goes round all connections, and so over all workers behind them.
        self._idle: deque[Connection] = deque()

    def schedule(self, moments: Iterator[float]) -> None:
        """The moments of ``time.perf_counter`` at which requests are due, ascending and without end."""
        self._moments = moments
        self._next = next(moments)

    def begin(self) -> None:
        self._alarm = Alarm(asyncio.get_running_loop(), self._ring)
        self._ring()

    def tick(self, now: float) -> None:
        """Hand out what is due."""
        recorder, backlog, fresh = self._recorder, self._backlog, 0
        while self._next <= now and self._next < recorder.end:
            recorder.due(self._next, now)
            backlog.append(self._next)
            fresh += 1
            self._next = next(self._moments)
        self._pump()
        if backlog:
            recorder.waited(min(fresh, len(backlog)), now)

    def in_flight(self) -> int:
        return super().in_flight() + len(self._backlog)

    def give_up(self, oldest: float) -> None:
        while self._backlog and self._backlog[0] < oldest:
            self._recorder.failed(self._backlog.popleft(), "timeout, waiting for a free connection")
        super().give_up(oldest)

    def finish(self) -> None:
        super().finish()
        if self._alarm is not None:
            self._alarm.close()

    def opened(self, connection: Connection) -> None:
        super().opened(connection)
        self._idle.append(connection)
        self._pump()

    def answered(self, connection: Connection, error: str, *, body: bytes) -> None:
        now = time.perf_counter()
        self._take_down(connection, error, body=body, now=now)
        if self._next <= now:  # sooner than the alarm, which the loop has yet to come to
            self.tick(now)
        if connection.closing:
            return
        if self._backlog:
            connection.send(next(self._requests), self._backlog.popleft())
        else:
            self._idle.append(connection)

    def refused(self, reason: str) -> None:
        while self._backlog and not self._connections:
            self._recorder.failed(self._backlog.popleft(), reason)

    def _ring(self) -> None:
        self.tick(time.perf_counter())
        if self._next < self._recorder.end and self._alarm is not None:
            self._alarm.set(self._next)

    def _pump(self) -> None:
        idle, backlog = self._idle, self._backlog
        while backlog and idle:
            connection = idle.popleft()
            if not connection.closing:
                connection.send(next(self._requests), backlog.popleft())


def reason_of(error: OSError) -> str:
    """A connection's failure in a few words, the same for every address."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no connection in time"
    return error.strerror or type(error).__name__
