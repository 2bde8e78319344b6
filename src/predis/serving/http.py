"""The HTTP/1.1 server of the data plane: an asyncio protocol of our own, made so that HTTP costs a few microseconds a request.

Why not ASGI: its server makes a task, two coroutine steps, a scope of a dozen entries and several messages for each request. Around a
prediction of 17 us that is most of the time. Here a handler is a plain function that gets a whole request and replies at once or later; no
task, no coroutine and no timer belongs to a request (docs/decisions/0013).

Who parses what: httptools parses heads (``http_messages.read_head``); bodies are cut out here, by the length that the head gave.
A client sends the same head again and again, up to the digits of its Content-Length, so parsed heads are remembered by
their bytes (``HttpServer.heads``): the second time a head costs one look into a dictionary. Parsing is a pure function of those bytes,
so a remembered head is the same as a parsed one; only heads without surprises (no chunks, no expectations) are remembered.

The fast path, in ``data_received``: nothing of an earlier request is here, the head is known and the bytes read are exactly one request.
Then nothing is queued or copied twice, and the reply is one ``transport.write``. All else goes through ``_input``, the bytes that
came and were not used yet, and ``_advance``, which takes one request from it.

One request of a connection is in work at a time. While it is, reading goes on, to learn of a client that goes away; but as soon as bytes
come they are kept, unparsed, and reading stops. So answers come in the order of their requests, and what a connection holds is
bounded: one body and one head at their limits, one read of the loop (256 KiB), and one answer. Over all connections the bytes of
requests that come in parts are counted, and past ``HttpLimits.held_bytes`` the connection that adds to them is refused.

Time is looked after by one sweep for all connections, about once a second. A connection that waits for its next request carries no time
at all until the sweep stamps it, so that a request sets none. The sweep ends connections that idle, peers that send too slowly (408)
and peers that take nothing of their answer.

Too many connections are accepted and told so (503), not left in the kernel's queue: other workers share the port, and a client that
is answered can go to one of them, which one that hangs cannot.

Where the server closes first it half-closes, then reads and forgets for a moment: closing a socket with unread bytes makes the
kernel send a reset, which can destroy the answer before the client has read it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence
from time import perf_counter

from predis import errors
from predis.serving.http_messages import (
    BLANK_LINE,
    CHUNKED,
    CONTINUE,
    ChunkedBody,
    Head,
    Headers,
    HttpLimits,
    Refused,
    answer,
    check_size,
    date_line,
    empty_lines,
    error_body,
    read_head,
    start_of_ok,
)

__all__ = ["Handler", "HttpLimits", "HttpServer", "Request"]

log = logging.getLogger(__name__)

Handler = Callable[["Request"], None]

_BACKLOG = 2_048
_CARRIAGE_RETURN = 13
# Heads remembered, and the longest of them. They hold what clients send, keys among it; a full memory is emptied.
_REMEMBERED_HEADS = 512
_REMEMBERED_BYTES = 2_048
# Chunks taken from one connection before the others have their turn.
_CHUNKS_A_TURN = 256
# How long a client may go on sending to a connection that we have finished with.
_LINGER_S = 2.0
# How long a draining server waits for clients to be told of it by their next answer.
_GRACE_S = 0.15
_POLL_S = 0.01
_TURNS_TO_CONNECT = 5
_LONGEST_SWEEP_S = 1.0
# Connections beyond the limit that are told so; when even those are too many, more are closed without a word.
_TOLD = 256
_RETRY_SOON = ((b"retry-after", b"1"),)
_INTERNAL = error_body("an internal error; the server's log has it", errors.PredisError.code)

# What a connection is at. IDLE: nothing of a request is here. READING: a part of one is. WORKING: one is with the handler.
# CLOSING: nothing is read any more but to be forgotten. In this order.
_IDLE, _READING, _WORKING, _CLOSING = range(4)


class Request:
    """One request whose body is whole. It is replied to exactly once, in the event loop's thread.

    ``path`` is percent-decoded, ``query`` is not. ``headers`` has lower-case names, repeated fields joined with ``", "``; it may be
    shared with other requests and must not be changed. ``started`` is the ``perf_counter`` when its first byte was handled.
    ``cancelled`` turns true, and ``on_gone`` is called if it is set, when the client goes away before the reply. A client that has only
    finished sending (a half-closed connection) is still there.
    """

    __slots__ = (
        "_connection",
        "body",
        "cancelled",
        "headers",
        "keep_alive",
        "method",
        "on_gone",
        "path",
        "query",
        "started",
    )

    def __init__(self, head: Head, connection: _Connection, *, body: bytes, started: float) -> None:
        self.method, self.path, self.query, self.headers, self.keep_alive, _length, _expects = head
        self._connection: _Connection | None = connection
        self.body = body
        self.started = started
        self.cancelled = False
        self.on_gone: Callable[[], None] | None = None

    @property
    def replied(self) -> bool:
        return self._connection is None

    @property
    def remote(self) -> str:
        """The client's address; empty once the request was replied to."""
        return "" if self._connection is None else self._connection.remote

    def header(self, name: bytes) -> str:
        """A header's value, empty where there is none. ``name`` in lower case."""
        return self.headers.get(name, b"").decode("latin-1")

    def reply(self, status: int, body: bytes, *, headers: Headers = ()) -> None:
        """Answer. Content-Length and Date are added, and Content-Type ``application/json`` where ``headers`` has none.

        Nothing is sent to a client that has gone away. No handler is ever called from in here. Where a header holds a line break,
        which is a handler's fault, the client gets a 500 and the log a line.

        Raises:
            RuntimeError: the request was replied to before.
        """
        connection = self._connection
        if connection is None:
            raise RuntimeError("a request is replied to once")
        if not self.cancelled:
            connection.answer(self, status, body=body, headers=headers)
        self._connection = None


class _Connection(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        "_blocked",
        "_chunks",
        "_ended",
        "_head",
        "_held",
        "_input",
        "_paused",
        "_request",
        "_scanned",
        "_server",
        "_since",
        "_state",
        "_transport",
        "_unsent",
        "_unsent_since",
    )

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._transport: asyncio.Transport
        self._state = _IDLE
        self._since = 0.0  # READING, CLOSING: since when. IDLE: when the sweep first saw it so; 0: not yet
        self._input = bytearray()  # came, and not used yet
        self._scanned = 0  # bytes of _input in which no head ends
        self._head: Head | None = None  # of the request whose body is being read
        self._chunks: ChunkedBody | None = None
        self._request: Request | None = None  # in work
        self._held = 0  # bytes counted in the server's `held`
        self._paused = False  # we do not read
        self._blocked = False  # the client does not take what we write
        self._ended = False  # the client sends no more
        self._unsent = 0  # bytes the client had not taken when the sweep last looked
        self._unsent_since = 0.0

    # What the transport calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        if self._server.admit(self):
            return
        if self._server.turned_away > _TOLD:
            self._state = _CLOSING
            transport.abort()
        else:
            self._refuse(Refused(503, "too many connections; try again", code=errors.Overloaded.code))

    def data_received(self, data: bytes) -> None:
        if self._state == _IDLE:
            self._state, self._since = _READING, perf_counter()
            end = data.find(BLANK_LINE) + 4
            start = data[:end]
            head = self._server.heads.get(start)
            if head is None and end > 4 and data[0] != _CARRIAGE_RETURN:
                head = self._parse(start)
            if head is not None:
                if head.length == len(data) - end:
                    self._begin(Request(head, self, body=data[end:], started=self._since))
                    return
                data = data[end:]
                self._expect_body(head, waiting=not data)
        if self._state == _CLOSING:
            return
        self._input += data
        if self._state == _READING:
            self._advance()
        else:
            self._pause()

    def eof_received(self) -> bool:
        """The client sends no more. It still gets the answer to what is in work; half a request gets none."""
        self._ended = True
        if self._request is None:
            return False
        self._request.keep_alive = False
        return True

    def pause_writing(self) -> None:
        self._blocked = True
        self._pause()

    def resume_writing(self) -> None:
        self._blocked = False
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.remove(self)
        self._state = _CLOSING
        self._forget()
        request, self._request = self._request, None
        if request is not None:
            request.cancelled = True
            if request.on_gone is not None:
                try:
                    request.on_gone()
                except Exception:
                    log.exception("on_gone of a request to %s failed", request.path)

    # From bytes to a request.

    def _advance(self) -> None:
        """Take the next request from the input and begin it, if it is whole and nothing stands before it."""
        if self._state != _READING or self._blocked:
            return
        try:
            request = self._next()
            if request is None:
                self._hold(len(self._input) + (len(self._chunks.body) if self._chunks else 0))
        except Refused as refused:
            self._refuse(refused)
            return
        if request is not None:
            if self._input:
                self._pause()
            else:
                self._resume()
            self._begin(request)

    def _next(self) -> Request | None:
        """The next request, or None: then more has been asked for."""
        head, data = self._head or self._read_head(), self._input
        if head is None:
            self._resume()
            return None
        if head.length == CHUNKED:
            body = self._read_chunks()
            if body is None:
                return None
        elif len(data) < head.length:
            self._resume()
            return None
        else:
            body = bytes(data) if len(data) == head.length else bytes(data[: head.length])
            del data[: head.length]
        self._head = None
        self._hold(len(body))
        return Request(head, self, body=body, started=self._since)

    def _read_head(self) -> Head | None:
        """The head at the start of the input, once it is there whole."""
        data = self._input
        del data[: empty_lines(data)]
        if not data:
            self._state, self._since = _IDLE, 0.0
            return None
        end = data.find(BLANK_LINE, max(0, self._scanned - 3)) + 4
        if end < 4:
            check_size(data, self._server.limits)
            self._scanned = len(data)
            return None
        head = self._server.parse(bytes(data[:end]))
        del data[:end]
        self._scanned = 0
        self._expect_body(head, waiting=not data)
        return head

    def _parse(self, data: bytes) -> Head | None:
        """The head that these bytes are; None if it was refused."""
        try:
            return self._server.parse(data)
        except Refused as refused:
            self._refuse(refused)
            return None

    def _expect_body(self, head: Head, *, waiting: bool) -> None:
        self._head = head
        if head.length == CHUNKED:
            self._chunks = ChunkedBody(self._server.limits)
        if waiting and head.expects_continue and head.length:
            self._transport.write(CONTINUE)

    def _read_chunks(self) -> bytes | None:
        assert self._chunks is not None
        more = self._chunks.take(self._input, most=_CHUNKS_A_TURN)
        if self._chunks.whole:
            body, self._chunks = bytes(self._chunks.body), None
            return body
        if more:  # others have their turn
            self._pause()
            self._server.loop.call_soon(self._advance)
        else:
            self._resume()
        return None

    def _begin(self, request: Request) -> None:
        """Hand a request to the handler."""
        self._state = _WORKING
        self._request = request
        try:
            self._server.handler(request)
        except Exception:
            log.exception("a request to %s failed", request.path)
            if not request.replied:
                request.reply(500, _INTERNAL)

    # From a reply to bytes.

    def answer(self, request: Request, status: int, *, body: bytes, headers: Headers) -> None:
        """Send the reply of the request in work, and go on to the next."""
        server = self._server
        going_on = request.keep_alive and not server.draining
        if status == 200 and going_on and not headers and request.method != "HEAD":
            data = b"%b%d\r\n\r\n%b" % (server.ok, len(body), body)
        else:
            data = self._compose(request, status, body=body, headers=headers, close=not going_on)
        self._request = None
        self._transport.write(data)
        if self._held:
            self._hold(0)
        if not going_on:
            self._finish(linger=request.keep_alive)
        elif self._input:
            self._state, self._since = _READING, perf_counter()
            self._go_on()
        else:
            self._state, self._since = _IDLE, 0.0
            if self._paused:
                self._resume()

    def _compose(self, request: Request, status: int, *, body: bytes, headers: Headers, close: bool) -> bytes:
        date, bodiless = self._server.date, request.method == "HEAD"
        try:
            return answer(status, body, headers=headers, date=date, close=close, bodiless=bodiless)
        except ValueError:
            log.exception("the answer to a request to %s cannot be sent", request.path)
            return answer(500, _INTERNAL, headers=(), date=date, close=close, bodiless=bodiless)

    def _refuse(self, refused: Refused) -> None:
        """Answer without a handler, and close: what follows on this connection cannot be told from the body."""
        log.debug("refused with %d: %s", refused.status, refused)
        headers = _RETRY_SOON if refused.status == 503 else ()
        body = error_body(refused.message, refused.code)
        data = answer(
            refused.status, body, headers=headers, date=self._server.date, close=True, bodiless=False
        )
        self._transport.write(data)
        self._finish(linger=True)

    def _finish(self, *, linger: bool) -> None:
        """Close when all is sent. ``linger``: the client may be sending still, so read on for a moment to let it see the answer."""
        self._state, self._since = _CLOSING, perf_counter()
        self._forget()
        transport = self._transport
        if not linger or self._ended or transport.is_closing() or not transport.can_write_eof():
            transport.close()
            return
        try:
            transport.write_eof()
            self._resume()
        except OSError:  # the client is gone already
            transport.abort()

    def _forget(self) -> None:
        self._input.clear()
        self._head = self._chunks = None
        self._hold(0)

    def _hold(self, count: int) -> None:
        """Count the bytes of requests kept here.

        Raises:
            Refused: there are too many, over all connections.
        """
        server = self._server
        more = count - self._held
        if more > 0 and server.held + more > server.limits.held_bytes:
            raise Refused(
                503, "too many large requests are being sent; try again", code=errors.Overloaded.code
            )
        self._held = count
        server.held += more

    # Reading stops and goes on.

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self._blocked and not self._ended:
            self._paused = False
            self._transport.resume_reading()

    def _go_on(self) -> None:
        """Look at what waits in the input, in a turn of its own: one connection's requests do not hold up the others'."""
        if self._input:
            self._server.loop.call_soon(self._advance)
        else:
            self._resume()

    # What the server calls.

    @property
    def busy(self) -> bool:
        """Whether a request is here, or an answer is on its way."""
        return self._state in (_READING, _WORKING) or self._transport.get_write_buffer_size() > 0

    @property
    def working(self) -> bool:
        return self._state == _WORKING

    @property
    def remote(self) -> str:
        peer = self._transport.get_extra_info("peername")
        return str(peer[0]) if peer else ""

    def close_idle(self) -> None:
        if self._state == _IDLE:
            self._finish(linger=True)

    def abort(self) -> None:
        self._transport.abort()

    def look(self, now: float) -> None:
        """End what has taken too long. Called by the sweep."""
        limits = self._server.limits
        unsent = self._transport.get_write_buffer_size()
        if unsent != self._unsent:  # it takes something, or got something new to take
            self._unsent, self._unsent_since = unsent, now
        elif unsent and now - self._unsent_since > limits.read_timeout_s:
            log.debug("a peer took nothing of its answer for %g s", limits.read_timeout_s)
            self.abort()
        elif unsent or self._state == _WORKING:
            pass
        elif self._since == 0.0:
            self._since = now
        elif self._state == _IDLE and now - self._since > limits.keep_alive_s:
            self._finish(linger=True)
        elif self._state == _READING and now - self._since > limits.read_timeout_s:
            self._refuse(
                Refused(
                    408,
                    f"the request did not come within {limits.read_timeout_s:g} s",
                    code=errors.Unavailable.code,
                )
            )
        elif self._state == _CLOSING and now - self._since > _LINGER_S:
            self.abort()


class HttpServer:
    """Serves a handler on listening sockets.

    Args:
        handler: called with each request, in the event loop; it replies at once or later. What it raises is logged and answered with 500.
        on_connections: called with the number of open connections whenever it changes.
    """

    def __init__(
        self, handler: Handler, limits: HttpLimits, *, on_connections: Callable[[int], None] | None = None
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.heads: dict[bytes, Head] = {}
        self.held = 0
        self.draining = False
        self.loop: asyncio.AbstractEventLoop
        self._on_connections = on_connections
        self._open: set[_Connection] = set()
        self._turned_away: set[_Connection] = set()
        self._sockets: Sequence[socket.socket] = ()
        self._listeners: list[asyncio.Server] = []
        self._sweep_s = min(_LONGEST_SWEEP_S, limits.keep_alive_s / 8, limits.read_timeout_s / 8)
        self._sweeper: asyncio.TimerHandle | None = None
        self._tell_date()

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._open)

    @property
    def in_work(self) -> int:
        """Requests that a handler has and has not replied to. Counted when asked, over all connections."""
        return sum(connection.working for connection in self._open)

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept on these sockets, bound or listening already, from now on. They belong to the server then."""
        self.loop = asyncio.get_running_loop()
        self._sockets = sockets
        for one in sockets:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it
            listener = await self.loop.create_server(lambda: _Connection(self), sock=one, backlog=_BACKLOG)
            self._listeners.append(listener)
        self._sweep()

    async def drain(self, limit_s: float) -> int:
        """Stop accepting, answer what has come, close. Returns how many requests had to be aborted after ``limit_s``.

        Connections that wait in the kernel's queue are accepted first: closing the socket would reset them. Every answer from now on
        says ``connection: close``. Clients that use their connections all the time are told so by their next answer; only those that
        are silent for a moment are closed without one.
        """
        self.draining = True
        grace_s = min(_GRACE_S, limit_s / 4)
        await self._stop_accepting()
        await self._until(lambda: not self._open, grace_s)
        for connection in self._all():
            connection.close_idle()
        await self._until(lambda: not any(one.busy for one in self._all()), limit_s - 2 * grace_s)
        busy = [connection for connection in self._open if connection.busy]
        for connection in busy:
            connection.abort()
        await self._until(lambda: not self._all(), grace_s)  # the others read their last answers
        for connection in self._all():
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await asyncio.sleep(0)  # connections learn that they are lost
        return len(busy)

    async def _until(self, done: Callable[[], bool], limit_s: float) -> None:
        end = self.loop.time() + limit_s
        while not done() and self.loop.time() < end:  # noqa: ASYNC110 - an event would cost every request
            await asyncio.sleep(_POLL_S)

    async def _stop_accepting(self) -> None:
        waiting = [accepted for one in self._sockets for accepted in _accept_all(one)]
        self._sockets = ()
        for listener in self._listeners:
            listener.close()
        connecting = (self.loop.connect_accepted_socket(lambda: _Connection(self), one) for one in waiting)
        await asyncio.gather(*connecting, return_exceptions=True)
        for _turn in range(_TURNS_TO_CONNECT):  # what the loop itself has accepted is not all here yet
            await asyncio.sleep(0)

    # What connections call.

    def admit(self, connection: _Connection) -> bool:
        """Count a new connection; whether there is room for it. One that is turned away takes no room from others."""
        if len(self._open) >= self.limits.max_connections:
            self._turned_away.add(connection)
            return False
        self._open.add(connection)
        self._tell_connections()
        return True

    @property
    def turned_away(self) -> int:
        """Connections that there was no room for, and that are not gone yet."""
        return len(self._turned_away)

    def remove(self, connection: _Connection) -> None:
        self._turned_away.discard(connection)
        self._open.discard(connection)
        self._tell_connections()

    def parse(self, data: bytes) -> Head:
        """A head, parsed or remembered.

        Raises:
            Refused
        """
        head = self.heads.get(data)
        if head is None:
            head = read_head(data, self.limits)
            if _is_plain(head) and len(data) <= _REMEMBERED_BYTES:
                if len(self.heads) >= _REMEMBERED_HEADS:
                    self.heads.clear()
                self.heads[data] = head
        return head

    # In between.

    def _all(self) -> list[_Connection]:
        return [*self._open, *self._turned_away]

    def _tell_connections(self) -> None:
        if self._on_connections is not None:
            self._on_connections(len(self._open))

    def _tell_date(self) -> None:
        self.date = date_line(time.time())
        self.ok = start_of_ok(self.date)

    def _sweep(self) -> None:
        self._sweeper = self.loop.call_later(self._sweep_s, self._sweep)
        self._tell_date()
        now = perf_counter()
        for connection in self._all():
            connection.look(now)


def _is_plain(head: Head) -> bool:
    """Whether this head may come again, and says nothing that the fast path does not know."""
    if head.length == CHUNKED or head.expects_continue:
        return False
    return b"traceparent" not in head.headers and b"x-request-id" not in head.headers


def _accept_all(listening: socket.socket) -> list[socket.socket]:
    """The connections that wait to be accepted."""
    found: list[socket.socket] = []
    listening.setblocking(False)
    while True:
        try:
            accepted, _address = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return found
        except OSError:  # no more file descriptors: the rest is reset
            log.warning("connections that waited could not be accepted", exc_info=True)
            return found
        accepted.setblocking(False)
        found.append(accepted)
