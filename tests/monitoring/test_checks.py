"""Checks: an alarm needs effect, significance and persistence together, and moved inputs alone never page anybody."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

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
    return {"number": number, "rows": 4_000, "last_event": 77, "task": "binary", "scores": scores}


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
        assert found.command == f"predis monitor {ENDPOINT} --why"

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

    @pytest.mark.parametrize(("error", "alarms"), [(12.0, True), (10.8, False), (8.0, False)])
    def test_of_numbers_the_error_rises_by_a_share(self, error: float, alarms: bool) -> None:
        def judged(mae: float, half: float) -> dict[str, float]:
            return {"mae": mae, "mae_low": mae - half, "mae_high": mae + half}

        bad = {"number": 1, "rows": 400, "last_event": 7, "task": "regression", "scores": judged(error, 0.1)}
        reference = Watched(TENANT, ENDPOINT, 3, MODEL, judged(10.0, 0.1), None)
        found = checks.check_performance(reference, [bad, bad], rules=RULES)
        assert (found is not None) == alarms
        if found is not None:
            assert "mean absolute error of version 3 rose to 12.000" in found.message
            assert found.evidence["loss"] == pytest.approx(0.2)

    def test_of_classes_the_accuracy_falls(self) -> None:
        scores = {"accuracy": 0.7, "accuracy_low": 0.69, "accuracy_high": 0.71}
        bad = {"number": 1, "rows": 400, "last_event": 7, "task": "multiclass", "scores": scores}
        found = performance(bad, bad, accuracy=0.8, accuracy_low=0.79, accuracy_high=0.81)
        assert found is not None
        assert "accuracy of version 3 fell to 0.700" in found.message

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
                seen.insert(
                    0,
                    {
                        "number": number,
                        "rows": 1_000,
                        "last_event": 0,
                        "task": "binary",
                        "scores": quality(1_000),
                    },
                )
                found = checks.check_performance(
                    Watched(TENANT, ENDPOINT, 1, MODEL, reference, None), seen, rules=RULES
                )
                alarms += found is not None
        assert alarms <= 2  # of 400 looks


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
    """What opens an alert."""
    found = checks.check_traffic(TENANT, ENDPOINT, slots=slots(**given), rules=rules)
    return [finding for finding in found if not finding.holds]


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

    @pytest.mark.parametrize(("failed", "kept"), [(20, True), (18, True), (16, False)])
    def test_an_alert_stays_open_a_little_below_its_limit(self, failed: int, kept: bool) -> None:
        found = checks.check_traffic(TENANT, ENDPOINT, slots=slots(1_000, failed=failed), rules=RULES)
        assert [finding.holds for finding in found] == [True] * kept

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
        *traffic(requests=1_000, failed=500, slow=100),
        checks.check_down(TENANT, ENDPOINT, silent_s=9, limit_s=6, now=1),
    ]
    kinds = {finding.kind for finding in found if finding is not None}
    assert {"performance", "errors", "latency", "endpoint_down"} == kinds <= set(KINDS)
    for finding in found:
        assert finding is not None
        assert finding.command.startswith("predis ")
        assert "\n" not in finding.message
