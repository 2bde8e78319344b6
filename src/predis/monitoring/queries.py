"""SQL over the prediction log: a tenant's own files, read only, by DuckDB.

    select version, count(*), avg(score) from predictions group by 1
    select corr(score, label) from "flight-delay" join labels using (endpoint, id, row)

What there is to ask: ``predictions`` (the answers of every endpoint, with the inputs that were kept), a view of each endpoint by its name,
``shadows`` (what shadows made of copies) and ``labels`` (those that met their prediction). Names of columns are the log's (``column_of``).

The SQL is a stranger's. It is one SELECT, or it is refused; the database behind it lives in memory and for this query only; it may open the
files of the views and nothing else, no other file, no network, no extension, and cannot change that; memory, time and rows are bounded.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from predis.errors import DeadlineExceeded, InvalidInput, MissingExtra, TooLarge
from predis.monitoring.store import MonitoringStore
from predis.state.engine import Database
from predis.state.records import Arm

if TYPE_CHECKING:
    from collections.abc import Callable

    from duckdb import DuckDBPyConnection

MAX_CHARACTERS = 20_000
SHOWN_ROWS = 10_000
FILE_ROWS = 1_000_000
_FORMATS = ("json", "csv", "parquet")
_MAX_BYTES = 64 << 20
# Moments are kept by the nanosecond, which DuckDB from 2.0 on has a type for, and that is not compared with now().
_MOMENT = pa.timestamp("us", "UTC")
_MOMENTS = "* REPLACE (event_at::TIMESTAMPTZ AS event_at, received_at::TIMESTAMPTZ AS received_at)"
_SHADOW = Arm.SHADOW.name.lower()


@dataclass(frozen=True)
class Bounds:
    """What one query may use."""

    memory_bytes: int = 512 << 20
    timeout_s: float = 30.0
    threads: int = 1


class Queries:
    """Answers queries.

    Args:
        folder: where the log's files are.
        take_in: brings the log and the labels up to now.
    """

    def __init__(
        self, database: Database, folder: Path, *, take_in: Callable[[], None], bounds: Bounds | None = None
    ) -> None:
        self._store = MonitoringStore(database)
        self._folder = folder
        self._take_in = take_in
        self._bounds = bounds or Bounds()

    def run(self, tenant: str, sql: str, *, format: str = "json") -> dict[str, Any]:
        """Columns with their types, rows, and whether there were more (``truncated``); or, of the formats csv and parquet, the file's
        ``content`` in base64.

        Raises:
            InvalidInput: it is no SELECT, or DuckDB cannot answer it; the message is DuckDB's.
            DeadlineExceeded: it takes longer than it may.
            TooLarge: the file would be too large.
            MissingExtra: DuckDB is not installed.
        """
        if format not in _FORMATS:
            raise InvalidInput(f"format is one of {', '.join(_FORMATS)}, got {format!r:.80}")
        if not sql.strip() or len(sql) > MAX_CHARACTERS:
            raise InvalidInput(f"a query is a SELECT of at most {MAX_CHARACTERS} characters")
        self._take_in()
        most = SHOWN_ROWS if format == "json" else FILE_ROWS
        with self._opened(tenant, sql) as connection, _translated(), self._in_time(connection):
            found = connection.sql(_select(sql))
            table = found.limit(most + 1).to_arrow_table()
        shown = table.slice(0, most)
        document: dict[str, Any] = {
            "columns": [{"name": field.name, "type": str(field.type)} for field in shown.schema],
            "truncated": table.num_rows > most,
        }
        if format == "json":
            rows = zip(*(column.to_pylist() for column in shown.columns), strict=True)
            return {**document, "rows": [[_plain(value) for value in row] for row in rows]}
        content = _file(shown, format)
        return {**document, "rows": shown.num_rows, "content": base64.b64encode(content).decode()}

    @contextmanager
    def _opened(self, tenant: str, sql: str) -> Iterator[DuckDBPyConnection]:
        """A database of this query's own, with its views, and locked."""
        try:
            import duckdb  # late: it is large, and an extra
        except ImportError:
            raise MissingExtra.of("duckdb", "query") from None
        files = self._files(tenant)
        with duckdb.connect(":memory:", config={"threads": self._bounds.threads}) as connection:
            connection.execute(f"SET memory_limit = '{self._bounds.memory_bytes // 1024}KiB'")
            connection.execute("SET temp_directory = ''")
            connection.execute("SET autoinstall_known_extensions = false")
            connection.execute("SET autoload_known_extensions = false")
            connection.execute("SET python_enable_replacements = false")
            every = [str(path) for paths in files.values() for path in paths]
            connection.execute(f"SET allowed_paths = {_list(every)}")
            connection.execute("SET enable_external_access = false")
            _make_views(connection, files)
            if "labels" in sql.lower():
                connection.register("labels", self._labels(tenant))
            connection.execute("SET lock_configuration = true")
            yield connection

    def _files(self, tenant: str) -> dict[str, list[Path]]:
        """Those of each endpoint that are there."""
        found: dict[str, list[Path]] = {}
        for file in self._store.all_log_files():
            path = self._folder / file["path"]
            if file["tenant"] == tenant and path.exists():
                found.setdefault(file["endpoint"], []).append(path)
        return found

    def _labels(self, tenant: str) -> pa.Table:
        columns = {
            "endpoint": pa.string(), "id": pa.string(), "row": pa.int32(), "version": pa.int32(), "label": pa.float64(),
            "value": pa.float64(), "label_event_at": pa.timestamp("ns", "UTC"),
        }  # fmt: skip
        rows = self._store.labels_of(tenant)
        arrays = [pa.array([row[place] for row in rows], kind) for place, kind in enumerate(columns.values())]
        arrays[-1] = arrays[-1].cast(_MOMENT, safe=False)
        return pa.table(arrays, names=list(columns))

    @contextmanager
    def _in_time(self, connection: DuckDBPyConnection) -> Iterator[None]:
        """Ends what takes too long."""
        late = threading.Event()

        def end() -> None:
            late.set()
            connection.interrupt()

        timer = threading.Timer(self._bounds.timeout_s, end)
        timer.start()
        try:
            yield
        except Exception:
            if late.is_set():
                raise DeadlineExceeded(
                    f"the query took longer than {self._bounds.timeout_s:g} s; ask for less of it, or for fewer days"
                ) from None
            raise
        finally:
            timer.cancel()
            timer.join()


def _select(sql: str) -> str:
    """The one SELECT that a query is.

    Raises:
        InvalidInput
    """
    import duckdb

    statements = duckdb.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise InvalidInput("a query is one SELECT; nothing here can be changed")
    return statements[0].query.strip().rstrip(";")


def _make_views(connection: DuckDBPyConnection, files: dict[str, list[Path]]) -> None:
    parts = []
    for endpoint, paths in files.items():
        listed = _list([str(path) for path in paths])
        parts.append(
            f"SELECT {_text(endpoint)} AS endpoint, {_MOMENTS} "  # noqa: S608
            f"FROM read_parquet({listed}, union_by_name = true, hive_partitioning = false)"
        )
        if endpoint not in ("predictions", "shadows", "labels"):
            view = endpoint.replace('"', '""')
            connection.execute(f'CREATE VIEW "{view}" AS {parts[-1]} WHERE arm <> {_text(_SHADOW)}')
    empty = (
        "SELECT '' AS endpoint, '' AS id, 0 AS row, 0 AS version, now() AS event_at, now() AS received_at, 0.0 AS score, '' AS arm, "
        "0.0 AS answered WHERE false"
    )
    every = " UNION ALL BY NAME ".join(parts) or empty
    for view, condition in (("predictions", "<>"), ("shadows", "=")):
        connection.execute(
            f"CREATE VIEW {view} AS SELECT * FROM ({every}) WHERE arm {condition} {_text(_SHADOW)}"  # noqa: S608
        )


@contextmanager
def _translated() -> Iterator[None]:
    """DuckDB's errors as ours."""
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException:
        raise InvalidInput("the query needs more memory than it may use; ask for less of it") from None
    except duckdb.Error as error:
        raise InvalidInput(f"DuckDB says: {str(error)[:1_000]}") from None


def _file(table: pa.Table, format: str) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd") if format == "parquet" else pc.write_csv(table, sink)
    if sink.tell() > _MAX_BYTES:
        raise TooLarge(f"the answer is larger than {_MAX_BYTES >> 20} MiB; ask for less of it")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _plain(value: Any) -> Any:
    """A value as JSON has it; moments as RFC 3339."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _list(texts: Sequence[str]) -> str:
    return "[" + ", ".join(_text(text) for text in texts) + "]"


def _text(value: str) -> str:
    """A literal."""
    return "'" + value.replace("'", "''") + "'"
