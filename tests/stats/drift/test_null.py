"""What the reference says of its own windows."""

from __future__ import annotations

import numpy as np
import pytest

from predis.stats.drift.distances import homogeneity
from predis.stats.drift.null import LEAST_WINDOWS, Null, learn

CELLS = 8


def blocks_of(shares: np.ndarray, rows: int = 100) -> np.ndarray:
    """float64[K, F, C]: a block for each row of shares."""
    rng = np.random.default_rng(1)
    return np.array([[rng.multinomial(rows, each)] for each in shares], dtype=float)


EVEN = np.full((48, CELLS), 1 / CELLS)
WAVES = 1 + 0.8 * np.sin(np.linspace(0, 12, 48)[:, None] + np.linspace(0, 3, CELLS)[None])
SEASONAL = WAVES / WAVES.sum(axis=1, keepdims=True)


def null_of(shares: np.ndarray, rows: int) -> Null:
    blocks = blocks_of(shares)
    return learn(blocks.sum(axis=0), blocks, rows=rows, freedom=np.array([CELLS - 1.0]), whole=True)


@pytest.mark.parametrize("rows", [100, 400, 1_600])
def test_even_windows_scatter_as_chance_does(rows: int) -> None:
    null = null_of(EVEN, rows)
    assert null.even.all()
    assert null.apart == 4_800 / rows
    assert null.train.design_effect(np.array([CELLS - 1.0]))[0] < 1.5


def test_seasonal_windows_scatter_more() -> None:
    null = null_of(SEASONAL, 400)
    assert not null.even.any()
    assert null.train.mean[0] > 5 * (CELLS - 1)
    freedom = np.array([CELLS - 1.0])
    assert null.train.tail(np.array([40.0]), freedom)[0] > 0.2  # by chance one in a million
    assert null.train.tail(null.train.quantile(0.01, freedom), freedom)[0] == pytest.approx(0.01)


def test_a_short_reference_asks_for_more() -> None:
    """Fewer windows say less of how they scatter: the same tail lies further out."""
    freedom = np.array([CELLS - 1.0])
    long, short = (null_of(SEASONAL[:blocks], 400) for blocks in (48, 16))
    assert not long.short
    assert short.short
    assert short.apart == 4 < LEAST_WINDOWS
    far = [each.train.quantile(0.001, freedom)[0] / each.train.mean[0] for each in (long, short)]
    assert far[1] > 1.3 * far[0]


def test_windows_larger_than_a_third_of_the_reference_are_told() -> None:
    assert null_of(EVEN, 4_800).apart == pytest.approx(1.0)
    assert null_of(EVEN, 4_800).short


def test_too_few_blocks_are_none() -> None:
    assert null_of(EVEN[:2], 100).apart == 0.0
    assert null_of(EVEN[:2], 100).even.all()


def test_homogeneity_is_pearson_s() -> None:
    from scipy.stats import chi2_contingency

    n, m = np.array([30.0, 50.0, 20.0]), np.array([50.0, 40.0, 60.0])
    assert homogeneity(n, m) == pytest.approx(chi2_contingency([n, m])[0])
    assert homogeneity(n, np.zeros(3)) == 0.0


def test_what_lasts_shows_more_in_larger_windows() -> None:
    """Blocks that do not touch cannot be joined: the excess over chance grows with the window."""
    freedom = np.array([CELLS - 1.0])
    blocks = blocks_of(SEASONAL)
    reference = 10 * blocks.sum(axis=0)
    small, large = (learn(reference, blocks, rows=rows, freedom=freedom, whole=False) for rows in (100, 500))
    assert large.train.mean[0] > 4 * small.train.mean[0]
    assert large.near.mean[0] == pytest.approx(2 * small.near.mean[0] - freedom[0], rel=0.01)
