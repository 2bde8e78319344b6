"""Sample ratio mismatch under continuous looking."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import InvalidInput
from predis.stats import SplitTest
from predis.stats._betting import log_factors
from predis.stats.split_test import TILTS

RUNS, LOOKS, STEP = 1_000, 200, 100
LEVEL = math.log(1 / 0.01)
STEPPED = np.where(np.arange(LOOKS) < 100, 0.1, 0.5)


def ever(stated: object, real: object, *, step: int = STEP, seed: int = 1) -> float:
    """Share of the runs in which the mismatch is found at any look, at alpha = 1 %."""
    rng = np.random.default_rng(seed)
    shares = np.broadcast_to(np.asarray(stated, dtype=np.float64), (RUNS, LOOKS))
    candidate = rng.binomial(step, np.broadcast_to(np.asarray(real), (RUNS, LOOKS)))
    theta = np.array([*TILTS, *(1 / tilt for tilt in TILTS)])
    wealth = log_factors(
        theta, shares, hits=candidate, others=step - candidate, cap=4.0, clustered=False
    ).cumsum(axis=1)
    found = np.logaddexp.reduce(wealth, axis=2) - math.log(theta.size) >= LEVEL
    return float(found.any(axis=1).mean())


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, STEPPED], ids=["1 %", "10 %", "half", "stepped"])
def test_a_fair_split_is_not_suspected(share: object) -> None:
    assert ever(share, share) <= 0.01


@pytest.mark.parametrize(
    ("stated", "real"), [(0.5, 0.45), (0.1, 0.07), (0.1, 0.0), (0.1, 0.14), (STEPPED, STEPPED * 0.9)]
)
def test_a_split_that_is_off_is_found(stated: object, real: object) -> None:
    assert ever(stated, real) >= 0.9


def test_a_split_slightly_off_is_found_in_much_traffic() -> None:
    assert ever(0.5, 0.495, step=10_000) >= 0.9


def test_the_class_adds_up_the_same_bets() -> None:
    rng = np.random.default_rng(2)
    theta = np.array([*TILTS, *(1 / tilt for tilt in TILTS)])
    test, wealth = SplitTest(), np.zeros(theta.size)
    for share in (0.1, 0.1, 0.5):
        candidate = int(rng.binomial(STEP, share))
        test.update(STEP - candidate, candidate, share=share)
        wealth += log_factors(theta, share, hits=candidate, others=STEP - candidate, cap=4.0, clustered=False)
    assert test.log_wealth == pytest.approx(math.log(np.exp(wealth).mean()))


@given(st.lists(st.tuples(st.floats(0, 1e12), st.floats(0, 1e12), st.floats(1e-6, 1 - 1e-6)), max_size=20))
def test_state_survives_json(increments: list[tuple[float, float, float]]) -> None:
    test = SplitTest()
    for baseline, candidate, share in increments:
        test.update(baseline, candidate, share=share)
    again = SplitTest.from_list(json.loads(json.dumps(test.to_list())))
    for each in (test, again):
        each.update(90, 10, share=0.2)
    assert math.isfinite(test.log_wealth)
    assert again.log_wealth == test.log_wealth


def test_nothing_arrived_says_nothing() -> None:
    test = SplitTest()
    test.update(0, 0, share=0.5)
    assert test.log_wealth == 0.0


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cap"):
        SplitTest(1.0)
    for share in (0.0, 1.0, math.nan):
        with pytest.raises(InvalidInput, match="share"):
            SplitTest().update(1, 1, share=share)
    with pytest.raises(InvalidInput, match="counts"):
        SplitTest().update(-1, 1, share=0.5)
    for values in ([], [4.0], [4.0, *[math.nan] * 12], [4.0, *["x"] * 12]):
        with pytest.raises(InvalidInput, match="stored"):
            SplitTest.from_list(values)
