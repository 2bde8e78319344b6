from __future__ import annotations

import math
import sys
import threading
from bisect import bisect_left
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.metrics import TABLE
from predis.metrics.handles import Counter, Gauge, Histogram, memory

LAGS = TABLE["predis_request_seconds"]


def histogram() -> tuple[Histogram, memoryview]:
    cells = memory(LAGS.cells)
    return Histogram(LAGS, cells), cells


def test_a_counter_counts_and_advances() -> None:
    counter = Counter(TABLE["predis_rows_total"], memory(1))
    counter.add()
    counter.add(63)
    counter.advance(100)
    counter.advance(99)
    assert counter.value == 100


def test_a_gauge_goes_up_and_down() -> None:
    gauge = Gauge(TABLE["predis_in_flight"], memory(1))
    gauge.add(3)
    gauge.add(-1)
    assert gauge.value == 2
    gauge.set(0.5)
    assert gauge.value == 0.5


def test_a_bound_belongs_to_its_bucket() -> None:
    made, cells = histogram()
    made.observe([LAGS.buckets[0], LAGS.buckets[-1], LAGS.buckets[-1] * 2])
    assert (cells[0], cells[-3], cells[-2]) == (1, 1, 1)
    assert made.count == 3


@given(st.lists(st.floats(min_value=0, max_value=100) | st.sampled_from(LAGS.buckets)))
def test_a_batch_falls_into_the_buckets_that_its_values_do(values: list[float]) -> None:
    made, cells = histogram()
    made.observe(values)
    expected = [0] * (len(LAGS.buckets) + 1)
    for value in values:
        expected[bisect_left(LAGS.buckets, value)] += 1
    assert cells[:-1].tolist() == expected
    assert made.sum == sum(values)


def test_what_is_no_number_is_left_out() -> None:
    made, _ = histogram()
    made.observe([math.nan, 1.0, math.nan])
    made.observe([math.nan])
    made.observe([])
    assert (made.count, made.sum) == (1, 1.0)


@pytest.fixture
def _hasty_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_hasty_threads")
def test_threads_may_share_a_handle() -> None:
    counter = Counter(TABLE["predis_rows_total"], memory(1))
    made, _ = histogram()

    def count() -> None:
        for _ in range(20_000):
            counter.add()
        for _ in range(2_000):
            made.observe([0.001, 0.3, 100.0])

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.value == 8 * 20_000
    assert made.count == 8 * 2_000 * 3


def test_a_handle_goes_on_in_memory_from_where_it_stood() -> None:
    cells = memory(1)
    counter = Counter(TABLE["predis_rows_total"], cells)
    counter.add(5)
    counter.leave()
    counter.add(1)
    assert (counter.value, cells[0]) == (6, 5)
