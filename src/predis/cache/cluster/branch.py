"""One client's connection to one node of a cluster."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from predis.cache.cluster.asks import Ask
from predis.cache.cluster.slots import Node
from predis.cache.resp import ProtocolBroken, Replies

if TYPE_CHECKING:
    from predis.cache.cluster.transport import ClusterTransport

log = logging.getLogger(__name__)

# Of a reply that is longer the client is given what is there, where it is its turn.
_STREAM = 64 << 10
ASKING = b"*1\r\n$6\r\nASKING\r\n"


class Branch(asyncio.Protocol):
    """A connection, what is to go up it, and whoever waits for its replies, in order.

    Nothing goes up before the greeting is granted: what follows must be done as the user that it logs in.
    """

    __slots__ = (
        "_begun",
        "_begun_bytes",
        "_flow",
        "_greeted",
        "_greeting",
        "_out",
        "_replies",
        "last",
        "left",
        "node",
        "ready",
        "slow",
        "transport",
        "waiting",
    )

    def __init__(self, flow: ClusterTransport, node: Node, *, greeting: Sequence[bytes]) -> None:
        self._flow = flow
        self._replies = Replies()
        self._begun: list[bytes] = []  # of a reply, what has come
        self._begun_bytes = 0
        self._out: list[bytes] = []
        self._greeting = greeting
        self._greeted = 0  # replies to it that have come
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.node = node
        self.waiting: deque[Ask] = deque()
        self.last: Ask | None = None  # whose reply came last
        self.transport: asyncio.Transport | None = None
        self.left = False  # it is not read
        self.slow = False  # it takes nothing

    @property
    def unsent(self) -> int:
        """Bytes that the node has not taken yet."""
        sent = self.transport.get_write_buffer_size() if self.transport is not None else 0
        return sent + sum(map(len, self._out))

    def post(self, raw: bytes) -> None:
        """Send bytes with the next flush."""
        self._out.append(raw)
        self._flow.touched.add(self)

    def send(self, ask: Ask) -> None:
        if ask.asking is not None:
            ask.asking = None
            self.swallow(ASKING)
        if ask.ahead:
            self.swallow(ask.ahead)
        self._expect(ask)

    def swallow(self, raw: bytes) -> None:
        """Send a command whose reply nobody sees."""
        swallowed = Ask(raw, silent=True)
        swallowed.told = True
        self._expect(swallowed)

    def _expect(self, ask: Ask) -> None:
        self.waiting.append(ask)
        self._flow.under_way += 1
        self.post(ask.raw)

    def flush(self) -> None:
        if self.transport is not None and self._out and self.ready.done():
            self.transport.write(b"".join(self._out))
            self._out.clear()

    def read(self, *, leave: bool) -> None:
        if self.left == leave:
            return
        self.left = leave
        if self.transport is not None and self.ready.done() and not self.transport.is_closing():
            self.transport.pause_reading() if leave else self.transport.resume_reading()

    def abandon(self) -> None:
        """Close it, without anybody being told."""
        self.refuse("it is not wanted any more")
        if self.transport is not None:
            if self.transport.get_write_buffer_size():
                self.transport.close()
            else:
                self.transport.abort()  # behind TLS, close() waits for the node's goodbye as well
            self.transport = None

    def refuse(self, reason: str) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(reason))
            self.ready.exception()  # seen: who gave up does not ask

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(self._flow.high_water)
        if self._greeting:
            self.transport.write(b"".join(self._greeting))
        else:
            self._begin()

    def data_received(self, data: bytes) -> None:
        try:
            ends = self._replies.feed(data)
        except ProtocolBroken as broken:
            log.error("Valkey at %s sent what is no reply (%s)", self.node, broken.text)
            self._flow.lose()
            return
        start = 0
        for end in ends:
            push, at = end < 0, ~end if end < 0 else end
            piece = data[start:at]
            start = at
            if self._begun:
                piece = b"".join((*self._begun, piece))
                self._begun.clear()
                self._begun_bytes = 0
            self._take(piece, push=push)
        if start < len(data):
            self._begun.append(data[start:])
            self._begun_bytes += len(data) - start
            self._stream()
        self._flow.settle()

    def pause_writing(self) -> None:
        self.slow = True
        self._flow.look_at_slow()

    def resume_writing(self) -> None:
        self.slow = False
        self._flow.look_at_slow()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is not None:
            self.transport = None
            if self.ready.done():
                self._flow.lost(self)
            self.refuse("it closes the connection")

    def _begin(self) -> None:
        if self.ready.done():
            return
        self.ready.set_result(None)
        if self.left and self.transport is not None:
            self.transport.pause_reading()

    def _take(self, piece: bytes, *, push: bool) -> None:
        if push:
            self._flow.pushed(self, piece)
        elif self._greeted < len(self._greeting):
            self._greeted += 1
            if piece.startswith(b"-"):
                self.refuse(f"it refuses the gateway ({piece[1:-2].decode(errors='replace')})")
            elif self._greeted == len(self._greeting):
                self._begin()
        elif self.waiting:
            ask = self.waiting.popleft()
            self.last = ask
            self._flow.take(self, ask, reply=piece)
        else:
            self._flow.unasked(self, piece)

    def _stream(self) -> None:
        """Give the client the beginning of a long reply, where it is its turn."""
        long = self._begun_bytes > _STREAM and self.waiting and not self._replies.in_push
        if long and self._flow.stream(self.waiting[0], self._begun):
            self._begun.clear()
            self._begun_bytes = 0
