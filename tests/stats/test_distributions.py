"""Quantiles and distributions from counts, under continuous looking."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from predis.errors import InvalidInput
from predis.stats import distribution_distance, latency, proportion_interval, quantile_interval, score_buckets

RUNS, LOOKS, STEP = 300, 60, 100


@given(
    st.lists(st.floats(1e-6, 200.0), max_size=300), st.floats(0.01, 0.99), st.sampled_from([0.5, 0.05, 1e-4])
)
def test_the_interval_inverts_the_confidence_sequence_of_a_proportion(
    values: list[float], q: float, alpha: float
) -> None:
    counts = latency.count(values)
    low, high = quantile_interval(counts, q, alpha=alpha)
    below = np.cumsum(counts)[:-1]
    possible = [proportion_interval(float(s), len(values), alpha=alpha) for s in below]
    # A q that is itself a bound (0.25 of one value, at alpha 0.5) is possible or not by the last bit.
    assume(all(abs(bound - q) > 1e-9 for bounds in possible for bound in bounds))
    surely_under = [edge for edge, (_, top) in zip(latency.EDGES, possible, strict=True) if top < q]
    surely_over = [edge for edge, (bottom, _) in zip(latency.EDGES, possible, strict=True) if bottom > q]
    assert low == (surely_under[-1] if surely_under else 0.0)
    assert high == (surely_over[0] if surely_over else math.inf)
    if values:
        assert low <= np.quantile(values, q, method="inverted_cdf") <= high


@pytest.mark.parametrize("q", [0.5, 0.99])
def test_the_true_quantile_is_left_in_at_most_alpha_of_all_runs(q: float) -> None:
    rng = np.random.default_rng(1)
    truth = float(np.exp(-5 + {0.5: 0.0, 0.99: 2.3263}[q] * 0.5))
    left = 0
    for _ in range(RUNS):
        looks = np.array([latency.count(rng.lognormal(-5, 0.5, STEP)) for _ in range(LOOKS)]).cumsum(axis=0)
        intervals = [quantile_interval(counts, q, alpha=0.1) for counts in looks]
        left += any(not low <= truth <= high for low, high in intervals)
    assert left <= 0.1 * RUNS


def test_a_quantile_beyond_the_buckets() -> None:
    assert quantile_interval(np.zeros(latency.BUCKETS), 0.5, alpha=0.05) == (0.0, math.inf)
    assert quantile_interval(latency.count([1e-9] * 1000), 0.5, alpha=0.05) == (0.0, latency.EDGES[0])
    assert quantile_interval(latency.count([1e9] * 1000), 0.5, alpha=0.05) == (latency.EDGES[-1], math.inf)


COUNTS = st.lists(st.integers(0, 10**6), min_size=8, max_size=8)


@given(COUNTS, COUNTS, st.sampled_from([0.5, 0.05, 1e-6]))
def test_distance(first: list[int], second: list[int], alpha: float) -> None:
    estimate, low, high = distribution_distance(first, second, alpha=alpha)
    assert 0.0 <= low <= high <= 1.0
    if sum(first) and sum(second):
        assert low <= estimate <= high
        assert distribution_distance(second, first, alpha=alpha) == pytest.approx((estimate, low, high))
    else:
        assert math.isnan(estimate)
        assert (low, high) == (0.0, 1.0)


def test_distance_of_the_equal_and_of_the_apart() -> None:
    assert distribution_distance([5, 5], [50, 50], alpha=0.05)[0] == 0.0
    assert distribution_distance([10**6, 0], [0, 10**6], alpha=0.05) == pytest.approx(
        (1.0, 0.99, 1.0), abs=0.01
    )


def score_looks(rng: np.random.Generator, b: float) -> np.ndarray:
    """Bucketed scores cumulated over the looks: int64[LOOKS, BUCKETS]."""
    return np.array([score_buckets.count(rng.beta(2, b, STEP)) for _ in range(LOOKS)]).cumsum(axis=0)


def test_equal_distributions_are_never_called_apart_and_other_ones_are() -> None:
    rng = np.random.default_rng(2)
    equal = apart = 0
    for _ in range(100):
        base = score_looks(rng, 4.0)
        for b in (4.0, 2.5):
            low = max(
                distribution_distance(*pair, alpha=0.05)[1]
                for pair in zip(base, score_looks(rng, b), strict=True)
            )
            equal += b == 4.0 and low > 0
            apart += b == 2.5 and low > 0.1
    assert equal <= 5
    assert apart >= 90


def test_what_makes_no_sense_is_refused() -> None:
    counts = np.ones(latency.BUCKETS)
    for q in (0.0, 1.0, math.nan):
        with pytest.raises(InvalidInput, match="q must"):
            quantile_interval(counts, q, alpha=0.05)
    with pytest.raises(InvalidInput, match="alpha"):
        quantile_interval(counts, 0.5, alpha=0.0)
    with pytest.raises(InvalidInput, match="buckets"):
        quantile_interval([1, 2], 0.5, alpha=0.05)
    with pytest.raises(InvalidInput, match="buckets"):
        distribution_distance([1, 2], [1, 2, 3], alpha=0.05)
    with pytest.raises(InvalidInput, match="alpha"):
        distribution_distance([1, 2], [1, 2], alpha=2)
