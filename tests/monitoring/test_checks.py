"""Checks: an alarm needs effect, significance and persistence together, and moved inputs alone never page anybody."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.monitoring import checks
from predis.monitoring.alerts import Finding, Severity
from predis.monitoring.checks import Rules, Watched
from predis.monitoring.store import pack_counts
from predis.monitoring.tally import SLOT
from predis.stats import Profile, binary_scores, build_profile, latency
from tests.toys import ENDPOINT, MODEL, SECOND, TENANT

RULES = Rules()
COLUMNS = tuple(f"f{place}" for place in range(9))


def profile_of(rows: int = 5_000) -> Profile:
    rng = np.random.default_rng(1)
    return build_profile(
        rng.normal(size=(rows, 9)), names=COLUMNS, levels={}, scores=rng.random(rows), labels=None
    )


PROFILE = profile_of()
REFERENCE = {"auc": 0.80, "auc_low": 0.79, "auc_high": 0.81}


def watched(profile: Profile | None = PROFILE, **reference: float) -> Watched:
    return Watched(TENANT, ENDPOINT, 3, MODEL, {**REFERENCE, **reference}, profile)


def window(auc: float | None, *, half: float = 0.01, number: int = 1) -> dict[str, Any]:
    scores = {"auc": None, "auc_low": None, "auc_high": None}
    if auc is not None:
        scores = {"auc": auc, "auc_low": auc - half, "auc_high": auc + half}
    return {"number": number, "rows": 4_000, "last_event": 77, "scores": scores}


def performance(*windows: dict[str, Any], rules: Rules = RULES, **reference: float) -> Finding | None:
    """``windows`` newest first."""
    return checks.check_performance(watched(**reference), windows, rules=rules)


class TestPerformance:
    BAD = window(0.70, number=8)
    FINE = window(0.80)

    def test_effect_significance_and_persistence(self) -> None:
        found = performance(self.BAD, window(0.72, number=7))
        assert found is not None
        assert (found.kind, found.severity, found.version) == ("performance", Severity.CRITICAL, 3)
        assert found.event_at == 77
        assert found.evidence["windows"] == [8, 7]
        assert found.evidence["loss"] == pytest.approx(0.10)
        assert "0.700" in found.message
        assert "0.800" in found.message
        assert found.command == f"predis monitor {ENDPOINT}"

    def test_one_bad_window_is_not_enough(self) -> None:
        """Effect and significance without persistence."""
        assert performance(self.BAD) is None
        assert performance(self.BAD, self.FINE) is None
        assert performance(self.FINE, self.BAD) is None  # it got better
        assert performance(self.FINE, self.BAD, self.BAD) is None

    def test_more_windows_can_be_asked_for(self) -> None:
        rules = Rules(decay_windows=3)
        assert performance(self.BAD, self.BAD, rules=rules) is None
        assert performance(self.BAD, self.BAD, self.FINE, rules=rules) is None
        assert performance(self.BAD, self.BAD, self.BAD, rules=rules) is not None
        assert performance(self.BAD, rules=Rules(decay_windows=1)) is not None

    def test_a_large_loss_by_chance_is_not_enough(self) -> None:
        """Effect and persistence without significance: small windows have wide intervals."""
        unsure = window(0.70, half=0.15)
        assert performance(unsure, unsure) is None
        assert performance(unsure, self.BAD) is None
        assert performance(self.BAD, unsure) is None

    def test_nor_if_the_reference_is_not_known_well(self) -> None:
        bad = window(0.70)
        assert performance(bad, bad, auc_low=0.60, auc_high=1.0) is None

    def test_a_certain_loss_within_the_margin_is_not_enough(self) -> None:
        """Significance and persistence without effect."""
        small = window(0.795, half=0.0001)
        sure = {"auc_low": 0.7999, "auc_high": 0.8001}
        assert performance(small, small, **sure) is None
        assert performance(small, small, rules=Rules(decay_margin=0.004), **sure) is not None

    def test_unknown_is_no_alarm(self) -> None:
        nothing = window(None)
        assert performance(nothing, self.BAD) is None
        assert performance(self.BAD, nothing) is None
        assert performance() is None
        none = Watched(TENANT, ENDPOINT, 3, MODEL, {}, None)
        assert checks.check_performance(none, [self.BAD, self.BAD], rules=RULES) is None

    def test_equal_quality_hardly_ever_alarms(self) -> None:
        """Windows of the very model that made the reference: the rule's own false alarms."""
        rng = np.random.default_rng(4)

        def quality(rows: int) -> dict[str, Any]:
            labels = rng.integers(0, 2, rows)
            return vars(binary_scores(rng.normal(size=rows) + labels, labels))

        alarms = 0
        for _model in range(40):
            reference = quality(2_000)
            seen: list[dict[str, Any]] = []
            for number in range(10):
                seen.insert(0, {"number": number, "rows": 1_000, "last_event": 0, "scores": quality(1_000)})
                found = checks.check_performance(
                    Watched(TENANT, ENDPOINT, 1, MODEL, reference, None), seen, rules=RULES
                )
                alarms += found is not None
        assert alarms <= 2  # of 400 looks


def drift_window(
    number: int, *, rows: int = 1_000, moved: int = 0, by: float = 0.0, score: float = 0.0
) -> Any:
    """A closed window as the store gives it; the first ``moved`` columns are moved ``by`` standard deviations."""
    rng = np.random.default_rng(100 + number)
    features = rng.normal(size=(rows, 9))
    features[:, :moved] += by
    return {
        "number": number,
        "rows": rows,
        "last_event": number,
        "features": pack_counts(np.concatenate(PROFILE.count(features))),
        "scores": pack_counts(PROFILE.count_scores(rng.random(rows) * (1 - score))),
    }


def drift(*windows: Any, rules: Rules = RULES) -> Finding | None:
    """``windows`` newest first."""
    return checks.check_drift(watched(), windows, rules=rules)


class TestDrift:
    def test_a_small_persistent_move_informs(self) -> None:
        found = drift(*[drift_window(number, moved=1, by=0.3) for number in (9, 8, 7)])
        assert found is not None
        assert (found.kind, found.severity) == ("drift", Severity.INFO)
        assert list(found.evidence["features"]) == ["f0"]
        assert (found.evidence["window"], found.event_at) == (9, 9)
        assert "f0 (PSI" in found.message

    def test_a_large_or_a_wide_one_warns(self) -> None:
        large = drift(*[drift_window(number, moved=1, by=2.0) for number in (3, 2)])
        wide = drift(*[drift_window(number, moved=3, by=0.3) for number in (3, 2)])
        assert large is not None
        assert wide is not None
        assert {large.severity, wide.severity} == {Severity.WARNING}

    @given(by=st.floats(0.0, 50.0), moved=st.integers(0, 9), score=st.floats(0, 1))
    def test_never_more_than_a_warning(self, by: float, moved: int, score: float) -> None:
        windows = [drift_window(number, rows=400, moved=moved, by=by, score=score) for number in (3, 2, 1)]
        found = drift(*windows)
        assert found is None or found.severity <= Severity.WARNING

    def test_one_window_is_not_enough(self) -> None:
        moved, still = drift_window(9, moved=3, by=1.0), drift_window(8)
        assert drift(moved) is None
        assert drift(moved, still) is None
        assert drift(moved, still, drift_window(7)) is None

    def test_what_came_back_is_over(self) -> None:
        moved = [drift_window(number, moved=3, by=1.0) for number in (8, 7)]
        assert drift(drift_window(9), *moved) is None

    def test_a_certain_move_below_the_floor_is_not_enough(self) -> None:
        windows = [drift_window(number, rows=20_000, moved=1, by=0.1) for number in (2, 1)]
        assert drift(*windows) is None
        assert drift(*windows, rules=Rules(drift_floor=0.0)) is not None

    def test_nor_is_chance(self) -> None:
        """Small windows of the reference itself have a large PSI and are no drift."""
        windows = [drift_window(number, rows=250) for number in (3, 2, 1)]
        rows = checks.drift_of(PROFILE, windows, rules=RULES)
        assert max(row["psi"] for row in rows) > RULES.drift_floor
        assert drift(*windows) is None

    def test_few_rows_prove_nothing(self) -> None:
        assert drift(*[drift_window(number, rows=100, moved=9, by=5.0) for number in (3, 2, 1)]) is None

    def test_the_score_alone_is_no_drift_of_inputs(self) -> None:
        windows = [drift_window(number, score=0.9) for number in (2, 1)]
        (row,) = [r for r in checks.drift_of(PROFILE, windows, rules=RULES) if r["kind"] == "score"]
        assert row["persistent"]
        assert drift(*windows) is None

    def test_without_a_profile(self) -> None:
        assert checks.check_drift(watched(None), [drift_window(1), drift_window(2)], rules=RULES) is None

    def test_windows_whose_features_were_not_captured_say_nothing_of_them(self) -> None:
        blind = [
            {**drift_window(number), "features": bytes(len(drift_window(1)["features"]))} for number in (4, 3)
        ]
        assert [row["kind"] for row in checks.drift_of(PROFILE, blind, rules=RULES)] == ["score"]
        assert drift(*blind) is None
        seen = [drift_window(number, moved=2, by=1.0) for number in (2, 1)]
        rows = {row["feature"]: row for row in checks.drift_of(PROFILE, [*blind, *seen], rules=RULES)}
        assert set(rows) == {*COLUMNS, "(score)"}
        assert len(rows[COLUMNS[0]]["history"]) == 2
        assert len(rows["(score)"]["history"]) == 4

    def test_the_table_for_people(self) -> None:
        windows = [drift_window(number, moved=2, by=0.2 * number) for number in (4, 3, 2, 1)]
        rows = checks.drift_of(PROFILE, windows, rules=RULES)
        assert [row["psi"] for row in rows] == sorted((row["psi"] for row in rows), reverse=True)
        assert {row["feature"] for row in rows} == {*COLUMNS, "(score)"}
        first = rows[0]
        assert set(first) == {"feature", "kind", "psi", "threshold", "drifted", "persistent", "history"}
        assert len(first["history"]) == 4
        assert first["history"][-1] == first["psi"]  # oldest first
        assert first["history"] == sorted(first["history"])


def slots(requests: int, *, failed: int = 0, seconds: float = 0.005, slow: int = 0) -> list[dict[str, Any]]:
    """Traffic of a minute in two slots; ``slow`` of the answers took a second."""
    parts = []
    for place in range(2):
        of, bad, late = requests // 2, failed // 2, slow // 2
        took = [seconds] * (of - bad - late) + [1.0] * late
        parts.append({
            "start": place * SLOT, "requests": of, "failed": bad, "latency": pack_counts(latency.count(took)),
        })  # fmt: skip
    return parts


def traffic(*, rules: Rules = RULES, **given: Any) -> list[Finding]:
    return checks.check_traffic(TENANT, ENDPOINT, slots=slots(**given), rules=rules)


class TestTraffic:
    def test_all_is_well(self) -> None:
        assert traffic(requests=1_000, failed=20) == []
        assert checks.check_traffic(TENANT, ENDPOINT, slots=[], rules=RULES) == []

    def test_errors(self) -> None:
        (found,) = traffic(requests=1_000, failed=22)
        assert (found.kind, found.severity, found.version) == ("errors", Severity.CRITICAL, None)
        assert found.evidence == {"failed": 22, "requests": 1_000}
        assert found.event_at == SLOT
        assert "2.2%" in found.message

    def test_latency(self) -> None:
        (found,) = traffic(requests=1_000, slow=20)
        assert (found.kind, found.severity) == ("latency", Severity.CRITICAL)
        assert found.evidence["p99_ms"] == pytest.approx(1_000, rel=0.05)
        assert traffic(requests=1_000, slow=4) == []
        assert traffic(requests=1_000, seconds=0.2) == []
        assert traffic(requests=1_000, seconds=0.2, rules=Rules(latency_limit_ms=100)) != []

    @pytest.mark.parametrize("requests", [2, 20, 48])
    def test_few_requests_prove_nothing(self, requests: int) -> None:
        assert traffic(requests=requests, failed=requests) == []
        assert traffic(requests=requests, slow=requests) == []

    def test_nothing_but_failures_has_no_latency(self) -> None:
        assert [found.kind for found in traffic(requests=100, failed=100)] == ["errors"]

    def test_a_minute_and_the_running_slot(self) -> None:
        now = 1_000 * SLOT
        assert now - checks.traffic_since(now) == 61 * SECOND
        assert math.isclose(checks.TRAFFIC_S, 60)


def test_down() -> None:
    assert checks.check_down(TENANT, ENDPOINT, silent_s=5.9, limit_s=6.0, now=1) is None
    found = checks.check_down(TENANT, ENDPOINT, silent_s=6.0, limit_s=6.0, now=9)
    assert found is not None
    assert (found.kind, found.severity, found.event_at) == ("endpoint_down", Severity.EMERGENCY, 9)


def test_every_finding_is_of_a_known_kind_and_says_what_to_do() -> None:
    from predis.monitoring.alerts import KINDS

    bad = window(0.6)
    found = [
        performance(bad, bad),
        drift(*[drift_window(number, moved=9, by=3) for number in (2, 1)]),
        *traffic(requests=1_000, failed=500, slow=100),
        checks.check_down(TENANT, ENDPOINT, silent_s=9, limit_s=6, now=1),
    ]
    kinds = {finding.kind for finding in found if finding is not None}
    assert kinds == set(KINDS) - {"evidence"}
    for finding in found:
        assert finding is not None
        assert finding.command.startswith("predis ")
        assert "\n" not in finding.message
