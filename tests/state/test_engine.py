from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from predis.errors import InvalidSetting, PredisError, SetupError, Unavailable
from predis.state import engine
from predis.state.engine import Database
from predis.state.schema import journal_positions, models, workers

only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
only_postgresql = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


def row(name: str, created_at: int = 1) -> dict[str, Any]:
    return {"tenant": "default", "name": name, "created_at": created_at}


def add(database: Database, name: str) -> None:
    with database.write() as connection:
        connection.execute(models.insert(), row(name))


def names(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.scalars(sa.select(models.c.name).order_by(models.c.name)))


class TestWrite:
    def test_all_of_it(self, database: Database) -> None:
        with database.write() as connection:
            connection.execute(models.insert(), row("a"))
            connection.execute(models.insert(), row("b"))
        assert names(database) == ["a", "b"]

    def test_or_nothing(self, database: Database) -> None:
        with pytest.raises(RuntimeError, match="the reason"), database.write() as connection:
            connection.execute(models.insert(), row("a"))
            raise RuntimeError("the reason")
        assert names(database) == []

    def test_nothing_of_a_transaction_whose_later_half_is_wrong(self, database: Database) -> None:
        add(database, "a")
        with pytest.raises(sa.exc.IntegrityError), database.write() as connection:
            connection.execute(models.insert(), row("b"))
            connection.execute(models.insert(), row("a"))
        assert names(database) == ["a"]

    def test_tables_are_made_or_not_too(self, database: Database) -> None:
        with pytest.raises(RuntimeError), database.write() as connection:
            connection.exec_driver_sql("CREATE TABLE half (id INTEGER)")
            raise RuntimeError
        with database.read() as connection:
            assert not sa.inspect(connection).has_table("half")

    def test_writers_of_other_engines_lose_nothing(self, database: Database) -> None:
        add(database, "a")

        def count_up(_: int) -> None:
            other = Database(database.url)
            for _ in range(10):
                with other.write() as connection:
                    connection.execute(models.update().values(created_at=models.c.created_at + 1))
            other.close()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(count_up, range(4)))
        with database.read() as connection:
            assert connection.scalar(sa.select(models.c.created_at)) == 41

    @only_sqlite
    def test_read_then_write_is_safe_on_sqlite(self, database: Database) -> None:
        """A writer holds the lock from its first statement: what it read cannot have changed when it writes."""
        add(database, "a")

        def count_up(_: int) -> None:
            for _ in range(10):
                with database.write() as connection:
                    now = connection.scalar(sa.select(models.c.created_at))
                    connection.execute(models.update().values(created_at=now + 1))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(count_up, range(4)))
        with database.read() as connection:
            assert connection.scalar(sa.select(models.c.created_at)) == 41


class TestRead:
    def test_sees_one_state_whatever_is_written_meanwhile(self, database: Database) -> None:
        add(database, "a")
        with database.read() as connection:
            count = sa.select(sa.func.count()).select_from(models)
            assert connection.scalar(count) == 1
            add(database, "b")
            assert connection.scalar(count) == 1
        assert names(database) == ["a", "b"]

    def test_is_not_held_up_by_a_writer(self, database: Database) -> None:
        add(database, "a")
        written, go_on = threading.Event(), threading.Event()

        def write() -> None:
            with database.write() as connection:
                connection.execute(models.insert(), row("b"))
                written.set()
                assert go_on.wait(30)

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            assert written.wait(30)
            assert names(database) == ["a"]
            go_on.set()
            writing.result()
        assert names(database) == ["a", "b"]

    def test_what_it_writes_is_not_kept(self, database: Database) -> None:
        with database.read() as connection:
            connection.execute(models.insert(), row("a"))
        assert names(database) == []


class TestStatements:
    def test_insert_new_leaves_rows_alone(self, database: Database) -> None:
        for created_at in (1, 2):
            with database.write() as connection:
                done = connection.execute(database.insert_new(models), row("a", created_at))
            assert done.rowcount == (1 if created_at == 1 else 0)
        with database.read() as connection:
            assert connection.scalar(sa.select(models.c.created_at)) == 1

    def test_insert_new_takes_many_rows_and_counts_the_new_ones(self, database: Database) -> None:
        add(database, "b")
        with database.write() as connection:
            done = connection.execute(database.insert_new(models), [row("a"), row("b"), row("c"), row("c")])
        assert done.rowcount == 2
        assert names(database) == ["a", "b", "c"]

    def test_upsert_replaces_all_but_the_key_and_what_it_shall_keep(self, database: Database) -> None:
        first = {"id": "w", "pid": 1, "started_at": 1, "seen_at": 1, "applied": {}, "problems": {}}
        second = {"id": "w", "pid": 2, "started_at": 2, "seen_at": 2, "applied": {"e": 1}, "problems": {}}
        for values in (first, second):
            with database.write() as connection:
                connection.execute(database.upsert(workers, keep=("started_at",)), values)
        with database.read() as connection:
            assert [dict(r) for r in connection.execute(sa.select(workers)).mappings()] == [
                second | {"started_at": 1}
            ]

    def test_upsert_adds_where_it_shall(self, database: Database) -> None:
        row = {"stream": "s", "segment": 1, "position": 64, "records": 5, "dropped": 2, "damaged": 1}
        add = database.upsert(journal_positions, add=("dropped", "damaged"))
        for values in (row, {**row, "records": 9, "damaged": 0}):
            with database.write() as connection:
                connection.execute(add, values)
        with database.read() as connection:
            found = connection.execute(sa.select(journal_positions)).mappings().one()
        assert dict(found) == {**row, "records": 9, "dropped": 4, "damaged": 1}


class TestDurability:
    @only_sqlite
    def test_sqlite_is_set_up_for_it_on_every_connection(self, database: Database) -> None:
        for _ in range(2):
            with database.read() as connection:
                pragmas = {
                    name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                    for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
                }
            database.engine.dispose()
            assert pragmas == {
                "journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": engine.BUSY_TIMEOUT_MS,
            }  # fmt: skip


class TestFailures:
    @only_sqlite
    def test_a_locked_database_is_unavailable(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", 10)
        impatient = Database(database.url)
        with (
            database.write(),
            pytest.raises(Unavailable, match="the state database does not answer: database is locked"),
            impatient.write(),
        ):
            pass
        impatient.close()
        add(database, "a")

    @only_postgresql
    def test_a_lost_connection_is_unavailable_and_the_next_one_works(self, database: Database) -> None:
        with pytest.raises(Unavailable, match="does not answer"), database.write() as connection:
            connection.execute(models.insert(), row("a"))
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
        assert names(database) == []

    @only_postgresql
    def test_no_connection_left_is_unavailable(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database.engine.pool, "_timeout", 0)
        with contextlib.ExitStack() as held, pytest.raises(Unavailable, match="QueuePool limit"):
            for _ in range(50):
                held.enter_context(database.read())

    def test_a_server_that_is_not_there_is_unavailable(self, tmp_path: Path) -> None:
        database = Database(f"postgresql://predis:hunter2@/x?host={tmp_path}")
        with (
            pytest.raises(Unavailable, match="the state database does not answer") as caught,
            database.read(),
        ):
            pass
        assert "hunter2" not in caught.value.message

    def test_a_folder_that_is_not_there_is_unavailable(self, tmp_path: Path) -> None:
        database = Database(f"sqlite:///{tmp_path}/gone/state.sqlite")
        with pytest.raises(Unavailable, match="unable to open database file"), database.read():
            pass

    def test_other_faults_stay_what_they_are(self, database: Database) -> None:
        add(database, "a")
        with pytest.raises(sa.exc.IntegrityError):
            add(database, "a")


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("", "state_url is not a database URL: ''"),
            ("state.sqlite", "state_url is not a database URL: 'state.sqlite'"),
            (
                "postgresql://u:hunter2@host:port/x",
                r"state_url is not a database URL: 'postgresql\+psycopg://u:\*\*\*@host:port/x'",
            ),
            ("postgresql+nothing://host/x", "state_url is not a database URL"),
            ("mysql://host/x", "state_url must be SQLite or PostgreSQL, not mysql"),
        ],
    )
    def test_what_is_none(self, url: str, message: str) -> None:
        with pytest.raises(InvalidSetting, match=message):
            Database(url)

    @pytest.mark.parametrize("url", ["postgresql://h/x", "postgres://h/x", "postgresql+psycopg://h/x"])
    def test_the_forms_of_postgresql(self, url: str) -> None:
        assert Database(url).url == "postgresql+psycopg://h/x"

    def test_a_driver_that_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
        with pytest.raises(SetupError, match=r"pip install 'predis\[postgres\]'") as caught:
            Database("postgresql://h/x")
        assert isinstance(caught.value, PredisError)
