"""What is promised without labels: right under covariate shift, blind to concept drift."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from predis.errors import InvalidInput
from predis.stats import Calibration, auc, calibrate, expected_binary
from predis.stats.estimates import _isotonic


def test_isotonic_as_sklearn_has_it() -> None:
    rng = np.random.default_rng(0)
    values, weights = rng.random(300) + np.linspace(0, 1, 300), rng.integers(1, 9, 300).astype(float)
    expected = IsotonicRegression().fit(np.arange(300), values, weights).predict(np.arange(300))
    np.testing.assert_allclose(_isotonic(values, weights), expected)


def world(rng: np.random.Generator, rows: int, *, shift: float = 0.0) -> tuple[Any, Any]:
    """Overconfident scores of rows that may have moved, and their labels."""
    x = rng.normal(shift, 1.5, rows)
    chance = 1 / (1 + np.exp(-x))
    return 1 / (1 + np.exp(-3 * x)), (rng.random(rows) < chance).astype(float)


@pytest.mark.parametrize("shift", [0.0, 1.0, -1.0])
def test_right_where_only_inputs_moved(shift: float) -> None:
    rng = np.random.default_rng(1)
    curve = calibrate(*world(rng, 40_000))
    assert curve is not None
    scores, labels = world(rng, 20_000, shift=shift)
    found = expected_binary(scores, curve)
    assert found["auc"] == pytest.approx(auc(scores, labels), abs=0.015)
    assert found["accuracy"] == pytest.approx(np.mean((scores >= 0.5) == labels), abs=0.015)
    assert found["positive_rate_low"] < labels.mean() + 0.005
    assert found["positive_rate_high"] > labels.mean() - 0.005


def test_blind_where_the_meaning_changed() -> None:
    rng = np.random.default_rng(2)
    curve = calibrate(*world(rng, 20_000))
    assert curve is not None
    scores, labels = world(rng, 5_000)
    assert auc(scores, 1 - labels) < 0.3
    assert expected_binary(scores, curve)["auc"] > 0.7


def test_travels_as_json() -> None:
    curve = calibrate([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    assert curve is not None
    again = Calibration.from_dict(curve.to_dict())
    np.testing.assert_array_equal(again([0.0, 0.3, 0.9]), curve([0.0, 0.3, 0.9]))
    broken: list[dict[str, Any]] = [
        {},
        {"scores": [1, 0], "shares": [0, 1], "rows": 2},
        {"scores": [], "shares": [], "rows": 0},
    ]
    for document in broken:
        with pytest.raises(InvalidInput):
            Calibration.from_dict(document)


def test_too_little() -> None:
    assert calibrate([0.1, 0.2], [1, 1]) is None
    curve = Calibration(np.array([0.0, 1.0]), np.array([0.0, 1.0]), 2)
    assert math.isnan(expected_binary([], curve)["auc"])
    assert expected_binary([0.2, 0.9], curve)["auc_low"] == -math.inf
