"""Means compared within times of one share: no false difference where shares and levels change together."""

from __future__ import annotations

import math

import numpy as np
import pytest

from predis.errors import InvalidInput
from predis.stats import Moments, difference_interval, stratified_difference

RUNS, LOOKS, STEP = 400, 60, 100


def side(mean: float, n: int) -> Moments:
    """Moments of n coins of which a share of `mean` came up."""
    return Moments(n, mean, n * mean * (1 - mean))


def test_one_stratum_is_the_plain_comparison() -> None:
    stratum = side(0.7, 5_000), side(0.68, 500)
    estimate, *bounds = stratified_difference([stratum], alpha=0.05, tuned_at=1_000)
    assert estimate == pytest.approx(-0.02)
    assert bounds == pytest.approx(difference_interval(*stratum, alpha=0.05, tuned_at=1_000), rel=1e-3)


def test_strata_that_agree_are_worth_what_they_are_together() -> None:
    half, whole = (side(0.7, 500), side(0.6, 500)), (side(0.7, 1_000), side(0.6, 1_000))
    two = stratified_difference([half, half], alpha=0.05, tuned_at=1_000)
    assert two == pytest.approx(stratified_difference([whole], alpha=0.05, tuned_at=1_000), rel=5e-3)


def test_what_says_nothing_is_left_out() -> None:
    assert stratified_difference([], alpha=0.05, tuned_at=100)[1:] == (-math.inf, math.inf)
    few, alike = (side(0.5, 49), side(0.5, 1_000)), (side(1.0, 1_000), side(1.0, 1_000))
    nothing = stratified_difference([few, alike], alpha=0.05, tuned_at=100)
    assert math.isnan(nothing[0])
    assert nothing[1:] == (-math.inf, math.inf)
    stratum = side(0.7, 500), side(0.6, 500)
    assert stratified_difference([few, stratum, alike], alpha=0.05, tuned_at=100) == stratified_difference(
        [stratum], alpha=0.05, tuned_at=100
    )


@pytest.mark.parametrize("level", [0.3, 0.95])
def test_a_level_that_moves_with_the_share_is_no_difference(level: float) -> None:
    """From 10 % to 50 % of traffic after 30 looks, while the mean of both sides falls by 0.2."""
    rng = np.random.default_rng(1)
    found = {"stratified": 0, "cumulated": 0}
    for _ in range(RUNS):
        seen = {"stratified": False, "cumulated": False}
        strata: list[tuple[Moments, Moments]] = []
        for share, mean in ((0.1, level), (0.5, level - 0.2)):
            sums, n = np.zeros(2), np.zeros(2)
            for _look in range(LOOKS // 2):
                sizes = np.array([STEP - STEP * share, STEP * share]).astype(int)
                sums, n = sums + rng.binomial(sizes, mean), n + sizes
                now = side(sums[0] / n[0], int(n[0])), side(sums[1] / n[1], int(n[1]))
                _, low, high = stratified_difference([*strata, now], alpha=0.05, tuned_at=2_000)
                seen["stratified"] |= not low <= 0 <= high
                whole = [sum((part[k] for part in [*strata, now]), Moments()) for k in (0, 1)]
                low, high = difference_interval(*whole, alpha=0.05, tuned_at=2_000)
                seen["cumulated"] |= not low <= 0 <= high
            strata.append(now)
        for name, ever in seen.items():
            found[name] += ever
    assert found["stratified"] <= 0.05 * RUNS
    assert found["cumulated"] >= 0.9 * RUNS  # Simpson's paradox


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidInput, match="alpha"):
        stratified_difference([], alpha=1, tuned_at=1)
    with pytest.raises(InvalidInput, match="tuned_at"):
        stratified_difference([], alpha=0.05, tuned_at=0)
