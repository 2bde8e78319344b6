"""The state database: SQLite in WAL mode embedded, PostgreSQL by URL, through SQLAlchemy Core.

SQLite allows one writer at a time, and a transaction that starts as a reader cannot always become a writer. So writers say
so from the start (``BEGIN IMMEDIATE``) and wait their turn, and readers never block. ``synchronous=FULL`` makes a commit
durable against power loss, not only against a crash of the process: feedback is acknowledged on the strength of it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from predis.errors import InvalidInput, InvalidSetting, SetupError, Unavailable
from predis.telemetry import redact

BUSY_TIMEOUT_MS = 15_000


class Database:
    """One engine and the two ways to use it: ``read`` and ``write``.

    Args:
        url: SQLAlchemy URL; ``sqlite:///FILE`` or ``postgresql+psycopg://...`` (``postgresql://`` is accepted).

    Raises:
        InvalidSetting: the URL is not one SQLAlchemy knows, or is of another database.
    """

    def __init__(self, url: str) -> None:
        self.url = _normalised(url)
        self.dialect, self.engine = _opened(self.url)
        snapshot = {"isolation_level": "REPEATABLE READ"} if self.dialect == "postgresql" else {}
        self._readers = self.engine.execution_options(**snapshot)
        self._upserts: dict[
            tuple[str, tuple[str, ...], tuple[str, ...]], Any
        ] = {}  # building one costs more than running it
        self._writers = self.engine.execution_options(predis_write=True)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection that sees one consistent state of the database.

        Raises:
            Unavailable: the database does not answer.
        """
        with translated(), self._readers.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction: all of it is durable on leaving, or none on an exception.

        Raises:
            Unavailable: the database does not answer, or is locked for longer than ``BUSY_TIMEOUT_MS``.
            InvalidInput: a value does not fit its column.
        """
        with translated(), self._writers.begin() as connection:
            yield connection

    def insert_new(self, table: sa.Table) -> Any:
        """An INSERT for this dialect that leaves rows alone which are already there; ``rowcount`` tells how many were new."""
        return self._insert(table).on_conflict_do_nothing().execution_options(preserve_rowcount=True)

    def upsert(self, table: sa.Table, *, keep: tuple[str, ...] = (), add: tuple[str, ...] = ()) -> Any:
        """An INSERT for rows that may be there already: their columns are replaced, but for the key and ``keep``; those of ``add`` grow."""
        if (table.name, keep, add) not in self._upserts:
            self._upserts[table.name, keep, add] = self._make_upsert(table, keep=keep, add=add)
        return self._upserts[table.name, keep, add]

    def _make_upsert(self, table: sa.Table, *, keep: tuple[str, ...], add: tuple[str, ...]) -> Any:
        statement = self._insert(table)
        key = [column.name for column in table.primary_key]
        changed = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in (*key, *keep)}
        changed |= {name: table.c[name] + statement.excluded[name] for name in add}
        return statement.on_conflict_do_update(index_elements=key, set_=changed)

    def _insert(self, table: sa.Table) -> Any:
        if self.dialect == "sqlite":
            from sqlalchemy.dialects.sqlite import insert as sqlite_insert

            return sqlite_insert(table)
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        return postgresql_insert(table)

    def close(self) -> None:
        self.engine.dispose()


@contextmanager
def translated() -> Iterator[None]:
    """What the database says, as errors of ours.

    Raises:
        Unavailable: it does not answer, or takes nothing more.
        InvalidInput: a value does not fit its column.
    """
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.TimeoutError) as error:
        cause = getattr(error, "orig", None) or error
        reason = str(cause).partition("\n")[0] or "no reason given"
        raise Unavailable(f"the state database does not answer: {redact(reason)}") from error
    except (sa.exc.DataError, OverflowError) as error:
        # PostgreSQL's: a text too long, or with a NUL in it; a number out of range, which is SQLite's OverflowError.
        reason = str(getattr(error, "orig", error)).partition("\n")[0]
        raise InvalidInput(f"the state database cannot hold a value that was given: {reason}") from error
    except sa.exc.StatementError as error:
        if isinstance(error.orig, InvalidInput):  # of _json
            raise error.orig from None
        raise


def _json(document: Any) -> str:
    """A document as JSON that every parser reads. Python's own would store NaN and lone surrogates, and nobody could list the row.

    Raises:
        InvalidInput: it holds such a value.
    """
    try:
        text = json.dumps(document, allow_nan=False, ensure_ascii=False)
        text.encode("utf-8")
    except ValueError as error:
        raise InvalidInput(f"a document must be plain JSON: {error}") from None
    return text


def _normalised(url: str) -> str:
    for prefix in ("postgresql://", "postgres://"):
        if url.startswith(prefix):
            return "postgresql+psycopg://" + url.removeprefix(prefix)
    return url


def _opened(url: str) -> tuple[str, sa.Engine]:
    try:
        dialect = sa.make_url(url).get_backend_name()
        if dialect == "sqlite":
            return dialect, _sqlite_engine(url)
        if dialect == "postgresql":
            return dialect, _postgres_engine(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise InvalidSetting(f"state_url is not a database URL: {redact(url)!r}") from error
    raise InvalidSetting(f"state_url must be SQLite or PostgreSQL, not {dialect}")


def _postgres_engine(url: str) -> sa.Engine:
    try:
        return sa.create_engine(
            url, pool_pre_ping=True, pool_size=8, connect_args={"connect_timeout": 5}, json_serializer=_json
        )
    except ModuleNotFoundError as error:
        raise SetupError("PostgreSQL needs: pip install 'predis[postgres]'") from error


def _sqlite_engine(url: str) -> sa.Engine:
    engine = sa.create_engine(
        url,
        connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False},
        json_serializer=_json,
    )

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        # pysqlite's own transaction control starts transactions too late; SQLAlchemy's "begin" event starts ours.
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"busy_timeout={BUSY_TIMEOUT_MS}",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        writing = connection.get_execution_options().get("predis_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine
