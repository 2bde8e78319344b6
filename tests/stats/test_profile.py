"""Profiles: counting the union equals merging the counts; JSON keeps everything."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import InvalidInput
from predis.stats import Profile, block_slices, build_profile

NAMES = ["age", "colour", "income"]
LEVELS = {"colour": ["red", "green"]}


def rows(seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    matrix = np.column_stack([rng.normal(40, 10, n), rng.integers(-1, 2, n), rng.exponential(size=n)])
    matrix[rng.random((n, 3)) < 0.05] = math.nan
    labels = (rng.random(n) < 0.2).astype(float)
    labels[rng.random(n) < 0.3] = math.nan
    return matrix, rng.random(n), labels


def profile(seed: int = 1, n: int = 500) -> Profile:
    matrix, scores, labels = rows(seed, n)
    return build_profile(matrix, names=NAMES, levels=LEVELS, scores=scores, labels=labels)


def test_profile_of_a_data_set() -> None:
    matrix, scores, labels = rows(1, 500)
    result = profile()
    assert result.names == ("age", "colour", "income")
    assert [bins.kind for bins in result.bins] == ["numeric", "categorical", "numeric"]
    assert result.rows == 500
    assert result.labelled == np.isfinite(labels).sum()
    assert result.positives == np.nansum(labels)
    for column, (bins, counts) in enumerate(zip(result.bins, result.counts, strict=True)):
        assert counts.sum() == 500
        assert counts[-1] == np.isnan(matrix[:, column]).sum()
        np.testing.assert_array_equal(counts, bins.count(matrix[:, column]))
    np.testing.assert_array_equal(result.score_counts, result.score_bins.count(scores))


def test_without_labels() -> None:
    matrix, scores, _ = rows(1, 50)
    result = build_profile(matrix, names=NAMES, levels=LEVELS, scores=scores, labels=None)
    assert (result.labelled, result.positives) == (0, 0)


def test_memory_order_does_not_matter_and_blocks_add_up() -> None:
    matrix, _, _ = rows(2, 10_001)
    result = profile()
    by_column = [bins.count(matrix[:, column]) for column, bins in enumerate(result.bins)]
    for table in (matrix, np.asfortranarray(matrix), matrix.tolist()):
        for counts, expected in zip(result.count(table), by_column, strict=True):
            np.testing.assert_array_equal(counts, expected)


@given(st.integers(0, 1000), st.integers(0, 300), st.integers(0, 300))
def test_merging_is_counting_the_union(seed: int, first: int, second: int) -> None:
    reference = profile(n=100)
    matrix, scores, _ = rows(seed, first + second)
    parts = [
        replace(
            reference,
            counts=reference.count(matrix[part]),
            score_counts=reference.count_scores(scores[part]),
            rows=len(matrix[part]),
            labelled=0,
            positives=0,
            blocks=np.empty((0, 0), dtype=np.int64),
        )
        for part in (slice(None, first), slice(first, None), slice(None))
    ]
    assert parts[0].merge(parts[1]) == parts[2]
    assert parts[1].merge(parts[0]) == parts[2]


def test_merge_adds_everything() -> None:
    one = profile()
    two = one.merge(one)
    assert (two.rows, two.labelled, two.positives) == (2 * one.rows, 2 * one.labelled, 2 * one.positives)
    np.testing.assert_array_equal(two.score_counts, 2 * one.score_counts)


def test_other_bins_do_not_merge() -> None:
    with pytest.raises(InvalidInput, match="different bins"):
        profile(1).merge(profile(2))


def test_json_keeps_everything() -> None:
    one = profile()
    text = json.dumps(one.to_dict(), allow_nan=False)
    assert Profile.from_dict(json.loads(text)) == one
    assert one != replace(one, rows=1)
    assert one != "profile"


def test_a_column_without_values() -> None:
    one = build_profile([[math.nan], [math.nan]], names=["x"], levels={}, scores=[1.0, 2.0], labels=None)
    assert Profile.from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False))) == one
    assert [counts.tolist() for counts in one.count([[1.0], [math.nan]])] == [[1, 1]]


def test_counts_cannot_be_changed_from_outside() -> None:
    one = profile()
    with pytest.raises(ValueError, match="read-only"):
        one.counts[0][0] = 1
    own = np.array(one.score_counts)
    two = replace(one, score_counts=own)
    own[0] += 1
    assert two == one


def test_inputs_are_not_changed() -> None:
    matrix, scores, labels = rows(1, 50)
    for array in (matrix, scores, labels):
        array.setflags(write=False)
    build_profile(matrix, names=NAMES, levels=LEVELS, scores=scores, labels=labels).count(matrix)


def test_what_does_not_fit_is_refused() -> None:
    matrix, scores, labels = rows(1, 50)
    with pytest.raises(InvalidInput, match="shape"):
        build_profile(matrix, names=NAMES[:2], levels={}, scores=scores, labels=None)
    with pytest.raises(InvalidInput, match="one per row"):
        build_profile(matrix, names=NAMES, levels={}, scores=scores[:9], labels=None)
    with pytest.raises(InvalidInput, match="one per row"):
        build_profile(matrix, names=NAMES, levels={}, scores=scores, labels=labels[:9])
    with pytest.raises(InvalidInput, match="shape"):
        profile().count(matrix[:, :2])
    with pytest.raises(InvalidInput, match="size"):
        build_profile(matrix, names=NAMES, levels={"size": ["s"]}, scores=scores, labels=None)
    with pytest.raises(InvalidInput, match="distinct"):
        build_profile(matrix, names=["a", "a", "b"], levels={}, scores=scores, labels=None)
    one = profile()
    with pytest.raises(InvalidInput, match="columns"):
        replace(one, counts=one.counts[:2])
    with pytest.raises(InvalidInput, match="age"):
        replace(one, counts=(one.counts[0][:3], *one.counts[1:]))
    for data in (
        {},
        {**one.to_dict(), "rows": "many"},
        {**one.to_dict(), "bins": 3},
        {**one.to_dict(), "counts": [[]]},
    ):
        with pytest.raises(InvalidInput):
            Profile.from_dict(data)


def test_blocks_are_contiguous_parts_in_order() -> None:
    for n, shape, size in ((30, 0, 0), (60, 3, 20), (1_000, 48, 20), (100_000, 48, 1_000)):
        blocks = profile(n=n).blocks
        assert len(blocks) == shape
        assert (blocks.sum(axis=1) == size * len(NAMES)).all()
    assert [part.start for part in block_slices(100_000)][:3] == [0, 2083, 4166]
    ordered = build_profile(
        np.arange(960.0)[:, None], names=["t"], levels={}, scores=np.zeros(960), labels=None
    )
    places = ordered.blocks.argmax(axis=1)
    assert places.tolist() == sorted(places.tolist())
    assert (ordered.blocks.sum(axis=0) == ordered.counts[0]).all()


def test_blocks_stay_small_where_there_are_many_bins() -> None:
    wide = np.random.default_rng(1).normal(size=(1_000, 8))
    levels = {f"f{at}": [str(level) for level in range(20_000)] for at in range(8)}
    many = build_profile(wide, names=[*levels], levels=levels, scores=wide[:, 0], labels=None)
    assert len(many.blocks) == 6
    assert Profile.from_dict(many.to_dict()) == many


def test_damaged_blocks_are_refused() -> None:
    stored = profile(n=1_000).to_dict()
    for damage in ({"shape": [3, 7]}, {"zlib": "AAAA"}, {"shape": [10**9, 30]}):
        with pytest.raises(InvalidInput):
            Profile.from_dict({**stored, "blocks": {**stored["blocks"], **damage}})
    assert len(Profile.from_dict({**stored, "blocks": None}).blocks) == 0
