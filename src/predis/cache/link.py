"""Connections to Valkey for the gateway's own commands: pipelined, made anew when they break, bounded.

Commands of one round of the event loop leave in one write. Nothing is sent twice: what was on its way when a connection broke has
failed, and its sender decides. A server that lets an answer wait for ``timeout_s`` counts as dead, and so does its connection. After a
failure there are no tries for ``pause_s``: who asks meanwhile is told at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

from predis.cache.upstream import Single
from predis.errors import MissingExtra, Unreachable
from predis.valkeys import Address

Word = bytes | str | int | float
_MOST_WAITING = 20_000


class LinkDown(Exception):
    """Valkey did not answer."""


class Link:
    """A few connections to one server, in one event loop.

    Args:
        place: the URL of one server, or what knows where it is.
        connections: how many; a big reply on one does not hold up the others.
    """

    def __init__(
        self, place: str | Single, *, connections: int = 2, timeout_s: float = 1.0, pause_s: float = 0.1
    ) -> None:
        try:
            import hiredis  # noqa: F401
        except ImportError:
            raise MissingExtra.of("hiredis", "cache") from None
        self._place = Single(Address.of(place)) if isinstance(place, str) else place
        self._place.on_switch(self._leave)
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._made: list[_Connection | None] = [None] * connections
        self._making: dict[int, asyncio.Task[_Connection]] = {}
        self._next = 0
        self._failed_at = float("-inf")
        self._moves = 0  # how often it became another server
        self._closed = False

    async def ask(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """The replies, in order; an error that the server replied with is one of them (``hiredis.ReplyError``).

        Raises:
            LinkDown: there is no connection, or it broke before the last reply.
        """
        self._next = (self._next + 1) % len(self._made)
        connection = self._made[self._next]
        if connection is None or connection.closed:
            connection = await self._connected(self._next)
        return await connection.ask(commands)

    async def close(self) -> None:
        self._closed = True
        for task in self._making.values():
            task.cancel()
        await asyncio.gather(*self._making.values(), return_exceptions=True)
        for connection in self._made:
            if connection is not None:
                connection.fail("the link is closed")

    def _leave(self) -> None:
        """It is another server now."""
        self._moves += 1
        for connection in self._made:
            if connection is not None:
                connection.fail("Valkey is another server now")

    async def _connected(self, place: int) -> _Connection:
        loop = asyncio.get_running_loop()
        if self._closed or loop.time() - self._failed_at < self._pause_s:
            raise LinkDown("Valkey did not answer just now")
        if place not in self._making:
            self._making[place] = loop.create_task(self._connect(place))
        # Shielded: whoever gives up does not take the connection from the others who wait for it.
        return await asyncio.shield(self._making[place])

    async def _connect(self, place: int) -> _Connection:
        loop = asyncio.get_running_loop()
        made: _Connection | None = None
        moves = self._moves
        try:
            async with asyncio.timeout(self._timeout_s):
                made, greeting = await self._place.open_for(_Connection.maker(self._timeout_s))
                for reply in await made.ask([*greeting, (b"PING",)]):
                    if isinstance(reply, Exception):
                        raise LinkDown(f"Valkey refuses the gateway: {reply}")
            if self._moves != moves:
                raise LinkDown("Valkey is another server now")
            self._made[place] = made
        except (OSError, TimeoutError, Unreachable) as error:
            self._failed_at = loop.time()
            raise LinkDown(f"Valkey does not answer: {error or 'no connection in time'}") from error
        except LinkDown:
            self._failed_at = loop.time()
            raise
        finally:
            del self._making[place]
            if made is not None and self._made[place] is not made:
                made.fail("it was not let in")
        return made


class _Connection(asyncio.Protocol):
    """One connection and whoever waits for its replies."""

    def __init__(self, timeout_s: float) -> None:
        import hiredis

        self._pack: Callable[[Any], bytes] = hiredis.pack_command
        self._reader = hiredis.Reader(notEnoughData=self)
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Ask] = deque()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.closed = False

    @classmethod
    def maker(cls, timeout_s: float) -> Any:
        return lambda: cls(timeout_s)

    async def ask(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        if self.closed:
            raise LinkDown("the connection to Valkey is closed")
        if len(self._waiting) >= _MOST_WAITING:
            raise LinkDown("too many commands wait for Valkey")
        asked = _Ask(len(commands), self._loop)
        self._waiting.append(asked)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.extend(self._pack((*command,)) for command in commands)
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout_s, self._look)
        return await asked.done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not self:
                if not self._waiting:
                    raise ValueError("a reply that nobody asked for")
                if self._waiting[0].take(reply):
                    self._waiting.popleft()
        except Exception as error:  # hiredis' own, where it is no RESP
            self.fail(f"Valkey sent what is no reply: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.fail(f"the connection to Valkey broke: {exc or 'it was closed'}")

    def fail(self, reason: str) -> None:
        """Close, and tell all who wait."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()
        if self._watch is not None:
            self._watch.cancel()
        waiting, self._waiting = self._waiting, deque()
        for asked in waiting:
            asked.fail(LinkDown(reason))

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self.closed:
            self._transport.write(b"".join(out))  # uvloop's writelines costs a system call or more each

    def _look(self) -> None:
        """Close if the oldest has waited too long; else look again when it would have."""
        self._watch = None
        if self._waiting:
            left = self._waiting[0].since + self._timeout_s - self._loop.time()
            if left <= 0:
                self.fail(f"Valkey did not answer within {self._timeout_s:g} s")
            else:
                self._watch = self._loop.call_later(left, self._look)


class _Ask:
    """Some commands, and their replies so far."""

    __slots__ = ("_count", "_replies", "done", "since")

    def __init__(self, count: int, loop: asyncio.AbstractEventLoop) -> None:
        self._count = count
        self._replies: list[Any] = []
        self.since = loop.time()
        self.done: asyncio.Future[list[Any]] = loop.create_future()

    def take(self, reply: Any) -> bool:
        """Whether that was the last."""
        self._replies.append(reply)
        if len(self._replies) < self._count:
            return False
        if not self.done.done():  # it may have been given up
            self.done.set_result(self._replies)
        return True

    def fail(self, error: LinkDown) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # seen: who gave up does not ask
