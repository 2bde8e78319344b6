"""Tables in, tables out: what scoring a data set needs around a runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from predis.errors import InvalidInput
from predis.registry.columns import cast, encode_table, numpy_of, type_of, values_of
from predis.registry.signature import Field, Signature
from predis.serving.inputs import Inputs, Takes, Unseen, tensor_dtype

if TYPE_CHECKING:
    from predis.state.records import Matrix


def inputs_of(table: pa.Table, signature: Signature, *, takes: Takes, strict: bool = True) -> Inputs:
    """A table's rows as a runtime takes them.

    A wide input is a column of lists, or one column per place in it (``x[0]``, ``x[1]``, ...). In tensors no matrix goes along: nothing
    watches a data set that is scored.

    Args:
        strict: refuse nulls where the signature allows none, as serving does; or leave it to the model what it makes of them.

    Raises:
        InvalidInput: a column is missing, or cannot be read as its field says.
    """
    rows = table.num_rows
    if strict:
        _check_nulls(table, signature)
    if takes == "matrix":
        features = encode_table(table, signature.inputs)
        return Inputs(rows, features, _unseen(table, signature, features=features))
    tensors = {field.name: _tensor(values_of(table, field), field, rows=rows) for field in signature.inputs}
    return Inputs(rows, np.empty((rows, 0)), {}, tensors)


def outputs_table(signature: Signature, outputs: Sequence[NDArray[Any]]) -> pa.Table:
    """Outputs as a table: one column each; those of several values a row as lists of a fixed size."""
    columns = []
    for field, output in zip(signature.outputs, outputs, strict=True):
        column = pa.array(np.ascontiguousarray(output.reshape(-1)), type_of(field), from_pandas=False)
        for length in reversed(field.shape[1:]):
            column = pa.FixedSizeListArray.from_arrays(column, length)
        columns.append(column)
    return pa.table(columns, names=[field.name for field in signature.outputs])


def _check_nulls(table: pa.Table, signature: Signature) -> None:
    for field in signature.inputs:
        if not field.nullable and values_of(table, field).null_count:
            raise InvalidInput(f"column {field.name!r} holds a null, which the signature does not allow")


def _tensor(values: pa.Array, field: Field, *, rows: int) -> NDArray[Any]:
    """One input's tensor: texts as ``str``, raw ones as ``bytes``, None where missing; of numbers NaN."""
    what, dtype = f"column {field.name!r}", tensor_dtype(field)
    if field.datatype == "BYTES":
        found = np.empty(len(values), np.object_)
        found[:] = cast(values, type_of(field), what=what).to_pylist()
    else:
        # Arrow has no way from other numbers to halves; numpy has.
        wider = np.dtype(np.float32) if dtype == np.float16 else dtype
        found = numpy_of(cast(values, pa.from_numpy_dtype(wider), what=what), what=what).astype(
            dtype, copy=False
        )
    return found.reshape(rows, *field.shape[1:])


def _unseen(table: pa.Table, signature: Signature, *, features: Matrix) -> Unseen:
    """The texts that are no level."""
    unseen: Unseen = {}
    at = 0
    for field in signature.inputs:
        if field.datatype == "BYTES":
            block = features[:, at : at + field.width]
            places = np.argwhere(block < 0)
            texts = (
                cast(values_of(table, field), pa.string(), what=f"column {field.name!r}")
                if len(places)
                else []
            )
            unseen |= {
                (int(row), at + int(column)): str(texts[int(row) * field.width + int(column)])
                for row, column in places
            }
        at += field.width
    return unseen
