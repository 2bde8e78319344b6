"""A server of the tests' own, that does what a test says: answers, stalls, fails, hangs up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator

from predis.loadtest import Target
from predis.loadtest.bodies import http_request

METADATA = {
    "name": "toy",
    "versions": ["1"],
    "inputs": [
        {"name": "x", "datatype": "FP64", "shape": [-1]},
        {"name": "kind", "datatype": "BYTES", "shape": [-1], "levels": ["a", "b"]},
    ],
    "outputs": [{"name": "probability", "datatype": "FP64", "shape": [-1]}],
}
REQUEST = http_request("/v2/models/toy/infer", b'{"inputs":[]}', headers={"host": "test"})
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)

_TURNS = 50

Answer = Callable[["Link", bytes], None]


def response(body: bytes = b"{}", status: int = 200, *, head: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body


def always(content: bytes) -> Answer:
    return lambda link, _request: link.write(content)


class Link(asyncio.Protocol):
    """One connection; ``answer`` is called with each whole request."""

    transport: asyncio.Transport | None = None

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def write(self, content: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(content)

    def hang_up(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while (head := self._waiting.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self._waiting[:head])
            end = head + 4 + (int(found[1]) if found else 0)
            if len(self._waiting) < end:
                return
            request, self._waiting = self._waiting[:end], self._waiting[end:]
            self._answer(self, request)


@contextlib.asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Target]:
    """A server in this event loop, and the target that it is."""
    links: list[Link] = []

    def link() -> Link:
        links.append(Link(answer))
        return links[-1]

    server = await asyncio.get_running_loop().create_server(link, "127.0.0.1", 0)
    try:
        yield target(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for _ in range(_TURNS):  # connections may still be on their way, and need a turn or two to end
            for each in links:
                if each.transport is not None:
                    each.transport.abort()
            await asyncio.sleep(0)


def target(port: int, *requests: bytes) -> Target:
    return Target(host="127.0.0.1", port=port, requests=requests or (REQUEST,))


@contextlib.contextmanager
def in_thread(answer: Answer) -> Iterator[Target]:
    """A server in a thread of its own, for what runs in other processes."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    found: list[Target] = []
    end = asyncio.Event()

    async def serve() -> None:
        async with serving(answer) as its:
            found.append(its)
            ready.set()
            await end.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()
        loop.run_until_complete(asyncio.sleep(0.05))  # what is aborted ends in a later turn of the loop
        loop.close()


def toy_answer(link: Link, request: bytes) -> None:
    """The toy endpoint: metadata, and a constant prediction."""
    path = request.split(b" ", 2)[1]
    if path == b"/v2/models/toy":
        link.write(response(json.dumps(METADATA).encode()))
    elif path == b"/v2/models/toy/infer":
        link.write(response(b'{"outputs":[]}'))
    else:
        link.write(response(b'{"error":"there is no such endpoint","code":"endpoint_not_found"}', 404))
