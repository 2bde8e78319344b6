"""Bins: every value has exactly one, edges lie where they should, nothing is lost in JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import InvalidInput
from predis.stats import Bins, categorical_bins, numeric_bins
from predis.stats.bins import _count_by_comparing, _count_by_searching

ANY = st.floats(width=64)  # NaN, infinities and subnormal numbers included
FLAT = st.sampled_from([-1.0, 0.0, 0.5, 2.0, math.nan, math.inf])
COLUMN = st.lists(ANY, max_size=60) | st.lists(FLAT, max_size=60)


def slow_count(bins: Bins, values: list[float]) -> list[int]:
    """One value, one edge at a time."""
    counts = [0] * bins.size
    edges = bins.edges
    for value in values:
        if math.isnan(value):
            place = bins.size - 1
        elif not edges or value < edges[0]:
            place = 0
        elif value > edges[-1]:
            place = bins.size - 2
        elif value == edges[-1]:
            place = len(edges) - 1
        else:
            place = max(i for i, edge in enumerate(edges) if value >= edge) + 1
        counts[place] += 1
    return counts


@given(COLUMN, COLUMN)
def test_counting_equals_the_definition(reference: list[float], values: list[float]) -> None:
    bins = numeric_bins("x", reference, bins=4)
    counts = bins.count(values)
    assert counts.dtype == np.int64
    assert counts.tolist() == slow_count(bins, values)
    assert _count_by_comparing(np.array(values, dtype=float), bins._cuts).tolist() == counts.tolist()
    assert _count_by_searching(np.array(values, dtype=float), bins._cuts).tolist() == counts.tolist()


@given(COLUMN)
def test_the_reference_itself_is_never_out_of_range(values: list[float]) -> None:
    bins = numeric_bins("x", values)
    counts = bins.count([value for value in values if math.isfinite(value)])
    if bins.edges:
        assert counts[0] == counts[-2] == counts[-1] == 0
    assert bins.size == len(bins.labels)
    assert len(bins.edges) - 1 <= 12


@given(COLUMN, st.lists(ANY, max_size=40), st.lists(ANY, max_size=40))
def test_counts_add_up(reference: list[float], first: list[float], second: list[float]) -> None:
    bins = numeric_bins("x", reference)
    np.testing.assert_array_equal(bins.count(first) + bins.count(second), bins.count(first + second))
    assert bins.count(first).sum() == len(first)


@given(COLUMN)
def test_json_keeps_everything(values: list[float]) -> None:
    bins = numeric_bins("x", values)
    assert Bins.from_dict(json.loads(json.dumps(bins.to_dict(), allow_nan=False))) == bins


def test_many_blocks_count_like_one() -> None:
    values = np.random.default_rng(1).normal(size=50_000)
    bins = numeric_bins("x", values)
    assert bins.count(values).tolist() == slow_count(bins, values.tolist())
    assert bins.count(values[::2]).sum() == 25_000


def test_many_edges_count_like_few() -> None:
    values = np.random.default_rng(2).normal(size=20_000)
    bins = numeric_bins("x", values, bins=200)
    assert bins.count(values)[1:-2].tolist() == [100] * 200


def test_quantile_bins_are_equally_full() -> None:
    values = np.random.default_rng(3).exponential(size=10_000)
    assert numeric_bins("x", values).count(values).tolist() == [0, *[1000] * 10, 0, 0]


def test_few_distinct_values_get_a_bin_each() -> None:
    values = [3.0, 1.0, 1.0, 2.0, math.nan, 10.0]
    bins = numeric_bins("x", values)
    assert bins.edges == (1.0, 1.5, 2.5, 6.5, 10.0)
    assert bins.labels == ("< 1", "1", "2", "3", "10", "> 10", "missing")
    assert bins.count(values).tolist() == [0, 2, 1, 1, 1, 0, 1]
    assert bins.count([0.0, 1.4, 1.6, 11.0]).tolist() == [1, 1, 1, 0, 0, 1, 0]


def test_a_frequent_value_gets_a_bin_of_its_own() -> None:
    spread = np.arange(1.0, 101.0)
    for spike in (0.0, 50.0, 101.0):
        values = np.concatenate([np.full(150, spike), spread])
        bins = numeric_bins("x", values)
        assert 150 + np.count_nonzero(spread == spike) in bins.count(values)
        assert len(bins.edges) <= 12


@pytest.mark.parametrize("value", [0.0, -3.5, 1.7976931348623157e308, 5e-324])
def test_constant_column(value: float) -> None:
    bins = numeric_bins("x", [value] * 20)
    assert bins.edges == (value, value)
    assert len(bins.labels) == bins.size == 4
    larger, smaller = (
        np.nextafter(value, math.inf) if value < 1e300 else math.inf,
        np.nextafter(value, -math.inf),
    )
    assert bins.count([value, smaller, larger, math.nan]).tolist() == [1, 1, 1, 1]


def test_neighbouring_numbers_are_told_apart() -> None:
    low = 1.0
    high = float(np.nextafter(low, 2.0))
    bins = numeric_bins("x", [low, high])
    assert bins.count([low, low, high]).tolist() == [0, 2, 1, 0, 0]
    assert len(set(bins.labels)) == bins.size


def test_no_finite_value() -> None:
    bins = numeric_bins("x", [math.nan, math.inf])
    assert bins.labels == ("any value", "missing")
    assert bins.count([1.0, -math.inf, math.nan]).tolist() == [2, 1]
    assert numeric_bins("x", []).edges == ()


def test_labels_of_ranges() -> None:
    bins = Bins("x", "numeric", (0.5, 3.5, 7.0, 1234567.0), ())
    assert bins.labels == ("< 0.5", "0.5 - 3.5", "3.5 - 7", "7 - 1234567", "> 1234567", "missing")
    close = Bins("x", "numeric", (1.0000001, 1.0000002, 1.0000003), ())
    assert close.labels[1:3] == ("1.0000001 - 1.0000002", "1.0000002 - 1.0000003")


def test_infinite_edges_survive_json() -> None:
    bins = Bins("x", "numeric", (-math.inf, 0.0, math.inf), ())
    assert Bins.from_dict(json.loads(json.dumps(bins.to_dict(), allow_nan=False))) == bins
    assert bins.count([-math.inf, -1.0, 0.0, 1e308, math.inf, math.nan]).sum() == 6
    assert len(bins.labels) == bins.size


def test_categorical_codes() -> None:
    bins = categorical_bins("colour", ["red", "green", "blue"])
    assert bins.labels == ("red", "green", "blue", "unseen", "missing")
    assert bins.count([0, 2, 2, -1, 3, math.nan, math.inf, -math.inf]).tolist() == [1, 0, 2, 4, 1]
    assert bins.count([]).tolist() == [0, 0, 0, 0, 0]
    assert Bins.from_dict(json.loads(json.dumps(bins.to_dict()))) == bins
    assert categorical_bins("empty", []).count([0.0, math.nan]).tolist() == [1, 1]


@given(st.lists(st.integers(-2, 6).map(float) | st.just(math.nan), max_size=50))
def test_every_code_has_one_bin(codes: list[float]) -> None:
    counts = categorical_bins("c", ["a", "b", "c", "d"]).count(codes)
    assert counts[:4].tolist() == [codes.count(level) for level in range(4)]
    assert counts[5] == sum(map(math.isnan, codes))
    assert counts.sum() == len(codes)


def test_inputs_are_not_changed() -> None:
    values = np.array([3.0, -0.0, math.nan, 1.0])
    values.setflags(write=False)
    numeric_bins("x", values).count(values)
    categorical_bins("x", ["a"]).count(values)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"name": "x", "kind": "other", "edges": [], "levels": []},
        {"name": "x", "kind": "numeric", "edges": [1.0], "levels": []},
        {"name": "x", "kind": "numeric", "edges": [2.0, 1.0], "levels": []},
        {"name": "x", "kind": "numeric", "edges": [1.0, "nan"], "levels": []},
        {"name": "x", "kind": "numeric", "edges": [1.0, 2.0], "levels": ["a", "b"]},
        {"name": "x", "kind": "categorical", "edges": [1.0, 2.0], "levels": []},
        {"name": "x", "kind": "categorical", "edges": [], "levels": ["a", "a"]},
        {"name": "x", "kind": "numeric", "edges": 7, "levels": []},
    ],
)
def test_what_is_no_bins_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        Bins.from_dict(data)


def test_shapes_and_numbers_are_checked() -> None:
    with pytest.raises(InvalidInput, match="bins must be at least 2"):
        numeric_bins("x", [1.0], bins=1)
    with pytest.raises(InvalidInput, match="one dimension"):
        numeric_bins("x", [1.0]).count([[1.0]])
