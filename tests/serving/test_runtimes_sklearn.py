from __future__ import annotations

import os
import pickle
from typing import Any

import joblib
import numpy as np
import pandas
import pytest
import skops.io
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_info

from predis.errors import InvalidInput, ModelFailure, Untrusted
from predis.registry.signature import PROBABILITY, Field, Signature
from predis.serving import runtimes
from tests.serving.helpers import signature
from tests.serving.models import (
    COLUMNS,
    KINDS,
    NAMES,
    TABLE,
    estimator,
    estimator_file,
    kinds,
    matrix,
    numbers,
    saved,
    tensors,
)
from tests.serving.test_unpickling import Calls

X, LABELS = numbers(100), (numbers(100)[:, 0] > 0).astype(int)


def load(fitted: Any, **given: Any) -> runtimes.Runtime:
    return runtimes.load("sklearn", {"m.pkl": pickle.dumps(fitted)}, **given)


class TestAnswers:
    def test_of_two_classes_are_the_probability_of_the_second(self) -> None:
        model = load(LogisticRegression().fit(X, LABELS))
        assert model.signature.outputs == (PROBABILITY,)

    def test_of_two_classes_may_be_both_probabilities(self) -> None:
        fitted = LogisticRegression().fit(X, LABELS)
        wanted = signature(Field("x", "FP64", (-1, 3)), outputs=(Field("p", "FP64", (-1, 2)),))
        (found,) = runtimes.run(load(fitted, signature=wanted), matrix(X))
        np.testing.assert_array_equal(found, fitted.predict_proba(X))

    def test_of_several_classes(self) -> None:
        model = load(LogisticRegression().fit(X, np.digitize(X[:, 0], [-0.5, 0.5])))
        assert model.signature.outputs == (Field("probabilities", "FP64", (-1, 3)),)

    def test_of_a_classifier_without_probabilities(self) -> None:
        fitted = LinearSVC().fit(X, LABELS)
        model = load(fitted)
        assert model.signature.outputs == (Field("decision", "FP64"),)
        np.testing.assert_array_equal(model.predict(matrix(X))[0], fitted.decision_function(X))

    def test_of_a_regressor(self) -> None:
        model = load(LinearRegression().fit(X, X[:, 0]))
        assert model.signature.outputs == (Field("prediction", "FP64"),)

    def test_of_several_targets_need_a_signature(self) -> None:
        fitted = LinearRegression().fit(X, X[:, :2])
        wanted = signature(Field("x", "FP64", (-1, 3)), outputs=(Field("y", "FP64", (-1, 2)),))
        (found,) = runtimes.run(load(fitted, signature=wanted), matrix(X))
        np.testing.assert_array_equal(found, fitted.predict(X))
        with pytest.raises(ModelFailure, match=r"answered \[100, 2\]"):
            runtimes.run(load(fitted), matrix(X))
        with pytest.raises(InvalidInput, match="several targets"):
            load(MultiOutputClassifier(LogisticRegression()).fit(X, np.column_stack([LABELS, 1 - LABELS])))


class TestInputs:
    def test_of_a_matrix_are_as_wide_as_the_estimator_remembers(self) -> None:
        assert load(LogisticRegression().fit(X, LABELS)).signature.inputs == (
            Field("features", "FP64", (-1, 3)),
        )

    def test_may_be_missing_where_the_estimator_takes_that(self) -> None:
        model = load(HistGradientBoostingClassifier(max_iter=2).fit(X, LABELS))
        assert model.signature.inputs[0].nullable

    def test_by_name_come_as_a_table(self) -> None:
        fitted = LogisticRegression().fit(pandas.DataFrame(X, columns=NAMES), LABELS)
        model = load(fitted, inputs=COLUMNS)
        assert model.takes == "matrix"  # all of them numbers
        model.predict(
            matrix(X)
        )  # scikit-learn would warn of names that are missing, and a warning is an error here

    def test_by_name_need_their_datatypes(self) -> None:
        with pytest.raises(InvalidInput, match="does not tell the datatypes of its columns"):
            load(estimator("table"))

    def test_texts_reach_it_as_texts_and_missing_ones_as_pandas_has_them(self) -> None:
        fitted = estimator("table")
        model = load(fitted, inputs=TABLE)
        assert model.takes == "tensors"
        texts = ["u", None, "never seen"]
        frame = pandas.DataFrame({**dict(zip(NAMES, numbers(3).T, strict=True)), "kind": texts})
        given = tensors(**dict(zip(NAMES, numbers(3).T, strict=True)), kind=texts)
        np.testing.assert_array_equal(model.predict(given)[0], fitted.predict_proba(frame)[:, 1])

    @pytest.mark.parametrize(
        ("inputs", "says"),
        [
            (TABLE[:3], "has a column 'kind', which the signature lacks"),
            ((*TABLE[:3], Field("sort", "BYTES", levels=KINDS)), "has a column 'kind'"),
            ((*TABLE, Field("more", "FP64", (-1, 2))), "one number or text per input and row"),
            ((*TABLE, Field("image", "BYTES", raw=True)), "not raw bytes"),
        ],
        ids=str,
    )
    def test_that_do_not_fit_the_table(self, inputs: tuple[Field, ...], says: str) -> None:
        with pytest.raises(InvalidInput, match=says):
            load(estimator("table"), inputs=inputs)

    def test_that_do_not_fit_the_matrix(self) -> None:
        with pytest.raises(InvalidInput, match="has 3 features, its signature 4"):
            load(LogisticRegression().fit(X, LABELS), inputs=(*COLUMNS, Field("d", "FP64")))

    def test_of_a_table_may_stand_in_any_order(self) -> None:
        """The estimator finds them by name."""
        fitted = LogisticRegression().fit(pandas.DataFrame(X, columns=NAMES), LABELS)
        model = load(fitted, inputs=(*reversed(COLUMNS), Field("extra", "FP64")))
        given = np.column_stack([X[:, ::-1], X[:, 0]])
        np.testing.assert_array_equal(
            model.predict(matrix(given))[0], load(fitted, inputs=COLUMNS).predict(matrix(X))[0]
        )

    def test_may_be_more_than_the_estimator_looks_at(self) -> None:
        model = load(estimator("table"), inputs=(Field("extra", "FP64"), *TABLE))
        given = dict(zip(NAMES, numbers(4).T, strict=True))
        assert len(model.predict(tensors(extra=np.zeros(4), **given, kind=kinds(4)))[0]) == 4


class TestFiles:
    def test_may_lie_beside_the_model(self) -> None:
        contents = {"model.skops": estimator_file("matrix", "skops"), "README.md": b"# a card"}
        assert runtimes.load("sklearn", contents).signature.outputs == (PROBABILITY,)

    @pytest.mark.parametrize("names", [("a.skops", "b.pkl"), ("a.txt", "b.txt"), ()])
    def test_but_not_another_model(self, names: tuple[str, ...]) -> None:
        with pytest.raises(InvalidInput, match="is one file ending in"):
            runtimes.load("sklearn", dict.fromkeys(names, b""))

    def test_workers_are_the_parallelism(self) -> None:
        fitted = make_pipeline(RandomForestClassifier(3, n_jobs=-1)).fit(X, LABELS)
        model = load(fitted)
        assert model._estimator.get_params()["randomforestclassifier__n_jobs"] == 1  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        "thing", [{"a": 1}, [LogisticRegression()], PCA(2), LogisticRegression, 7], ids=repr
    )
    def test_that_hold_no_estimator(self, thing: Any) -> None:
        with pytest.raises(ModelFailure, match="not an estimator that predicts"):
            load(thing)

    def test_and_the_libraries_below_have_one_thread(self) -> None:
        load(LogisticRegression().fit(X, LABELS))
        assert {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"} == {1}
        assert os.environ["OMP_NUM_THREADS"]

    def test_estimators_of_ones_own(self) -> None:
        for content in (pickle.dumps(Own()), saved(joblib.dump, Own()), skops.io.dumps(Own())):
            with pytest.raises(
                Untrusted, match=r"Own; only estimators of .* Code of your own needs the format 'python'"
            ):
                runtimes.load("sklearn", {"m": content})

    @pytest.mark.parametrize("function", [np.loadtxt, eval, print])
    def test_functions_in_a_pipeline(self, function: Any) -> None:
        fitted = make_pipeline(FunctionTransformer(function), LogisticRegression())
        for content in (pickle.dumps(fitted), skops.io.dumps(fitted)):
            with pytest.raises(Untrusted, match=function.__name__):
                runtimes.load("sklearn", {"m": content})

    def test_an_exploit(self) -> None:
        with pytest.raises(Untrusted, match=r"builtins\.exec"):
            load(make_pipeline(FunctionTransformer(Calls(exec, "raise SystemExit")), LogisticRegression()))


class Own(ClassifierMixin, BaseEstimator):
    def fit(self, x: Any, y: Any) -> Own:
        return self

    def predict(self, x: Any) -> Any:
        return np.zeros(len(x))


def test_the_signature_given_is_kept() -> None:
    wanted = Signature((Field("x", "FP32", (-1, 3)),), (Field("p", "FP32"),), "p")
    model = load(LogisticRegression().fit(X, LABELS), signature=wanted)
    assert model.signature is wanted
    assert runtimes.run(model, matrix(X))[0].dtype == np.float32
