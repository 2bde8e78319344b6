"""``redis.Redis`` with a near cache: the same methods, and reads answered from memory where that is safe."""

from __future__ import annotations

import contextlib
import weakref
from typing import Any, cast

import redis
from redis.client import Pipeline
from redis.retry import Retry

from predis.nearcache.clients import look_up, make_tracking, refuse, tracked_arguments
from predis.nearcache.kept import MISSING, Kept
from predis.nearcache.line import Line
from predis.nearcache.near import NearStats, split


class NearCache:
    """The near cache of a client: ``client.near``."""

    def __init__(self, kept: Kept, line: Line) -> None:
        self._kept = kept
        self._line = line

    @property
    def stats(self) -> NearStats:
        return self._kept.stats(gateway=self._line.gateway)

    def barrier(self, timeout_s: float = 5.0) -> bool:
        """Wait until every write that anybody had confirmed before this call is seen by reads after it.

        Call it when word of a write came another way: through a queue, a webhook, another database. It costs one PING.

        Returns:
            False if the server did not answer in time: then older values may still be served, for up to ``max_stale_s``.
        """
        return self._line.barrier(timeout_s)

    def wait(self, timeout_s: float = 5.0) -> bool:
        """Connect the tracked connection, which the first read does otherwise, and tell whether reads are kept now."""
        return self._line.wait(timeout_s)

    def clear(self) -> None:
        """Drop everything that is kept."""
        self._kept.clear()


class _Noticing(redis.Redis):
    """A client whose writes take what they change out of a near cache."""

    _kept: Kept | None = None

    def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        finally:
            if self._kept is not None:
                self._kept.wrote([args])

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """As redis-py's: nothing in it is answered from memory, and what it changes is dropped there."""
        pipe = NoticingPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.noticed_by(self._kept)
        return pipe

    def client(self) -> redis.Redis:
        """As redis-py's: a client of one connection, which has a state of its own; nothing is answered from memory."""
        single = _Noticing(connection_pool=self.connection_pool, single_connection_client=True)
        single._kept = self._kept
        return single


class NoticingPipeline(Pipeline):
    """A pipeline whose commands take what they change out of a near cache."""

    _near: Kept | None = None

    def noticed_by(self, kept: Kept | None) -> None:
        self._near = kept

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands = [command[0] for command in self.command_stack]
        try:
            return super().execute(raise_on_error)
        finally:
            if self._near is not None:
                self._near.wrote(commands)

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return super().immediate_execute_command(*args, **options)  # type: ignore[no-untyped-call]
        finally:
            if self._near is not None:
                self._near.wrote([args])


class NearRedis(_Noticing):
    """What ``predis.nearcache.connect`` returns. ``near`` is its near cache."""

    near: NearCache
    _kept: Kept
    _line: Line

    def get(self, name: Any) -> Any:
        # The way of ``execute_command``, cut short: a hit shall take a microsecond.
        try:
            found = self._kept.find(name.encode() if name.__class__ is str else name, "GET")
        except (TypeError, UnicodeEncodeError):  # no bytes, or no text that can be sent
            found = MISSING
        return self.execute_command("GET", name, keys=[name]) if found is MISSING else found

    def execute_command(self, *args: Any, **options: Any) -> Any:
        lookup = look_up(self._kept, args, options=options)
        if lookup is None:
            return super().execute_command(*args, **options)
        answer = lookup.filled(self._line.ask(lookup) if lookup.missing else {})
        if answer is not MISSING:
            return answer
        return redis.Redis.execute_command(self, *args, **options)  # type: ignore[no-untyped-call]

    def set_response_callback(self, command: str, callback: Any) -> None:
        """As redis-py's. What this command answers is the caller's own affair from then on, and not kept."""
        self._kept.ignore(command)
        super().set_response_callback(command, callback)

    def close(self) -> None:
        self._line.stop()
        super().close()

    def __del__(self) -> None:
        """As redis-py's, but for ``stop``, which waits: when this is called, ``Line.abandon`` is too."""
        with contextlib.suppress(Exception):
            super().close()


def connect(url: str, **options: Any) -> NearRedis:
    """``redis.Redis.from_url`` with a near cache; see ``predis.nearcache.connect``."""
    near, rest = split(options)
    refuse(rest)
    client = cast(NearRedis, NearRedis.from_url(url, **rest))
    pool = client.connection_pool
    arguments = tracked_arguments(pool.connection_kwargs, Retry)

    def connected() -> Any:
        connection = pool.connection_class(**arguments)
        connection.connect()
        return connection

    client._kept = Kept(near)
    client._line = Line(make_tracking(client._kept, pool.connection_kwargs), connect=connected)
    client.near = NearCache(client._kept, client._line)
    weakref.finalize(client, client._line.abandon)
    return client
