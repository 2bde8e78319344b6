"""LightGBM through its C interface.

The Python package brings scikit-learn and pandas into every worker if they are installed (2 s and 100 MB were measured) and costs
more per row than the trees do; the C interface is documented, stable, and has a single-row call that keeps its buffers.
"""

from __future__ import annotations

import ctypes
import json
import re
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from predis.errors import MissingExtra, ModelFailure
from predis.registry.signature import PROBABILITY, Field, Signature
from predis.serving.inputs import Inputs, Takes
from predis.serving.runtimes import check_columns, check_levels, only_file, trim, with_levels

if TYPE_CHECKING:
    from predis.state.records import Matrix

_FLOAT64 = ctypes.c_int(1)
_NORMAL = ctypes.c_int(0)
_ROW_MAJOR = ctypes.c_int(1)
_HEAD_BYTES = 1 << 24  # the lines before the first tree end well before
FEW_ROWS = 8  # up to here rows are predicted one by one
_PARAMETERS = b"num_threads=1 predict_disable_shape_check=false"


class _Few:
    """LightGBM's call for a single row, again and again: it keeps its buffers, which for a few rows saves more than one call for all does
    (measured with 300 trees: 20 us against 33 us for two rows, 60 against 70 for eight, even from twelve on).

    The rows are copied to a place whose address is known; a lock lets one thread at a time use it.
    """

    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_void_p, *, columns: int, width: int) -> None:
        self._library = library
        self._rows = np.empty((FEW_ROWS, columns))
        self._answers = np.empty((FEW_ROWS, width))
        self._length = ctypes.c_int64()
        self._config = ctypes.c_void_p()
        self._lock = threading.Lock()
        _check(
            library,
            library.LGBM_BoosterPredictForMatSingleRowFastInit(
                handle, _NORMAL, 0, -1, _FLOAT64, columns, _PARAMETERS, ctypes.byref(self._config)
            ),
        )
        self._calls = tuple(
            (
                self._config, ctypes.c_void_p(row.ctypes.data), ctypes.byref(self._length), ctypes.c_void_p(answer.ctypes.data),
            )
            for row, answer in zip(self._rows, self._answers, strict=True)
        )  # fmt: skip

    def predict(self, features: Matrix, rows: int) -> Matrix:
        predict = self._library.LGBM_BoosterPredictForMatSingleRowFast
        with self._lock:
            self._rows[:rows] = features
            for arguments in self._calls[:rows]:
                _check(self._library, predict(*arguments))
            return self._answers[:rows].copy()

    def close(self) -> None:
        self._library.LGBM_FastConfigFree(self._config)


class LightGBM:
    """A booster in memory. ``close`` gives the memory back; until then calls may come from several threads."""

    takes: Takes = "matrix"

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
        self._few = _Few(self._library, self._handle, columns=self.columns, width=self.width)

    def predict(self, inputs: Inputs) -> Sequence[NDArray[Any]]:
        """One output: [rows], or [rows, classes] of a multiclass model. LightGBM takes code -1 as missing, as it was trained."""
        if not self._handle:
            raise ModelFailure("the model was closed")
        rows = inputs.rows
        if rows <= FEW_ROWS:
            answer = self._few.predict(inputs.features, rows)
        else:
            answer = self._predict_many(np.ascontiguousarray(inputs.features), rows)
        return (answer.reshape(rows),) if self.width == 1 else (answer.reshape(rows, self.width),)

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
        if self._handle:
            self._few.close()
            self._library.LGBM_BoosterFree(self._handle)
            self._handle = ctypes.c_void_p()
            trim()

    def __del__(self) -> None:
        if hasattr(self, "_few"):
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
    booster.signature = signature or Signature(_inputs(booster, text, inputs=inputs), (output,), output.name)
    check_columns(booster.signature, own=booster.feature_names)
    check_levels(booster.signature)
    return booster


def _inputs(booster: LightGBM, text: bytes, *, inputs: tuple[Field, ...]) -> tuple[Field, ...]:
    """The reference's columns, or those named in the model; the levels of texts are the model's own where it keeps them."""
    categories = _categories(text)
    if not inputs:
        categorical = _categorical_columns(text) if categories else set()
        inputs = tuple(
            Field(name, "BYTES" if at in categorical else "FP64", nullable=True)
            for at, name in enumerate(booster.feature_names)
        )
    return with_levels(inputs, categories) if categories else inputs


def _categories(text: bytes) -> list[list[Any]]:
    """Of each column that was categorical in the pandas table a model was trained on, its categories: a code is the place in them."""
    found = re.search(rb"^pandas_categorical:(.*)$", text[text.rindex(b"\nend of trees") :], re.MULTILINE)
    try:
        categories = json.loads(found.group(1)) if found else None
    except ValueError as error:
        raise ModelFailure(f"the LightGBM model's pandas_categorical is damaged: {error}") from error
    return categories or []


def _categorical_columns(text: bytes) -> set[int]:
    """Columns whose values are told one by one (``0:1:2``), not by their range (``[0:2]``)."""
    found = re.search(rb"^feature_infos=(.*)$", text[:_HEAD_BYTES], re.MULTILINE)
    infos = found.group(1).split(b" ") if found else []
    return {at for at, info in enumerate(infos) if info != b"none" and not info.startswith(b"[")}


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
    found = re.search(rb"^objective=(.*)$", text[:_HEAD_BYTES], re.MULTILINE)
    return found.group(1).decode("utf-8", "replace") if found else ""


def _feature_names(text: bytes) -> tuple[str, ...]:
    found = re.search(rb"^feature_names=(.*)$", text[:_HEAD_BYTES], re.MULTILINE)
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
