from __future__ import annotations

import pytest

from predis.monitoring.exporters.histograms import quantile, spread

BOUNDS = (1.0, 2.0, 4.0)


def test_spread_keeps_counts() -> None:
    assert spread(BOUNDS, (0, 0, 0, 0, 0.0)) == []
    assert spread(BOUNDS, (3, 0, 1, 0, 5.0)) == [(0.5, 3), (3.0, 1)]


def test_what_lies_beyond_makes_the_sum_come_out() -> None:
    found = spread(BOUNDS, (2, 0, 0, 4, 41.0))
    assert found == [(0.5, 2), (10.0, 4)]
    assert sum(value * count for value, count in found) == 41.0
    assert spread(BOUNDS, (0, 0, 0, 2, 3.0)) == [(4.0, 2)]  # never below where it lies


@pytest.mark.parametrize(("q", "expected"), [(0.5, 1.0), (0.75, 1.5), (1.0, 2.0), (0.25, 0.5)])
def test_quantiles_are_even_within_a_bucket(q: float, expected: float) -> None:
    assert quantile(BOUNDS, (2, 2, 0, 0, 4.0), q=q) == pytest.approx(expected)


def test_quantiles_at_the_ends() -> None:
    assert quantile(BOUNDS, (0, 0, 0, 0, 0.0), q=0.5) is None
    assert quantile(BOUNDS, (0, 0, 0, 7, 70.0), q=0.5) == 4.0
