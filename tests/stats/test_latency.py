"""Latency histograms: quantiles within one bucket of the exact ones, sums that equal the whole."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import InvalidInput
from predis.stats import LatencyHistogram
from predis.stats.latency import BUCKETS, EDGES, count, quantile

SECONDS = st.lists(st.floats(1e-5, 99.0), min_size=1, max_size=60)


def test_buckets_are_fixed() -> None:
    assert (EDGES.size, BUCKETS) == (337, 338)
    assert (EDGES[0], EDGES[-1]) == pytest.approx((1e-5, 100.0))
    np.testing.assert_allclose(EDGES[1:] / EDGES[:-1], 10 ** (1 / 48))
    with pytest.raises(ValueError, match="read-only"):
        EDGES[0] = 1.0


@given(SECONDS, st.floats(0, 1))
def test_quantiles_are_within_one_bucket(values: list[float], q: float) -> None:
    exact = sorted(values)[max(math.ceil(q * len(values) * (1 - 1e-12)), 1) - 1]
    assert quantile(count(values), q) == pytest.approx(exact, rel=0.0492)


@given(SECONDS, SECONDS)
def test_histograms_add_up(first: list[float], second: list[float]) -> None:
    both = LatencyHistogram.of(first) + LatencyHistogram.of(second)
    np.testing.assert_array_equal(both.counts, count(first + second))
    assert both.total == len(first) + len(second)


@given(SECONDS)
def test_quantiles_ascend(values: list[float]) -> None:
    found = [quantile(count(values), q) for q in np.linspace(0, 1, 21)]
    assert found == sorted(found)


def test_a_large_sample() -> None:
    values = np.random.default_rng(41).lognormal(-5, 1, 100_000)
    for q in (0.5, 0.9, 0.99, 0.999):
        assert quantile(count(values), q) == pytest.approx(np.quantile(values, q), rel=0.02)


def test_every_value_has_a_bucket() -> None:
    counts = count([0.0, -1.0, 9e-6, EDGES[0], EDGES[5], 99.9, 100.5, math.inf])
    assert counts.dtype == np.int64
    assert (counts[0], counts[1], counts[6], counts[-2], counts[-1]) == (3, 1, 1, 1, 2)
    assert counts.sum() == 8
    assert quantile(count([1e-9]), 0.5) == EDGES[0]
    assert quantile(count([1e9]), 0.5) == EDGES[-1]


def test_nothing_counted() -> None:
    empty = LatencyHistogram.of([])
    assert empty.total == 0
    assert math.isnan(empty.quantile(0.5))
    assert math.isnan(empty.share_above(0.1))


def test_share_above() -> None:
    histogram = LatencyHistogram.of([0.01] * 90 + [0.5] * 9 + [200.0])
    assert histogram.share_above(0.1) == pytest.approx(0.1)
    assert histogram.share_above(100.0) == pytest.approx(0.01)
    assert histogram.share_above(1000.0) == 0.0
    assert histogram.share_above(0.0) == 1.0


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidInput, match="NaN"):
        count([math.nan])
    with pytest.raises(InvalidInput, match="one dimension"):
        count([[0.1]])
    with pytest.raises(InvalidInput, match="buckets"):
        quantile([1, 2], 0.5)
    with pytest.raises(InvalidInput, match="q must"):
        quantile(count([0.1]), 1.1)
    with pytest.raises(InvalidInput, match="shape"):
        LatencyHistogram(np.zeros(3, dtype=np.int64))
