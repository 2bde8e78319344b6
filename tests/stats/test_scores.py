"""Scores against brute force: every pair counted, every threshold tried."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import InvalidInput
from predis.stats import auc, binary_scores, brier, gini, ks, log_loss

SAMPLES = st.lists(
    st.tuples(st.sampled_from([-math.inf, -1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 3.0]), st.integers(0, 1)),
    min_size=1,
    max_size=40,
)


def pair_auc(score: np.ndarray, label: np.ndarray) -> float:
    first, second = score[label == 1][:, None], score[label == 0][None, :]
    return float(((first > second) + 0.5 * (first == second)).mean())


def threshold_ks(score: np.ndarray, label: np.ndarray) -> float:
    return max(abs((score[label == 1] <= t).mean() - (score[label == 0] <= t).mean()) for t in score)


@given(SAMPLES)
def test_ranking_measures_equal_brute_force(sample: list[tuple[float, int]]) -> None:
    score, label = np.array([s for s, _ in sample]), np.array([y for _, y in sample])
    if label.min() == label.max():
        assert math.isnan(auc(score, label))
        assert math.isnan(ks(score, label))
        assert math.isnan(gini(score, label))
        return
    assert auc(score, label) == pytest.approx(pair_auc(score, label), abs=1e-12)
    assert ks(score, label) == pytest.approx(threshold_ks(score, label), abs=1e-12)
    assert gini(score, label) == pytest.approx(2 * pair_auc(score, label) - 1, abs=1e-12)


@given(SAMPLES)
def test_measures_do_not_depend_on_the_order_of_rows_or_the_type_of_labels(
    sample: list[tuple[float, int]],
) -> None:
    score, label = np.array([s for s, _ in sample]), np.array([y for _, y in sample], dtype=np.float64)
    one, other = binary_scores(score, label), binary_scores(score[::-1], label[::-1] == 1)
    np.testing.assert_allclose(astuple(one), astuple(other), rtol=1e-12)


def test_auc_depends_on_order_only() -> None:
    rng = np.random.default_rng(1)
    score, label = rng.normal(size=500), rng.random(500) < 0.3
    assert auc(np.exp(score), label) == auc(score, label)
    assert auc(-score, label) == pytest.approx(1 - auc(score, label), abs=1e-12)


def test_constant_score_is_no_better_than_chance() -> None:
    result = binary_scores(np.full(10, 0.5), [0, 1] * 5)
    assert (result.auc, result.ks, result.gini) == (0.5, 0.0, 0.0)


def test_log_loss_and_brier_by_hand() -> None:
    assert log_loss([0.9, 0.2], [1, 0]) == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2)
    assert brier([0.9, 0.2], [1, 0]) == pytest.approx((0.01 + 0.04) / 2)
    assert log_loss([0.0], [1]) == pytest.approx(-math.log(np.finfo(float).eps))
    assert math.isnan(log_loss([], []))
    assert math.isnan(brier([], []))


def test_scores_that_are_no_probabilities_still_rank() -> None:
    result = binary_scores([-2.0, 3.0, 5.0], [0, 1, 1])
    assert result.auc == 1.0
    assert math.isnan(result.log_loss)
    assert math.isnan(result.brier)
    with pytest.raises(InvalidInput, match=r"\[0, 1\]"):
        log_loss([-2.0], [0])
    with pytest.raises(InvalidInput, match=r"\[0, 1\]"):
        brier([2.0], [0])


def test_all_measures_agree_with_their_own_functions() -> None:
    rng = np.random.default_rng(2)
    score, label = rng.random(300).round(2), rng.random(300) < 0.4
    result = binary_scores(score, label)
    assert (result.rows, result.positives) == (300, int(label.sum()))
    assert result.auc == auc(score, label)
    assert result.ks == ks(score, label)
    assert result.gini == gini(score, label)
    assert result.log_loss == log_loss(score, label)
    assert result.brier == brier(score, label)
    assert result.auc_low < result.auc < result.auc_high


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    truth = 0.5 * math.erfc(-1.5 / 2)  # two unit normals 1.5 apart: Phi(1.5 / sqrt 2)
    label = np.repeat([1, 0], [40, 160])
    covered = 0
    for _ in range(500):
        result = binary_scores(rng.normal(size=200) + 1.5 * label, label, level=0.9)
        covered += result.auc_low <= truth <= result.auc_high
    assert 0.87 <= covered / 500 <= 0.93


def test_interval_of_a_perfect_ranking_is_not_a_point() -> None:
    result = binary_scores([0.1, 0.2, 0.3, 0.7, 0.8, 0.9], [0, 0, 0, 1, 1, 1])
    assert result.auc_high == 1.0
    assert result.auc_low == pytest.approx(0.025 ** (1 / 3))
    mirrored = binary_scores([0.1, 0.2, 0.3, 0.7, 0.8, 0.9], [1, 1, 1, 0, 0, 0])
    assert (mirrored.auc_low, mirrored.auc_high) == pytest.approx((0.0, 1 - 0.025 ** (1 / 3)))


@pytest.mark.parametrize(("label", "bounds"), [([1, 0, 0], (0.0, 1.0)), ([0, 0, 0], (math.nan, math.nan))])
def test_interval_without_enough_rows_of_a_class(label: list[int], bounds: tuple[float, float]) -> None:
    result = binary_scores([0.3, 0.2, 0.4], label)
    np.testing.assert_equal((result.auc_low, result.auc_high), bounds)


def test_no_rows() -> None:
    result = binary_scores([], [])
    assert (result.rows, result.positives) == (0, 0)
    assert math.isnan(result.auc)


def test_inputs_are_not_changed() -> None:
    score, label = np.array([0.3, 0.1, 0.2]), np.array([1.0, 0.0, 1.0])
    score.setflags(write=False)
    label.setflags(write=False)
    binary_scores(score, label)


@pytest.mark.parametrize(
    ("score", "label", "message"),
    [
        ([0.1, math.nan], [0, 1], "NaN"),
        ([0.1, 0.2], [0, 2], "0 and 1"),
        ([0.1, 0.2], [0, math.nan], "0 and 1"),
        ([0.1, 0.2], [0], "shape"),
        ([[0.1], [0.2]], [0, 1], "one dimension"),
    ],
)
def test_what_makes_no_sense_is_refused(score: list[float], label: list[float], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        binary_scores(score, label)
    with pytest.raises(InvalidInput, match=message):
        auc(score, label)


@pytest.mark.parametrize("level", [0.0, 1.0, math.nan])
def test_level_is_a_probability(level: float) -> None:
    with pytest.raises(InvalidInput, match="level"):
        binary_scores([0.1, 0.2], [0, 1], level=level)
