"""CSV files as a source of rows. They have no types: inputs get those of the signature, and columns that are only passed through are whole
numbers where every value is written as one, else texts. An empty value without quotes is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from predis.errors import InvalidInput
from predis.registry.columns import type_of
from predis.registry.signature import Field

_BLOCK_BYTES = 1 << 20
_CONVERSION = re.compile(
    r"In CSV column #(\d+): Row #(\d+): CSV conversion error to (\S+): invalid value '(.*)'", re.DOTALL
)


def columns(files: Any, path: str) -> list[str]:
    """Names of the columns, from the first line."""
    with _opened(files, path, types={}, only=None) as reader:
        return list(reader.schema.names)


def survey(
    files: Any, path: str, *, wanted: Sequence[str], inputs: Mapping[str, Field]
) -> tuple[tuple[int, ...], pa.Schema]:
    """The number of rows as the only group, and the types of the columns wanted. Reads the file once: there is no other way to know."""
    types = {name: _type(field) for name, field in inputs.items()}
    others = [name for name in wanted if name not in types]
    whole = set(others)
    rows = 0
    with _opened(
        files, path, types=dict.fromkeys(others or wanted[:1], pa.string()), only=others or wanted[:1]
    ) as reader:
        for batch in reader:
            rows += batch.num_rows
            whole = {name for name in whole if _holds_whole_numbers(batch.column(name))}
    types |= {name: pa.int64() if name in whole and rows else pa.string() for name in others}
    return (rows,), pa.schema([(name, types[name]) for name in wanted])


def read(files: Any, path: str, *, groups: Sequence[int], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """All rows, in the types of the schema; ``groups`` is the only one there is."""
    types = dict(zip(schema.names, schema.types, strict=True))
    try:
        with _opened(files, path, types=types, only=schema.names) as reader:
            yield from reader
    except pa.ArrowInvalid as error:
        raise _explained(error, columns(files, path)) or error from None


def _explained(error: pa.ArrowInvalid, names: Sequence[str]) -> InvalidInput | None:
    """A value that cannot be converted, said with the column's name, and the row counted without the first line."""
    found = _CONVERSION.search(str(error))
    if found is None:
        return None
    column, row, kind, value = found.groups()
    return InvalidInput(
        f"row {int(row) - 1:,}: column {names[int(column)]!r} cannot be read as {kind}: {value!r}"
    )


def _type(field: Field) -> pa.DataType:
    return pa.float64() if field.datatype.startswith("FP") else type_of(field)


def _holds_whole_numbers(column: pa.Array) -> bool:
    """Whether every text is a whole number, written so that it can be told from the number again: not 007."""
    try:
        return bool(pc.all(pc.equal(column.cast(pa.int64()).cast(pa.string()), column), min_count=0).as_py())
    except pa.ArrowInvalid:
        return False


@contextmanager
def _opened(
    files: Any, path: str, *, types: Mapping[str, pa.DataType], only: Sequence[str] | None
) -> Iterator[Any]:
    convert = pyarrow.csv.ConvertOptions(
        column_types=types, include_columns=only, strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    options = pyarrow.csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES)
    with files.open(path, "rb", compression="infer") as raw:
        yield pyarrow.csv.open_csv(raw, options, pyarrow.csv.ParseOptions(newlines_in_values=True), convert)
