"""Counting batches is counting the whole, however it is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import InvalidInput
from predis.stats import ProfileCounter, build_profile, numeric_bins

RNG = np.random.default_rng(1)
ROWS = 3_000
MATRIX = np.column_stack([RNG.normal(size=ROWS).cumsum(), RNG.integers(-1, 3, ROWS)])
MATRIX[::7, 0] = np.nan
SCORES, LABELS = RNG.random(ROWS), np.where(RNG.random(ROWS) < 0.2, np.nan, RNG.integers(0, 2, ROWS))
WHOLE = build_profile(MATRIX, names=["a", "b"], levels={"b": ["x", "y", "z"]}, scores=SCORES, labels=LABELS)


@given(st.lists(st.integers(0, ROWS), max_size=6))
def test_however_it_is_cut(cuts: list[int]) -> None:
    counter = ProfileCounter(WHOLE.bins, WHOLE.score_bins, rows=ROWS)
    for rows in np.split(np.arange(ROWS), sorted(cuts)):
        counter.add(MATRIX[rows], scores=SCORES[rows], labels=LABELS[rows])
    assert counter.profile() == WHOLE
    assert len(WHOLE.blocks) > 0


def test_without_columns_and_labels() -> None:
    counter = ProfileCounter((), WHOLE.score_bins, rows=ROWS)
    counter.add(np.empty((ROWS, 0)), scores=SCORES, labels=None)
    found = counter.profile()
    assert (found.rows, found.labelled, found.blocks.size) == (ROWS, 0, 0)
    assert found.score_counts.tolist() == WHOLE.score_counts.tolist()


def test_shapes_and_rows_that_do_not_fit() -> None:
    counter = ProfileCounter((numeric_bins("a", [1, 2]),), WHOLE.score_bins, rows=3)
    with pytest.raises(InvalidInput, match="one per row"):
        counter.add([[1.0]], scores=[0.5, 0.5], labels=None)
    counter.add([[1.0]], scores=[0.5], labels=None)
    with pytest.raises(InvalidInput, match="1 rows were counted of 3"):
        counter.profile()
