"""The server is tested over real sockets, on both event loops; what must hold for any bytes, cut anywhere, over a transport of paper."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest
import uvloop
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from predis.serving import http
from predis.serving.http import Handler, HttpLimits, HttpServer, Request
from predis.serving.http_messages import date_line, start_of_ok

LIMITS = HttpLimits(body_bytes=100_000, header_bytes=4_000, target_bytes=1_000)
GET = b"GET /a HTTP/1.1\r\nHost: here\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\nabc"
CHUNKS = b"POST /c HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\nA: b\r\n\r\n"
DATE = date_line(0)
SOON_S = 10.0  # far longer than anything here takes; who waits for it waits for an event


def echo(request: Request) -> None:
    request.reply(200, told(request))


def told(request: Request) -> bytes:
    return orjson.dumps([request.method, request.path, request.query, request.body.decode("latin-1")])


# --- a server, and clients ----------------------------------------------------------------------------------------------------


class Served:
    """An HttpServer on loopback, its event loop in a thread. What the loop complains of fails the test at the end."""

    def __init__(self, handler: Handler, limits: HttpLimits, *, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.complaints: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _loop, context: self.complaints.append(context))
        self.alone = threading.Event()
        self._clients: list[Client] = []
        self.server = HttpServer(handler, limits, on_connections=self._count)
        listening = socket.create_server(("127.0.0.1", 0))
        self.address = listening.getsockname()
        self._thread = threading.Thread(target=loop.run_forever)
        self._thread.start()
        self.run(self.server.start([listening]))

    def _count(self, connections: int) -> None:
        assert connections == self.server.connections
        self.alone.clear() if connections else self.alone.set()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(SOON_S)

    def call(self, function: Callable[[], Any]) -> Any:
        async def called() -> Any:
            return function()

        return self.run(called())

    def connect(self, data: bytes = b"") -> Client:
        self._clients.append(Client(self.address, data))
        return self._clients[-1]

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.run(self.server.drain(0.1))
        assert self.server.held == 0
        assert self.server.connections == 0
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        assert self.complaints == []


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        found: str = orjson.loads(self.body)["code"]
        return found

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"


class Client:
    """A connection that does exactly what it is told."""

    def __init__(self, address: tuple[str, int], data: bytes) -> None:
        self.socket = socket.create_connection(address, timeout=SOON_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb")
        self.send(data)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def end(self) -> None:
        """Send no more, but read on."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def line(self) -> bytes:
        return self._file.readline()

    def answer(self, *, bodiless: bool = False) -> Answer:
        version, status, _reason = self.line().split(b" ", 2)
        assert version == b"HTTP/1.1"
        headers: dict[str, str] = {}
        while (line := self.line()) != b"\r\n":
            name, _, value = line.decode().rstrip("\r\n").partition(": ")
            assert name not in headers
            headers[name] = value
        body = b"" if bodiless else self._file.read(int(headers.get("content-length", 0)))
        return Answer(int(status), headers, body)

    def rest(self) -> bytes:
        """All that still comes until the server closes."""
        return self._file.read()

    def ask(self, data: bytes) -> Answer:
        self.send(data)
        return self.answer()


Serve = Callable[..., Served]


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """Starts servers: ``serve(handler, body_bytes=10)``."""
    made: list[Served] = []

    def start(handler: Handler = echo, **limits: Any) -> Served:
        made.append(Served(handler, replace(LIMITS, **limits), loop=request.param()))
        return made[-1]

    yield start
    for served in made:
        served.close()


class Held:
    """A handler that keeps its requests until told to reply."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.came = threading.Semaphore(0)
        self.gone = threading.Semaphore(0)
        self.served: Served

    def __call__(self, request: Request) -> None:
        request.on_gone = self.gone.release
        self.requests.append(request)
        self.came.release()

    def wait(self) -> Request:
        """The next request, once it is here."""
        assert self.came.acquire(timeout=SOON_S)
        return self.requests[-1]

    def reply(self, request: Request) -> None:
        self.served.call(lambda: request.reply(200, told(request)))


@pytest.fixture
def held(serve: Serve) -> Held:
    handler = Held()
    handler.served = serve(handler)
    return handler


# --- requests and answers -----------------------------------------------------------------------------------------------------


def test_one_request_after_the_other(serve: Serve) -> None:
    client = serve().connect()
    for data, expected in (
        (GET, ["GET", "/a", "", ""]),
        (POST, ["POST", "/a", "", "abc"]),
        (CHUNKS, ["POST", "/c", "", "abc"]),
        (GET.replace(b"/a", b"/b%20c?d=%20"), ["GET", "/b c", "d=%20", ""]),
        (POST, ["POST", "/a", "", "abc"]),
    ) * 2:
        answer = client.ask(data)
        assert (answer.status, orjson.loads(answer.body), answer.closes) == (200, expected, False)
        assert answer.headers.keys() == {"date", "content-type", "content-length"}


@pytest.mark.parametrize(
    "first", [b"GET /a HTTP/1.0\r\n", b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"]
)
def test_the_last_request_of_a_connection(serve: Serve, first: bytes) -> None:
    client = serve().connect(first + b"\r\n")
    assert client.answer().closes
    assert client.rest() == b""


def test_what_a_request_holds(serve: Serve) -> None:
    seen: list[Request] = []

    def handler(request: Request) -> None:
        seen.append(request)
        assert (request.replied, request.remote) == (False, "127.0.0.1")
        request.reply(200, b"{}")
        assert (request.replied, request.remote) == (True, "")

    served = serve(handler)
    served.connect().ask(b"PUT /a HTTP/1.1\r\nHost: h\r\nX: 1\r\nx: \xe9 \r\nContent-Length: 1\r\n\r\nb")
    (request,) = seen
    assert request.headers == {b"host": b"h", b"x": b"1, \xe9", b"content-length": b"1"}
    assert (request.header(b"x"), request.header(b"none")) == ("1, é", "")
    assert (request.method, request.body, request.cancelled) == ("PUT", b"b", False)
    assert request.started > 0
    with pytest.raises(RuntimeError, match="once"):
        served.call(lambda: request.reply(200, b"{}"))


def test_head_and_other_statuses(serve: Serve) -> None:
    def handler(request: Request) -> None:
        headers = [(b"content-type", b"text/x"), (b"x-id", b"7")] if request.query else ()
        request.reply(int(request.path[1:]), b"[1]", headers=headers)

    client = serve(handler).connect()
    client.send(b"HEAD /200 HTTP/1.1\r\nHost: h\r\n\r\n")
    answer = client.answer(bodiless=True)
    assert answer.headers["content-length"] == "3"
    assert client.ask(b"GET /404 HTTP/1.1\r\nHost: h\r\n\r\n").body == b"[1]"
    answer = client.ask(b"GET /200?x HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (answer.headers["content-type"], answer.headers["x-id"], answer.body) == ("text/x", "7", b"[1]")
    assert client.ask(b"GET /204 HTTP/1.1\r\nHost: h\r\n\r\n").body == b""
    assert client.ask(b"OPTIONS /200 HTTP/1.1\r\nHost: h\r\n\r\n").body == b"[1]"


def test_a_handler_that_fails(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def handler(request: Request) -> None:
        if request.path == "/after":
            request.reply(200, b"{}")
        elif request.path == "/header":
            request.reply(200, b"{}", headers=[(b"x", b"a\r\nb: c")])
            return
        raise ValueError("a fault")

    client = serve(handler).connect()
    for path, status in ((b"/at-once", 500), (b"/after", 200), (b"/header", 500), (b"/at-once", 500)):
        answer = client.ask(GET.replace(b"/a", path))
        assert answer.status == status
        if status == 500:
            assert orjson.loads(answer.body) == {
                "error": "an internal error; the server's log has it",
                "code": "internal",
            }
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 4
    assert "/at-once" in caplog.text


def test_a_reply_from_later(held: Held) -> None:
    client = held.served.connect(POST)
    request = held.wait()
    assert held.served.server.in_work == 1
    held.reply(request)
    assert client.answer().status == 200
    assert held.served.server.in_work == 0


def test_small_packets_are_not_delayed(serve: Serve) -> None:
    options: list[int] = []

    def handler(request: Request) -> None:
        transport = request._connection._transport  # type: ignore[union-attr]
        options.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        request.reply(200, b"{}")

    serve(handler).connect().ask(GET)
    assert options[0] != 0


def test_heads_are_remembered_within_bounds(serve: Serve) -> None:
    served = serve()
    client = served.connect()
    for number in range(http._REMEMBERED_HEADS + 10):
        answer = client.ask(GET.replace(b"/a", b"/%d" % number))
        assert orjson.loads(answer.body)[1] == f"/{number}"
    assert 0 < len(served.server.heads) <= http._REMEMBERED_HEADS
    known = set(served.server.heads)
    for more in (b"X: " + b"a" * http._REMEMBERED_BYTES, b"traceparent: 00-1", b"X-Request-Id: 1"):
        assert client.ask(GET[:-2] + more + b"\r\n\r\n").status == 200
    assert client.ask(CHUNKS).status == 200
    assert set(served.server.heads) == known


# --- bodies -------------------------------------------------------------------------------------------------------------------


def test_a_body_of_many_reads(serve: Serve) -> None:
    body = random.Random(1).randbytes(3_000_000)
    served = serve(lambda request: request.reply(200, request.body), body_bytes=3_000_000)
    client = served.connect()
    for _time in range(2):
        answer = client.ask(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n" + body)
        assert answer.body == body
    chunked = b"".join(
        b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:1], body[1:2_000_000], body[2_000_000:])
    )
    answer = client.ask(
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked + b"0\r\n\r\n"
    )
    assert answer.body == body


def test_many_small_chunks(serve: Serve) -> None:
    client = serve().connect()
    head = b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = client.ask(head + b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n" + GET)
    assert orjson.loads(answer.body)[3] == "a" * 20_000
    assert orjson.loads(client.answer().body) == ["GET", "/a", "", ""]


def test_continue(serve: Serve) -> None:
    client = serve().connect()
    head = b"POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
    for length, body in (
        (b"Content-Length: 3", b"abc"),
        (b"Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n"),
    ):
        client.send(head + length + b"\r\n\r\n")
        assert (client.line(), client.line()) == (b"HTTP/1.1 100 Continue\r\n", b"\r\n")
        assert orjson.loads(client.ask(body).body)[3] == "abc"
        # Who has sent the body already needs no word.
        assert client.ask(head + length + b"\r\n\r\n" + body).status == 200
    assert client.ask(head + b"\r\n").status == 200  # no body, no word
    assert client.ask(head + b"Content-Length: 100001\r\n\r\n").status == 413


def test_a_wish_for_another_protocol_is_ignored(serve: Serve) -> None:
    client = serve().connect()
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    head = b"POST /a HTTP/1.1\r\nHost: h\r\n" + upgrade
    client.send((head + b"Content-Length: 3\r\n\r\nabc") * 2 + GET)
    assert [orjson.loads(client.answer().body)[3] for _request in range(3)] == ["abc", "abc", ""]
    answer = client.ask(head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    assert orjson.loads(answer.body)[3] == "abc"


# --- what is refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "invalid_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400, "invalid_request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "invalid_request"),
        (GET + b"nonsense\r\n\r\n", 400, "invalid_request"),
        (GET[:-2] + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "invalid_request"),
        (GET[:-2] + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400, "invalid_request"),
        (GET[:-2] + b"Content-Length: 99999999999999999999999\r\n\r\n", 400, "invalid_request"),
        (GET[:-2] + b"Content-Length: 100001\r\n\r\n", 413, "too_large"),
        (GET[:-2] + b"Transfer-Encoding: chunked\r\n\r\n186a1\r\n", 413, "too_large"),
        (GET[:-2] + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "invalid_request"),
        (b"GET /" + b"a" * 1_000 + b" HTTP/1.1\r\n", 414, "too_large"),
        (b"GET /" + b"a" * 1_500, 414, "too_large"),
        (GET[:-2] + b"X: " + b"a" * 4_000, 431, "too_large"),
        (GET[:-2] + b"X: " + b"a" * 4_000 + b"\r\n\r\n", 431, "too_large"),
        (GET[:-2] + b"X: a\r\n" * 300 + b"\r\n", 431, "too_large"),
        (GET.replace(b"1.1", b"2.0"), 505, "invalid_request"),
        (GET[:-2] + b"Expect: wonders\r\n\r\n", 417, "invalid_request"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501, "invalid_request"),
    ],
)
def test_refusals_close_the_connection(serve: Serve, data: bytes, status: int, code: str) -> None:
    client = serve().connect(data + (b"\r\n\r\n" if status == 414 else b""))
    answer = client.answer()
    if answer.status == 200:
        answer = client.answer()
    assert (answer.status, answer.code, answer.closes) == (status, code, True)
    assert client.rest() == b""


def test_who_sends_too_much_still_sees_why(serve: Serve) -> None:
    """The server refuses after the head; the client, like most, looks for an answer only when it has sent everything."""
    client = serve().connect()
    client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 20000000\r\n\r\n")
    client.send(bytes(20_000_000))
    assert client.answer().status == 413


def test_too_much_held_at_once(serve: Serve) -> None:
    served = serve(held_bytes=120_000)
    first = served.connect(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n\r\n" + bytes(80_000))
    while served.call(lambda: served.server.held) < 80_000:
        pass
    second = served.connect(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n\r\n" + bytes(80_000))
    answer = second.answer()
    assert (answer.status, answer.code, answer.closes) == (503, "overloaded", True)
    assert first.ask(bytes(10_000)).status == 200
    assert served.call(lambda: served.server.held) == 0


def test_too_many_connections(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_TOLD", 1)
    served = serve(max_connections=2)
    first, second = served.connect(), served.connect()
    assert (first.ask(GET).status, second.ask(GET).status) == (200, 200)
    told = served.connect()
    answer = told.answer()
    assert (answer.status, answer.code, answer.closes) == (503, "overloaded", True)
    assert answer.headers["retry-after"] == "1"
    with contextlib.suppress(ConnectionError):  # one more is not even told
        assert served.connect().rest() == b""
    first.close()
    while served.server.connections > 1:
        pass
    assert served.server.turned_away == 1  # it is not gone yet, and takes no room from others
    assert (second.ask(GET).status, served.connect().ask(GET).status) == (200, 200)


# --- pipelining ---------------------------------------------------------------------------------------------------------------


def test_answers_come_in_order(held: Held) -> None:
    client = held.served.connect(POST + GET + CHUNKS + POST)
    for method in ("POST", "GET", "POST", "POST"):
        request = held.wait()
        assert held.served.server.in_work == 1
        assert not held.came.acquire(blocking=False)
        held.reply(request)
        assert orjson.loads(client.answer().body)[0] == method


def test_while_one_is_in_work_little_is_read(held: Held) -> None:
    client = held.served.connect(GET)
    request = held.wait()
    client.socket.setblocking(False)
    sent = 0
    with pytest.raises(BlockingIOError):  # the kernel's buffers are full: the server reads no more
        while sent < 1 << 30:
            sent += client.socket.send(GET * 1_000)
    client.socket.settimeout(SOON_S)
    held.reply(request)
    assert client.answer().status == 200
    client.reset()


@pytest.mark.parametrize("seed", range(8))
def test_random_pipelines(serve: Serve, seed: int) -> None:
    """Random requests in random pieces, replied to at random times."""
    chance = random.Random(seed)
    loop: list[asyncio.AbstractEventLoop] = []

    def handler(request: Request) -> None:
        body = told(request)
        how = chance.random()
        if how < 0.3:
            request.reply(200, body)
        elif how < 0.6:
            loop[0].call_soon(request.reply, 200, body)
        else:
            loop[0].call_later(chance.random() / 500, request.reply, 200, body)

    served = serve(handler)
    loop.append(served.loop)
    client = served.connect()
    data, expected = b"", []
    for number in range(60):
        body = chance.randbytes(chance.choice([0, 1, 100, 5_000]))
        path = b"/%d" % number
        expected.append(["POST", f"/{number}", "", body.decode("latin-1")])
        if chance.random() < 0.5:
            data += b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (path, len(body), body)
        else:
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:10], body[10:]) if part)
            data += b"POST %b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % (
                path,
                chunks,
            )
        data += b"\r\n" * (chance.random() < 0.1)

    def send() -> None:
        at = 0
        while at < len(data):
            step = chance.choice([1, 50, 5_000, 50_000])
            client.send(data[at : at + step])
            at += step

    sender = threading.Thread(target=send)
    sender.start()
    found = [orjson.loads(client.answer().body) for _request in expected]
    sender.join()
    assert found == expected


# --- peers that are slow, or go away ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"P", POST[:20], POST[:-1], CHUNKS[:-3], GET + POST[:-1]])
def test_a_slow_sender(serve: Serve, data: bytes) -> None:
    client = serve(read_timeout_s=0.1).connect(data)
    if data.startswith(GET):
        assert client.answer().status == 200
    answer = client.answer()
    assert (answer.status, answer.code, answer.closes) == (408, "unavailable", True)
    assert client.rest() == b""


def test_a_sender_that_drips(serve: Serve) -> None:
    """The time is counted from the first byte, however many follow."""
    client = serve(read_timeout_s=0.2, keep_alive_s=1_000).connect()
    client.socket.settimeout(0.01)
    client.send(b"GET / HTTP/1.1\r\nX: ")
    while True:
        try:
            client.send(b"a")
            start = client.socket.recv(12)
        except TimeoutError:
            continue
        break
    assert start == b"HTTP/1.1 408"


def test_an_idle_connection(serve: Serve) -> None:
    served = serve(keep_alive_s=0.1, read_timeout_s=1_000)
    used, fresh = served.connect(), served.connect()
    assert used.ask(GET).status == 200
    assert (used.rest(), fresh.rest()) == (b"", b"")
    used.close()
    fresh.close()
    assert served.alone.wait(SOON_S)


def test_a_prediction_may_take_longer_than_all_of_them(serve: Serve) -> None:
    handler = Held()
    handler.served = serve(handler, keep_alive_s=0.02, read_timeout_s=0.02)
    client = handler.served.connect(GET)
    request = handler.wait()
    handler.served.run(asyncio.sleep(0.2))
    handler.reply(request)
    assert client.answer().status == 200


@pytest.mark.parametrize("requests", [1, 50])
def test_a_peer_that_takes_nothing(serve: Serve, requests: int) -> None:
    served = serve(lambda request: request.reply(200, bytes(20_000_000)), read_timeout_s=0.1)
    client = served.connect(GET * requests)
    assert served.alone.wait(SOON_S)
    with contextlib.suppress(ConnectionError):
        assert len(client.rest()) < 20_000_000


def test_a_slow_reader_is_not_given_more(serve: Serve) -> None:
    """Answers are made as they are taken, and none is lost."""
    made = 0

    def handler(request: Request) -> None:
        nonlocal made
        made += 1
        request.reply(200, bytes([made]) * 1_000_000)

    client = serve(handler).connect(GET * 50)
    first = client.answer()
    assert made < 25
    assert first.body == b"\x01" * 1_000_000
    assert [client.answer().body[:1] for _request in range(49)] == [bytes([n]) for n in range(2, 51)]


def test_a_peer_that_has_only_finished_sending(serve: Serve) -> None:
    served = serve()
    client = served.connect(GET + POST + CHUNKS)
    client.end()
    answers = [client.answer() for _request in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert client.rest() == b""
    assert served.alone.wait(SOON_S)


def test_a_peer_that_finishes_while_its_request_is_in_work(held: Held) -> None:
    client = held.served.connect(GET)
    request = held.wait()
    client.end()
    while request.keep_alive:  # until the server knows
        pass
    assert not request.cancelled
    held.reply(request)
    assert client.answer().closes
    assert client.rest() == b""


@pytest.mark.parametrize("data", [b"", b"GET", POST[:-1], CHUNKS[:-3]])
def test_a_peer_that_finishes_too_early(serve: Serve, data: bytes) -> None:
    served = serve()
    client = served.connect(data)
    client.end()
    assert client.rest() == b""
    assert served.alone.wait(SOON_S)


@pytest.mark.parametrize("more", [b"", GET])
def test_a_peer_that_goes_away(held: Held, more: bytes) -> None:
    client = held.served.connect(GET + more)
    request = held.wait()
    client.reset()
    if not more:  # with more waiting, reading has stopped, and only an answer shows it
        assert held.gone.acquire(timeout=SOON_S)
        assert request.cancelled
    held.reply(request)
    assert held.served.alone.wait(SOON_S)
    assert request.replied


def test_a_peer_that_resets_in_the_middle(serve: Serve) -> None:
    served = serve()
    for data in (b"", b"GE", POST[:-1], CHUNKS[:-3], GET + POST[:-1]):
        served.connect(data).reset()
    assert served.alone.wait(SOON_S)


def test_a_fault_of_on_gone_is_logged(held: Held, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        held.gone.release()
        raise ValueError("a fault")

    client = held.served.connect(GET)
    held.wait().on_gone = fail
    client.reset()
    assert held.gone.acquire(timeout=SOON_S)
    assert held.served.alone.wait(SOON_S)
    held.served.call(lambda: None)
    assert "on_gone of a request to /a failed" in caplog.text


# --- the end ------------------------------------------------------------------------------------------------------------------


def test_draining(held: Held) -> None:
    served = held.served
    idle, used, partly, busy = (served.connect(data) for data in (b"", b"", POST[:-1], GET))
    request = held.wait()
    while not served.server.held:
        pass
    used.send(GET)
    held.reply(held.wait())
    assert not used.answer().closes
    draining = asyncio.run_coroutine_threadsafe(served.server.drain(SOON_S), served.loop)
    assert idle.rest() == b""
    assert used.rest() == b""
    with pytest.raises(OSError, match="refused"):
        served.connect()
    partly.send(POST[-1:])
    held.reply(held.wait())
    held.reply(request)
    for client in (partly, busy):
        assert client.answer().closes
        assert client.rest() == b""
    assert draining.result(SOON_S) == 0
    assert served.server.connections == 0


def test_draining_with_a_client_that_never_pauses(serve: Serve) -> None:
    """It is told by an answer; no request of it is lost."""
    served = serve()
    client = served.connect()
    assert not client.ask(GET).closes
    draining = asyncio.run_coroutine_threadsafe(served.server.drain(SOON_S), served.loop)
    while not client.ask(GET).closes:
        pass
    assert client.rest() == b""
    assert draining.result(SOON_S) == 0


def test_connections_that_wait_to_be_accepted_are_served(serve: Serve) -> None:
    served = serve()
    blocked, go_on = threading.Event(), threading.Event()

    async def drain() -> int:
        blocked.set()
        go_on.wait(SOON_S)  # the loop stands still, so that nothing is accepted
        return await served.server.drain(SOON_S)

    draining = asyncio.run_coroutine_threadsafe(drain(), served.loop)
    assert blocked.wait(SOON_S)
    clients = [served.connect(GET) for _client in range(20)]
    go_on.set()
    assert all(client.answer().closes for client in clients)
    assert draining.result(SOON_S) == 0


def test_what_is_not_finished_is_aborted(held: Held) -> None:
    served = held.served
    clients = [served.connect(GET), served.connect(POST[:-1])]
    request = held.wait()
    while not served.server.held:  # until the half of a request is here
        pass
    assert served.run(served.server.drain(0.05)) == 2
    assert request.cancelled
    assert held.gone.acquire(timeout=SOON_S)
    held.reply(request)
    for client in clients:
        with contextlib.suppress(ConnectionError):
            assert client.rest() == b""


# --- any bytes, cut anywhere --------------------------------------------------------------------------------------------------


class Paper:
    """A transport that keeps what is written, and an event loop that runs when told; both stand still otherwise."""

    def __init__(self, handler: Handler = echo, *, remember: bool = True) -> None:
        self.written = bytearray()
        self.reading = True
        self.finished = False  # the server sends no more
        self.closed = False
        self._soon: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.server = HttpServer(handler, LIMITS)
        self.server.loop = self  # type: ignore[assignment]
        self.server.date, self.server.ok = DATE, start_of_ok(DATE)
        if not remember:
            self.server.parse = lambda data: http.read_head(data, LIMITS)  # type: ignore[method-assign]
        self.connection = http._Connection(self.server)
        self.connection.connection_made(self)  # type: ignore[arg-type]

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        self._soon.append((callback, arguments))

    def write(self, data: bytes) -> None:
        assert not self.finished
        self.written += data

    def write_eof(self) -> None:
        self.finished = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.finished = self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def settle(self) -> None:
        """Run what is due. A server that then neither reads nor closes would hang."""
        while self._soon:
            callback, arguments = self._soon.popleft()
            callback(*arguments)
        assert self.reading or self.closed

    def feed(self, pieces: Sequence[bytes]) -> Paper:
        for piece in pieces:
            if piece and not self.closed:
                self.connection.data_received(piece)
                self.settle()
        return self

    def end(self) -> list[int]:
        """The client finishes; the statuses of all answers."""
        if not self.closed and not self.connection.eof_received():
            self.close()
        self.settle()
        assert self.closed
        self.connection.connection_lost(None)
        assert (self.server.held, self.server.connections) == (0, 0)
        return statuses(bytes(self.written))


def statuses(data: bytes) -> list[int]:
    """The status of each answer; every byte belongs to one."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        matched = re.fullmatch(rb"HTTP/1\.1 (\d{3}) [A-Za-z \-]+", first)
        assert matched
        if matched[1] != b"100":
            headers = dict(line.split(b": ", 1) for line in lines)
            data = data[int(headers[b"content-length"]) :]
            found.append(int(matched[1]))
            assert found[-1] == 200 or headers[b"connection"] == b"close"
    return found


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """The data in pieces, cut at these places."""
    at = sorted({place % (len(data) + 1) for place in places})
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


PLACES = st.lists(st.integers(0, 10_000), max_size=12)
FIELDS = st.sampled_from(
    [
        b"",
        b"X: y\r\n",
        b"Accept: a\r\naccept: b\r\n",
        b"traceparent: 00-1\r\n",
        b"Connection: upgrade\r\nUpgrade: h2c\r\n",
    ]
)
BODIES = st.binary(max_size=60)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One valid request that keeps its connection."""
    head = b"POST /%d HTTP/1.1\r\nHost: h\r\n%b" % (draw(st.integers(0, 3)), draw(FIELDS))
    body, form = draw(BODIES), draw(st.integers(0, 3))
    if form == 0:
        return draw(st.sampled_from([b"", b"\r\n"])) + head + b"\r\n"
    if form == 1:
        return head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    if form == 2:
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    places = draw(st.lists(st.integers(0, 100), max_size=3))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in cut(body, places) if part)
    return head + b"Transfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % chunks


@given(st.lists(requests(), min_size=1, max_size=6), PLACES)
@example([GET, POST, CHUNKS], list(range(400)))
def test_however_it_is_cut_the_answers_are_the_same(sent: list[bytes], places: list[int]) -> None:
    seen: list[list[bytes]] = [[], []]
    for some, pieces in zip(seen, ([*sent], cut(b"".join(sent), places)), strict=True):

        def handler(request: Request, some: list[bytes] = some) -> None:
            some.append(told(request))
            request.reply(200, some[-1])

        assert Paper(handler).feed(pieces).end() == [200] * len(sent)
    assert seen[0] == seen[1]


@given(st.lists(st.one_of(requests(), st.sampled_from([GET, POST])), max_size=8), PLACES)
def test_remembered_heads_are_as_good_as_parsed_ones(sent: list[bytes], places: list[int]) -> None:
    pieces = cut(b"".join(sent * 2), places)
    first, second = Paper(), Paper(remember=False)
    assert first.feed(pieces).written == second.feed(pieces).written


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """Valid requests with a few bytes changed, added, taken away or repeated."""
    data = bytearray(b"".join(draw(st.lists(requests(), min_size=1, max_size=3))))
    for _change in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        until = at + draw(st.integers(0, 3))
        new = draw(
            st.one_of(
                st.binary(max_size=3),
                st.sampled_from(
                    [b"\r\n", b"\n", b"\r", b"0", b" ", b":", b"\r\n\r\n", b"Content-Length: 1\r\n"]
                ),
                st.just(bytes(data[at : at + 40])),
            )
        )
        data[at:until] = new
    return bytes(data)


@given(st.one_of(st.binary(max_size=200), mutants()), PLACES)
@hypothesis_settings(max_examples=400)
def test_any_bytes_are_answered_or_the_connection_closes(data: bytes, places: list[int]) -> None:
    pieces = cut(data, places)
    found = Paper().feed(pieces).end()
    assert set(found[:-1]) <= {200}
    assert set(found) <= {200, 400, 413, 414, 417, 431, 501, 505}
    assert Paper().feed([data]).end() == found


@pytest.mark.parametrize(
    "start",
    [
        b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n",
        b"GET /a HTTP/1.1\r\nHost: h\r\nX: ",
    ],
)
def test_byte_by_byte(start: bytes) -> None:
    """In linear time: a quadratic server would be at it for minutes."""
    seen: list[Request] = []

    def handler(request: Request) -> None:
        seen.append(request)
        request.reply(200, b"{}")

    paper = Paper(handler)
    count, end = (
        (3_000, b"\r\n\r\n") if b"X" in start else (100_000, b"\r\n0\r\n\r\n" if b"chunked" in start else b"")
    )
    paper.feed([bytes([byte]) for byte in start + b"a" * count + end])
    (request,) = seen
    assert request.body.count(b"a") + request.headers.get(b"x", b"").count(b"a") == count
    assert paper.end() == [200]
