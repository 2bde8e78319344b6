"""XGBoost through its C interface.

As with LightGBM, the Python package would bring pandas and scikit-learn into every worker (2.5 s and 160 MB were measured) and costs
110 us a call over the 150 us of the documented C call that its ``inplace_predict`` makes.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from predis.errors import InvalidInput, MissingExtra, ModelFailure
from predis.registry.signature import PROBABILITY, Field, Signature
from predis.serving.inputs import Inputs, Takes
from predis.serving.runtimes import check_columns, check_levels, only_file, trim, with_levels

if TYPE_CHECKING:
    from predis.state.records import Matrix

_PREDICT = b'{"type": 0, "training": false, "iteration_begin": 0, "iteration_end": 0, "missing": NaN, "strict_shape": false, "cache_id": 0}'
_PROBABILITIES = ("binary:logistic", "reg:logistic")


class XGBoost:
    """A booster in memory. XGBoost's call is safe from several threads, and answers in memory of the calling thread."""

    takes: Takes = "matrix"

    def __init__(self, content: bytes) -> None:
        self._library = _library()
        self._handle = ctypes.c_void_p()
        self._call("XGBoosterCreate", None, ctypes.c_uint64(0), ctypes.byref(self._handle))
        self._call("XGBoosterSetParam", self._handle, b"nthread", b"1")
        self._call("XGBoosterLoadModelFromBuffer", self._handle, content, ctypes.c_uint64(len(content)))
        count = ctypes.c_uint64()
        self._call("XGBoosterGetNumFeature", self._handle, ctypes.byref(count))
        self.columns = count.value
        self.feature_names = self._texts(b"feature_name") or tuple(f"f{at}" for at in range(self.columns))
        self.feature_types = self._texts(b"feature_type")
        self.signature = Signature((Field("none", "FP64"),), (PROBABILITY,), "probability")

    def predict(self, inputs: Inputs) -> Sequence[NDArray[Any]]:
        """One output: [rows], or [rows, n] of several classes or targets. A level that is none stays code -1: no split goes its way."""
        if not self._handle:
            raise ModelFailure("the model was closed")
        features = np.ascontiguousarray(inputs.features)
        return (self._predict(features).reshape(inputs.rows, -1),)

    def _predict(self, features: Matrix) -> NDArray[np.float32]:
        shape, answer = ctypes.POINTER(ctypes.c_uint64)(), ctypes.POINTER(ctypes.c_float)()
        dimensions = ctypes.c_uint64()
        array = b'{"data": [%d, true], "shape": [%d, %d], "typestr": "<f8", "version": 3}' % (
            features.ctypes.data,
            *features.shape,
        )
        self._call(
            "XGBoosterPredictFromDense", self._handle, array, _PREDICT, None, ctypes.byref(shape),
            ctypes.byref(dimensions), ctypes.byref(answer),
        )  # fmt: skip
        found = tuple(shape[at] for at in range(dimensions.value))
        return np.ctypeslib.as_array(answer, found).copy()

    def model(self) -> dict[str, Any]:
        """The model as XGBoost's JSON document."""
        length, content = ctypes.c_uint64(), ctypes.POINTER(ctypes.c_char)()
        self._call(
            "XGBoosterSaveModelToBuffer",
            self._handle,
            b'{"format": "json"}',
            ctypes.byref(length),
            ctypes.byref(content),
        )
        found: dict[str, Any] = json.loads(ctypes.string_at(content, length.value))
        return found

    def objective(self) -> str:
        length, content = ctypes.c_uint64(), ctypes.c_char_p()
        self._call("XGBoosterSaveJsonConfig", self._handle, ctypes.byref(length), ctypes.byref(content))
        return str(json.loads(content.value or b"{}")["learner"]["objective"]["name"])

    def close(self) -> None:
        if self._handle:
            self._library.XGBoosterFree(self._handle)
            self._handle = ctypes.c_void_p()
            trim()

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            self.close()

    def _texts(self, what: bytes) -> tuple[str, ...]:
        length, texts = ctypes.c_uint64(), ctypes.POINTER(ctypes.c_char_p)()
        self._call(
            "XGBoosterGetStrFeatureInfo", self._handle, what, ctypes.byref(length), ctypes.byref(texts)
        )
        return tuple((texts[at] or b"").decode("utf-8", "replace") for at in range(length.value))

    def _call(self, function: str, *arguments: Any) -> None:
        if getattr(self._library, function)(*arguments) != 0:
            problem = self._library.XGBGetLastError().decode("utf-8", "replace")
            raise ModelFailure(
                f"XGBoost: {problem.strip().splitlines()[0] if problem.strip() else 'it failed'}"
            )


def load(contents: Mapping[str, bytes], *, signature: Signature | None, inputs: tuple[Field, ...]) -> XGBoost:
    """A booster from its JSON or UBJSON form, with the signature given, or made of the inputs given, or of what the model knows.

    Raises:
        ModelFailure: the file is not an XGBoost model.
        InvalidInput: the signature has another number of columns or outputs than the model, or another order.
    """
    content = only_file(contents, "XGBoost")
    if not content.startswith(b"{"):
        raise ModelFailure(
            "the file is not an XGBoost model in JSON or UBJSON; save it with Booster.save_model('model.ubj')"
        )
    booster = XGBoost(content)
    if signature is None:
        output = _output(booster)
        signature = Signature(_inputs(booster, inputs), (output,), output.name)
    booster.signature = signature
    check_columns(signature, own=booster.feature_names)
    check_levels(signature)
    return booster


def _inputs(booster: XGBoost, inputs: tuple[Field, ...]) -> tuple[Field, ...]:
    """The reference's columns, or the model's; the levels of texts are the model's own where it keeps them (from XGBoost 3.1 on)."""
    categorical = [at for at, kind in enumerate(booster.feature_types) if kind == "c"]
    categories = _categories(booster, categorical) if categorical else []
    if not inputs:
        inputs = tuple(
            Field(name, "BYTES" if categories and at in categorical else "FP64", nullable=True)
            for at, name in enumerate(booster.feature_names)
        )
    return with_levels(inputs, categories) if categories else inputs


def _categories(booster: XGBoost, categorical: Sequence[int]) -> list[list[Any]]:
    """The categories of those columns; nothing where the model was trained on codes."""
    encodings = booster.model()["learner"]["gradient_booster"]["model"].get("cats", {}).get("enc", [])
    return [_decoded(encodings[at]) for at in categorical] if encodings else []


def _decoded(encoding: Mapping[str, Any]) -> list[Any]:
    """Texts lie one after the other in bytes, with where each ends; numbers lie as they are.

    Raises:
        InvalidInput: the texts are cut in the wrong places, as XGBoost 3.2 does with those beyond ASCII.
    """
    values = encoding.get("values", [])
    if "offsets" not in encoding:
        return list(values)
    content = bytes(value % 256 for value in values)
    try:
        return [content[start:end].decode() for start, end in pairwise(encoding["offsets"])]
    except UnicodeDecodeError:
        raise InvalidInput(
            "XGBoost did not keep the texts of this model's categories whole; list the levels in a signature, in the order of training"
        ) from None


def _output(booster: XGBoost) -> Field:
    """Found by asking the model one row."""
    width = booster._predict(np.zeros((1, booster.columns))).size
    objective = booster.objective()
    if objective == "multi:softprob":
        return Field("probabilities", "FP64", (-1, width))
    if objective in _PROBABILITIES and width == 1:
        return PROBABILITY
    return Field("prediction", "FP64", (-1,) if width == 1 else (-1, width))


@cache
def _library() -> ctypes.CDLL:
    spec = find_spec("xgboost")
    folders = [Path(place) / "lib" for place in spec.submodule_search_locations or ()] if spec else []
    for path in (
        folder / name for folder in folders for name in ("libxgboost.so", "libxgboost.dylib", "xgboost.dll")
    ):
        if path.exists():
            library = ctypes.CDLL(str(path))
            library.XGBGetLastError.restype = ctypes.c_char_p
            return library
    raise MissingExtra.of("xgboost", "xgboost")
