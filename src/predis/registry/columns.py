"""From a table's columns to input fields, and to the feature matrix that monitors know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from predis.errors import InvalidInput
from predis.registry.signature import Field

if TYPE_CHECKING:
    from predis.state.records import Matrix

MAX_LEVELS = 10_000
_TYPES = {
    "BOOL": pa.bool_(), "UINT8": pa.uint8(), "UINT16": pa.uint16(), "UINT32": pa.uint32(), "UINT64": pa.uint64(), "INT8": pa.int8(),
    "INT16": pa.int16(), "INT32": pa.int32(), "INT64": pa.int64(), "FP16": pa.float16(), "FP32": pa.float32(), "FP64": pa.float64(),
    "BYTES": pa.string(),
}  # fmt: skip


def type_of(field: Field) -> pa.DataType:
    """The Arrow type of a field's values."""
    return pa.binary() if field.raw else _TYPES[field.datatype]


def infer_inputs(sample: pa.Table, *, names: tuple[str, ...] | None = None) -> tuple[Field, ...]:
    """Input fields from a sample of a model's input table: one per column, levels from the texts seen.

    A column with a null in the sample is nullable. Whole-number columns become INT64, other numbers FP64, lists of one length a wide
    input, texts of more than ``MAX_LEVELS`` kinds free texts.

    Raises:
        InvalidInput: a column is of a type no model takes, or not there.
    """
    inference = Inference(names)
    inference.add(sample)
    return inference.fields()


class Inference:
    """``infer_inputs`` of a table that comes in batches: what one of them shows holds for all.

    Args:
        names: the columns; all of the first batch's where none are named.
    """

    def __init__(self, names: tuple[str, ...] | None = None) -> None:
        self._names = names
        self._columns: dict[str, _Column] = {}

    def add(self, batch: pa.Table) -> None:
        """
        Raises:
            InvalidInput: a column is of a type no model takes, or not there.
        """
        for name in self._names or tuple(batch.column_names):
            if name not in batch.column_names:
                raise InvalidInput(
                    f"the sample has no column {name!r}; it has {', '.join(batch.column_names)}"
                )
            values, shape = _unlisted(name, batch.column(name).combine_chunks())
            self._columns.setdefault(name, _Column(name, shape)).add(values, shape=shape)

    def fields(self) -> tuple[Field, ...]:
        return tuple(column.field() for column in self._columns.values())


class _Column:
    """What batches have shown of one column."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self._name, self._shape = name, shape
        self._datatype = ""
        self._nullable = False
        self._levels: set[str] = set()

    def add(self, values: pa.Array, *, shape: tuple[int, ...]) -> None:
        if shape != self._shape:
            raise _ragged(self._name)
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        self._datatype = _datatype(self._name, values.type)
        self._nullable = self._nullable or values.null_count > 0 or _has_nan(values)
        if self._datatype == "BYTES" and len(self._levels) <= MAX_LEVELS:
            self._levels.update(str(text) for text in values.unique().to_pylist() if text is not None)

    def field(self) -> Field:
        levels = tuple(sorted(self._levels)) if len(self._levels) <= MAX_LEVELS else ()
        return Field(self._name, self._datatype, self._shape, self._nullable, levels)


def encode_table(table: pa.Table, inputs: tuple[Field, ...], *, exact: bool = True) -> Matrix:
    """The feature matrix [rows, columns] of a table: codes for levels (-1 unseen, NaN missing), numbers as they are.

    Args:
        exact: refuse whole numbers that a float64 would round. Not for monitors, to which the nearest is as good.

    Raises:
        InvalidInput: a column is missing or cannot be read as its field says.
    """
    matrix = np.empty((table.num_rows, sum(field.width for field in inputs)))
    at = 0
    for field in inputs:
        what, values = f"column {field.name!r}", values_of(table, field)
        if field.datatype == "BYTES":
            found = _codes(cast(values, pa.string(), what=what), field.levels)
        else:
            found = numpy_of(cast(values, pa.float64(), what=what, exact=exact), what=what)
        matrix[:, at : at + field.width] = found.reshape(table.num_rows, field.width)
        at += field.width
    return matrix


def values_of(table: pa.Table, field: Field) -> pa.Array:
    """An input's values, ``field.width`` per row: of a column of that name; a wide input's is of lists, or there is one per place in it.

    Raises:
        InvalidInput: there is no such column, or its lists have another length.
    """
    if field.name in table.column_names:
        values = table.column(field.name).combine_chunks()
        for length in _lengths(values.type, field):
            values = _opened(values, length)
        if len(values) != table.num_rows * field.width:
            raise InvalidInput(f"column {field.name!r} must hold {field.width} values in each row")
        return values
    parts = [f"{field.name}[{at}]" for at in range(field.width)]
    if field.width == 1 or not set(parts) <= set(table.column_names):
        raise InvalidInput(f"the table has no column {field.name!r}")
    rows = pa.table([table.column(part) for part in parts], names=parts)
    order = np.arange(table.num_rows * field.width).reshape(field.width, table.num_rows).T.reshape(-1)
    return (
        pa.chunked_array([chunk for column in rows.columns for chunk in column.chunks])
        .take(pa.array(order))
        .combine_chunks()
    )


def cast(values: pa.Array, kind: pa.DataType, *, what: str, exact: bool = True) -> pa.Array:
    """Values of another type, none of them changed by it (or, not ``exact``, by no more than rounding).

    Raises:
        InvalidInput: one of them would be.
    """
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    try:
        return values.cast(kind, safe=exact)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidInput(f"{what} cannot be read as {kind}: {error}") from error


def numpy_of(values: pa.Array, *, what: str = "the column") -> NDArray[Any]:
    """Numbers as numpy has them, NaN for nulls.

    By way of their bytes: ``to_numpy`` imports pandas where it is installed, which takes longer than reading most data sets.

    Raises:
        InvalidInput: there is a null among whole numbers or truth values, which have no NaN.
    """
    if values.null_count:
        if not pa.types.is_floating(values.type):
            raise InvalidInput(f"{what} holds a null, which {values.type} cannot")
        values = pc.fill_null(values, np.nan)
    if pa.types.is_boolean(values.type):
        return numpy_of(values.cast(pa.uint8())).astype(np.bool_)
    dtype = np.dtype(values.type.to_pandas_dtype())
    return np.frombuffer(values.buffers()[1] or b"", dtype, len(values), values.offset * dtype.itemsize)


def _codes(texts: pa.Array, levels: Sequence[str]) -> Matrix:
    """The position of each text in ``levels``, -1 for others, NaN for nulls."""
    codes = pc.fill_null(pc.index_in(texts, value_set=pa.array(levels, pa.string())), -1).cast(pa.float64())
    return numpy_of(pc.if_else(texts.is_valid(), codes, pa.scalar(np.nan)))


def _datatype(name: str, kind: pa.DataType) -> str:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "BYTES"
    if pa.types.is_boolean(kind):
        return "BOOL"
    if pa.types.is_integer(kind):
        return "INT64"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "FP64"
    raise InvalidInput(f"column {name!r} is of type {kind}, which no tensor carries")


def _unlisted(name: str, column: pa.Array) -> tuple[pa.Array, tuple[int, ...]]:
    """A column without its lists, and the shape that they give it."""
    shape = [-1]
    while _is_list(column.type):
        lengths = pc.list_value_length(column).unique().to_pylist()
        if len(lengths) != 1 or not lengths[0]:
            raise _ragged(name)
        shape.append(lengths[0])
        column = column.flatten()
    return column, tuple(shape)


def _ragged(name: str) -> InvalidInput:
    return InvalidInput(f"column {name!r} holds lists of different lengths; a tensor has one shape")


def _lengths(kind: pa.DataType, field: Field) -> tuple[int, ...]:
    """How long the lists of a column must be, from the outside in: as the field's shape says, or all values of a row in one."""
    depth = 0
    while _is_list(kind):
        kind, depth = kind.value_type, depth + 1
    inner = field.shape[1:]
    return inner if depth == len(inner) or not inner else (field.width,)[:depth]


def _opened(values: pa.Array, length: int) -> pa.Array:
    """The lists' values, if each list is that long; else too few or too many, for the caller to see."""
    found = values.flatten()
    wanted = pa.scalar(length, pc.list_value_length(values).type)
    return (
        found
        if pc.all(pc.equal(pc.list_value_length(values), wanted)).as_py() is not False
        else found.slice(0, 0)
    )


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _has_nan(column: pa.Array) -> bool:
    return pa.types.is_floating(column.type) and bool(pc.any(pc.is_nan(column)).as_py())
