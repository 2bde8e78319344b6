"""Paired losses: a real gain is found, none is not, and neighbours that resemble each other are not taken for many rows."""

from __future__ import annotations

import numpy as np
import pytest

from predis.errors import InvalidInput
from predis.stats import compare_losses, performance, row_losses, top_scores


def test_a_gain_that_single_means_would_not_show() -> None:
    rng = np.random.default_rng(1)
    hard = rng.exponential(10.0, 500)
    found = compare_losses(hard + 0.2, hard + 0.2 * rng.random(500))
    assert 0 < found.low < found.gain < found.high
    assert found.p_value < 1e-6


def test_the_bound_holds_where_there_is_no_gain() -> None:
    rng = np.random.default_rng(2)
    wrong = sum(compare_losses(rng.random(400), rng.random(400)).low > 0 for _ in range(400))
    assert wrong <= 35  # 5 % of 400, and three standard errors


def test_the_bound_holds_where_errors_cluster() -> None:
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(200):
        apart = np.repeat(rng.normal(size=40), 50) + rng.normal(size=2_000)
        wrong += compare_losses(apart, np.zeros(2_000)).low > 0
    assert wrong <= 20


def test_few_rows_prove_nothing() -> None:
    found = compare_losses([1.0] * 39, [0.0] * 39)
    assert found.gain == 1.0
    assert np.isnan(found.low)


def test_losses() -> None:
    assert row_losses("regression", [1.0, 3.0], label=[2.0, 3.0]).tolist() == [1.0, 0.0]
    with pytest.raises(InvalidInput, match="AUC"):
        row_losses("binary", [0.1], label=[0])
    with pytest.raises(InvalidInput, match="one per row"):
        row_losses("regression", [0.1], label=[0, 1])
    with pytest.raises(InvalidInput, match="same rows"):
        compare_losses([1.0], [1.0, 2.0])


class TestMulticlass:
    def table(self, rows: int = 2_000) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(4)
        labels = rng.integers(0, 3, rows)
        logits = rng.normal(size=(rows, 3)) + 2.0 * np.eye(3)[labels]
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels

    def test_log_loss_and_one_vs_rest_with_intervals(self) -> None:
        probabilities, labels = self.table()
        found = performance("multiclass", top_scores(probabilities), label=labels, classes=3)
        whole = -np.log(probabilities[np.arange(labels.size), labels]).mean()
        assert found["log_loss"] == pytest.approx(whole, abs=0.1)
        assert found["log_loss_low"] < found["log_loss"] < found["log_loss_high"]
        assert 0.8 < found["ovr_auc_low"] < found["ovr_auc"] < found["ovr_auc_high"] < 1.0

    def test_of_two_classes_it_is_exact(self) -> None:
        chances = np.random.default_rng(5).random(200)
        labels = (np.random.default_rng(6).random(200) < chances).astype(int)
        table = np.column_stack([1 - chances, chances])
        found = performance("multiclass", top_scores(table), label=labels, classes=2)
        whole = -np.log(table[np.arange(200), labels]).mean()
        assert found["log_loss"] == pytest.approx(whole, rel=1e-6)

    def test_too_many_classes_are_not_ranked(self) -> None:
        labels = np.arange(100) % 60
        found = performance("multiclass", labels + 0.5, label=labels)
        assert np.isnan(found["ovr_auc"])
        assert found["log_loss"] == pytest.approx(np.log(2))
