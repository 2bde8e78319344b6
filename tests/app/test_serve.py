from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from predis.app import serve, worker
from predis.errors import PortInUse, SetupError
from predis.serving.http import Request
from predis.settings import Settings

SOON_S = 10.0
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class Worker:
    """As much of a serving worker as a server needs. Its requests are kept until ``reply``."""

    def __init__(self, *_arguments: object) -> None:
        self.rest = SimpleNamespace(handle=self._handle)
        self.connections: list[float] = []
        self.metrics = SimpleNamespace(gauge=lambda _name: SimpleNamespace(set=self.connections.append))
        self.plane = SimpleNamespace(live=lambda: True)
        self.observing = SimpleNamespace(access_log=None)
        self.keys = self.limits = self.repository = None
        self.came = threading.Event()
        self.events: list[str] = []
        self._loop: asyncio.AbstractEventLoop
        self._request: Request

    def start(self) -> None:
        self.events.append("start")

    def stop(self) -> bool:
        self.events.append("stop")
        os.kill(os.getpid(), signal.SIGTERM)  # one that comes when all is over
        return True

    async def tidy(self) -> None:
        await asyncio.Event().wait()

    def _handle(self, request: Request) -> None:
        self._loop, self._request = asyncio.get_running_loop(), request
        self.came.set()

    def reply(self) -> None:
        self._loop.call_soon_threadsafe(self._request.reply, 200, b"{}")


@pytest.fixture
def calm() -> Iterator[None]:
    """What a role does to its process is undone."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    resource.setrlimit(resource.RLIMIT_NOFILE, files)
    gc.unfreeze()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def connect(port: int) -> socket.socket:
    """A connection, as soon as somebody listens."""
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=SOON_S)
        except ConnectionRefusedError:
            continue


@pytest.fixture
def run(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, calm: None
) -> Callable[..., tuple[Worker, bytes]]:
    """Runs the serving role here, in the main thread, with a client in another; gives the worker and what the client got."""
    made = Worker()
    monkeypatch.setattr(worker, "ServingWorker", lambda *_arguments: made)

    def run(client: Callable[[Worker, int], bytes], **changes: Any) -> tuple[Worker, bytes]:
        port = free_port()
        got: list[bytes] = []
        thread = threading.Thread(target=lambda: got.append(client(made, port)))
        thread.start()
        serve.run_serving(replace(settings, **{"http_port": port, "grpc_port": 0, **changes}), 0)
        thread.join()
        return made, got[0]

    return run


class TestServing:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_stopping_finishes_what_was_accepted(
        self, run: Callable[..., tuple[Worker, bytes]], number: signal.Signals
    ) -> None:
        def client(worker: Worker, port: int) -> bytes:
            with connect(port) as connection:
                connection.sendall(GET)
                assert worker.came.wait(SOON_S)
                for _signal in range(3):
                    os.kill(os.getpid(), number)
                with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
                    while True:  # until it listens no more
                        socket.create_connection(("127.0.0.1", port)).close()
                worker.reply()
                return connection.makefile("rb").read()

        worker, answer = run(client, drain_s=SOON_S)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"connection: close\r\n" in answer
        assert worker.events == ["start", "stop"]
        assert (worker.connections[0], worker.connections[-1]) == (1, 0)

    def test_stopping_does_not_wait_for_ever(
        self, run: Callable[..., tuple[Worker, bytes]], caplog: pytest.LogCaptureFixture
    ) -> None:
        def client(worker: Worker, port: int) -> bytes:
            with connect(port) as connection:
                connection.sendall(GET)
                assert worker.came.wait(SOON_S)
                os.kill(os.getpid(), signal.SIGTERM)
                try:
                    return connection.recv(100)
                except ConnectionResetError:
                    return b""

        _worker, answer = run(client, drain_s=0.05)
        assert answer == b""
        assert "1 requests were not finished within 0.05 s" in caplog.text

    def test_grpc_is_served_beside_http_and_ends_with_it(
        self, run: Callable[..., tuple[Worker, bytes]]
    ) -> None:
        grpc_port = free_port()

        def client(_worker: Worker, _port: int) -> bytes:
            with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
                live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
                answer: bytes = live(b"", wait_for_ready=True, timeout=SOON_S)
                os.kill(os.getpid(), signal.SIGTERM)
                return answer

        _worker, answer = run(client, grpc_port=grpc_port)
        assert answer == b"\x08\x01"  # live: true

    def test_a_grpc_port_that_is_taken(self, settings: Settings) -> None:
        """It is seen before anything is started."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = replace(settings, http_port=free_port(), grpc_port=other.getsockname()[1])
            with pytest.raises(PortInUse, match="--grpc-port"):
                serve.run_serving(taken, 0)

    def test_a_worker_imports_no_framework(self) -> None:
        code = "import sys, predis.app.worker, predis.app.serve, predis.serving.http; print(*sys.modules)"
        loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert not {"uvicorn", "fastapi", "starlette", "pydantic"} & set(loaded.stdout.split())


class TestSockets:
    def test_a_port_that_is_taken(self) -> None:
        with serve.listen("127.0.0.1", 0, shared=False) as first:
            port = first.getsockname()[1]
            for take in (serve.listen, serve.bind):
                with pytest.raises(PortInUse, match=str(port)):
                    take("127.0.0.1", port, shared=False)
            with pytest.raises(PortInUse):
                serve.check_port("127.0.0.1", port)
        serve.check_port("127.0.0.1", port)

    def test_workers_share_a_port(self) -> None:
        with serve.bind("127.0.0.1", 0, shared=True) as bound:
            port = bound.getsockname()[1]
            with serve.listen("127.0.0.1", port, shared=True):
                socket.create_connection(("127.0.0.1", port)).close()
            with pytest.raises(ConnectionRefusedError):  # bound, but not listening yet
                socket.create_connection(("127.0.0.1", port))

    def test_an_address_that_is_not_ours(self) -> None:
        with pytest.raises(SetupError, match=r"203\.0\.113\.1"):
            serve.bind("203.0.113.1", 0, shared=False)

    def test_ipv6(self) -> None:
        try:
            listening = serve.listen("::1", 0, shared=True)
        except SetupError:
            pytest.skip("no IPv6 here")
        with listening:
            socket.create_connection(listening.getsockname()[:2]).close()


class TestFiles:
    @pytest.mark.parametrize(
        ("soft", "hard", "wanted", "allowed"),
        [
            (1_024, 4_096, 2_000, 2_000),
            (1_024, 4_096, 9_000, 4_096),
            (1_024, resource.RLIM_INFINITY, 9_000, 9_000),
            (4_096, 4_096, 2_000, None),
            (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 2_000, None),
        ],
    )
    def test_the_limit_is_raised_as_far_as_needed(
        self,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        *,
        soft: int,
        hard: int,
        wanted: int,
        allowed: int | None,
    ) -> None:
        given: list[tuple[int, int]] = []
        monkeypatch.setattr(resource, "getrlimit", lambda _what: (soft, hard))
        monkeypatch.setattr(resource, "setrlimit", lambda _what, limits: given.append(limits))
        with caplog.at_level(logging.INFO):
            serve.allow_files(wanted)
        assert given == ([] if allowed is None else [(allowed, hard)])
        assert ("only 4096 files" in caplog.text) is (allowed is not None and allowed < wanted)
