"""DeLong against its definition with every pair written out, and against the bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import InvalidInput
from predis.stats import auc, binary_scores, compare_auc, delong_covariance


def direct(scores: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The definition of DeLong et al. (1988), m x n comparisons per model."""
    first, second = scores[:, label == 1][:, :, None], scores[:, label == 0][:, None, :]
    wins = (first > second) + 0.5 * (first == second)
    v01, v10 = wins.mean(axis=2), wins.mean(axis=1)
    m, n = v01.shape[1], v10.shape[1]
    return wins.mean(axis=(1, 2)), np.atleast_2d(np.cov(v01)) / m + np.atleast_2d(np.cov(v10)) / n


def sample(seed: int, *, rows: int = 400, gain: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = (rng.random(rows) < 0.3).astype(float)
    shared = rng.normal(size=rows) + label
    return shared + rng.normal(size=rows) * 0.7, shared + rng.normal(size=rows) * 0.7 + gain * label, label


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(4, 30), st.integers(1, 6))
def test_covariance_equals_the_definition(seed: int, models: int, rows: int, distinct: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, distinct, size=(models, rows)).astype(float)
    label = np.zeros(rows)
    label[rng.permutation(rows)[: rng.integers(2, rows - 1)]] = 1
    aucs, covariance = delong_covariance(scores, label)
    expected_aucs, expected = direct(scores, label)
    np.testing.assert_allclose(aucs, expected_aucs, atol=1e-12)
    np.testing.assert_allclose(covariance, expected, atol=1e-12)


def test_comparison_follows_from_the_covariance() -> None:
    champion, challenger, label = sample(1, gain=0.6)
    aucs, covariance = delong_covariance(np.stack([champion, challenger]), label)
    result = compare_auc(champion, challenger, label=label, level=0.95)
    error = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert (result.rows, result.positives) == (400, int(label.sum()))
    assert (result.champion_auc, result.challenger_auc) == pytest.approx(tuple(aucs))
    assert result.difference == pytest.approx(aucs[1] - aucs[0])
    assert result.standard_error == pytest.approx(error)
    assert result.z == pytest.approx(result.difference / error)
    assert result.p_value == pytest.approx(math.erfc(abs(result.z) / math.sqrt(2)))
    assert result.low == pytest.approx(result.difference - 1.6448536 * error)
    assert result.high == pytest.approx(result.difference + 1.6448536 * error)
    assert result.better
    assert result.non_inferior(0.0)


def test_standard_error_agrees_with_the_bootstrap() -> None:
    champion, challenger, label = sample(2, rows=1000, gain=0.1)
    rng = np.random.default_rng(3)
    differences = []
    for _ in range(400):
        rows = rng.integers(0, 1000, 1000)
        differences.append(auc(challenger[rows], label[rows]) - auc(champion[rows], label[rows]))
    assert compare_auc(champion, challenger, label=label).standard_error == pytest.approx(
        np.std(differences), rel=0.12
    )


def test_interval_of_binary_scores_uses_the_same_variance() -> None:
    champion, _, label = sample(4)
    result = binary_scores(champion, label)
    aucs, covariance = delong_covariance(champion[None, :], label)
    logit, slope = math.log(aucs[0] / (1 - aucs[0])), 1 / (aucs[0] * (1 - aucs[0]))
    reach = 1.959964 * math.sqrt(covariance[0, 0]) * slope
    assert result.auc_low == pytest.approx(1 / (1 + math.exp(reach - logit)))
    assert result.auc_high == pytest.approx(1 / (1 + math.exp(-reach - logit)))


def test_equal_models_are_called_better_at_the_nominal_rate() -> None:
    better = sum(compare(sample(seed), 0.9).better for seed in range(500))
    assert 0.07 <= better / 500 <= 0.13


def test_margin_decides_non_inferiority() -> None:
    rng = np.random.default_rng(5)
    label = rng.random(5000) < 0.2
    champion = rng.normal(size=5000) + label
    result = compare_auc(champion, champion + 0.2 * rng.normal(size=5000), label=label)
    assert not result.better
    assert not result.non_inferior(0.0)
    assert result.non_inferior(0.02)
    with pytest.raises(InvalidInput, match="margin"):
        result.non_inferior(-0.01)


@pytest.mark.parametrize("other", [lambda s: s, lambda s: 3 * s - 1, np.exp])
def test_models_that_order_rows_alike_do_not_differ(other: object) -> None:
    champion, _, label = sample(6)
    result = compare_auc(champion, other(champion), label=label)  # type: ignore[operator]
    assert (result.difference, result.standard_error, result.z, result.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert (result.low, result.high) == (0.0, 0.0)
    assert not result.better
    assert result.non_inferior(0.001)
    assert not result.non_inferior(0.0)


def test_a_zero_variance_of_a_tiny_sample_is_no_certainty() -> None:
    result = compare_auc([2.0, 2.0, 1.0, 1.0], [1.0, 1.0, 2.0, 2.0], label=[0, 0, 1, 1])
    assert (result.difference, result.standard_error) == (1.0, 0.0)
    assert not result.better
    assert result.p_value > 0.5
    many = compare_auc([2.0] * 30 + [1.0] * 30, [1.0] * 30 + [2.0] * 30, label=[0] * 30 + [1] * 30)
    assert many.better
    assert many.p_value < 1e-6


@pytest.mark.parametrize("label", [[0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]])
def test_without_two_rows_of_each_class_nothing_is_claimed(label: list[int]) -> None:
    result = compare_auc([0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1], label=label)
    assert math.isnan(result.low)
    assert not result.better
    assert not result.non_inferior(1.0)
    aucs, covariance = delong_covariance([[0.1, 0.2, 0.3, 0.4]], label)
    assert np.isnan(covariance).all()
    assert math.isnan(aucs[0]) == (sum(label) in (0, 4))


def compare(arrays, level):  # type: ignore[no-untyped-def]
    champion, challenger, label = arrays
    return compare_auc(champion, challenger, label=label, level=level)


def test_inputs_are_not_changed() -> None:
    arrays = sample(7)
    for array in arrays:
        array.setflags(write=False)
    compare(arrays, 0.95)
    delong_covariance(np.stack(arrays[:2]), arrays[2])


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidInput, match="same rows"):
        compare_auc([0.1, 0.2], [0.1], label=[0, 1])
    with pytest.raises(InvalidInput, match="challenger contains NaN"):
        compare_auc([0.1, 0.2], [0.1, math.nan], label=[0, 1])
    with pytest.raises(InvalidInput, match=r"above 0\.5"):
        compare_auc([0.1, 0.2], [0.1, 0.2], label=[0, 1], level=0.4)
    with pytest.raises(InvalidInput, match="models, rows"):
        delong_covariance([0.1, 0.2], [0, 1])
