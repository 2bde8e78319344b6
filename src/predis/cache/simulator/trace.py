"""Traces: who asked for what, in order, from a Parquet or CSV file.

A trace is held as arrays, 8 bytes a request and column for numbers, and handed out in blocks of Python values, so that no list of
all requests ever exists. Keys stay what they are in the file: a prefetcher may reckon with them, and numbering keys by first use
would tell it the future (the key after the largest is always the next new one).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from predis.cache.simulator.setup import Key
from predis.errors import InvalidInput

BLOCK = 65_536
_CLOCK_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_COLUMNS = ("key", "ts", "size", "client")


@dataclass(frozen=True)
class Block:
    """Consecutive requests, as Python values."""

    keys: list[Key]
    sizes: list[int] | Iterator[int]
    clients: list[int] | Iterator[int]
    ts: list[float] | Iterator[float]


class Trace:
    """Requests in order.

    Args:
        keys: int64 or strings, without nulls.
        name: what to call it in reports.
        ts: seconds, where there is a clock; where it goes back it is held, and ``clock_back`` counts how often.
        sizes: bytes, at least 1.
        clients: numbers that tell who asked.

    Raises:
        InvalidInput: there is no request, or a column is not what it should be.
    """

    def __init__(
        self,
        keys: pa.Array,
        *,
        name: str = "trace",
        ts: NDArray[np.float64] | None = None,
        sizes: NDArray[np.int64] | None = None,
        clients: NDArray[np.int64] | None = None,
    ) -> None:
        if len(keys) == 0:
            raise InvalidInput(f"{name}: there is no request in it")
        self.name = name
        self.keys = keys
        self.sizes = sizes
        self.clients = clients
        self.clock_back = 0
        if ts is not None:
            self.clock_back = int((np.diff(ts) < 0).sum())
            ts = np.maximum.accumulate(ts)
        self.ts = ts

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def codes(self) -> NDArray[np.int64]:
        """Which key each request asks for, as dense numbers by first use. For counting and bounds only: they tell the future."""
        codes = self.keys.dictionary_encode().indices
        return np.asarray(codes, np.int64)

    @cached_property
    def distinct(self) -> int:
        """Distinct keys."""
        return int(self.codes.max()) + 1

    @cached_property
    def footprint(self) -> int:
        """Bytes of all distinct keys' values, each as large as when it was first asked for; their number where sizes are unknown."""
        if self.sizes is None:
            return self.distinct
        _, first = np.unique(self.codes, return_index=True)
        return int(self.sizes[first].sum())

    @cached_property
    def first_sizes(self) -> dict[Key, int]:
        """Bytes of each key's value when it was first asked for: what the backend would send for a prefetch."""
        assert self.sizes is not None
        _, first = np.unique(self.codes, return_index=True)
        keys = self.keys.take(pa.array(first)).to_pylist()
        return dict(zip(keys, self.sizes[first].tolist(), strict=True))

    def blocks(self, *, sizes: bool = False) -> Iterator[Block]:
        """All requests in order; sizes are 1 where they are not asked for, clients 0 and times NaN where the trace has none."""
        for start in range(0, len(self), BLOCK):
            part = slice(start, start + BLOCK)
            keys = self.keys.slice(start, BLOCK)
            yield Block(
                keys.to_numpy().tolist() if pa.types.is_integer(keys.type) else keys.to_pylist(),
                repeat(1) if not sizes or self.sizes is None else self.sizes[part].tolist(),
                repeat(0) if self.clients is None else self.clients[part].tolist(),
                repeat(np.nan) if self.ts is None else self.ts[part].tolist(),
            )


def read(path: Path, *, clock_unit: str = "s") -> Trace:
    """The trace in a file: ``key`` and, where it has them, ``ts``, ``size`` and ``client``; other columns are not looked at.

    Args:
        clock_unit: of a ``ts`` that is a number: s, ms, us or ns. A time or duration column has its own.

    Raises:
        InvalidInput: it cannot be read, a column is missing, of a wrong type or has missing values, or there is no row.
    """
    table = _table(path)
    if "key" not in table.column_names:
        raise InvalidInput(
            f"{path.name} has no column 'key'; it has {', '.join(table.column_names[:12]) or 'none'}. Name the column of keys 'key'."
        )
    columns = {name: _flat(table, name, path=path) for name in _COLUMNS if name in table.column_names}
    sizes = _numbers(columns, "size", path=path)
    if sizes is not None:
        sizes = np.maximum(sizes, 1)  # an empty value still takes a place
    return Trace(
        _keys(columns["key"], path=path),
        name=path.name.split(".")[0],
        ts=_seconds(columns.get("ts"), clock_unit, path=path),
        sizes=sizes,
        clients=_clients(columns.get("client"), path=path),
    )


def _table(path: Path) -> pa.Table:
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if path.suffix.lower() in (".csv", ".gz"):
            return pyarrow.csv.read_csv(path)
        names = [name for name in pyarrow.parquet.read_schema(path).names if name in _COLUMNS]
        return pyarrow.parquet.read_table(path, columns=names or None)
    except FileNotFoundError:
        raise InvalidInput(f"there is no file {path}") from None
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(f"{path.name} cannot be read as a trace, Parquet or CSV: {error}") from None


def _flat(table: pa.Table, name: str, *, path: Path) -> pa.Array:
    column = table[name]
    if name == "key" and pa.types.is_string(column.type):
        column = column.cast(pa.large_string())  # more than 2 GiB fit into one array
    column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # without a row
        column = pa.array([], column.type)
    if column.null_count:
        at = int(pc.index(pc.is_null(column), True).as_py())
        raise InvalidInput(
            f"{path.name}: column {name!r} has {column.null_count} missing values, the first in row {at}"
        )
    return column


def _keys(column: pa.Array, *, path: Path) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_integer(column.type):
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            raise InvalidInput(f"{path.name}: keys must fit into 64 bits with a sign") from None
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column
    if len(column) == 0:
        return column
    raise InvalidInput(
        f"{path.name}: column 'key' holds {column.type}; keys are whole numbers or strings. Cast it first."
    )


def _numbers(columns: dict[str, pa.Array], name: str, *, path: Path) -> NDArray[np.int64] | None:
    column = columns.get(name)
    if column is None:
        return None
    if not pa.types.is_integer(column.type) and len(column):
        raise InvalidInput(f"{path.name}: column {name!r} holds {column.type}; it must be whole numbers")
    values: NDArray[np.int64] = np.asarray(column.cast(pa.int64()), np.int64)
    if len(values) and values.min() < 0:
        at = int(np.argmax(values < 0))
        raise InvalidInput(
            f"{path.name}: column {name!r} has {values[at]} in row {at}; it must not be negative"
        )
    return values


def _clients(column: pa.Array | None, *, path: Path) -> NDArray[np.int64] | None:
    """Clients as numbers; anything that can be told apart will do."""
    if column is None:
        return None
    if pa.types.is_integer(column.type):
        return np.asarray(column.cast(pa.int64()), np.int64)
    if pa.types.is_dictionary(column.type):
        return np.asarray(column.indices, np.int64)
    if pa.types.is_nested(column.type):
        raise InvalidInput(f"{path.name}: column 'client' holds {column.type}; it must be numbers or strings")
    return np.asarray(column.dictionary_encode().indices, np.int64)


def _seconds(column: pa.Array | None, unit: str, *, path: Path) -> NDArray[np.float64] | None:
    if column is None:
        return None
    if unit not in _CLOCK_UNITS:
        raise InvalidInput(f"a clock's unit is one of {', '.join(_CLOCK_UNITS)}, got {unit!r}")
    scale = _CLOCK_UNITS[unit]
    if pa.types.is_timestamp(column.type) or pa.types.is_duration(column.type):
        scale = _CLOCK_UNITS[column.type.unit]
        column = column.cast(pa.int64())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)) and len(column):
        raise InvalidInput(f"{path.name}: column 'ts' holds {column.type}; it must be numbers or times")
    values: NDArray[Any] = np.asarray(column)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InvalidInput(f"{path.name}: column 'ts' has values that are no finite numbers")
    if len(values):
        values = values - values[0]  # small numbers keep their milliseconds
    return values.astype(np.float64) * scale
