from __future__ import annotations

import collections

import numpy as np
import pytest
import sklearn.tree._tree
from sklearn.linear_model import LogisticRegression

from predis.errors import Untrusted
from predis.serving import importable

ADMITTED = [
    ("numpy", "ndarray", np.ndarray),
    ("numpy", "float32", np.float32),
    ("numpy", "log1p", np.log1p),
    ("collections", "OrderedDict", collections.OrderedDict),
    ("builtins", "set", set),
    ("sklearn.linear_model._logistic", "LogisticRegression", LogisticRegression),
    ("sklearn.tree._tree", "Tree", sklearn.tree._tree.Tree),
]


@pytest.mark.parametrize(("module", "name", "expected"), ADMITTED, ids=str)
def test_what_rebuilds_an_estimator(module: str, name: str, expected: object) -> None:
    assert importable.resolve(module, name) is expected
    assert importable.refused([(module, name)]) == []


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("sklearn.linear_model._logistic", "np"),  # a module among names
        (
            "sklearn.linear_model._logistic",
            "BaseEstimator",
        ),  # admitted where it is at home, not where it was imported to
        ("sklearn.linear_model._logistic", "LabelEncoder"),
        ("sklearn.linear_model._logistic", "_logistic_regression_path"),  # a function
        ("sklearn.linear_model._logistic", "Nothing"),
        ("sklearn.no_such_module", "Thing"),
        ("sklearn.linear_model", "LogisticRegression.fit"),
        ("sklearn.datasets._base", "Bunch"),
        ("numpy", "save"),
        ("numpy", "__dict__"),
        ("os", "system"),
    ],
)
def test_nothing_else(module: str, name: str) -> None:
    with pytest.raises(Untrusted, match=f"{module}.{name}"):
        importable.resolve(module, name)


def test_all_that_is_refused_is_told_once_and_in_order() -> None:
    names = [("os", "system"), ("numpy", "ndarray"), ("builtins", "eval"), ("os", "system")]
    assert importable.refused(names) == [("builtins", "eval"), ("os", "system")]
    assert "builtins.eval, os.system;" in importable.refusal(importable.refused(names))
