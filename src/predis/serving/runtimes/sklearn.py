"""scikit-learn: pipelines and estimators, and those of other libraries that keep its conventions, from skops, joblib or pickle files.

Prefer skops: its files hold data, not instructions. All three are loaded from signed versions only, and may name nothing but what
``importable`` admits.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.errors import InvalidInput, MissingExtra, ModelFailure, Untrusted
from predis.registry.signature import PROBABILITY, Field, Signature
from predis.serving import importable, unpickling
from predis.serving.inputs import Inputs, Takes
from predis.serving.runtimes import told, trim

_ZIP = b"PK\x03\x04"
_ENDINGS = (".skops", ".joblib", ".pkl", ".pickle")
_METHODS = ("predict_proba", "decision_function", "predict")


class Sklearn:
    """An estimator and how it is asked: with a matrix, or with a pandas table where it knows its columns by name.

    A classifier answers probabilities, else its decision function; everything else answers ``predict``.
    """

    def __init__(self, estimator: Any, signature: Signature | None, *, inputs: tuple[Field, ...]) -> None:
        self._estimator = estimator
        self._method = _method(estimator)
        names = getattr(estimator, "feature_names_in_", None)
        self._names = None if names is None else tuple(map(str, names))
        self.signature = signature or self._inferred(inputs)
        texts = any(field.datatype == "BYTES" for field in self.signature.inputs)
        self._table = texts or self._names is not None
        self.takes: Takes = "tensors" if texts else "matrix"
        self._check()

    def predict(self, inputs: Inputs) -> Sequence[NDArray[Any]]:
        """One output: [rows], or [rows, n] of several classes or targets. In a table, missing texts and numbers are pandas' NaN."""
        if self._estimator is None:
            raise ModelFailure("the model was closed")
        answer = np.asarray(getattr(self._estimator, self._method)(self._given(inputs)))
        binary = self._method == "predict_proba" and answer.ndim == 2 and answer.shape[1] == 2
        return (answer[:, 1] if binary and self.signature.outputs[0].shape == (-1,) else answer,)

    def close(self) -> None:
        if self._estimator is not None:
            self._estimator = None
            gc.collect()  # estimators refer to themselves in circles
            trim()

    def _given(self, inputs: Inputs) -> Any:
        if not self._table:
            return inputs.features.copy()  # some estimators impute in place
        import pandas

        # The estimator's columns in its own order, whatever else the signature has.
        given = [field.name for field in self.signature.inputs]
        names = self._names or tuple(given)
        if inputs.tensors is None:
            return pandas.DataFrame(inputs.features[:, [given.index(name) for name in names]], columns=names)
        return pandas.DataFrame({name: inputs.tensors[name].reshape(inputs.rows) for name in names})

    def _inferred(self, inputs: tuple[Field, ...]) -> Signature:
        """The reference's columns; without a reference a matrix, as wide as the estimator remembers.

        Raises:
            InvalidInput: the estimator knows its columns by name, and so may want texts, or has forgotten how many they were.
        """
        if not inputs:
            width = getattr(self._estimator, "n_features_in_", None)
            if self._names is not None or not isinstance(width, int):
                raise InvalidInput(
                    "the estimator does not tell the datatypes of its columns; register it with a reference data set, or with a signature"
                )
            inputs = (Field("features", "FP64", (-1, width), nullable=_takes_nan(self._estimator)),)
        output = _output(self._estimator, self._method)
        return Signature(inputs, (output,), output.name)

    def _check(self) -> None:
        """
        Raises:
            InvalidInput: the signature's inputs are not the estimator's columns.
        """
        fields, names = self.signature.inputs, self.signature.feature_names
        if any(field.raw for field in fields):
            raise InvalidInput("scikit-learn takes texts, not raw bytes")
        if self._table and any(field.width > 1 for field in fields):
            raise InvalidInput(
                "an estimator that is asked with a table has one number or text per input and row"
            )
        width = getattr(self._estimator, "n_features_in_", None)
        if self._names is not None:
            missing = sorted(set(self._names) - set(names))
            if missing:
                raise InvalidInput(f"the estimator has a column {missing[0]!r}, which the signature lacks")
        elif isinstance(width, int) and width != len(names):
            raise InvalidInput(f"the estimator has {width} features, its signature {len(names)}")


def load(contents: Mapping[str, bytes], *, signature: Signature | None, inputs: tuple[Field, ...]) -> Sklearn:
    """An estimator from a skops, joblib or pickle file; files beside it (a model card) are left alone.

    Raises:
        Untrusted: the file names something that is not admitted.
        ModelFailure: it is no such file, or holds no estimator.
        InvalidInput: the signature does not fit, or one is needed.
    """
    # Workers are the parallelism. OpenMP reads this with the first library that uses it; BLAS came with numpy, and can be told.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        import sklearn.base
        import threadpoolctl
    except ImportError:
        raise MissingExtra.of("scikit-learn", "sklearn") from None
    threadpoolctl.threadpool_limits(1, user_api="blas")
    content = _main_file(contents)
    estimator = _of_skops(content) if content.startswith(_ZIP) else unpickling.load(content)
    if not isinstance(estimator, sklearn.base.BaseEstimator) or not _method(estimator):
        raise ModelFailure(f"the file holds a {type(estimator).__name__}, not an estimator that predicts")
    parallel = {name: 1 for name in estimator.get_params() if name.rpartition("__")[2] == "n_jobs"}
    estimator.set_params(**parallel)
    return Sklearn(estimator, signature, inputs=inputs)


def _main_file(contents: Mapping[str, bytes]) -> bytes:
    named = [name for name in contents if name.endswith(_ENDINGS)]
    if len(contents) == 1:
        named = list(contents)
    if len(named) != 1:
        raise InvalidInput(
            f"a scikit-learn model is one file ending in {', '.join(_ENDINGS)}, got {sorted(contents)}"
        )
    return contents[named[0]]


def _of_skops(content: bytes) -> Any:
    try:
        from skops import io
    except ImportError:
        raise MissingExtra.of("skops", "sklearn") from None
    try:
        unknown = io.get_untrusted_types(data=content)
        refused = importable.refused(
            (module, name) for module, _, name in (found.rpartition(".") for found in unknown)
        )
        if refused:
            raise Untrusted(importable.refusal(refused))
        return io.loads(content, trusted=unknown)
    except Untrusted:
        raise
    except Exception as error:
        raise ModelFailure(f"the file is not a skops file that can be read: {told(error)}") from error


def _method(estimator: Any) -> str:
    from sklearn.base import is_classifier

    methods = _METHODS if is_classifier(estimator) else _METHODS[-1:]
    return next((name for name in methods if hasattr(estimator, name)), "")


def _output(estimator: Any, method: str) -> Field:
    """What the classes of a classifier say; a regressor is taken to have one target unless a signature says otherwise."""
    classes = getattr(estimator, "classes_", ())
    if isinstance(classes, list):
        raise InvalidInput("a classifier of several targets needs a signature, and a single output")
    if method == "predict_proba":
        return PROBABILITY if len(classes) == 2 else Field("probabilities", "FP64", (-1, len(classes)))
    if method == "decision_function":
        return Field("decision", "FP64", (-1,) if len(classes) == 2 else (-1, len(classes)))
    return Field("prediction", "FP64")


def _takes_nan(estimator: Any) -> bool:
    from sklearn.utils import get_tags

    return bool(get_tags(estimator).input_tags.allow_nan)
