"""``redis.asyncio.Redis`` with a near cache, and its tracked connection: a task that reads, beats and connects anew."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, cast

import hiredis
from redis import asyncio as aioredis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.exceptions import RedisError

from predis.errors import PredisError
from predis.nearcache.clients import Lookup, look_up, make_tracking, refuse, tracked_arguments
from predis.nearcache.forks import in_children
from predis.nearcache.kept import MISSING, Answer, Kept
from predis.nearcache.near import NearStats, split
from predis.nearcache.tracking import Flight, Tracking

logger = logging.getLogger("predis.nearcache")

_READ_BYTES = 1 << 16
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 1.0
_FAILURES = (OSError, RedisError, PredisError, hiredis.HiredisError)


class AsyncLine:
    """T and its task, in the event loop of the first read. Another loop that comes later begins anew, with nothing kept.

    Args:
        tracking: T's protocol.
        connect: gives a connection of redis-py that is connected, speaks RESP3 and has nothing outstanding.
    """

    def __init__(self, tracking: Tracking, *, connect: Callable[[], Awaitable[Any]]) -> None:
        self._kept = tracking.kept
        self._tracking = tracking
        self._connect = connect
        self._closed = False
        self._forget()
        in_children(self)

    def _forget(self) -> None:
        self._tracking.forget()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._beating: asyncio.TimerHandle | None = None
        self._serving = asyncio.Event()
        self._served = False  # whether the last connection ever did
        self._complaint = ""

    def after_fork(self) -> None:
        self._kept.forget_threads()
        self._forget()

    @property
    def gateway(self) -> bool:
        return self._tracking.gateway

    async def ask(self, lookup: Lookup) -> dict[bytes, Answer] | None:
        """Read on T what is missing; None where the ordinary way must be taken."""
        if not self._ready():
            return None
        assert self._loop is not None
        answered = self._loop.create_future()
        flight = Flight(lookup.command, lookup.missing, done=lambda: _settle(answered))
        packed = self._tracking.send(flight)
        if packed is None:
            return None
        self._write(packed)
        # Should it come later than that, it is kept all the same.
        late = self._loop.call_later(self._kept.near.patience_s, _settle, answered)
        try:
            await answered
        finally:
            late.cancel()
        return None if flight.answers is None else dict(zip(lookup.missing, flight.answers, strict=True))

    async def barrier(self, timeout_s: float) -> bool:
        if not self._ready():
            return True  # nothing is kept
        passed = asyncio.Event()
        self._write(self._tracking.ping(passed.set))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(passed.wait(), timeout_s)
        return passed.is_set()

    async def wait(self, timeout_s: float) -> bool:
        self._ready()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._serving.wait(), timeout_s)
        return self._kept.coherent or (await self.barrier(timeout_s) and self._kept.coherent)

    async def stop(self) -> None:
        self._closed = True
        task, self._task = self._task, None
        if task is not None and self._loop is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait([task])
        self._lose()

    def abandon(self) -> None:
        """End the task of a client that was forgotten without ``aclose``, wherever this is called."""
        self._closed = True
        if self._task is not None and self._loop is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._task.cancel)

    def _ready(self) -> bool:
        """Whether T can be written to; if it was never tried in this loop, begin."""
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            self._lose()
            self._forget()
        if self._task is None and not self._closed:
            self._loop = asyncio.get_running_loop()
            self._task = self._loop.create_task(self._run(), name="predis-near-cache")
        return self._writer is not None

    def _write(self, data: bytes) -> None:
        if data and self._writer is not None:
            self._writer.write(data)

    async def _run(self) -> None:
        pause = _SHORTEST_PAUSE_S
        try:
            while True:
                self._served = False
                try:
                    await self._serve()
                except _FAILURES as failure:
                    self._complain(str(failure) or type(failure).__name__)
                self._lose()
                pause = _SHORTEST_PAUSE_S if self._served else min(2 * pause, _LONGEST_PAUSE_S)
                await asyncio.sleep(pause)
        finally:
            self._lose()

    async def _serve(self) -> None:
        connection = await self._connect()
        try:
            reader = connection._reader
            self._writer = connection._writer
            self._write(self._tracking.greet())
            self._beat()
            while data := await reader.read(_READ_BYTES):
                self._tracking.feed(data)
                if self._tracking.has_offers:
                    self._write(self._tracking.follow_up())
                if not self._serving.is_set() and self._kept.coherent:
                    self._serving.set()
                    self._served = True
                    self._complaint = ""
            raise ConnectionResetError("the server closed the tracked connection")
        finally:
            self._lose()
            with contextlib.suppress(*_FAILURES):
                await connection.disconnect(nowait=True)

    def _beat(self) -> None:
        assert self._loop is not None
        try:
            beat, pause_s = self._tracking.beat()
        except PredisError as silent:
            self._complain(str(silent))
            if self._writer is not None:
                self._writer.transport.abort()
            return
        self._write(beat)
        self._beating = self._loop.call_later(pause_s, self._beat)

    def _lose(self) -> None:
        """Drop everything, and tell whoever waits."""
        self._writer = None
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None
        self._serving.clear()
        self._tracking.lost()

    def _complain(self, what: str) -> None:
        if what != self._complaint:
            self._complaint = what
            logger.warning("the near cache serves nothing until tracking is back: %s", what)


def _settle(answered: asyncio.Future[None]) -> None:
    if not answered.done():
        answered.set_result(None)


class AsyncNearCache:
    """The near cache of an asynchronous client: ``client.near``."""

    def __init__(self, kept: Kept, line: AsyncLine) -> None:
        self._kept = kept
        self._line = line

    @property
    def stats(self) -> NearStats:
        return self._kept.stats(gateway=self._line.gateway)

    async def barrier(self, timeout_s: float = 5.0) -> bool:
        """Wait until every write that anybody had confirmed before this call is seen by reads after it.

        Returns:
            False if the server did not answer in time: then older values may still be served, for up to ``max_stale_s``.
        """
        return await self._line.barrier(timeout_s)

    async def wait(self, timeout_s: float = 5.0) -> bool:
        """Connect the tracked connection, which the first read does otherwise, and tell whether reads are kept now."""
        return await self._line.wait(timeout_s)

    def clear(self) -> None:
        """Drop everything that is kept."""
        self._kept.clear()


class _Noticing(aioredis.Redis):
    """A client whose writes take what they change out of a near cache."""

    _kept: Kept | None = None

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        finally:
            if self._kept is not None:
                self._kept.wrote([args])

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """As redis-py's: nothing in it is answered from memory, and what it changes is dropped there."""
        pipe = NoticingPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.noticed_by(self._kept)
        return pipe

    def client(self) -> aioredis.Redis:
        """As redis-py's: a client of one connection, which has a state of its own; nothing is answered from memory."""
        single = _Noticing(connection_pool=self.connection_pool, single_connection_client=True)
        single._kept = self._kept
        return single


class NoticingPipeline(Pipeline):
    """A pipeline whose commands take what they change out of a near cache."""

    _near: Kept | None = None

    def noticed_by(self, kept: Kept | None) -> None:
        self._near = kept

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands = [command[0] for command in self.command_stack]
        try:
            return await super().execute(raise_on_error)
        finally:
            if self._near is not None:
                self._near.wrote(commands)

    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().immediate_execute_command(*args, **options)  # type: ignore[no-untyped-call]
        finally:
            if self._near is not None:
                self._near.wrote([args])


class AsyncNearRedis(_Noticing):
    """What ``predis.nearcache.connect_async`` returns. ``near`` is its near cache."""

    near: AsyncNearCache
    _kept: Kept
    _line: AsyncLine

    async def get(self, name: Any) -> Any:
        # The way of ``execute_command``, cut short: a hit shall take a microsecond or two.
        try:
            found = self._kept.find(name.encode() if name.__class__ is str else name, "GET")
        except (TypeError, UnicodeEncodeError):  # no bytes, or no text that can be sent
            found = MISSING
        return await self.execute_command("GET", name, keys=[name]) if found is MISSING else found

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        lookup = look_up(self._kept, args, options=options)
        if lookup is None:
            return await super().execute_command(*args, **options)
        answer = lookup.filled(await self._line.ask(lookup) if lookup.missing else {})
        if answer is not MISSING:
            return answer
        return await aioredis.Redis.execute_command(self, *args, **options)  # type: ignore[no-untyped-call]

    def set_response_callback(self, command: str, callback: Any) -> None:
        """As redis-py's. What this command answers is the caller's own affair from then on, and not kept."""
        self._kept.ignore(command)
        super().set_response_callback(command, callback)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await self._line.stop()
        await super().aclose(close_connection_pool)


def connect(url: str, **options: Any) -> AsyncNearRedis:
    """``redis.asyncio.Redis.from_url`` with a near cache; see ``predis.nearcache.connect_async``."""
    near, rest = split(options)
    refuse(rest)
    client = cast(AsyncNearRedis, AsyncNearRedis.from_url(url, **rest))
    pool = client.connection_pool
    arguments = tracked_arguments(pool.connection_kwargs, Retry)

    async def connected() -> Any:
        connection = pool.connection_class(**arguments)
        await connection.connect()  # type: ignore[no-untyped-call]
        return connection

    client._kept = Kept(near)
    client._line = AsyncLine(make_tracking(client._kept, pool.connection_kwargs), connect=connected)
    client.near = AsyncNearCache(client._kept, client._line)
    weakref.finalize(client, client._line.abandon)
    return client
