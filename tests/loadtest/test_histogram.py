"""The histogram against the exact percentiles of what was counted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from predis.loadtest.histogram import LOWEST_S, Histogram


@pytest.mark.parametrize("q", [0.0, 0.5, 0.9, 0.99, 0.999, 0.99999, 1.0])
def test_a_percentile_is_within_a_twentieth_of_a_percent(q: float) -> None:
    values = np.random.default_rng(7).lognormal(-6, 1.5, 100_000)
    exact = np.sort(values)[max(math.ceil(q * len(values)), 1) - 1]
    assert Histogram(values).quantile(q) == pytest.approx(exact, rel=0.000501)


def test_extremes_mean_and_total_are_exact() -> None:
    seen = Histogram([0.003, 0.001, 0.2])
    assert (seen.total, seen.least, seen.most, seen.quantile(1.0)) == (3, 0.001, 0.2, 0.2)
    assert seen.mean == pytest.approx(0.068)


def test_merging_is_counting_together() -> None:
    values = np.random.default_rng(1).exponential(0.01, 1_000)
    merged = Histogram(values[:300])
    merged.merge(Histogram(values[300:]))
    together = Histogram(values)
    assert (merged.counts == together.counts).all()
    assert (merged.total, merged.least, merged.most) == (together.total, together.least, together.most)
    assert merged.quantile(0.99) == together.quantile(0.99)


def test_nothing_counted_has_no_percentile() -> None:
    empty = Histogram()
    assert math.isnan(empty.quantile(0.5))
    assert math.isnan(empty.mean)
    empty.merge(Histogram())
    assert empty.total == 0


def test_what_is_out_of_range_is_counted_at_the_end() -> None:
    seen = Histogram([0.0, 1e-9, 5_000.0])
    assert seen.total == seen.counts.sum() == 3
    assert (seen.quantile(0.0), seen.quantile(1.0)) == (0.0, 5_000.0)
    assert seen.quantile(0.5) == pytest.approx(LOWEST_S, rel=0.001)


def test_between_counts_what_lies_there() -> None:
    seen = Histogram([0.001] * 10 + [0.1] * 5)
    assert seen.between(0.0, 0.01) == 10
    assert seen.between(0.01, math.inf) == 5
    assert seen.between(LOWEST_S, 0.0005) == 0
