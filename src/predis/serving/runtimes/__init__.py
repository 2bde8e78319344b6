"""Runtimes: one file per model library, loaded late, chosen from this table by the version's format.

A runtime takes a feature matrix (float64 [rows, columns]; codes for levels, NaN for missing) and returns one array per output
of its signature. It must be safe to call from several threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from predis.errors import InvalidInput, ModelFailure
from predis.registry.registry import Score
from predis.registry.signature import Field, Signature
from predis.state.records import Matrix

Unseen = Mapping[tuple[int, int], str]

_MODULES = {
    "lightgbm": "predis.serving.runtimes.lightgbm",
    "onnx": "predis.serving.runtimes.onnx",
}


class Runtime(Protocol):
    """A model in memory."""

    signature: Signature

    def predict(self, features: Matrix, unseen: Unseen) -> Sequence[NDArray[Any]]:
        """Outputs in the signature's order, each with ``rows`` as its first dimension."""


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
        MissingExtra: the library is not installed.
    """
    if kind not in _MODULES:
        raise InvalidInput(f"there is no runtime for format {kind!r}; the formats are {', '.join(_MODULES)}")
    runtime: Runtime = import_module(_MODULES[kind]).load(contents, signature=signature, inputs=inputs)
    found = runtime.signature
    if next(f for f in found.outputs if f.name == found.score).datatype == "BYTES":
        raise InvalidInput(f"the score must be an output of numbers; {found.score!r} holds texts")
    return runtime


def check_order(what: str, names: Sequence[str], *, own: Sequence[str]) -> None:
    """Refuse names that are the model's own in another order: by position they would mean something else.

    Raises:
        InvalidInput
    """
    if set(names) == set(own) and tuple(names) != tuple(own):
        raise InvalidInput(f"the {what} must stand in the model's order: {', '.join(own)}")


def inspect(
    kind: str, contents: Mapping[str, bytes], *, signature: Signature | None, inputs: tuple[Field, ...]
) -> tuple[Signature, Score]:
    """What the registry asks at registration: the signature, and a function that scores a feature matrix."""
    runtime = load(kind, contents, signature=signature, inputs=inputs)

    def score(features: Matrix) -> Matrix:
        return scores_of(runtime.signature, run(runtime, features, unseen={}))

    return runtime.signature, score


def run(runtime: Runtime, features: Matrix, *, unseen: Unseen) -> Sequence[NDArray[Any]]:
    """Predict, with whatever the library raises translated.

    Raises:
        ModelFailure: the library failed on an input that fits the signature, or answered another number of rows or outputs.
    """
    try:
        outputs = runtime.predict(features, unseen)
    except Exception as error:
        raise ModelFailure(f"the model failed: {type(error).__name__}: {error}") from error
    wanted = len(runtime.signature.outputs)
    if len(outputs) != wanted or any(output.shape[:1] != (len(features),) for output in outputs):
        raise ModelFailure(
            f"the model answered {[o.shape for o in outputs]} for {len(features)} rows and {wanted} outputs"
        )
    return outputs


def scores_of(signature: Signature, outputs: Sequence[NDArray[Any]]) -> Matrix:
    """The watched score per row, float64: the score output, or its column 1 where it has two (class probabilities)."""
    names = [field.name for field in signature.outputs]
    values = np.asarray(outputs[names.index(signature.score)], np.float64)
    values = values.reshape(len(values), -1)
    return np.ascontiguousarray(values[:, 1 if values.shape[1] == 2 else 0])


def only_file(contents: Mapping[str, bytes], library: str) -> bytes:
    """The one file of a single-file format.

    Raises:
        InvalidInput: there are more.
    """
    if len(contents) != 1:
        raise InvalidInput(f"a {library} model is one file, got {sorted(contents)}")
    return next(iter(contents.values()))
