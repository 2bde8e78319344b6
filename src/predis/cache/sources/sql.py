"""Sources that are SQL databases: any that SQLAlchemy has a driver for.

Reads run in autocommit, one round trip each. A statement with ``IN :placeholder`` is asked for many keys at once: its rows are told
apart by the column called like the placeholder. Where the pattern has more placeholders, there is one query for each of their values.
An answer of more rows than ``MOST_ROWS`` is not taken: of many keys, fewer are asked for at once; of one, it is a mistake. PostgreSQL,
whose driver holds all of an answer in memory, is not even let to give more.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from predis.cache.sources.calling import Change, Refused, Unfit
from predis.cache.sources.pattern import Arguments
from predis.cache.sources.source import BOUND, Source, listed_as_in
from predis.errors import InvalidInput
from predis.telemetry import redact

MOST_ROWS = 10_000
_SELECT = re.compile(r"\s*SELECT\b", re.IGNORECASE)
_MISTAKES = (sa.exc.IntegrityError, sa.exc.DataError, sa.exc.ProgrammingError, sa.exc.CompileError)


class SqlCaller:
    """Asks one database. Its pool has a connection for each call that the source may have at once.

    Raises:
        InvalidInput: the URL is none, or its driver is not installed.
    """

    def __init__(self, source: Source, *, url: str) -> None:
        self._source = source
        self._listed = source.listed
        self._named = set(BOUND.findall(source.statement))
        self._engine = _engine(source, url)
        statement = sa.text(_limited(listed_as_in(source.statement), self._engine.dialect.name))
        if self._listed:
            statement = statement.bindparams(sa.bindparam(self._listed, expanding=True))
        self._statement = statement
        self._readers = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    def fetch(self, batch: Sequence[Arguments]) -> list[Any]:
        if not self._listed:
            return [self._value(self._rows(arguments)) for arguments in batch]
        groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for i, arguments in enumerate(batch):
            others = tuple(value for name, value in arguments.items() if name != self._listed)
            groups[others].append(i)
        values: list[Any] = [None] * len(batch)
        for members in groups.values():
            found = self._of_many([batch[i] for i in members])
            for i in members:
                values[i] = self._value(found.get(str(batch[i][self._listed]), []))
        return values

    def write(self, changes: Sequence[Change]) -> None:
        try:
            with self._engine.begin() as connection:
                for change in changes:
                    said = self._source.delete if change.deleted else self._source.upsert
                    if not said:
                        raise Refused(f"the source has no statement for {change.what}")
                    connection.execute(sa.text(said), bound(said, change))
        except _MISTAKES as error:
            raise Refused(_short(error)) from error
        except sa.exc.DBAPIError as error:
            raise RuntimeError(_short(error)) from error

    def explain(self, arguments: Arguments) -> str:
        named = {name: value for name, value in arguments.items() if name in self._named}
        return f"{self._source.statement}  with {named}"

    def close(self) -> None:
        self._engine.dispose()

    def _of_many(self, batch: list[Arguments]) -> dict[str, list[dict[str, Any]]]:
        """Rows by the text of the listed placeholder's column."""
        wanted = list({arguments[self._listed]: None for arguments in batch})
        rows = self._rows({**batch[0], self._listed: wanted})
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            if self._listed not in row:
                raise ValueError(
                    f"the statement must select a column called {self._listed}, to tell its rows apart"
                )
            found[str(row[self._listed])].append(row)
        return found

    def _rows(self, arguments: Any) -> list[dict[str, Any]]:
        """
        Raises:
            Unfit: the database does not know such values (a NUL in a text, no UUID), or has too many rows for them.
        """
        bound = {name: value for name, value in arguments.items() if name in self._named}
        try:
            rows = self._ask_again(bound)
        except sa.exc.DataError as error:
            raise Unfit(_short(error)) from error
        except sa.exc.DBAPIError as error:
            raise RuntimeError(_short(error)) from error
        if len(rows) > MOST_ROWS:
            raise Unfit(f"the statement gave more than {MOST_ROWS} rows")
        return rows

    def _ask_again(self, bound: dict[str, Any]) -> list[dict[str, Any]]:
        """Asked twice, where the pool held connections of a server that was restarted."""
        try:
            return self._ask(bound)
        except sa.exc.DBAPIError as error:
            if not error.connection_invalidated:
                raise
            return self._ask(bound)

    def _ask(self, bound: dict[str, Any]) -> list[dict[str, Any]]:
        with self._readers.connect() as connection:
            result = connection.execute(self._statement, bound)
            return [dict(row) for row in result.mappings().fetchmany(MOST_ROWS + 1)]

    def _value(self, rows: list[dict[str, Any]]) -> Any:
        """What the rows of one key are, or why they cannot be its value."""
        if not rows:
            return None
        if self._source.encoding == "text":
            rows = [self._one_column(row) for row in rows]
        if self._source.rows == "many":
            return rows
        if len(rows) > 1:
            return ValueError(
                f"the statement gave {len(rows)} rows for one key; say rows = 'many', or LIMIT 1"
            )
        return rows[0]

    def _one_column(self, row: dict[str, Any]) -> Any:
        rest = [value for name, value in row.items() if name != self._listed] or list(row.values())
        if len(rest) != 1:
            raise ValueError(f"encoding text is for one column, and the statement gives {', '.join(row)}")
        return rest[0]


def _engine(source: Source, url: str) -> sa.Engine:
    for prefix in ("postgresql://", "postgres://"):
        url = "postgresql+psycopg://" + url.removeprefix(prefix) if url.startswith(prefix) else url
    try:
        backend = sa.make_url(url).get_backend_name()
        connect: dict[str, Any] = {}
        if backend == "postgresql":
            connect = _postgres(source, sa.make_url(url))
        pool: dict[str, Any] = {
            "pool_size": source.concurrency,
            "max_overflow": 0,
            "pool_timeout": source.timeout_s,
        }
        if backend == "sqlite":
            connect = {"timeout": source.timeout_s, "check_same_thread": False}
            pool = pool if sa.make_url(url).database not in (None, "", ":memory:") else {}
        return sa.create_engine(url, connect_args=connect, **pool)
    except (sa.exc.ArgumentError, ValueError, ImportError) as error:
        raise InvalidInput(
            f"source {source.name!r}: {redact(url)} cannot be used: {redact(str(error))}"
        ) from None


def _postgres(source: Source, url: sa.URL) -> dict[str, Any]:
    """How to connect to PostgreSQL: a server that is gone without a word, or at work for too long, does not hold a thread for long.

    Options that the URL has come after ours, and so hold.
    """
    theirs = url.query.get("options", ())
    ours = f"-c statement_timeout={round(source.timeout_s * 1_000)}"
    return {
        "connect_timeout": max(2, round(source.timeout_s)),
        "options": " ".join([ours, *((theirs,) if isinstance(theirs, str) else theirs)]),
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }


def _limited(statement: str, dialect: str) -> str:
    if dialect != "postgresql" or not _SELECT.match(statement):
        return statement
    # A comment may end the statement: hence the line of its own.
    inner = statement.rstrip().rstrip(";")
    return f"SELECT * FROM (\n{inner}\n) AS answer LIMIT {MOST_ROWS + 1}"  # noqa: S608 the statement is the administrator's


def bound(statement: str, change: Change) -> dict[str, Any]:
    """What a statement for writes binds, of what is written.

    Raises:
        Refused: something of it is not there.
    """
    names, given = set(BOUND.findall(statement)), change.bound
    if missing := names - set(given):
        raise Refused(f"what is written has no {min(missing)!r}, which the statement binds")
    return {name: given[name] for name in names}


def _short(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).partition("\n")[0]
