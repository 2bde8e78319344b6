"""A connection to Valkey for what may be lost: a server that is dead, slow or wrong costs requests next to nothing.

There is one connection, and one exchange on it at a time. Keys that are asked for meanwhile are the next one, so that an exchange
carries whatever one or more rounds of the event loop brought: one MGET, and the SETs of what was predicted.

Nobody waits longer than ``timeout_s`` for an exchange. When that is over, all who wait have a miss, and so has everyone who comes, at
once, until the late answer arrives; it is read and thrown away, and the connection goes on. After three late exchanges in a row, one
that takes over a second, or any error, the connection is closed, and for a second there is none: all is a miss. Then it is made anew,
and keys are asked for again once the server has answered a PING.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from predis.errors import MissingExtra
from predis.metrics import NOTHING, Metrics
from predis.telemetry import redact
from predis.valkeys import Watched, as_redis

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

log = logging.getLogger(__name__)

PREFIX = b"predis:prediction:"
_LATE_IN_A_ROW = 3
_HUNG_S = 1.0
_LARGEST_VALUE_BYTES = 1 << 20
_WAITING_BYTES = 8 << 20

Found = Callable[[bytes | None], None]


class Valkey:
    """Looks for values and keeps values, in one event loop. Neither waits or raises, whatever the server does.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with user, password and database as redis-py reads them.
        timeout_s: longest that a look may take.
        pause_s: how long there are no tries after a failure.

    Raises:
        InvalidSetting: the URL cannot be one.
        MissingExtra: the package redis is not installed.
    """

    def __init__(
        self, url: str, *, timeout_s: float = 0.005, pause_s: float = 1.0, metrics: Metrics = NOTHING
    ) -> None:
        _check(url)
        self._place = url
        self._connection: Callable[[], AbstractConnection] | None = None
        self._url = redact(url)
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._errors = {
            reason: metrics.counter("predis_cache_errors_total", reason=reason)
            for reason in ("late", "connection", "refused", "dropped")
        }
        self._looks: list[tuple[bytes, Found]] = []  # of the next exchange
        self._asked: list[tuple[bytes, Found]] = []  # of the one that is on its way, until they are answered
        self._keeps: list[tuple[bytes, bytes, int]] = []
        self._keeps_bytes = 0
        self._usable = False
        self._late = 0
        self._told = False
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def look(self, key: bytes, found: Found) -> bool:
        """Ask for a key's value; ``found`` is called with it, or None, in a later round of the event loop.

        False: there is no connection now, and ``found`` is not called. The first look of all makes the connection.
        """
        if not self._usable:
            if self._task is None and not self._closed:
                self._task = asyncio.get_running_loop().create_task(self._run())
            return False
        self._looks.append((key, found))
        self._work.set()
        return True

    def keep(self, key: bytes, value: bytes, *, ttl_ms: int) -> None:
        """Set a key's value for so long, if that is possible now. Values above 1 MiB are not kept."""
        if len(value) > _LARGEST_VALUE_BYTES:
            return
        if not self._usable or self._keeps_bytes + len(value) > _WAITING_BYTES:
            self._errors["dropped"].add()
            return
        self._keeps.append((key, value, ttl_ms))
        self._keeps_bytes += len(value)
        self._work.set()

    async def close(self) -> None:
        """Close the connection; all is a miss from now on."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            self._work.set()  # asyncio.wait_for, which the client library uses, may lose a cancellation (until Python 3.12)
            await asyncio.gather(self._task, return_exceptions=True)

    def _connected(self) -> AbstractConnection:
        if self._connection is None:
            self._connection = _connection_maker(self._place)
        return self._connection()

    async def _run(self) -> None:
        """Connect, serve until something fails, pause, and again."""
        while not self._closed:
            connection = self._connected()
            try:
                async with asyncio.timeout(_HUNG_S):
                    await connection.connect()  # type: ignore[no-untyped-call]
                    await connection.send_command("PING")
                    await connection.read_response()
                self._use()
                while not self._closed:
                    await self._work.wait()
                    await self._exchange(connection)
            except Exception as error:  # of many kinds, where the server is none
                self._failed(error)
            finally:
                self._give_up()
                with contextlib.suppress(Exception):
                    await connection.disconnect(nowait=True)
            await asyncio.sleep(self._pause_s)

    async def _exchange(self, connection: AbstractConnection) -> None:
        """Ask for what is asked for by now, set what is to be set, answer who waits."""
        self._work.clear()
        self._asked, self._looks = self._looks, []
        keeps, self._keeps, self._keeps_bytes = self._keeps, [], 0
        commands = _commands([key for key, _ in self._asked], keeps)
        timer = asyncio.get_running_loop().call_later(self._timeout_s, self._too_late)
        try:
            async with asyncio.timeout(_HUNG_S):
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                if len(commands) > len(keeps):
                    self._answer(await connection.read_response())
                for _ in keeps:
                    await self._stored(connection)
        finally:
            timer.cancel()
        if self._usable:
            self._late = 0
        elif self._late < _LATE_IN_A_ROW:
            self._use()
        else:
            raise TimeoutError(
                f"{_LATE_IN_A_ROW} answers in a row took longer than {self._timeout_s * 1_000:g} ms"
            )

    def _answer(self, found: Any) -> None:
        """Hand out what an MGET gave; to nobody, where it comes too late."""
        asked, self._asked = self._asked, []
        if asked and (not isinstance(found, list) or len(found) != len(asked)):
            self._asked = asked
            raise ValueError("MGET was not answered with a value for each key")
        loop = asyncio.get_running_loop()
        for (_, tell), value in zip(asked, found, strict=False):
            loop.call_soon(tell, value if isinstance(value, bytes) else None)

    async def _stored(self, connection: AbstractConnection) -> None:
        from redis.exceptions import ResponseError

        try:
            await connection.read_response()
        except ResponseError as error:
            # No memory left, a replica, no right to write: reading may still be of use.
            self._errors["refused"].add()
            log.debug("Valkey at %s does not store: %s", self._url, error)

    def _too_late(self) -> None:
        if self._asked or self._looks:  # else only what is kept takes long, and nobody waits for that
            self._late += 1
            self._errors["late"].add()
        self._miss()

    def _miss(self) -> None:
        """All who wait have a miss, and so has, at once, everyone who comes."""
        self._usable = False
        loop = asyncio.get_running_loop()
        for _, tell in (*self._asked, *self._looks):
            loop.call_soon(tell, None)
        self._asked, self._looks = [], []

    def _use(self) -> None:
        self._usable = True
        if self._told:
            self._told = False
            log.info("Valkey at %s answers again", self._url)

    def _failed(self, error: Exception) -> None:
        self._errors["connection"].add()
        if not self._told:
            self._told = True
            reason = str(error) or type(error).__name__
            log.warning(
                "Valkey at %s is of no use now; predictions are made without it: %s", self._url, reason
            )

    def _give_up(self) -> None:
        self._miss()
        self._errors["dropped"].add(len(self._keeps))
        self._keeps, self._keeps_bytes = [], 0
        self._late = 0


def _commands(keys: list[bytes], keeps: list[tuple[bytes, bytes, int]]) -> list[tuple[bytes | int, ...]]:
    commands: list[tuple[bytes | int, ...]] = [(b"MGET", *map(_name, keys))] if keys else []
    commands += [(b"SET", _name(key), value, b"PX", ttl_ms) for key, value, ttl_ms in keeps]
    return commands


def _name(key: bytes) -> bytes:
    return PREFIX + key.hex().encode()


def _check(url: str) -> None:
    """Find out what is wrong now: the package itself, which takes its time, is imported with the first look."""
    if find_spec("redis") is None:
        raise MissingExtra.of("redis", "cache")
    Watched.of(url) if Watched.is_url(url) else as_redis(url)


def _connection_maker(url: str) -> Callable[[], AbstractConnection]:
    from redis.asyncio.connection import ConnectionPool
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    if Watched.is_url(url):
        return _master_maker(Watched.of(url))
    # RESP2, as a server before Redis 6 does not know the other. No second try and no limits of time: the loop above has its own.
    pool = ConnectionPool.from_url(
        as_redis(url),
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=None,
        socket_connect_timeout=None,
    )
    return pool.make_connection


def _master_maker(watched: Watched) -> Callable[[], AbstractConnection]:
    """Connections to whichever server the Sentinels say is the master when one is made."""
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
    from redis.backoff import NoBackoff

    made: Any = Sentinel  # redis-py does not say its types
    pool: Any = SentinelConnectionPool
    sentinel = made(watched.places, sentinel_kwargs={**watched.login, "socket_timeout": _HUNG_S})
    maker: Callable[[], AbstractConnection] = pool(
        watched.name, sentinel, protocol=2, retry=Retry(NoBackoff(), 0), **watched.master_login
    ).make_connection
    return maker
