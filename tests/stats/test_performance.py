"""Measures of every kind of model: against scikit-learn, and their intervals against repetition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from predis.errors import InvalidInput
from predis.stats.performance import performance, top_scores


def drawn(rng: np.random.Generator, rows: int) -> tuple[Any, Any]:
    """Calibrated scores and labels."""
    scores = rng.beta(1.5, 3, rows)
    return scores, (rng.random(rows) < scores).astype(float)


def measured(scores: Any, labels: Any) -> dict[str, float]:
    return performance("binary", scores, label=labels)


class TestBinary:
    def test_as_sklearn_has_it(self) -> None:
        scores, labels = drawn(np.random.default_rng(1), 3_000)
        scores = scores.round(2)
        found, said = performance("binary", scores, label=labels, threshold=0.4), scores >= 0.4
        expected = {
            "auc": metrics.roc_auc_score(labels, scores), "pr_auc": metrics.average_precision_score(labels, scores),
            "brier": metrics.brier_score_loss(labels, scores), "log_loss": metrics.log_loss(labels, scores),
            "accuracy": metrics.accuracy_score(labels, said), "precision": metrics.precision_score(labels, said),
            "recall": metrics.recall_score(labels, said), "f1": metrics.f1_score(labels, said),
            "mcc": metrics.matthews_corrcoef(labels, said),
        }  # fmt: skip
        assert {name: found[name] for name in expected} == pytest.approx(expected)
        assert found["gini"] == pytest.approx(2 * expected["auc"] - 1)
        assert found["calibration_error"] < 0.03

    def test_one_class(self) -> None:
        found = performance("binary", np.linspace(0, 1, 50), label=np.ones(50))
        assert math.isnan(found["auc"])
        assert math.isnan(found["auc_low"])
        assert found["recall"] == pytest.approx(0.5)

    def test_scores_that_are_no_probabilities(self) -> None:
        found = performance("binary", [-3.0, 5.0], label=[0, 1])
        assert math.isnan(found["log_loss"])
        assert found["auc"] == 1.0

    def test_wrong_confidence_shows(self) -> None:
        scores, labels = drawn(np.random.default_rng(2), 3_000)
        assert performance("binary", np.minimum(1, scores + 0.2), label=labels)["calibration_error"] > 0.15

    def test_intervals_hold_the_truth(self) -> None:
        rng = np.random.default_rng(3)
        truth = measured(*drawn(rng, 200_000))
        some = [measured(*drawn(rng, 1_000)) for _ in range(60)]
        for measure in ("auc", "ks", "pr_auc", "log_loss", "f1", "mcc", "brier", "accuracy"):
            held = sum(each[f"{measure}_low"] <= truth[measure] <= each[f"{measure}_high"] for each in some)
            assert held >= 48, measure  # 57 expected; KS is biased upward in small samples


class TestRegression:
    def test_as_sklearn_has_it(self) -> None:
        rng = np.random.default_rng(4)
        labels = rng.normal(10, 3, 2_000)
        scores = labels + rng.normal(0.5, 1, 2_000)
        found = performance("regression", scores, label=labels, quantile=0.9)
        expected = {
            "mae": metrics.mean_absolute_error(labels, scores), "rmse": metrics.root_mean_squared_error(labels, scores),
            "mape": metrics.mean_absolute_percentage_error(labels, scores), "r2": metrics.r2_score(labels, scores),
            "quantile_loss": metrics.mean_pinball_loss(labels, scores, alpha=0.9), "bias": (scores - labels).mean(),
        }  # fmt: skip
        assert {name: found[name] for name in expected} == pytest.approx(expected)
        for name in expected:
            assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]

    def test_labels_that_are_all_alike(self) -> None:
        found = performance("regression", [1.0, 2.0], label=[0.0, 0.0])
        assert math.isnan(found["r2"])
        assert math.isnan(found["mape"])
        assert found["mae"] == 1.5

    def test_intervals_hold_the_truth(self) -> None:
        rng = np.random.default_rng(5)
        some = []
        for _ in range(150):
            scores = rng.normal(0, 2, 800)
            some.append(performance("regression", scores, label=scores + rng.normal(0, 1, 800)))
        for measure, truth in {"rmse": 1.0, "r2": 0.8, "mae": math.sqrt(2 / math.pi)}.items():
            held = sum(each[f"{measure}_low"] <= truth <= each[f"{measure}_high"] for each in some)
            assert held >= 132, measure


class TestMulticlass:
    def test_as_sklearn_has_it(self) -> None:
        rng = np.random.default_rng(6)
        probabilities = rng.dirichlet((1, 1, 1), 2_000)
        labels = np.array([rng.choice(3, p=row) for row in probabilities])
        found = performance("multiclass", top_scores(probabilities), label=labels)
        chosen = probabilities.argmax(axis=1)
        assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, chosen))
        assert found["macro_f1"] == pytest.approx(metrics.f1_score(labels, chosen, average="macro"))
        assert found["calibration_error"] < 0.05
        assert found["macro_f1_low"] < found["macro_f1"] < found["macro_f1_high"]

    def test_top_scores(self) -> None:
        found = top_scores([[0.0, 1.0], [1.0, 0.0], [math.nan, 0.5]])
        assert np.floor(found[:2]).tolist() == [1, 0]
        assert math.isnan(found[2])
        with pytest.raises(InvalidInput, match="shape"):
            top_scores([0.1, 0.9])


@pytest.mark.parametrize(
    ("task", "score", "label", "says"),
    [
        ("binary", [0.1], [2], "0 and 1"), ("regression", [0.1], [math.nan], "NaN"), ("regression", [0.1], [1, 2], "one per row"),
        ("multiclass", [0.1], [0.5], "numbers"), ("ranking", [0.1], [1], "one of"), ("regression", [math.inf], [1], "finite"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured(task: Any, score: Any, label: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        performance(task, score, label=label)


@pytest.mark.parametrize("task", ["binary", "regression", "multiclass"])
def test_without_rows(task: Any) -> None:
    found = performance(task, [], label=[])
    assert found.pop("rows") == 0
    assert all(math.isnan(value) for value in found.values())
