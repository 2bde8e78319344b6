"""Broken data is named as what it is, and nothing else is called broken."""

from __future__ import annotations

import numpy as np
import pytest

from predis.stats import Bins, categorical_bins, numeric_bins
from predis.stats.drift import Break, find_breaks

RNG = np.random.default_rng(1)
REFERENCE = RNG.normal(size=5_000)
BINS = numeric_bins("x", REFERENCE)
LEVELS = categorical_bins("kind", ["a", "b", "c"])
CODES = RNG.integers(0, 3, 5_000).astype(float)


def broken(bins: Bins, reference: np.ndarray, values: np.ndarray) -> Break | None:
    blocks = np.array([bins.count(part) for part in np.array_split(reference, 20)])
    found = find_breaks([bins], [bins.count(reference)], counts=[bins.count(values)], blocks=blocks)
    return found[0] if found else None


def test_all_missing() -> None:
    found = broken(BINS, REFERENCE, np.full(500, np.nan))
    assert found == Break("x", "all_null", "all 500 values are missing; in the reference 0 % were")
    nearly = np.full(1_000, np.nan)
    nearly[0] = 0.0
    assert broken(BINS, REFERENCE, nearly).message.startswith("999 of 1000 values are missing")


def test_constant() -> None:
    assert broken(BINS, REFERENCE, np.full(500, 0.1)).kind == "constant"
    few = numeric_bins("n", CODES)
    found = broken(few, CODES, np.full(500, 2.0))
    assert found == Break("n", "constant", "every value is 2; the reference had values in 3 bins")
    assert broken(LEVELS, CODES, np.zeros(500)).message.startswith("every value is a;")


def test_unseen_categories() -> None:
    found = broken(LEVELS, CODES, np.append(np.full(300, -1.0), CODES[:700]))
    assert found.kind == "categories"
    assert found.message.startswith("30 % of the values")


@pytest.mark.parametrize(
    "values",
    [
        RNG.normal(1.0, size=500),  # drift, however large
        np.full(500, 99.0) + RNG.normal(size=500),
        np.append(REFERENCE[:500], np.full(400, np.nan)),
        np.full(50, np.nan),  # too few rows
    ],
)
def test_drift_is_not_called_broken(values: np.ndarray) -> None:
    assert broken(BINS, REFERENCE, values) is None


def test_what_the_reference_does_too_is_not_broken() -> None:
    part_time = REFERENCE.copy()
    part_time[1_000:2_000] = np.nan
    assert broken(numeric_bins("x", part_time), part_time, np.full(300, np.nan)) is None
    stuck = REFERENCE.copy()
    stuck[1_000:2_000] = 0.0
    assert broken(numeric_bins("x", stuck), stuck, np.zeros(300)) is None
    assert broken(numeric_bins("x", np.ones(500)), np.ones(500), np.ones(500)) is None
    rare = np.where(RNG.random(5_000) < 0.01, 1.0, 0.0)
    assert broken(numeric_bins("x", rare), rare, np.zeros(200)) is None
