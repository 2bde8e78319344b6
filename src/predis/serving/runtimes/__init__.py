"""Runtimes: one file per model library, loaded late, chosen from this table by the version's format.

A runtime takes rows of input in the form it asks for (``takes``: a float64 matrix, or one tensor per input) and returns one array per
output of its signature. It may be called from several threads, never changes what it is given, and gives its memory back when closed.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from predis.errors import InvalidInput, ModelFailure
from predis.registry.signature import NUMPY_OF, Field, Signature
from predis.serving.inputs import Inputs, Takes

if TYPE_CHECKING:
    from predis.state.records import Matrix

_MODULES = {
    "catboost": "predis.serving.runtimes.catboost",
    "lightgbm": "predis.serving.runtimes.lightgbm",
    "onnx": "predis.serving.runtimes.onnx",
    "python": "predis.serving.runtimes.python",
    "sklearn": "predis.serving.runtimes.sklearn",
    "torch": "predis.serving.runtimes.torch",
    "xgboost": "predis.serving.runtimes.xgboost",
}
_TOLD = 400


class Runtime(Protocol):
    """A model in memory."""

    signature: Signature
    takes: Takes

    def predict(self, inputs: Inputs) -> Sequence[NDArray[Any]]:
        """Outputs in the signature's order, each with ``inputs.rows`` as its first dimension. Safe to call from several threads."""

    def close(self) -> None:
        """Give the memory back. No call may be running, and none may follow; closing again does nothing."""


def load(
    kind: str,
    contents: Mapping[str, bytes],
    *,
    signature: Signature | None = None,
    inputs: tuple[Field, ...] = (),
) -> Runtime:
    """A runtime from a version's files.

    Args:
        signature: the whole signature where it is known (loading a registered version).
        inputs: the inputs where only those are known (registering, with a reference data set).

    Raises:
        InvalidInput: unknown format, or the signature does not fit the model, or its score is no number.
        ModelFailure: the files are not such a model.
        Untrusted: the files name what a model's file must not.
        MissingExtra: the library is not installed.
    """
    if kind not in _MODULES:
        raise InvalidInput(f"there is no runtime for format {kind!r}; the formats are {', '.join(_MODULES)}")
    runtime: Runtime = import_module(_MODULES[kind]).load(contents, signature=signature, inputs=inputs)
    found = runtime.signature
    if next(f for f in found.outputs if f.name == found.score).datatype == "BYTES":
        runtime.close()
        raise InvalidInput(f"the score must be an output of numbers; {found.score!r} holds texts")
    return runtime


def run(runtime: Runtime, inputs: Inputs) -> Sequence[NDArray[Any]]:
    """Predict, with whatever the library raises translated; each output in its signature's datatype and shape.

    Raises:
        ModelFailure: the library failed on an input that fits the signature, or answered what its signature does not say.
    """
    try:
        outputs = runtime.predict(inputs)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a model may call exit, and a panic in Rust is no Exception either
        raise ModelFailure(f"the model failed: {told(error)}") from error
    fields, rows = runtime.signature.outputs, inputs.rows
    try:
        if len(outputs) != len(fields):
            raise ModelFailure(f"the model answered {len(outputs)} outputs, its signature has {len(fields)}")
        for output, field in zip(outputs, fields):  # noqa: B905, as many as was just checked, and this is the hot path
            if output.dtype.type is not NUMPY_OF[field.datatype] or output.shape != (rows, *field.shape[1:]):
                return [
                    _fitted(output, field, rows=rows) for output, field in zip(outputs, fields, strict=True)
                ]
    except (AttributeError, TypeError) as error:
        raise ModelFailure(f"the model answered what is no list of arrays: {told(error)}") from error
    return outputs


def _fitted(output: NDArray[Any], field: Field, *, rows: int) -> NDArray[Any]:
    """An output as its field says. A column may stand for a vector: many libraries make no difference."""
    shape = (rows, *field.shape[1:])
    if output.shape != shape and (output.shape != (rows, 1) or field.width != 1):
        raise ModelFailure(
            f"the model answered {list(output.shape)} for {rows} rows of output {field.name!r}, "
            f"whose shape is {list(field.shape)}"
        )
    try:
        return output.reshape(shape).astype(NUMPY_OF[field.datatype], copy=False)
    except Exception as error:  # whatever becomes of objects that are to be numbers
        raise ModelFailure(
            f"the model's output {field.name!r} is not {field.datatype}: {told(error)}"
        ) from error


def told(error: BaseException) -> str:
    """A library's error in one line, and no more than a reader wants."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:_TOLD]}"


def scores_of(signature: Signature, outputs: Sequence[NDArray[Any]]) -> Matrix:
    """The watched score per row, float64, as ``Signature`` says."""
    names = [field.name for field in signature.outputs]
    values = np.asarray(outputs[names.index(signature.score)], np.float64)
    values = values.reshape(len(values), -1)
    if signature.watches_classes and values.shape[1] > 1:
        from predis.stats import top_scores  # late: few workers need statistics

        return top_scores(values)
    return np.ascontiguousarray(values[:, 1 if values.shape[1] == 2 else 0])


def check_order(what: str, names: Sequence[str], *, own: Sequence[str]) -> None:
    """Refuse names that are the model's own in another order: by position they would mean something else.

    Raises:
        InvalidInput
    """
    if set(names) == set(own) and tuple(names) != tuple(own):
        raise InvalidInput(f"the {what} must stand in the model's order: {', '.join(own)}")


def check_columns(signature: Signature, *, own: Sequence[str]) -> None:
    """Refuse a signature that does not fit a model of ``own`` columns and one output.

    Raises:
        InvalidInput: another number of columns or outputs, or the model's columns in another order.
    """
    names = signature.feature_names
    if len(names) != len(own):
        raise InvalidInput(f"the model has {len(own)} features, its signature {len(names)}")
    check_order("inputs", names, own=own)
    if len(signature.outputs) != 1:
        raise InvalidInput(f"the model has 1 output, its signature {len(signature.outputs)}")


def check_levels(signature: Signature) -> None:
    """Refuse texts that are no levels, for models that know codes only.

    Raises:
        InvalidInput
    """
    free = [field.name for field in signature.inputs if field.datatype == "BYTES" and not field.levels]
    if free:
        raise InvalidInput(
            f"input {free[0]!r} holds free texts; this model takes numbers, and texts that are levels"
        )


def with_levels(inputs: tuple[Field, ...], categories: Sequence[Any]) -> tuple[Field, ...]:
    """The text inputs with the levels that the model itself knows, in the model's order: a code is the place in them.

    Args:
        categories: of each categorical column of the model, in the order of the columns.

    Raises:
        InvalidInput: they are not texts, or there are more or fewer than text inputs.
    """
    places = [at for at, field in enumerate(inputs) if field.datatype == "BYTES"]
    if len(places) != len(categories) or not all(type(c) is str for found in categories for c in found):
        raise InvalidInput(
            f"the model was trained on {len(categories)} categorical columns, the reference data set has {len(places)} of texts; "
            "give each of them as texts, or register with a signature that lists the levels in the model's order"
        )
    levels = dict(zip(places, categories, strict=True))
    return tuple(
        replace(field, levels=tuple(levels[at])) if at in levels else field for at, field in enumerate(inputs)
    )


def only_file(contents: Mapping[str, bytes], library: str) -> bytes:
    """The one file of a single-file format.

    Raises:
        InvalidInput: there are more.
    """
    if len(contents) != 1:
        raise InvalidInput(f"a {library} model is one file, got {sorted(contents)}")
    return next(iter(contents.values()))


def trim() -> None:
    """Hand freed memory back to the system. The C library would keep it for later, and a worker's later is other models."""
    trimmer = _trimmer()
    if trimmer is not None:
        trimmer(0)


@cache
def _trimmer() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
