"""What a cache did, as a Parquet file that anyone can replay and judge.

One row an event, in the order in which they happened:

==========  =============  ===========================================================================================
column      type           meaning
==========  =============  ===========================================================================================
``i``       int64          index of the request
``op``      string         ``load``: the requested key is kept after a miss. ``prefetch``: asked for ahead of time at
                           ``i``, resident before request ``i + D + 1``. ``evict``: left
``key``     as the trace   which
==========  =============  ===========================================================================================

Rows of one request: what its miss evicts, its load, its prefetches, and then what the prefetches that arrive before the next
request evict. At no row are there more residents than the cache holds. A demand load cancels a prefetch under way.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet

from predis.cache.simulator.setup import Key
from predis.errors import InvalidInput

_ROWS = 262_144
_OPS = ("load", "prefetch", "evict")


class Events:
    """Writes the file, a row group at a time; a context manager.

    Args:
        keys: Arrow type of the trace's keys.

    Raises:
        InvalidInput: the file cannot be written.
    """

    def __init__(self, path: Path, keys: pa.DataType) -> None:
        op = pa.dictionary(pa.int8(), pa.string())
        self._schema = pa.schema([("i", pa.int64()), ("op", op), ("key", keys)])
        try:
            self._writer = pyarrow.parquet.ParquetWriter(path, self._schema, compression="zstd")
        except OSError as error:
            raise InvalidInput(f"{path} cannot be written: {error.strerror or error}") from None
        self._at: list[int] = []
        self._ops: list[int] = []
        self._keys: list[Key] = []

    def __enter__(self) -> Events:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._flush()
        self._writer.close()

    def load(self, i: int, key: Key) -> None:
        self._add(i, 0, key=key)

    def prefetch(self, i: int, key: Key) -> None:
        self._add(i, 1, key=key)

    def evict(self, i: int, key: Key) -> None:
        self._add(i, 2, key=key)

    def _add(self, i: int, op: int, *, key: Key) -> None:
        self._at.append(i)
        self._ops.append(op)
        self._keys.append(key)
        if len(self._at) >= _ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._at:
            ops = pa.DictionaryArray.from_arrays(pa.array(self._ops, pa.int8()), pa.array(_OPS))
            columns = [
                pa.array(self._at, pa.int64()),
                ops,
                pa.array(self._keys, self._schema.field("key").type),
            ]
            self._writer.write_table(pa.table(columns, schema=self._schema))
            self._at, self._ops, self._keys = [], [], []
