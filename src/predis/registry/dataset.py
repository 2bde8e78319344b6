"""Data sets: Parquet files that are read in pieces, however many rows they have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from predis.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

BATCH_ROWS = 65_536
_BATCH_BYTES = 32 << 20
_BUFFER_BYTES = 1 << 20  # of each column; without it a column of a whole row group is read at once
_PROBED_ROWS = 64
_DISTINCT = 100_000  # values of a column that are told apart


class DataSet:
    """A Parquet file, read in the order of its rows, in constant memory, as often as is needed.

    Args:
        source: where it lies, or what it is read from.
        what: what errors call it.

    Raises:
        InvalidInput: it is no Parquet file, or has no rows.
    """

    def __init__(self, source: Path | pa.NativeFile, what: str) -> None:
        self.what = what
        with parquet_errors(self.what):
            self._file = pq.ParquetFile(source, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        self.rows: int = self._file.metadata.num_rows
        if self.rows == 0:
            raise InvalidInput(f"the {what} has no rows")
        names = self._file.schema_arrow.names
        if len(set(names)) < len(names):
            raise InvalidInput(f"the {what} is not a Parquet file of a table: two columns have the same name")
        with parquet_errors(self.what):
            probed = next(self._file.iter_batches(_PROBED_ROWS))
        self._row_bytes = max(1, probed.nbytes // max(1, probed.num_rows))

    def batches(self) -> Iterator[pa.Table]:
        """Tables of at most BATCH_ROWS rows, fewer where rows are long.

        Raises:
            InvalidInput: the file is damaged.
        """
        size, read = min(BATCH_ROWS, max(1, _BATCH_BYTES // self._row_bytes)), 0
        with parquet_errors(self.what):
            for batch in self._file.iter_batches(size):
                read += batch.num_rows
                yield pa.Table.from_batches([batch])
        if read != self.rows:
            raise InvalidInput(f"the {self.what} is damaged: it has {read} rows and says {self.rows}")

    def distinct(self, name: str) -> pa.ChunkedArray | None:
        """The distinct values of a column, of very many not all; None where there is no column of that name.

        Raises:
            InvalidInput: it holds lists, or the file is damaged.
        """
        if name not in self._file.schema_arrow.names:
            return None
        found: list[pa.Array] = []
        with parquet_errors(self.what):
            for batch in self._file.iter_batches(BATCH_ROWS, columns=[name]):
                column = batch.column(name)
                if pa.types.is_nested(column.type):
                    raise InvalidInput(
                        f"column {name!r} of the {self.what} must hold one value in each row, not {column.type}"
                    )
                if pa.types.is_dictionary(column.type):
                    column = column.cast(column.type.value_type)
                found = [pa.concat_arrays([*found, column.unique()]).unique()]
                if len(found[0]) > _DISTINCT:
                    break
        return pa.chunked_array(found)

    def spread(self, most: int, *, most_bytes: int) -> Spread:
        """Which rows a sample of at most ``most`` rows takes; fewer where rows are long."""
        return Spread(self.rows, min(most, max(1, most_bytes // self._row_bytes)))

    def close(self) -> None:
        self._file.close(force=True)

    def __enter__(self) -> DataSet:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class Spread:
    """An evenly spread sample of a table that comes in batches: time order and seasons stay represented."""

    def __init__(self, rows: int, most: int) -> None:
        self._places = np.linspace(0, rows - 1, min(rows, most)).astype(np.int64)
        self._seen = 0
        self._taken: list[pa.Table] = []

    def add(self, batch: pa.Table) -> None:
        """The next rows."""
        first, last = np.searchsorted(self._places, (self._seen, self._seen + batch.num_rows))
        self._taken.append(batch.take(self._places[first:last] - self._seen))
        self._seen += batch.num_rows

    def sample(self) -> pa.Table:
        return pa.concat_tables(self._taken)


@contextmanager
def parquet_errors(what: str) -> Iterator[None]:
    """
    Raises:
        InvalidInput: Arrow cannot read what it should.
    """
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidInput(f"the {what} is not a Parquet file: {error}") from error
