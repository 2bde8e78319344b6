"""Thompson's share: the probability that the candidate's mean is higher, from either posterior."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import InvalidInput
from predis.stats import Moments, thompson_share

SIDES = st.one_of(st.lists(st.floats(-1e6, 1e6), max_size=30), st.lists(st.integers(0, 1), max_size=30)).map(
    Moments.of
)


def coins(heads: int, of: int) -> Moments:
    return Moments.of([1.0] * heads + [0.0] * (of - heads))


@given(SIDES, SIDES, st.floats(0, 0.5))
def test_both_sides_keep_the_floor_and_share_the_whole(
    baseline: Moments, candidate: Moments, floor: float
) -> None:
    share = thompson_share(baseline, candidate, floor=floor)
    assert floor <= share <= 1 - floor
    assert thompson_share(candidate, baseline, floor=floor) == pytest.approx(1 - share, abs=5e-3)


def test_nothing_known_shares_evenly() -> None:
    for side in (Moments(), coins(5, 10), Moments.of([3.0, 4.5])):
        assert thompson_share(side, side, floor=0.0) == pytest.approx(0.5, abs=2e-3)


@pytest.mark.parametrize(
    ("base", "candidate"),
    [((10, 100), (20, 100)), ((0, 0), (1, 1)), ((500, 1000), (0, 3)), ((2, 900), (1, 100))],
)
def test_coins_follow_their_beta_posteriors(base: tuple[int, int], candidate: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    drawn = [rng.beta(1 + heads, 1 + of - heads, 200_000) for heads, of in (base, candidate)]
    expected = float((drawn[1] > drawn[0]).mean())
    assert thompson_share(coins(*base), coins(*candidate), floor=0.0) == pytest.approx(expected, abs=5e-3)


def test_amounts_follow_the_normal_posterior() -> None:
    rng = np.random.default_rng(2)
    base, candidate = rng.gamma(2, 10, 400), rng.gamma(2, 10.5, 300)
    z = (candidate.mean() - base.mean()) / math.sqrt(base.var() / 400 + candidate.var() / 300)
    expected = 0.5 * math.erfc(-z / math.sqrt(2))
    assert thompson_share(Moments.of(base), Moments.of(candidate), floor=0.0) == pytest.approx(
        expected, abs=0.01
    )


def test_one_value_of_a_side_is_not_trusted() -> None:
    many = Moments.of(np.random.default_rng(3).normal(0, 1, 1000))
    assert 0.5 < thompson_share(many, Moments.of([1.0]), floor=0.0) < 0.9
    assert thompson_share(Moments.of([2.0, 2.0]), Moments.of([2.0]), floor=0.0) == 0.5


def test_extreme_counts() -> None:
    assert thompson_share(coins(10**5, 10**6), coins(2 * 10**5, 10**6), floor=0.0) == pytest.approx(1.0)
    assert thompson_share(coins(10**5, 10**6), coins(5 * 10**4, 10**6), floor=0.02) == 0.02


def test_it_finds_the_better_side() -> None:
    """A thousand rounds of 20 requests: the better of 10 and 15 % ends with nearly all traffic."""
    rng = np.random.default_rng(4)
    heads, n = np.zeros(2), np.zeros(2)
    for _ in range(400):
        sides = [
            Moments(int(k), h / k if k else 0.0, h * (1 - h / k) if k else 0.0)
            for h, k in zip(heads, n, strict=True)
        ]
        share = thompson_share(*sides, floor=0.05)
        dealt = np.array([0, rng.binomial(20, share)])
        dealt[0] = 20 - dealt[1]
        heads, n = heads + rng.binomial(dealt, [0.10, 0.15]), n + dealt
    assert share == 0.95
    assert n[1] > 0.8 * n.sum()


def test_what_makes_no_sense_is_refused() -> None:
    for floor in (-0.1, 0.6, math.nan):
        with pytest.raises(InvalidInput, match="floor"):
            thompson_share(Moments(), Moments(), floor=floor)
