"""Signatures: names, datatypes and shapes of a version's inputs and outputs, inferred from a sample and enforced.

Datatypes are those of the Open Inference Protocol. A model over a table has one input per column, each of shape ``[-1]`` (rows);
a model over a matrix has one input of shape ``[-1, n]``. A BYTES input may list its ``levels``: then it is categorical.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from predis.errors import InvalidInput

NUMPY_OF = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "INT8": np.int8,
    "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
    "BYTES": np.object_,
}  # fmt: skip
MAX_LEVELS = 10_000


@dataclass(frozen=True)
class Field:
    """One input or output tensor. ``shape`` starts with -1, the rows; ``levels`` makes a BYTES input categorical."""

    name: str
    datatype: str
    shape: tuple[int, ...] = (-1,)
    nullable: bool = False
    levels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > 200:
            raise InvalidInput(f"a tensor's name has 1 to 200 characters, got {self.name!r}")
        if self.datatype not in NUMPY_OF:
            raise InvalidInput(f"{self.name}: datatype {self.datatype!r} is none of {', '.join(NUMPY_OF)}")
        if (
            not self.shape
            or self.shape[0] != -1
            or any(not 0 < d <= 1_000_000 for d in self.shape[1:])
            or len(self.shape) > 8
        ):
            raise InvalidInput(
                f"{self.name}: a shape is [-1, d1, ...] with -1 for the rows, got {list(self.shape)}"
            )
        if self.levels and self.datatype != "BYTES":
            raise InvalidInput(f"{self.name}: levels are for BYTES inputs, not {self.datatype}")

    @property
    def width(self) -> int:
        """Values per row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) if len(self.shape) > 1 else 1

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}
        if self.nullable:
            found["nullable"] = True
        if self.levels:
            found["levels"] = list(self.levels)
        return found

    @classmethod
    def from_dict(cls, document: Any) -> Field:
        if not isinstance(document, Mapping) or not isinstance(document.get("name"), str):
            raise InvalidInput("each tensor of a signature is an object with at least a name and a datatype")
        shape, levels = document.get("shape", [-1]), document.get("levels", [])
        if not isinstance(shape, list) or not all(type(d) is int for d in shape):
            raise InvalidInput(f"{document['name']}: shape must be a list of whole numbers")
        if not isinstance(levels, list) or not all(isinstance(level, str) for level in levels):
            raise InvalidInput(f"{document['name']}: levels must be a list of texts")
        return cls(
            document["name"],
            str(document.get("datatype")),
            tuple(shape),
            bool(document.get("nullable", False)),
            tuple(levels),
        )


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a version, in the model's own order.

    ``score`` names the output that monitors watch; of an output of shape [-1, 2] (class probabilities) it is column 1.
    """

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    score: str

    def __post_init__(self) -> None:
        for side, fields in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [field.name for field in fields]
            if not names or len(set(names)) != len(names):
                raise InvalidInput(
                    f"a signature's {side} are one or more tensors with different names, got {names}"
                )
        if self.score not in {field.name for field in self.outputs}:
            raise InvalidInput(f"score must name an output, got {self.score!r}")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name per column of the feature matrix; of a wider tensor ``name[0]``, ``name[1]``, ..."""
        names: list[str] = []
        for field in self.inputs:
            names += [field.name] if field.width == 1 else [f"{field.name}[{i}]" for i in range(field.width)]
        return tuple(names)

    @property
    def levels(self) -> dict[str, tuple[str, ...]]:
        return {field.name: field.levels for field in self.inputs if field.levels}

    def to_dict(self) -> dict[str, Any]:
        return {
            "inputs": [field.to_dict() for field in self.inputs],
            "outputs": [field.to_dict() for field in self.outputs],
            "score": self.score,
        }

    @classmethod
    def from_dict(cls, document: Any) -> Signature:
        """A signature from its JSON form.

        Raises:
            InvalidInput: something is missing or of the wrong kind; the message names it.
        """
        if not isinstance(document, Mapping):
            raise InvalidInput("a signature is an object with inputs and outputs")
        sides = []
        for side in ("inputs", "outputs"):
            found = document.get(side)
            if not isinstance(found, list) or not found:
                raise InvalidInput(f"a signature needs a list of {side}")
            sides.append(tuple(Field.from_dict(item) for item in found))
        return cls(sides[0], sides[1], str(document.get("score") or sides[1][0].name))


PROBABILITY = Field("probability", "FP64")


def infer_inputs(sample: pa.Table, *, names: tuple[str, ...] | None = None) -> tuple[Field, ...]:
    """Input fields from a sample of a model's input table: one per column, levels from the texts seen.

    A column with a null in the sample is nullable. Whole-number columns become INT64, other numbers FP64.

    Raises:
        InvalidInput: a column is of a type no model takes, or has more than ``MAX_LEVELS`` texts.
    """
    fields = []
    for name in names or tuple(sample.column_names):
        if name not in sample.column_names:
            raise InvalidInput(f"the sample has no column {name!r}; it has {', '.join(sample.column_names)}")
        column = sample.column(name)
        nullable = column.null_count > 0 or _has_nan(column)
        kind = column.type
        if pa.types.is_dictionary(kind):
            column, kind = column.cast(kind.value_type), kind.value_type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            levels = tuple(sorted(str(v) for v in column.unique().to_pylist() if v is not None))
            if len(levels) > MAX_LEVELS:
                raise InvalidInput(
                    f"column {name!r} has {len(levels)} different texts; at most {MAX_LEVELS} can be levels"
                )
            fields.append(Field(name, "BYTES", nullable=nullable, levels=levels))
        elif pa.types.is_boolean(kind):
            fields.append(Field(name, "BOOL", nullable=nullable))
        elif pa.types.is_integer(kind):
            fields.append(Field(name, "INT64", nullable=nullable))
        elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            fields.append(Field(name, "FP64", nullable=nullable))
        else:
            raise InvalidInput(f"column {name!r} is of type {kind}, which no tensor carries")
    return tuple(fields)


def encode_table(table: pa.Table, inputs: tuple[Field, ...]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The feature matrix [rows, columns] of a table: codes for levels (-1 unseen, NaN missing), numbers as they are.

    Raises:
        InvalidInput: a column is missing or cannot be read as its field says.
    """
    columns = []
    for field in inputs:
        if field.name not in table.column_names:
            raise InvalidInput(f"the table has no column {field.name!r}")
        column = table.column(field.name)
        try:
            if field.levels:
                columns.append(encode_levels(column, field.levels))
            else:
                columns.append(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InvalidInput(
                f"column {field.name!r} cannot be read as {field.datatype}: {error}"
            ) from error
    return np.ascontiguousarray(np.column_stack(columns), dtype=np.float64)


def encode_levels(column: pa.ChunkedArray, levels: tuple[str, ...]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Codes of texts: the position in ``levels``, -1 for others, NaN for nulls."""
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    texts = column.cast(pa.string())
    codes = (
        pc.index_in(texts, value_set=pa.array(levels, pa.string()))
        .to_numpy(zero_copy_only=False)
        .astype(np.float64)
    )
    codes = np.where(np.isnan(codes), -1.0, codes)
    codes[texts.is_null().to_numpy(zero_copy_only=False).astype(bool)] = np.nan
    return codes


def _has_nan(column: pa.ChunkedArray) -> bool:
    import pyarrow.compute as pc

    return pa.types.is_floating(column.type) and bool(pc.any(pc.is_nan(column)).as_py())
