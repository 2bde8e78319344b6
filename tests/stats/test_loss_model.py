"""Direct loss estimation: right where rows moved, blind where the meaning did."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from predis.errors import InvalidInput
from predis.stats import categorical_bins, numeric_bins
from predis.stats.loss_model import LossModel


def world(rng: np.random.Generator, rows: int, *, far: float) -> tuple[Any, Any]:
    """Errors are larger where x is large and where the kind is 1; ``far`` is the share of large x."""
    x = np.where(rng.random(rows) < far, rng.uniform(5, 10, rows), rng.uniform(0, 5, rows))
    kind = rng.integers(0, 2, rows)
    return np.column_stack([x, kind]), np.abs(rng.normal(0, 1 + 0.4 * x + 2 * kind))


def test_errors_that_grow_because_rows_moved() -> None:
    rng = np.random.default_rng(0)
    before, after = world(rng, 20_000, far=0.2), world(rng, 10_000, far=0.9)
    bins = (numeric_bins("x", before[0][:, 0]), categorical_bins("kind", ["a", "b"]))
    model = LossModel(bins, before[0], loss=before[1])
    value, low, high = model.expect(after[0])
    assert value == pytest.approx(after[1].mean(), rel=0.05)
    assert low < value < high
    assert value > 1.3 * before[1].mean()


def test_missing_values_have_an_effect_of_their_own() -> None:
    x = np.where(np.arange(2_000) % 4 == 0, np.nan, 1.0)
    model = LossModel((numeric_bins("x", x),), x[:, None], loss=np.where(np.isnan(x), 9.0, 1.0))
    assert model.expect([[math.nan]])[0] == pytest.approx(9.0, abs=0.3)


def test_too_little() -> None:
    bins = (numeric_bins("x", [0.0, 1.0]),)
    assert math.isnan(LossModel(bins, [[0.0]], loss=[1.0]).expect(np.empty((0, 1)))[0])
    with pytest.raises(InvalidInput, match="at least one"):
        LossModel(bins, np.empty((0, 1)), loss=[])
