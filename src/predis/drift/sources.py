"""Tables of any kind, read one column at a time, so that memory holds a column and not a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from predis.errors import InvalidInput

_CSV = (".csv", ".tsv", ".txt", ".csv.gz")


class Source(Protocol):
    """A table whose columns can be had one by one."""

    @property
    def rows(self) -> int: ...

    @property
    def types(self) -> Mapping[str, pa.DataType]: ...

    def column(self, name: str) -> pa.Array:
        """One column, in the source's order."""


class _Table:
    def __init__(self, table: pa.Table) -> None:
        _once(table.column_names)
        self._table = table
        self.rows = table.num_rows
        self.types = {field.name: field.type for field in table.schema}

    def column(self, name: str) -> pa.Array:
        return _joined(self._table.column(name))


class _ParquetFile:
    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path)
        schema = self._file.schema_arrow
        _once(schema.names)
        self.rows = self._file.metadata.num_rows
        self.types = {field.name: field.type for field in schema}

    def column(self, name: str) -> pa.Array:
        return _joined(self._file.read(columns=[name], use_threads=False).column(name))


class _Sorted:
    """A source whose rows are put in the order of one of its columns; rows without a time come last."""

    def __init__(self, source: Source, by: str) -> None:
        if by not in source.types:
            raise InvalidInput(f"there is no column {by!r} to order rows by; columns: {_some(source.types)}")
        self._source = source
        self._order = pc.sort_indices(source.column(by))
        self.rows = source.rows
        self.types = source.types

    def column(self, name: str) -> pa.Array:
        return self._source.column(name).take(self._order)


def source_of(data: Any, *, by_time: str | None = None) -> Source:
    """The source that `data` is.

    Raises:
        InvalidInput: it is none, cannot be read, has no rows, or has no column `by_time`.
    """
    source = _opened(data)
    if source.rows == 0 or not source.types:
        raise InvalidInput("a table without rows or columns cannot be compared")
    return source if by_time is None else _Sorted(source, by_time)


def _opened(data: Any) -> Source:
    if isinstance(data, str | Path):
        return _file(Path(data))
    try:
        return _Table(_arrow(data))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidInput(f"cannot read a {type(data).__name__} as a table: {error}") from error


def _file(path: Path) -> Source:
    name = path.name.lower()
    try:
        if name.endswith(_CSV):
            parse = pyarrow.csv.ParseOptions(delimiter="\t" if name.endswith(".tsv") else ",")
            return _Table(pyarrow.csv.read_csv(path, parse_options=parse))
        return _ParquetFile(path)
    except FileNotFoundError as error:
        raise InvalidInput(f"there is no file {path}") from error
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(f"{path} is neither a Parquet nor a CSV file that can be read: {error}") from error


def _arrow(data: Any) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if isinstance(data, np.ndarray):
        return _of_array(data)
    if isinstance(data, Mapping):
        return pa.table(dict(data))
    if type(data).__module__.split(".")[0] == "pandas":
        return pa.Table.from_pandas(data, preserve_index=False)
    return pa.table(data)  # whatever speaks Arrow's C interface: Polars, DuckDB, ...


def _of_array(array: np.ndarray[Any, Any]) -> pa.Table:
    if array.dtype.names:
        return pa.table({name: array[name] for name in array.dtype.names})
    if array.ndim != 2:
        raise InvalidInput(f"an array must have shape (rows, columns), got {array.shape}")
    return pa.table({f"f{at}": np.ascontiguousarray(array[:, at]) for at in range(array.shape[1])})


def _once(names: list[str]) -> None:
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InvalidInput(f"columns must have names of their own; twice: {', '.join(twice[:5])}")


def _joined(column: pa.ChunkedArray) -> pa.Array:
    joined = column.combine_chunks()
    return pa.concat_arrays(joined.chunks) if isinstance(joined, pa.ChunkedArray) else joined


def _some(names: Mapping[str, Any]) -> str:
    shown = ", ".join(list(names)[:8])
    return shown + (", ..." if len(names) > 8 else "")
