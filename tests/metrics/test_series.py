from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import InvalidInput
from predis.metrics import TABLE, series

ROWS = TABLE["predis_rows_total"]
LAGS = TABLE["predis_queue_seconds"]


@pytest.mark.parametrize(
    ("name", "kind", "labels"),
    [
        ("predis_nothing_total", "counter", {}),
        ("predis_in_flight", "counter", {}),
        ("predis_in_flight", "gauge", {"worker": "serving-0"}),
        ("predis_cache_hits_total", "counter", {"tenant": "default"}),
    ],
)
def test_only_what_the_table_holds_can_be_written(name: str, kind: str, labels: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match=name):
        series.metric_of(name, kind, labels=labels)  # type: ignore[arg-type]


@given(st.lists(st.text(max_size=100), min_size=3, max_size=3))
def test_any_text_may_be_a_label_value(values: list[str]) -> None:
    labels = dict(zip(ROWS.labels, values, strict=True))
    found = series.decode(series.encode(ROWS, labels))
    assert found == series.Series(ROWS, tuple(values))


def test_the_order_in_which_labels_are_given_does_not_matter() -> None:
    labels = {"version": "1", "endpoint": "e", "tenant": "t"}
    assert series.encode(ROWS, labels) == series.encode(ROWS, dict(reversed(labels.items())))


def test_long_values_are_cut() -> None:
    found = series.decode(series.encode(ROWS, dict.fromkeys(ROWS.labels, "x" * 10_000)))
    assert found is not None
    assert {len(value) for value in found.values} == {256}


def test_a_series_is_found_by_some_of_its_labels() -> None:
    key = series.encode(ROWS, {"tenant": "t", "endpoint": "e", "version": "1"})
    assert series.has(key, {"endpoint": "e", "version": "1"})
    assert not series.has(key, {"endpoint": "e", "version": "2"})
    assert not series.has(key, {"worker": "e"})
    assert not series.has(b"?", {})


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"\xff",
        b"{}",
        b"[]",
        b"7",
        b'["predis_rows_total"]',
        b'["predis_rows_total",[]]',
        b'["predis_rows_total",{"tenant":"t","endpoint":"e"}]',
        b'["predis_rows_total",{"tenant":"t","endpoint":"e","version":1}]',
        b'["predis_rows_total",{"tenant":"t","endpoint":"e","version":"1","more":"x"}]',
        b'["predis_gone_total",{}]',
        json.dumps([LAGS.name, dict.fromkeys(LAGS.labels, "x"), *LAGS.buckets[1:]]).encode(),
    ],
)
def test_a_key_that_is_not_of_the_table_is_none(key: bytes) -> None:
    assert series.decode(key) is None
