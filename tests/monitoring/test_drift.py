"""Drift of live inputs: a change warns once, what stays away informs, what breaks is critical and named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from predis.monitoring.alerts import Finding, Severity
from predis.monitoring.checks import Rules, Watched
from predis.monitoring.drift import DriftWatch
from predis.monitoring.store import pack_counts
from predis.stats import Ensemble, Profile, build_profile, numeric_bins
from predis.stats.drift import LEAST_SEASON
from tests.toys import ENDPOINT, MODEL, TENANT

COLUMNS = ("x", "y", "kind")
LEVELS = {"kind": ("a", "b", "c")}


def table(seed: int, rows: int = 1_000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.normal(size=(rows, 2)), rng.integers(0, 3, rows)])


def profile_of(rows: np.ndarray) -> Profile:
    scores = np.random.default_rng(0).random(len(rows))
    return build_profile(rows, names=COLUMNS, levels=LEVELS, scores=scores, labels=None)


BINS = numeric_bins("x", np.random.default_rng(1).normal(size=8_000))
PROFILE = profile_of(table(1, 12_000))
WATCHED = Watched(TENANT, ENDPOINT, 3, MODEL, {}, PROFILE)


class Live:
    """A version's windows, one after the other."""

    def __init__(self, profile: Profile = PROFILE, rules: Rules | None = None) -> None:
        self.profile = profile
        self.watch = DriftWatch(profile, rules or Rules())
        self.seed = 100

    def see(
        self, *, moved: float = 0.0, rows: int = 1_000, score: float = 0.0, **columns: Any
    ) -> dict[str, Finding]:
        """A window like the reference but for x moved by so much, and columns replaced; what is found then, by kind."""
        self.seed += 1
        features = table(self.seed, rows)
        features[:, 0] += moved
        for name, value in columns.items():
            features[:, COLUMNS.index(name)] = value
        return self.feed(features, score=score)

    def feed(self, features: np.ndarray, *, score: float = 0.0) -> dict[str, Finding]:
        counts = np.concatenate(self.profile.count(features))
        scores = np.random.default_rng(self.seed).random(len(features)) * (1.0 - score)
        return self.found(counts, self.profile.count_scores(scores), rows=len(features))

    def found(self, counts: np.ndarray, scores: np.ndarray, *, rows: int) -> dict[str, Finding]:
        number = self.watch.number + 1
        window = {"number": number, "rows": rows, "first_event": number, "last_event": number}
        self.watch.feed({**window, "features": pack_counts(counts), "scores": pack_counts(scores)})
        return {finding.kind: finding for finding in self.watch.findings(WATCHED)}


def test_calm_inputs_say_nothing() -> None:
    live = Live()
    assert [live.see() for _ in range(20)] == [{}] * 20


def test_a_change_warns_and_then_informs() -> None:
    live = Live()
    seen = [live.see(moved=0.0 if at < 3 else 0.6).get("drift") for at in range(10)]
    assert [found and found.severity for found in seen] == [
        None, None, None, None, *[Severity.WARNING] * 5, Severity.INFO,
    ]  # fmt: skip
    warned, informed = seen[4], seen[-1]
    assert warned is not None
    assert informed is not None
    assert warned.message.startswith("inputs of version 3 moved away from its reference: x (PSI 0.")
    assert "values are higher" in warned.message
    assert set(warned.evidence["features"]) == {"x"}
    assert warned.evidence["window"] == warned.event_at == 5
    assert warned.command == f"predis monitor {ENDPOINT} --drift"
    assert "are away from" in informed.message


def test_what_came_back_is_over() -> None:
    live = Live()
    assert [set(live.see(moved=0.6)) for _ in range(3)] == [set(), {"drift"}, {"drift"}]
    assert live.see() == {}
    assert live.see() == {}


def test_one_odd_window_is_no_drift() -> None:
    live = Live()
    assert [live.see(moved=moved) for moved in (0.0, 0.6, 0.0, 0.0)] == [{}] * 4


def test_a_larger_change_warns_again() -> None:
    live = Live()
    for _ in range(9):
        quiet = live.see(moved=0.6)
    assert quiet["drift"].severity == Severity.INFO
    live.see(moved=1.5)
    assert live.see(moved=1.5)["drift"].severity == Severity.WARNING


def test_a_certain_move_below_the_floor_is_not_enough() -> None:
    live = Live(rules=Rules(drift_floor=0.2))
    assert [live.see(moved=0.3) for _ in range(3)] == [{}] * 3


def test_few_rows_prove_nothing() -> None:
    live = Live()
    assert [live.see(moved=5.0, rows=90) for _ in range(4)] == [{}] * 4


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"y": np.nan}, "y: all 1000 values are missing; in the reference 0 % were"),
        ({"y": 0.5}, "y: every value lies in"),
        ({"kind": 1.0}, "kind: every value is b; the reference had values in 3 bins"),
        ({"kind": -1.0}, "kind: 100 % of the values are categories that the reference never had"),
    ],
)
def test_a_break_is_critical_and_named(columns: dict[str, float], words: str) -> None:
    live = Live()
    live.see()
    found = live.see(**columns)
    assert set(found) == {"data_break"}
    assert found["data_break"].severity == Severity.CRITICAL
    assert found["data_break"].message.startswith(f"inputs of version 3 broke: {words}")
    (row,) = [row for row in live.watch.table() if row["broken"]]
    assert row["feature"] in columns
    assert live.watch.table()[0] == row
    assert set(live.see()) == set()


def test_a_break_and_drift_are_told_apart() -> None:
    live = Live()
    for _ in range(2):
        found = live.see(moved=0.6, y=np.nan)
    assert set(found) == {"data_break", "drift"}
    assert set(found["drift"].evidence["features"]) == {"x"}
    assert found["data_break"].evidence["features"] == {"y": "all_null"}


def test_the_score_alone_is_no_drift_of_inputs() -> None:
    live = Live()
    for _ in range(3):
        assert live.see(score=0.9) == {}
    (row,) = [row for row in live.watch.table() if row["kind"] == "score"]
    assert row["persistent"]


def test_windows_whose_features_were_not_captured_say_nothing_of_them() -> None:
    live = Live()
    none = np.zeros(sum(bins.size for bins in PROFILE.bins), np.int64)
    for _ in range(2):
        assert live.found(none, PROFILE.score_counts, rows=1_000) == {}
    assert [row["kind"] for row in live.watch.table()] == ["score"]
    live.see()
    rows = {row["feature"]: row for row in live.watch.table()}
    assert set(rows) == {*COLUMNS, "(score)"}
    assert (len(rows["x"]["history"]), len(rows["(score)"]["history"])) == (1, 3)


def test_seasonal_inputs_inform_at_most() -> None:
    """A wave far longer than the reference: every window differs from the whole of it."""
    time = np.arange(60_000)
    wave = table(5, 60_000)
    wave[:, 0] += 2 * np.sin(2 * np.pi * time / 40_000)
    live = Live(profile_of(wave[:12_000]))
    severities = [
        finding.severity
        for start in range(12_000, 60_000, 1_000)
        for finding in live.feed(wave[start : start + 1_000]).values()
    ]
    assert Severity.WARNING not in severities


def test_a_short_reference_is_told() -> None:
    live = Live(profile_of(table(1, 2_000)))
    for _ in range(2):
        found = live.see(moved=2.0)
    assert "the reference holds only 2.0 such windows" in found["drift"].message


def test_the_table_for_people() -> None:
    live = Live()
    for at in range(15):
        live.see(moved=0.1 * at)
    rows = live.watch.table()
    assert rows[0]["feature"] == "x"
    assert set(rows[0]) == {
        "feature", "kind", "psi", "threshold", "drifted", "persistent", "seasonal", "broken", "history",
    }  # fmt: skip
    assert len(rows[0]["history"]) == 12  # the newest ones, oldest first
    assert rows[0]["history"][-1] == rows[0]["psi"]
    assert [row["psi"] for row in rows] == sorted((row["psi"] for row in rows), reverse=True)


class TestSeasons:
    def windows(self, mean: float, count: int, *, seed: int) -> list[Any]:
        rng = np.random.default_rng(seed)
        return [BINS.count(rng.normal(mean, size=1_000)) for _ in range(count)]

    def levels(self, season: list[Any]) -> list[str]:
        reference = np.random.default_rng(1).normal(size=8_000)
        blocks = [BINS.count(part) for part in np.split(reference, 40)]
        ensemble = Ensemble([BINS], [BINS.count(reference)], blocks=blocks)
        found = []
        for window in (*self.windows(0.0, 3, seed=2), *self.windows(1.5, 3, seed=3)):
            ensemble.update(window, season=season)
            assert ensemble.verdict is not None
            found.append(ensemble.verdict.level.name)
        return found

    def test_what_was_so_a_year_ago_is_no_drift(self) -> None:
        assert "DRIFTED" in self.levels([])
        assert "DRIFTED" not in self.levels(self.windows(1.5, LEAST_SEASON, seed=4))

    def test_fewer_windows_than_the_minimum_are_not_used(self) -> None:
        assert "DRIFTED" in self.levels(self.windows(1.5, LEAST_SEASON - 1, seed=4))

    def test_another_season_excuses_nothing(self) -> None:
        assert "DRIFTED" in self.levels(self.windows(-1.5, LEAST_SEASON, seed=4))
