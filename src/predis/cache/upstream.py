"""The Valkey behind the gateway, and one client's connection to it.

Before a client's connection carries anything of the client's, what the URL says is said on it: AUTH, SELECT. The transport is then handed
from the protocol that did so to the ``Link``, which knows nothing of it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from predis.cache.resp import ProtocolBroken, Replies, command
from predis.errors import Unreachable
from predis.valkeys import Address

if TYPE_CHECKING:
    from predis.cache.session import Session

__all__ = ["Address", "Link", "Single", "open_stream"]

_P = TypeVar("_P", bound=asyncio.Protocol)

FIRST_TRY_S, CONNECT_S = 0.02, 2.0
_HIGH_WATER = 1 << 20  # bytes that wait for Valkey before the client is left unread


class Link(asyncio.Protocol):
    """One client's connection to Valkey."""

    __slots__ = ("__weakref__", "_session", "data_received", "transport")

    def __init__(self, session: Session) -> None:
        self._session = session
        self.transport: asyncio.Transport | None = None
        self.data_received = session.replied  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(_HIGH_WATER)

    def pause_writing(self) -> None:
        self._session.upstream_slow(True)

    def resume_writing(self) -> None:
        self._session.upstream_slow(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._session.upstream_lost()

    def leave(self, within_s: float) -> None:
        """Close when all that was sent has gone up, or when Valkey has not taken it in that time."""
        transport = self.transport
        assert transport is not None
        if transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(within_s, transport.abort)
        transport.close()


class Single:
    """One Valkey at a fixed address.

    Args:
        tls: how to talk to it where the address asks for TLS.
    """

    def __init__(self, address: Address, *, tls: ssl.SSLContext | None = None) -> None:
        self.address = address
        self.tls = tls or (ssl.create_default_context() if address.tls else None)

    async def where(self) -> Address:
        """The server to talk to now.

        Raises:
            Unreachable: nobody knows.
        """
        return self.address

    def on_switch(self, act: Callable[[], None]) -> None:
        """Have something done when it is another server. This one stays where it is."""

    async def follow(self) -> None:
        """See where the server is, for ever where it may move."""

    async def open_for(self, make: Callable[[], _P]) -> tuple[_P, Sequence[tuple[bytes, ...]]]:
        """One try to connect for the gateway's own commands: the protocol, and what it has to say first.

        Raises:
            OSError
            Unreachable
        """
        address = await self.where()
        return await open_stream(address, make, tls=self.tls), address.greeting

    async def connect(self, session: Session) -> Link:
        """A connection for a client. Valkey may be just starting: it is tried again for ``CONNECT_S``.

        Raises:
            Unreachable
        """
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + CONNECT_S, FIRST_TRY_S
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._try(session)
            except (OSError, TimeoutError, Unreachable) as error:
                if loop.time() + pause > deadline:
                    reason = error or "no connection in time"
                    raise Unreachable(f"Valkey at {self.address} does not answer: {reason}") from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.2)

    async def _try(self, session: Session) -> Link:
        address = await self.where()
        return await self._open(address, session, greeting=address.greeting)

    async def _open(
        self, address: Address, session: Session, *, greeting: Sequence[tuple[bytes, ...]]
    ) -> Link:
        """One try.

        Raises:
            OSError: it does not answer, or not as it should.
        """
        if not greeting:
            return await open_stream(address, lambda: Link(session), tls=self.tls)
        greeter = await open_stream(address, lambda: _Greeter(greeting), tls=self.tls)
        try:
            self._judge(await greeter.replies)
        except BaseException:
            greeter.transport.abort()
            raise
        link = Link(session)
        greeter.transport.set_protocol(link)
        link.connection_made(greeter.transport)
        return link

    def _judge(self, replies: Sequence[bytes]) -> None:
        for reply in replies:
            if reply.startswith(b"-"):
                raise ConnectionError(f"it refuses the gateway ({reply[1:-2].decode(errors='replace')})")


class _Greeter(asyncio.Protocol):
    """Says what a connection begins with and waits for the replies."""

    def __init__(self, greeting: Sequence[tuple[bytes, ...]]) -> None:
        self.transport: asyncio.Transport
        self.replies: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()
        self._greeting = greeting
        self._framer = Replies()
        self._got = b""
        self._ends: list[int] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(b"".join(command(*words) for words in self._greeting))

    def data_received(self, data: bytes) -> None:
        try:
            self._ends += [len(self._got) + end for end in self._framer.feed(data)]
        except ProtocolBroken as broken:
            self._fail(f"it sends what is no reply ({broken.text})")
            return
        self._got += data
        if len(self._ends) == len(self._greeting) and not self.replies.done():
            starts = [0, *self._ends[:-1]]
            self.replies.set_result([self._got[a:b] for a, b in zip(starts, self._ends, strict=True)])

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("it closes the connection")

    def _fail(self, reason: str) -> None:
        if not self.replies.done():
            self.replies.set_exception(ConnectionError(reason))
            self.replies.exception()  # seen: who gave up does not ask


async def open_stream(address: Address, make: Callable[[], _P], *, tls: ssl.SSLContext | None) -> _P:
    """One try to connect.

    Raises:
        OSError
    """
    loop = asyncio.get_running_loop()
    if address.path:
        _, made = await loop.create_unix_connection(make, address.path)
    else:
        _, made = await loop.create_connection(make, address.host, address.port, ssl=tls)
    return made


async def ended(task: asyncio.Task[None] | None) -> None:
    """Cancel a task that others wait for behind a shield, and see it end."""
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
