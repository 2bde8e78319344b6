"""The ensemble: golden positions of alarms, quiet on seasons, once per change."""

from __future__ import annotations

import numpy as np
import pytest

from predis.errors import InvalidInput
from predis.stats import Ensemble, EnsembleVerdict, Level, Profile, build_profile

ROWS = 500


def profile_of(table: np.ndarray) -> Profile:
    names = [f"f{at}" for at in range(table.shape[1])]
    return build_profile(table, names=names, levels={}, scores=np.zeros(len(table)), labels=None)


class Run:
    """An ensemble and the windows it sees."""

    def __init__(self, reference: np.ndarray) -> None:
        self.profile = profile_of(reference)
        self.ensemble = Ensemble(self.profile.bins, self.profile.counts, blocks=self.profile.blocks)

    def see(self, table: np.ndarray) -> list[int]:
        """Numbers of windows that raised an alarm."""
        found = []
        for at, start in enumerate(range(0, len(table) - ROWS + 1, ROWS)):
            self.ensemble.update(np.concatenate(self.profile.count(table[start : start + ROWS])))
            if self.ensemble.drift_detected:
                found.append(at)
        return found

    @property
    def verdict(self) -> EnsembleVerdict:
        assert self.ensemble.verdict is not None
        return self.ensemble.verdict


def noise(seed: int, rows: int, columns: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, columns))


def seasons(seed: int, rows: int, *, start: int = 0) -> np.ndarray:
    """A column with a yearly and a daily cycle and errors that last, and one without."""
    rng = np.random.default_rng(seed)
    time = np.arange(start, start + rows)
    lasting = np.convolve(rng.normal(size=rows + 400), np.full(400, 1 / 20), mode="valid")[:rows]
    warm = 3 * np.sin(2 * np.pi * time / 20_000) + np.sin(2 * np.pi * time / 48) + lasting
    return np.column_stack([warm, rng.normal(size=rows)])


def test_independent_rows_raise_nothing() -> None:
    for seed in range(5):
        run = Run(noise(seed, 10_000, 20))
        assert run.see(noise(100 + seed, 50_000, 20)) == []
        assert not any(feature.seasonal for feature in run.verdict.features)


def test_golden_positions() -> None:
    """An abrupt change is raised in its second window, a gross one in its first, each once."""
    run = Run(noise(1, 10_000))
    stream = noise(2, 40 * ROWS)
    stream[10 * ROWS :, 0] += 0.5
    stream[25 * ROWS :, 1] += 9.0
    assert run.see(stream) == [11, 25]
    levels = {feature.name: feature.level for feature in run.verdict.features}
    assert levels == {"f0": 1, "f1": 1, "f2": 0, "f3": 0, "f4": 0}
    assert [feature.name for feature in run.verdict.at(Level.AWAY)] == ["f1", "f0"]
    assert run.verdict.level == Level.AWAY


def test_what_moves_together_is_one_alarm() -> None:
    stream = noise(2, 30 * ROWS)
    for column in range(3):
        stream[(10 + 2 * column) * ROWS :, column] += 0.6
    assert Run(noise(1, 10_000)).see(stream) == [11]


def test_one_odd_window_is_none() -> None:
    stream = noise(2, 20 * ROWS)
    stream[10 * ROWS : 11 * ROWS, 0] += 0.6
    assert Run(noise(1, 10_000)).see(stream) == []


def test_going_back_is_no_alarm_and_going_there_again_neither() -> None:
    run = Run(noise(1, 10_000))
    stream = noise(2, 60 * ROWS)
    for start in (10, 35):
        stream[start * ROWS : (start + 12) * ROWS, 0] += 0.6
    assert run.see(stream) == [11]
    assert run.verdict.level == Level.STABLE


def test_a_second_change_of_the_same_feature_is_a_second_alarm() -> None:
    stream = noise(2, 60 * ROWS)
    stream[10 * ROWS :, 0] += 0.6
    stream[35 * ROWS :, 0] += 0.9
    assert Run(noise(1, 10_000)).see(stream) == [11, 36]


def test_seasons_raise_nothing_though_they_move_everything() -> None:
    run = Run(seasons(3, 12_000))
    assert run.see(seasons(4, 60_000, start=12_000)) == []
    assert [feature.seasonal for feature in run.verdict.features] == [True, False]


def test_among_seasons_a_change_of_what_has_none_is_found() -> None:
    stream = seasons(4, 30_000, start=12_000)
    stream[15_000:, 1] += 0.6
    assert Run(seasons(3, 12_000)).see(stream) == [31]


def test_another_unit_of_a_seasonal_feature_is_found() -> None:
    stream = seasons(4, 30_000, start=24_000)
    stream[15_000:, 0] = stream[15_000:, 0] * 1.8 + 32
    run = Run(seasons(3, 24_000))  # all of a year: what leaves its range is no season
    assert run.see(stream) == [30]


def test_a_clock_raises_nothing_by_going_on() -> None:
    def ticking(rows: int, start: int) -> np.ndarray:
        return np.column_stack([np.arange(start, start + rows, dtype=float), noise(start, rows, 1)])

    assert Run(ticking(10_000, 0)).see(ticking(20_000, 10_000)) == []


def test_a_constant_that_begins_to_vary_is_gross() -> None:
    reference, stream = noise(1, 5_000), noise(2, 20 * ROWS)
    reference[:, 0] = 7.0
    stream[: 10 * ROWS, 0] = 7.0
    assert Run(reference).see(stream) == [10]


def test_a_short_reference_is_told_and_wide() -> None:
    run = Run(seasons(3, 2_000))
    run.see(seasons(4, 5_000, start=2_000))
    assert run.verdict.reference_windows == pytest.approx(4.0)
    assert run.verdict.features[0].threshold > 1.0 > run.verdict.features[1].threshold


def test_without_blocks_rows_are_taken_for_independent() -> None:
    profile = profile_of(noise(1, 10_000))
    ensemble = Ensemble(profile.bins, profile.counts)
    for seed in range(20):
        ensemble.update(np.concatenate(profile.count(noise(50 + seed, 1_000))))
        assert not ensemble.drift_detected
    for seed in range(2):
        ensemble.update(np.concatenate(profile.count(noise(80 + seed, 1_000) + 0.4)))
    assert ensemble.drift_detected
    assert ensemble.verdict is not None
    assert ensemble.verdict.reference_windows == 0.0


def test_windows_may_change_their_size() -> None:
    run = Run(noise(1, 20_000))
    for at, rows in enumerate((300, 3_000, 1_000, 15_000, 500)):
        run.ensemble.update(np.concatenate(run.profile.count(noise(60 + at, rows))))
        assert run.verdict.rows == rows
        assert run.verdict.level == Level.STABLE


def test_few_rows_say_nothing() -> None:
    run = Run(noise(1, 10_000))
    run.ensemble.update(np.concatenate(run.profile.count(noise(2, 199) + 9.0)))
    assert not run.verdict.enough
    assert run.verdict.level == Level.STABLE
    assert run.verdict.features == ()


def test_without_features_there_is_nothing_to_say() -> None:
    ensemble = Ensemble([], [])
    ensemble.update(np.empty(0))
    assert not ensemble.drift_detected


def test_blocks_of_other_bins_are_refused() -> None:
    profile = profile_of(noise(1, 1_000))
    with pytest.raises(InvalidInput, match="blocks"):
        Ensemble(profile.bins, profile.counts, blocks=np.ones((4, 3)))
    with pytest.raises(InvalidInput, match="alpha"):
        Ensemble(profile.bins, profile.counts, alpha=2.0)
