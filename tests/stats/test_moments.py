"""Moments that add up, and the asymptotic confidence sequence of a difference of means."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import InvalidInput
from predis.stats import Moments, difference_interval
from predis.stats.moments import LEAST, mixture_width, shared_variances

VALUES = st.lists(st.floats(-1e6, 1e6), max_size=40)
RUNS, LOOKS = 1_000, 100


@given(VALUES, VALUES)
def test_moments_add_up(first: list[float], second: list[float]) -> None:
    both = Moments.of(first) + Moments.of(second)
    values = np.array(first + second)
    assert both.n == values.size
    if values.size:
        assert both.mean == pytest.approx(values.mean(), abs=1e-6)
        assert both.m2 == pytest.approx(((values - values.mean()) ** 2).sum(), rel=1e-6, abs=1e-3)
    if values.size > 1:
        assert both.variance == pytest.approx(values.var(ddof=1), rel=1e-6, abs=1e-3)
    assert Moments.from_list(json.loads(json.dumps(both.to_list()))) == both


def test_few_values_have_no_variance() -> None:
    assert math.isnan(Moments().variance)
    assert math.isnan(Moments.of([1.0]).variance)
    assert Moments() + Moments() == Moments()


def test_the_boundary_is_where_the_mixture_reaches_one_over_alpha() -> None:
    """Robbins: sqrt(rho / (V + rho)) exp(S^2 / (2 (V + rho))) = 1 / alpha on the boundary S."""
    for time in (0.3, 40.0, 1e7):
        for tuned_at in (1.0, 1e4):
            rho = 1.0 / (mixture_width(1.0, tuned_at, alpha=0.05) ** 2)
            s = mixture_width(time, tuned_at, alpha=0.05) * time
            others = np.geomspace(1e-4, 1e8, 4001) if rho else []
            log_mixture = 0.5 * np.log(others / (time + others)) + s * s / (2 * (time + others))
            assert np.abs(log_mixture + math.log(0.05)).min() < 0.01


@pytest.mark.parametrize("tuned_at", [100.0, 10_000.0])
def test_it_is_narrowest_where_it_is_tuned(tuned_at: float) -> None:
    there = mixture_width(tuned_at, tuned_at, alpha=0.05)
    for other in (0.3, 0.9, 1.1, 3.0):
        assert there <= mixture_width(tuned_at, tuned_at * other, alpha=0.05)


def paths(
    kind: str, share: float, *, gap: float = 0.0, seed: int = 1, step: int = 100
) -> tuple[np.ndarray, ...]:
    """Sums, sums of squares and sizes of both sides at each look: each float64[2, RUNS, LOOKS]."""
    rng = np.random.default_rng(seed)
    sizes = [step - round(step * share), round(step * share)]
    found = []
    for side, size in enumerate(sizes):
        shape = (RUNS, LOOKS, size)
        values = {
            "normal": lambda shape=shape: rng.normal(size=shape),
            "lognormal": lambda shape=shape: rng.lognormal(0, 1, shape),
            "coin": lambda shape=shape: (rng.random(shape) < 0.1).astype(float),
        }[kind]() + gap * side
        found.append((values.sum(axis=2).cumsum(axis=1), (values**2).sum(axis=2).cumsum(axis=1)))
    n = np.array(sizes)[:, None, None] * np.arange(1.0, LOOKS + 1)
    return np.array([sums for sums, _ in found]), np.array([squares for _, squares in found]), n


def excluded(kind: str, share: float, *, gap: float = 0.0) -> np.ndarray:
    """Where zero lies outside of the interval at 5 %: bool[RUNS, LOOKS], by the formula of the module."""
    sums, squares, n = paths(kind, share, gap=gap)
    mean = sums / n
    m2 = np.maximum(squares - n * mean**2, 0.0)
    spread = (m2 / n**2).sum(axis=0)
    out = np.zeros(spread.shape, dtype=bool)
    for run, look in zip(*np.nonzero(np.abs(mean[1] - mean[0]) > 2.0 * np.sqrt(spread)), strict=True):
        sides = [Moments(int(n[k, 0, look]), mean[k, run, look], m2[k, run, look]) for k in (0, 1)]
        low, high = difference_interval(*sides, alpha=0.05, tuned_at=2_000)
        out[run, look] = not low <= 0 <= high
    return out


@pytest.mark.parametrize("kind", ["normal", "lognormal", "coin"])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_peeking_finds_no_difference_where_there_is_none(kind: str, share: float) -> None:
    assert excluded(kind, share).any(axis=1).mean() <= 0.05


def test_a_difference_is_found() -> None:
    assert excluded("normal", 0.5, gap=0.15).any(axis=1).mean() >= 0.9


def test_too_little_says_nothing() -> None:
    nothing = -math.inf, math.inf
    many = Moments.of(np.arange(1000.0))
    for other in (Moments(), Moments(LEAST - 1, 0.5, 1.0)):
        assert difference_interval(many, other, alpha=0.05, tuned_at=100) == nothing
        assert difference_interval(other, many, alpha=0.05, tuned_at=100) == nothing
    alike = Moments(1000, 1.0, 0.0)
    assert difference_interval(alike, alike, alpha=0.05, tuned_at=100) == nothing


def test_a_small_sample_has_at_least_the_variance_of_both() -> None:
    small, large = Moments(100, 1.0, 0.0), Moments(900, 1.1, 900.0)
    both = 900.0 / 998
    assert shared_variances(small, large) == (both, large.variance)
    assert shared_variances(large, small) == (large.variance, both)


def test_what_makes_no_sense_is_refused() -> None:
    side = Moments.of([0.0, 1.0])
    for values in ([], [1, 2], [1, math.nan, 0], [-1, 0, 0], [1, 0, -1], [1, 0, math.inf], ["x", 0, 0], 3):
        with pytest.raises(InvalidInput, match="moments"):
            Moments.from_list(values)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="finite"):
        Moments.of([math.nan])
    with pytest.raises(InvalidInput, match="alpha"):
        difference_interval(side, side, alpha=0, tuned_at=1)
    for tuned_at in (0, math.nan, math.inf):
        with pytest.raises(InvalidInput, match="tuned_at"):
            difference_interval(side, side, alpha=0.05, tuned_at=tuned_at)
