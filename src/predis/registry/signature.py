"""Signatures: names, datatypes and shapes of a version's inputs and outputs.

Datatypes are those of the Open Inference Protocol. A model over a table has one input per column, each of shape ``[-1]`` (rows);
a model over a matrix has one input of shape ``[-1, n]``. A BYTES input may list its ``levels``: then it is categorical.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from predis.errors import InvalidInput

NUMPY_OF = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "INT8": np.int8,
    "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
    "BYTES": np.object_,
}  # fmt: skip


Task = Literal["binary", "regression", "multiclass"]
TASKS: tuple[Task, ...] = ("binary", "regression", "multiclass")


@dataclass(frozen=True)
class Field:
    """One input or output tensor. ``shape`` starts with -1, the rows; ``levels`` makes a BYTES input categorical; ``raw`` hands its
    values to the model as bytes (an image, a sound) instead of text.
    """

    name: str
    datatype: str
    shape: tuple[int, ...] = (-1,)
    nullable: bool = False
    levels: tuple[str, ...] = ()
    raw: bool = False

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
        if len(set(self.levels)) != len(self.levels):
            twice = next(level for level in self.levels if self.levels.count(level) > 1)
            raise InvalidInput(f"{self.name}: level {twice!r:.80} stands twice; a text has one code")
        if self.raw and (self.datatype != "BYTES" or self.levels):
            raise InvalidInput(f"{self.name}: raw is for BYTES tensors without levels")

    @property
    def width(self) -> int:
        """Values per row."""
        return math.prod(self.shape[1:])

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}
        if self.nullable:
            found["nullable"] = True
        if self.levels:
            found["levels"] = list(self.levels)
        if self.raw:
            found["raw"] = True
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
            bool(document.get("raw", False)),
        )


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a version, in the model's own order.

    ``score`` names the output that monitors watch; of an output of shape [-1, 2] (class probabilities) it is column 1, of a wider one the
    column that is largest and how large it is (``stats.top_scores``), unless the task is regression: then it is column 0.
    ``task`` says what labels are: binary (0 and 1), regression (numbers) or multiclass (one of ``classes``, or its number). Where it is not
    said (None), registration tells it from the reference and the holdout.
    """

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    score: str
    task: Task | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.task not in (None, *TASKS):
            raise InvalidInput(f"a task is one of {', '.join(TASKS)}, got {self.task!r:.80}")
        for side, fields in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [field.name for field in fields]
            if not names or len(set(names)) != len(names):
                raise InvalidInput(
                    f"a signature's {side} are one or more tensors with different names, got {names}"
                )
        if self.score not in {field.name for field in self.outputs}:
            raise InvalidInput(f"score must name an output, got {self.score!r}")

    @property
    def watches_classes(self) -> bool:
        """Whether the watched score is the class that was chosen, and how sure the model was."""
        width = next(field.width for field in self.outputs if field.name == self.score)
        return self.task == "multiclass" or (self.task is None and width > 2)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name per column of the feature matrix; of a wider tensor ``name[0]``, ``name[1]``, ..."""
        return tuple(name for field in self.inputs for name in _column_names(field))

    @property
    def levels(self) -> dict[str, tuple[str, ...]]:
        """The levels of each column of texts, by its name; free texts have none."""
        return {
            name: field.levels
            for field in self.inputs
            if field.datatype == "BYTES"
            for name in _column_names(field)
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            "inputs": [field.to_dict() for field in self.inputs],
            "outputs": [field.to_dict() for field in self.outputs],
            "score": self.score,
            **({"task": self.task} if self.task else {}),
            **({"classes": list(self.classes)} if self.classes else {}),
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
        classes = document.get("classes", [])
        if not isinstance(classes, list) or not all(isinstance(each, str) for each in classes):
            raise InvalidInput("a signature's classes are a list of texts")
        score = str(document.get("score") or sides[1][0].name)
        return cls(sides[0], sides[1], score, document.get("task"), tuple(classes))


def _column_names(field: Field) -> list[str]:
    return [field.name] if field.width == 1 else [f"{field.name}[{at}]" for at in range(field.width)]


PROBABILITY = Field("probability", "FP64")
