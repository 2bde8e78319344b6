"""Drift of the access pattern: raised when it lasts, not by one odd window, and only against a training."""

from __future__ import annotations

from typing import Any

from predis.cache.predictor.habits import WINDOW_S, Habits

TRAINED = {"user:{}": 60_000, "cart:{}": 40_000}
SAME, OTHER = {"user:{}": 6_000, "cart:{}": 4_000}, {"user:{}": 2_000, "new:{}": 8_000}


def _windows(*counts: dict[str, int], reference: dict[str, int] = TRAINED) -> list[dict[str, Any] | None]:
    habits = Habits()
    habits.refer(1, reference)
    return [habits.take(one, now_s=(at + 1) * WINDOW_S) for at, one in enumerate(counts)]


def _drifted(*counts: dict[str, int]) -> list[bool]:
    return [bool(told and told["drifted"]) for told in _windows(*counts)]


def test_the_same_habits_are_no_drift() -> None:
    assert _drifted(*[SAME] * 10) == [False] * 10


def test_one_odd_window_is_none_and_three_are() -> None:
    assert _drifted(SAME, OTHER, SAME, SAME) == [False] * 4
    assert _drifted(SAME, OTHER, OTHER, OTHER) == [False, False, False, True]


def test_it_names_what_moved() -> None:
    told = _windows(OTHER)[0]
    assert told is not None
    assert told["shifted"]
    assert told["moved"][0] == {"kind": "(other)", "share": 0.8, "before": 0.0}


def test_few_reads_make_no_window() -> None:
    assert _windows(*[{"new:{}": 100}] * 4) == [None] * 4


def test_without_a_training_there_is_nothing_to_compare_with() -> None:
    assert _windows(SAME, OTHER, reference={}) == [None, None]


def test_another_version_begins_anew() -> None:
    habits = Habits()
    habits.refer(1, TRAINED)
    for at in range(3):
        told = habits.take(OTHER, now_s=(at + 1) * WINDOW_S)
    assert told is not None
    assert told["drifted"]
    habits.refer(2, OTHER)
    told = habits.take(OTHER, now_s=4 * WINDOW_S)
    assert told is not None
    assert (told["version"], told["drifted"]) == (2, False)
