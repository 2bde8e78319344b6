"""Bets on a tilted share: no increment is worth more than 1 on average, whether its events are independent or one cluster."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.stats._betting import STAKE, log_factors, log_mean

SHARES = st.floats(1e-6, 1 - 1e-6)
TILTS = st.sampled_from([1.01, 1.5, 2.0, 16.0, 0.99, 0.5, 1 / 16])


def factors(share: float, events: int, *, theta: float, cap: float = 4.0) -> np.ndarray:
    """What each number of hits 0..events would multiply the wealth by: float64[events + 1]."""
    hits = np.arange(events + 1.0)
    return np.exp(log_factors(np.array([theta]), share, hits=hits, others=events - hits, cap=cap))[:, 0]


@given(SHARES, st.integers(0, 40), TILTS, st.sampled_from([1.5, 4.0, 1e9]))
def test_independent_events_win_nothing_on_average(
    share: float, events: int, theta: float, cap: float
) -> None:
    chances = [math.comb(events, x) * share**x * (1 - share) ** (events - x) for x in range(events + 1)]
    assert float(np.dot(chances, factors(share, events, theta=theta, cap=cap))) <= 1 + 1e-9


@given(SHARES, st.integers(1, 10_000), TILTS, st.sampled_from([1.5, 4.0, 1e9]))
def test_one_cluster_wins_nothing_on_average(share: float, events: int, theta: float, cap: float) -> None:
    ends = np.array([0.0, events])
    nothing, all_ = np.exp(log_factors(np.array([theta]), share, hits=ends, others=ends[::-1], cap=cap))[:, 0]
    assert share * all_ + (1 - share) * nothing <= 1 + 1e-9


@given(SHARES, TILTS)
def test_a_single_event_counts_in_full(share: float, theta: float) -> None:
    z = 1 + share * (theta - 1)
    expected = [1 - STAKE + STAKE * f for f in (1 / z, theta / z)]
    assert factors(share, 1, theta=theta, cap=1e9).tolist() == pytest.approx(expected, rel=1e-9)


@given(SHARES, st.floats(0, 1e12), st.floats(0, 1e12), TILTS)
def test_no_increment_decides_alone_or_hides_what_follows(
    share: float, hits: float, others: float, theta: float
) -> None:
    found = log_factors(np.array([theta]), share, hits=hits, others=others, cap=4.0)
    assert math.log(1 - STAKE) - 1e-9 <= found[0] <= math.log(4.0)


def test_nothing_happened_changes_nothing() -> None:
    assert log_factors(np.array([2.0, 0.5]), 0.3, hits=0, others=0, cap=4.0).tolist() == [0.0, 0.0]


def test_many_increments_at_once_are_the_same_as_one_by_one() -> None:
    rng = np.random.default_rng(1)
    theta, share = np.array([1.5, 3.0]), rng.random((3, 4))
    hits, others = rng.integers(0, 9, (3, 4)), rng.integers(0, 9, (3, 4))
    whole = log_factors(theta, share, hits=hits, others=others, cap=4.0)
    assert whole.shape == (3, 4, 2)
    for at in np.ndindex(3, 4):
        one = log_factors(theta, share[at], hits=hits[at], others=others[at], cap=4.0)
        assert whole[at].tolist() == pytest.approx(one.tolist())


def test_log_mean() -> None:
    assert log_mean(np.log([1.0, 3.0])) == pytest.approx(math.log(2.0))
    assert log_mean(np.array([-1e6, 1e6])) == pytest.approx(1e6 - math.log(2.0))
