"""LightGBM through its C interface.

The Python package brings scikit-learn and pandas into every worker if they are installed (2 s and 100 MB were measured) and costs
more per row than the trees do; the C interface is documented, stable, and has a single-row call that keeps its buffers.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.errors import InvalidInput, MissingExtra, ModelFailure
from predis.registry.signature import PROBABILITY, Field, Signature
from predis.serving.runtimes import Unseen, check_order, only_file
from predis.state.records import Matrix

_FLOAT64 = ctypes.c_int(1)
_NORMAL = ctypes.c_int(0)
_ROW_MAJOR = ctypes.c_int(1)
_PARAMETERS = b"num_threads=1 predict_disable_shape_check=false"


class LightGBM:
    """A booster in memory. ``close`` gives the memory back; until then calls may come from several threads."""

    def __init__(self, text: bytes) -> None:
        self._library = _library()
        self._handle = ctypes.c_void_p()
        iterations = ctypes.c_int()
        _check(
            self._library,
            self._library.LGBM_BoosterLoadModelFromString(
                _checkable(text), ctypes.byref(iterations), ctypes.byref(self._handle)
            ),
        )
        self.columns = self._count("LGBM_BoosterGetNumFeature")
        self.width = self._count("LGBM_BoosterGetNumClasses")
        self.feature_names = _feature_names(text)
        self.objective = _objective(text)
        self.signature = Signature((Field("none", "FP64"),), (PROBABILITY,), "probability")
        self._row = np.empty((1, self.columns))
        self._answer = np.empty(self.width)
        self._single = threading.Lock()
        self._fast = ctypes.c_void_p()
        _check(
            self._library,
            self._library.LGBM_BoosterPredictForMatSingleRowFastInit(
                self._handle, _NORMAL, 0, -1, _FLOAT64, self.columns, _PARAMETERS, ctypes.byref(self._fast)
            ),
        )
        self._fast_arguments = (
            self._fast, self._row.ctypes.data_as(ctypes.c_void_p), ctypes.byref(ctypes.c_int64()),
            self._answer.ctypes.data_as(ctypes.POINTER(ctypes.c_double)),
        )  # fmt: skip

    def predict(self, features: Matrix, unseen: Unseen) -> Sequence[NDArray[Any]]:
        """One output: [rows], or [rows, classes] of a multiclass model. LightGBM takes code -1 as missing, as it was trained."""
        rows = len(features)
        if rows == 1:
            with self._single:
                self._row[0] = features[0]
                _check(
                    self._library, self._library.LGBM_BoosterPredictForMatSingleRowFast(*self._fast_arguments)
                )
                answer = self._answer.copy()
        else:
            answer = self._predict_many(np.ascontiguousarray(features), rows)
        return (answer,) if self.width == 1 else (answer.reshape(rows, self.width),)

    def _predict_many(self, features: Matrix, rows: int) -> Matrix:
        answer = np.empty(rows * self.width)
        _check(
            self._library,
            self._library.LGBM_BoosterPredictForMat(
                self._handle, features.ctypes.data_as(ctypes.c_void_p), _FLOAT64, ctypes.c_int32(rows),
                ctypes.c_int32(self.columns), _ROW_MAJOR, _NORMAL, 0, -1, _PARAMETERS, ctypes.byref(ctypes.c_int64()),
                answer.ctypes.data_as(ctypes.POINTER(ctypes.c_double)),
            ),
        )  # fmt: skip
        return answer

    def close(self) -> None:
        if self._fast:
            self._library.LGBM_FastConfigFree(self._fast)
            self._fast = ctypes.c_void_p()
        if self._handle:
            self._library.LGBM_BoosterFree(self._handle)
            self._handle = ctypes.c_void_p()

    def __del__(self) -> None:
        if hasattr(self, "_fast"):
            self.close()

    def _count(self, function: str) -> int:
        found = ctypes.c_int()
        _check(self._library, getattr(self._library, function)(self._handle, ctypes.byref(found)))
        return found.value


def load(
    contents: Mapping[str, bytes], *, signature: Signature | None, inputs: tuple[Field, ...]
) -> LightGBM:
    """A booster from its text form, with the signature given, or made of the inputs given, or of the names in the model.

    Raises:
        ModelFailure: the text is not a LightGBM model.
        InvalidInput: the signature has another number of columns or outputs than the model, or another order.
    """
    text = only_file(contents, "LightGBM")
    if not text.startswith(b"tree\n"):
        raise ModelFailure("the file is not a LightGBM text model; save it with Booster.save_model")
    booster = LightGBM(text)
    output = _output(booster)
    booster.signature = signature or Signature(
        inputs or tuple(Field(name, "FP64", nullable=True) for name in booster.feature_names),
        (output,),
        output.name,
    )
    names = booster.signature.feature_names
    if len(names) != booster.columns:
        raise InvalidInput(f"the model has {booster.columns} features, its signature {len(names)}")
    check_order("inputs", names, own=booster.feature_names)
    if len(booster.signature.outputs) != 1:
        raise InvalidInput(f"a LightGBM model has one output, its signature {len(booster.signature.outputs)}")
    return booster


def _checkable(text: bytes) -> bytes:
    """The model without the sizes of its trees: then LightGBM reads one tree after the other and reports what is wrong with it.
    With them it reads several at once, and ends the process over a damaged one.
    """
    if b"\nend of trees" not in text:
        raise ModelFailure("the LightGBM model is cut short: its trees have no end")
    return re.sub(rb"^tree_sizes=.*\n", b"", text, count=1, flags=re.MULTILINE)


def _output(booster: LightGBM) -> Field:
    if booster.width > 1:
        return Field("probabilities", "FP64", (-1, booster.width))
    if booster.objective.startswith(("binary", "cross_entropy")):
        return PROBABILITY
    return Field("prediction", "FP64")


def _objective(text: bytes) -> str:
    found = re.search(rb"^objective=(.*)$", text[: 1 << 20], re.MULTILINE)
    return found.group(1).decode("utf-8", "replace") if found else ""


def _feature_names(text: bytes) -> tuple[str, ...]:
    found = re.search(rb"^feature_names=(.*)$", text[: 1 << 24], re.MULTILINE)
    return tuple(found.group(1).decode("utf-8", "replace").split(" ")) if found else ()


@cache
def _library() -> ctypes.CDLL:
    spec = find_spec("lightgbm")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra.of("lightgbm", "lightgbm")
    folder = Path(spec.submodule_search_locations[0])
    for path in (
        folder / "lib" / "lib_lightgbm.so",
        folder / "lib" / "lib_lightgbm.dylib",
        folder / "bin" / "lib_lightgbm.dll",
    ):
        if path.exists():
            library = ctypes.CDLL(str(path))
            library.LGBM_GetLastError.restype = ctypes.c_char_p
            return library
    raise MissingExtra.of("lightgbm", "lightgbm")


def _check(library: ctypes.CDLL, status: int) -> None:
    if status != 0:
        raise ModelFailure(f"LightGBM: {library.LGBM_GetLastError().decode('utf-8', 'replace')}")
