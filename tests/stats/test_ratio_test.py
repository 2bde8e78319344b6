"""The ratio test under continuous looking: false alarms in every weather, power, state."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import InvalidInput
from predis.stats import RatioTest
from predis.stats._betting import log_factors

RUNS, LOOKS, STEP = 1_000, 200, 100  # a look every 100 requests
NOW = np.arange(LOOKS)
NIGHT = 0.05 * (1 + np.sin(NOW / 15)) + 0.001  # the base rate swings between 0.1 and 10 %
STEPPED = np.where(NOW < 100, 0.1, 0.5)
LEVEL = math.log(1 / 0.05)


class Streams:
    """RUNS rollouts at once: int64[RUNS, LOOKS] bad ones and requests of each side, per increment."""

    def __init__(self, rate: object, share: object, *, times: float = 1.0, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        rates = np.broadcast_to(np.asarray(rate, dtype=np.float64), (RUNS, LOOKS))
        self.rng = rng
        self.n_c = rng.binomial(STEP, np.broadcast_to(np.asarray(share), (RUNS, LOOKS)))
        self.n_b = STEP - self.n_c
        self.bad_b = rng.binomial(self.n_b, rates)
        self.bad_c = rng.binomial(self.n_c, np.minimum(rates * times, 1.0))

    def stalls(self, chance: float, size: int) -> Streams:
        """Now and then everything in flight on one side fails; which side is a matter of its share."""
        on = self.rng.random((RUNS, LOOKS)) < chance
        candidate = self.rng.random((RUNS, LOOKS)) < self.n_c / STEP
        failed = self.rng.integers(1, size + 1, (RUNS, LOOKS))
        self.bad_c = self.bad_c + np.where(on & candidate, failed, 0)
        self.bad_b = self.bad_b + np.where(on & ~candidate, failed, 0)
        return self

    def paths(self, test: RatioTest) -> np.ndarray:
        """log_wealth of `test` at each look of each run: float64[RUNS, LOOKS]."""
        known = (self.n_b > 0) & (self.n_c > 0)
        share = np.where(known, test.ratio * self.n_c / (test.ratio * self.n_c + self.n_b), 0.5)
        hits, others = np.where(known, self.bad_c, 0), np.where(known, self.bad_b, 0)
        wealth = log_factors(test.tilts, share, hits=hits, others=others, cap=test.cap).cumsum(axis=1)
        return np.logaddexp.reduce(wealth, axis=2) - math.log(wealth.shape[2])

    def ever(self, test: RatioTest) -> float:
        """Share of the runs in which `test` reaches 1 / 0.05 at any look."""
        return float((self.paths(test) >= LEVEL).any(axis=1).mean())


@pytest.mark.parametrize(
    ("rate", "share"),
    [(0.01, 0.1), (0.01, 0.5), (NIGHT, 0.1), (NIGHT, STEPPED), (1e-4, 0.1), (0.4, 0.5), (0.05, 0.9)],
    ids=["1 %", "half", "night", "night, stepped", "rare", "often", "mostly candidate"],
)
def test_peeking_does_not_abort_an_equal_candidate(rate: object, share: object) -> None:
    assert Streams(rate, share).ever(RatioTest(1.0)) <= 0.05
    assert Streams(rate, share, times=1.5).ever(RatioTest(1.5)) <= 0.05


@pytest.mark.parametrize("size", [5, 40])
@pytest.mark.parametrize("chance", [0.02, 0.3])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_stalls_do_not_abort_an_equal_candidate(share: float, chance: float, size: int) -> None:
    assert Streams(0.01, share).stalls(chance, size).ever(RatioTest(1.0)) <= 0.05


def test_without_the_cuts_stalls_would_abort() -> None:
    """What the cuts are for: the plain likelihood ratio takes one stall for many independent failures."""
    streams = Streams(0.01, 0.1).stalls(0.02, 40)
    theta = RatioTest(1.0).tilts
    p = np.clip(streams.n_c / STEP, 1e-3, 1 - 1e-3)[..., None]
    d = (streams.bad_b + streams.bad_c)[..., None]
    plain = (streams.bad_c[..., None] * np.log(theta) - d * np.log1p(p * (theta - 1))).cumsum(axis=1)
    wealth = np.logaddexp.reduce(plain, axis=2) - math.log(theta.size)
    assert float((wealth >= LEVEL).any(axis=1).mean()) > 0.2


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_candidate_at_the_ratio_is_not_called_below_it(share: float) -> None:
    assert Streams(NIGHT, share, times=1.5).ever(RatioTest(1.5, below=True)) <= 0.05


@pytest.mark.parametrize(
    ("share", "times", "requests"), [(0.5, 2, 9_000), (0.5, 10, 800), (0.1, 3, 6_000), (0.1, 10, 1_000)]
)
def test_a_worse_candidate_is_caught(share: float, times: float, requests: int) -> None:
    caught = Streams(0.01, share, times=times).paths(RatioTest(1.0)) >= LEVEL
    assert float(caught[:, : requests // STEP].any(axis=1).mean()) >= 0.5


def test_an_equal_candidate_is_surely_below_twice_the_rate() -> None:
    assert Streams(0.01, 0.5).ever(RatioTest(2.0, below=True)) >= 0.9


def test_the_class_follows_the_same_path() -> None:
    streams = Streams(0.03, 0.2, times=1.5)
    for test in (RatioTest(1.0), RatioTest(2.0, 3.0, below=True)):
        paths = streams.paths(test)
        for look in range(LOOKS):
            b = int(streams.bad_b[0, look]), int(streams.n_b[0, look])
            c = int(streams.bad_c[0, look]), int(streams.n_c[0, look])
            test.update(b, c)
            assert test.log_wealth == pytest.approx(paths[0, look], abs=1e-9)


def test_exact_look_at_which_a_seeded_run_is_decided() -> None:
    decided = (Streams(0.01, 0.5, times=3).paths(RatioTest(1.0)) >= LEVEL).argmax(axis=1)
    assert decided[:6].tolist() == [34, 21, 13, 22, 15, 22]


def test_a_stall_of_the_baseline_is_forgotten() -> None:
    test = RatioTest(1.0)
    test.update((100, 100), (0, 100))
    for _ in range(12):
        test.update((0, 100), (3, 100))
    assert test.log_wealth > LEVEL


def test_one_side_without_requests_says_nothing() -> None:
    test = RatioTest(1.0)
    test.update((0, 0), (50, 50))
    test.update((7, 50), (0, 0))
    test.update((0, 50), (0, 50))
    assert test.log_wealth == 0.0


COUNTS = st.tuples(st.floats(0, 1e12), st.floats(0, 1e12))


@given(
    st.lists(st.tuples(COUNTS, COUNTS), max_size=20),
    st.floats(1e-3, 1e3),
    st.floats(1.1, 100.0),
    st.booleans(),
)
def test_state_survives_json(
    increments: list[tuple[tuple[float, float], tuple[float, float]]], ratio: float, cap: float, below: bool
) -> None:
    test = RatioTest(ratio, cap, below=below)
    for baseline, candidate in increments:
        test.update(baseline, candidate)
    assert math.isfinite(test.log_wealth)
    again = RatioTest.from_list(json.loads(json.dumps(test.to_list())))
    assert (again.ratio, again.cap, again.below) == (ratio, cap, below)
    for each in (test, again):
        each.update((3, 100), (5, 100))
    assert again.log_wealth == test.log_wealth


def test_reset_forgets() -> None:
    test = RatioTest(1.0)
    test.update((0, 100), (50, 100))
    assert test.log_wealth > 0
    test.reset()
    assert test.to_list() == RatioTest(1.0).to_list()


def test_what_makes_no_sense_is_refused() -> None:
    for ratio in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InvalidInput, match="ratio"):
            RatioTest(ratio)
    for cap in (1.0, math.nan):
        with pytest.raises(InvalidInput, match="cap"):
            RatioTest(1.0, cap)
    for count in ((-1, 5), (1, math.nan), (math.inf, 5)):
        with pytest.raises(InvalidInput, match="counts"):
            RatioTest(1.0).update(count, (1, 5))
    for values in ([], [1.0, 4.0, 0.0], [1.0, 4.0, 0.0, *[math.nan] * 6], [1.0, 4.0, 0.0, *["x"] * 6]):
        with pytest.raises(InvalidInput, match="stored"):
            RatioTest.from_list(values)
