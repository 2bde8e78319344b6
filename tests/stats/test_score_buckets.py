"""Universal score buckets: every score has one, wherever models put their scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import InvalidInput
from predis.stats.score_buckets import BUCKETS, EDGES, count


def test_buckets_are_fixed() -> None:
    assert (EDGES.size, BUCKETS) == (294, 295)
    assert (np.diff(EDGES) > 0).all()
    assert (EDGES[0], EDGES[-1]) == (-1e9, 1e9)
    with pytest.raises(ValueError, match="read-only"):
        EDGES[0] = 1.0


@given(st.lists(st.floats(), max_size=60))
def test_every_score_but_nan_is_counted_once(scores: list[float]) -> None:
    counts = count(scores)
    assert (counts.dtype, counts.shape) == (np.int64, (BUCKETS,))
    assert counts.sum() == sum(not math.isnan(score) for score in scores)
    for bucket in np.flatnonzero(counts):
        low = EDGES[bucket - 1] if bucket > 0 else -math.inf
        high = EDGES[bucket] if bucket < EDGES.size else math.inf
        assert any(low <= score < high or score == high == math.inf for score in scores)


def test_certain_scores_have_buckets_of_their_own() -> None:
    scores = [0.0, -0.0, 1.0, 5e-324, 1 - 1e-9, 1 + 1e-9, -1e-9]
    found = [int(np.flatnonzero(count([score]))[0]) for score in scores]
    assert found[0] == found[1]
    assert len(set(found[1:])) == 6


def test_probabilities_are_resolved_where_they_differ() -> None:
    for low, high in ((1e-4, 1.5e-4), (0.01, 0.015), (0.5, 0.57), (0.99, 0.995)):
        assert (count([low]) != count([high])).any()
    for low, high in ((-3.0, -4.5), (10.0, 14.0), (-1e-3, -2e-3)):
        assert (count([low]) != count([high])).any()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidInput, match="one dimension"):
        count([[0.1]])
