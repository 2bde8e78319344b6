from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from predis.cache.predictor.features.batch import Batch, named
from predis.cache.predictor.features.features import Features
from predis.cache.predictor.features.places import Places
from predis.cache.predictor.features.table import FEATURES, NAMES, as_markdown

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "access-features.md"


def reads(count: int, seed: int = 3, keys: int = 60) -> Batch:
    rng = np.random.default_rng(seed)
    key = rng.zipf(1.3, count) % keys
    return Batch.of_columns(
        key,
        templates=key % 3,
        clients=rng.integers(0, 4, count),
        sizes=rng.integers(0, 2, count) * (key + 10),
        hits=rng.random(count) < 0.4,
        seconds=np.cumsum(rng.exponential(0.5, count)),
    )


def column(rows: np.ndarray, name: str) -> list[float]:
    return rows[:, NAMES.index(name)].tolist()


def test_there_are_64_each_with_a_name_of_its_own_and_the_page_tells_them() -> None:
    assert len(FEATURES) == len(set(NAMES)) == 64
    assert as_markdown() in PAGE.read_text()


def test_how_reads_are_cut_into_batches_changes_nothing() -> None:
    batch = reads(150)
    whole = Features().take(batch)
    for size in (1, 7, 128):
        features = Features()
        cut = np.vstack([features.take(batch.cut(at, at + size)) for at in range(0, len(batch), size)])
        np.testing.assert_allclose(cut, whole, rtol=1e-3, atol=1e-4, equal_nan=True)
    assert Features().take(batch.cut(0, 0)).shape == (0, 64)


@pytest.mark.parametrize("at", [0, 1, 311, 499])
def test_the_future_changes_no_feature_of_the_past(at: int) -> None:
    one, other = reads(500, seed=3), reads(500, seed=4)
    spliced = Batch(
        *(np.r_[getattr(one, field.name)[:at], getattr(other, field.name)[at:]] for field in fields(Batch))
    )
    np.testing.assert_array_equal(Features().take(one)[:at], Features().take(spliced)[:at])


def test_a_read_does_not_see_itself() -> None:
    batch = reads(300)
    hits, sizes = batch.hit.copy(), batch.size.copy()
    hits[-1], sizes[-1] = 1 - hits[-1], 12_345
    other = Batch(batch.key, batch.template, batch.client, sizes, hits, batch.seconds, batch.learn)
    np.testing.assert_array_equal(Features().take(batch)[-1], Features().take(other)[-1])


def test_questions_leave_no_trace_and_see_what_was_read_just_before() -> None:
    batch = reads(400)
    rows = np.array([10, 10, 200, 399])
    asked = batch.with_questions(rows, np.array([5, 6, 7, 1_000]), templates=np.array([2, 0, 1, 1]))
    found = Features().take(asked)
    np.testing.assert_allclose(found[asked.learn], Features().take(batch), rtol=1e-5, equal_nan=True)
    unknown = found[~asked.learn][3]
    assert unknown[NAMES.index("reads")] == 0
    assert np.isnan(unknown[NAMES.index("since_last")])
    same = batch.with_questions(np.array([9]), np.array([77]), templates=np.array([0]))
    key = same.key.copy()
    key[10] = batch.key[9]  # asked right after it was read
    now = Features().take(
        Batch(key, same.template, same.client, same.size, same.hit, same.seconds, same.learn)
    )[10]
    assert now[NAMES.index("since_last")] == 0
    assert now[NAMES.index("same_reader")] == 1


def test_recency_and_gaps_as_counted_by_hand() -> None:
    rows = Features().take(Batch.of_columns(np.array([7, 8, 7, 9, 9, 7, 7]), seconds=np.arange(7) * 2.0))
    of_7 = rows[[2, 5, 6]]
    assert column(of_7, "since_last") == [2, 3, 1]
    assert column(of_7, "since_last_s") == [4, 6, 2]
    assert column(of_7, "since_second")[1:] == [5, 4]
    assert column(of_7, "age") == [2, 5, 6]
    assert column(of_7, "reads") == [1, 2, 3]
    assert column(of_7, "gap")[1:] == [2, 3]
    assert column(of_7, "gap_mean")[1:] == [2, 2.5]
    assert column(of_7, "gap_sd")[1:] == [0, 0.5]
    assert column(of_7, "overdue")[1:] == pytest.approx([1.5, 0.4])
    assert column(of_7, "reads_16")[0] == pytest.approx(2 ** (-2 / 16))
    assert column(of_7, "reads_1s")[1] == pytest.approx(2**-6 + 2**-10)


def test_a_schedule_is_found() -> None:
    """A key read every 30 seconds among others: when it is due next is known."""
    rng = np.random.default_rng(5)
    seconds = np.sort(np.r_[rng.uniform(0, 600, 900), np.arange(0, 600, 30.0)])
    scheduled = seconds % 30.0 == 0.0
    batch = Batch.of_columns(np.where(scheduled, 1, rng.integers(2, 50, len(seconds))), seconds=seconds)
    late = 450 + int(np.flatnonzero(scheduled[450:])[0]) - 3  # three reads before it is due
    asked = batch.with_questions(np.array([late]), np.array([1]), templates=np.array([0]))
    now = Features().take(asked)[late + 1]
    assert now[NAMES.index("period_s")] == pytest.approx(30.0)
    assert now[NAMES.index("regular_s")] == pytest.approx(1.0)
    assert now[NAMES.index("to_next_s")] == pytest.approx(seconds[late + 3] - seconds[late], abs=1e-4)
    assert now[NAMES.index("gap_cv_s")] < 1e-3
    assert now[NAMES.index("burstiness")] < 0


def test_neighbours() -> None:
    rows = Features().take(Batch.of_columns(np.array([1, 2, 3, 1, 2, 1, 4, 1, 2])))
    assert column(rows, "pair_reads")[-1] == 2
    assert column(rows, "pair_after")[-1] == pytest.approx(2 / 3)  # after 1 came 2, 2, 4
    assert column(rows, "pair_before")[-1] == 1
    assert column(rows, "pair_since")[-1] == 4
    clients = np.array([0, 1, 0, 1, 0, 1])
    rows = Features().take(Batch.of_columns(np.array([1, 8, 2, 9, 1, 8]), clients=clients))
    assert column(rows, "same_reader")[-2:] == [1, 1]
    assert np.isnan(rows[0, NAMES.index("pair_reads")])  # nothing came before


def test_without_a_clock_what_needs_one_is_not_known() -> None:
    rows = Features().take(Batch.of_columns(np.arange(100) % 7))
    for feature in FEATURES:
        if "second" in feature.unit or feature.name.startswith("hour") or feature.name.endswith("0s"):
            assert np.isnan(rows[:, NAMES.index(feature.name)]).all(), feature.name
    assert not np.isinf(rows).any()


def test_keys_without_end_take_no_more_memory_and_a_hot_key_stays_known() -> None:
    features = Features(most=1 << 10)
    tables = [table for table in vars(features).values() if isinstance(table, Places)]
    before = sum(table.rows.nbytes for table in tables)
    for at in range(0, 80_000, 4_000):
        keys = np.arange(at, at + 4_000) + 10
        keys[::50] = 1
        rows = features.take(Batch.of_columns(keys))
    assert sum(table.rows.nbytes for table in tables) == before
    assert column(rows, "reads")[-50] == 80_000 / 50 - 1


def test_places_forget_what_was_used_least_recently() -> None:
    places = Places(8, 1)
    names = named(np.arange(9))
    for at in (*range(8), 0, 8):
        places.find(names[at : at + 1], np.zeros(1, np.int64), keep=np.ones(1, bool))
    found, known = places.find(names, np.arange(9), keep=np.zeros(9, bool))
    assert known.tolist() == [True, False, *[True] * 7]
    assert found[1] == -1
    assert len({*found.tolist()}) == 9
    with pytest.raises(ValueError, match="power of two"):
        Places(12, 1)
