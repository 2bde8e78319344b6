"""Parquet files as a source of rows, in constant memory however large their row groups are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from predis.registry.signature import Field

_BATCH_ROWS = 4_096
_BUFFER_BYTES = 1 << 20  # read a column in such pieces, not whole


def columns(files: Any, path: str) -> list[str]:
    """Names of the columns."""
    with _opened(files, path) as file:
        return list(file.schema_arrow.names)


def survey(
    files: Any, path: str, *, wanted: Sequence[str], inputs: Mapping[str, Field]
) -> tuple[tuple[int, ...], pa.Schema]:
    """Rows of each row group, and the types of the columns wanted. ``inputs`` do not matter: the file knows its types."""
    with _opened(files, path) as file:
        groups = tuple(
            file.metadata.row_group(place).num_rows for place in range(file.metadata.num_row_groups)
        )
        found = file.schema_arrow
        return groups, pa.schema([(name, _plain(found.field(name).type)) for name in wanted])


def read(files: Any, path: str, *, groups: Sequence[int], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of some row groups."""
    with _opened(files, path) as file:
        yield from file.iter_batches(
            _BATCH_ROWS, row_groups=list(groups), columns=schema.names, use_threads=False
        )


def _plain(kind: pa.DataType) -> pa.DataType:
    """A dictionary's values may be other ones in each file; as plain values they are the same."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


@contextmanager
def _opened(files: Any, path: str) -> Iterator[Any]:
    with (
        files.open(path, "rb") as raw,
        pq.ParquetFile(raw, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file,
    ):
        yield file
