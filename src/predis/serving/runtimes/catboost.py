"""CatBoost. It takes texts as texts, levels or not: it knows them by hashes that only it can make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.errors import InvalidInput, MissingExtra, ModelFailure
from predis.registry.signature import PROBABILITY, Field, Signature
from predis.serving.inputs import Inputs, Takes, Tensors, sample
from predis.serving.runtimes import check_columns, only_file, told, trim

_MAGIC = b"CBM1"
_BINARY = ("Logloss", "CrossEntropy")
_MULTICLASS = ("MultiClass", "MultiClassOneVsAll", "MultiLogloss", "MultiCrossEntropy")
_EXPONENT = ("Poisson", "Tweedie")


class CatBoost:
    """A model in memory, and what kind of prediction its loss asks for (what CatBoost's own classes answer for it)."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._texts = frozenset((*model.get_cat_feature_indices(), *model.get_text_feature_indices()))
        self._loss = str(model._object._get_loss_function_name() or "").partition(":")[0]
        self.takes: Takes = "tensors" if self._texts else "matrix"
        self.feature_names = tuple(str(name) for name in model.feature_names_)
        self.signature = Signature((Field("none", "FP64"),), (PROBABILITY,), "probability")

    def predict(self, inputs: Inputs) -> Sequence[NDArray[Any]]:
        """One output: [rows], or [rows, n] of several classes or targets. A missing text is an empty text to the model."""
        if self._model is None:
            raise ModelFailure("the model was closed")
        values = inputs.features if inputs.tensors is None else self._table(inputs.tensors, inputs.rows)
        answer = np.asarray(self._model.predict(values, prediction_type=self._kind(), thread_count=1))
        return (answer[:, 1] if self._loss in _BINARY else answer,)

    def _kind(self) -> str:
        if self._loss in (*_BINARY, *_MULTICLASS):
            return "Probability"
        return "Exponent" if self._loss in _EXPONENT else "RawFormulaVal"

    def _table(self, tensors: Tensors, rows: int) -> NDArray[Any]:
        table = np.empty((rows, len(self.feature_names)), np.object_)
        for at, field in enumerate(self.signature.inputs):
            values = tensors[field.name].reshape(rows)
            table[:, at] = np.where(values == None, "", values) if field.datatype == "BYTES" else values  # noqa: E711, of each value
        return table

    def output(self) -> Field:
        """Found by asking the model one row."""
        answer = self.predict(sample(self.signature, self.takes))[0]
        if self._loss in _BINARY:
            return PROBABILITY
        name = "probabilities" if self._loss in _MULTICLASS else "prediction"
        return Field(name, "FP64", (-1, *answer.shape[1:]))

    def check_inputs(self) -> None:
        """
        Raises:
            InvalidInput: an input holds what the model does not take there.
        """
        for at, field in enumerate(self.signature.inputs):
            whole = field.datatype.startswith(("INT", "UINT")) and not field.nullable
            if at in self._texts and field.datatype != "BYTES" and not whole:
                raise InvalidInput(
                    f"input {field.name!r} is categorical in the model: give it as texts, not {field.datatype}"
                )
            if (
                at not in self._texts
                and field.datatype == "BYTES"
                and not (self.takes == "matrix" and field.levels)
            ):
                raise InvalidInput(f"input {field.name!r} is a number in the model, not a text")
            if field.raw or (self.takes == "tensors" and field.width > 1):
                raise InvalidInput(f"input {field.name!r} must be one number or text per row")

    def close(self) -> None:
        if self._model is not None:
            self._model = None
            trim()


def load(
    contents: Mapping[str, bytes], *, signature: Signature | None, inputs: tuple[Field, ...]
) -> CatBoost:
    """A model from its own binary form (.cbm), with the signature given, or made of the inputs given, or of what the model knows.

    Raises:
        ModelFailure: the file is not a CatBoost model.
        InvalidInput: the signature does not fit the model.
    """
    content = only_file(contents, "CatBoost")
    if not content.startswith(_MAGIC):
        raise ModelFailure("the file is not a CatBoost model; save it with model.save_model('model.cbm')")
    found = CatBoost(_model(content))
    own = found.feature_names
    plain = tuple(
        Field(name, "BYTES" if at in found._texts else "FP64", nullable=True) for at, name in enumerate(own)
    )
    found.signature = signature or Signature(inputs or plain, (PROBABILITY,), "probability")
    check_columns(found.signature, own=own)
    found.check_inputs()
    if signature is None:
        output = found.output()
        found.signature = Signature(found.signature.inputs, (output,), output.name)
    return found


def _model(content: bytes) -> Any:
    try:
        import catboost
    except ImportError:
        raise MissingExtra.of("catboost", "catboost") from None
    try:
        model = catboost.CatBoost().load_model(blob=content)
    except Exception as error:
        raise ModelFailure(f"CatBoost: {told(error)}") from error
    if model.get_embedding_feature_indices():
        raise InvalidInput("the CatBoost model takes embeddings, which no input of a signature can be")
    return model
