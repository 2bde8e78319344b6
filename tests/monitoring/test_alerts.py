"""Alerts: one per condition, told once, and again only when it gets worse; gone when it has stayed away."""

from __future__ import annotations

from typing import Any

import pytest

from predis.clock import ManualClock
from predis.errors import AlertNotFound, IllegalTransition
from predis.events import AlertRaised, AlertResolved, Bus
from predis.monitoring.alerts import CALM_LOOKS, KINDS, Alerts, Finding, Severity
from predis.monitoring.store import MonitoringStore
from predis.state import Database
from tests.toys import ENDPOINT, TENANT


class World:
    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.clock = clock
        self.bus = Bus()
        self.raised: list[AlertRaised] = []
        self.resolved: list[AlertResolved] = []
        self.bus.subscribe(AlertRaised, self.raised.append)
        self.bus.subscribe(AlertResolved, self.resolved.append)
        self.alerts = Alerts(database, clock=clock, bus=self.bus)

    def look(self, *findings: Finding, endpoint: str = ENDPOINT, tenant: str = TENANT) -> None:
        self.clock.advance(1)
        self.alerts.report(tenant, endpoint, findings=list(findings))

    def listed(self, tenant: str = TENANT, **other: Any) -> list[dict[str, Any]]:
        return self.alerts.listed(tenant, **other)


def finding(kind: str = "performance", severity: Severity = Severity.CRITICAL, **other: Any) -> Finding:
    given = {
        "tenant": TENANT, "endpoint": ENDPOINT, "version": 1, "message": "AUC fell", "command": "predis monitor",
        "event_at": 1_600_000_000_000_000_000, "evidence": {"auc": 0.6}, **other,
    }  # fmt: skip
    return Finding(kind=kind, severity=severity, **given)


@pytest.fixture
def world(database: Database, clock: ManualClock) -> World:
    return World(database, clock)


def test_opened_once_and_updated(world: World) -> None:
    for look in range(4):
        world.look(finding(message=f"look {look}", evidence={"look": look}))
    (alert,) = world.listed()
    assert (alert["state"], alert["looks"], alert["message"], alert["evidence"]) == (
        "open", 4, "look 3", {"look": 3},
    )  # fmt: skip
    assert (alert["kind"], alert["severity"], alert["version"]) == ("performance", "critical", 1)
    assert (alert["opened_at"], alert["seen_at"]) == ("2023-11-14T22:13:21Z", "2023-11-14T22:13:24Z")
    assert (alert["event_at"], alert["ended_at"]) == ("2020-09-13T12:26:40Z", None)
    (event,) = world.raised
    assert (event.alert, event.endpoint, event.version, event.kind, event.severity) == (
        alert["id"], ENDPOINT, 1, "performance", "critical",
    )  # fmt: skip
    assert world.resolved == []


def test_told_again_only_when_it_gets_worse(world: World) -> None:
    """One milder look does not ease an alert, so the next severe one is no news."""
    for severity in (Severity.INFO, Severity.INFO, Severity.WARNING, Severity.INFO, Severity.WARNING):
        world.look(finding("drift", severity))
    assert [event.severity for event in world.raised] == ["info", "warning"]
    assert len({event.alert for event in world.raised}) == 1
    (alert,) = world.listed()
    assert (alert["severity"], alert["looks"]) == ("warning", 5)


def test_it_eases_after_as_many_looks_as_it_takes_to_resolve(world: World) -> None:
    world.look(finding("drift", Severity.WARNING))
    for _ in range(CALM_LOOKS):
        world.look(finding("drift", Severity.INFO))
    assert [(a["state"], a["severity"]) for a in world.listed()] == [("open", "info")]
    world.look(finding("drift", Severity.WARNING))
    assert [event.severity for event in world.raised] == ["warning", "warning"]


def test_what_only_holds_keeps_an_alert_open_and_opens_none(world: World) -> None:
    world.look(finding(holds=True))
    assert world.listed() == []
    world.look(finding())
    for _ in range(2 * CALM_LOOKS):
        world.look(finding(holds=True))
    assert [a["state"] for a in world.listed()] == ["open"]


def test_of_two_findings_of_one_condition_the_severer_counts(world: World) -> None:
    world.look(finding("drift", Severity.INFO), finding("drift", Severity.WARNING))
    assert [a["severity"] for a in world.listed()] == ["warning"]


class TestAcknowledging:
    def test_takes_the_whole_incident(self, world: World) -> None:
        world.look(finding(version=1), finding(version=2), finding("errors", version=None))
        first, second, other = sorted(world.listed(), key=lambda a: (a["kind"] == "errors", a["id"]))
        found = world.alerts.acknowledge(TENANT, first["id"], actor="ada", note="on it")
        assert (found["acknowledged_by"], found["note"]) == ("ada", "on it")
        by_id = {a["id"]: a["acknowledged_by"] for a in world.listed()}
        assert (by_id[second["id"]], by_id[other["id"]]) == ("ada", "")

    def test_is_void_once_it_gets_worse(self, world: World) -> None:
        world.look(finding("drift", Severity.INFO))
        world.alerts.acknowledge(TENANT, world.listed()[0]["id"], actor="ada")
        world.look(finding("drift", Severity.WARNING))
        assert world.listed()[0]["acknowledged_at"] is None

    def test_what_is_over_or_not_there_cannot_be(self, world: World) -> None:
        with pytest.raises(AlertNotFound, match="no alert 7"):
            world.alerts.acknowledge(TENANT, 7, actor="ada")
        world.look(finding())
        for _ in range(CALM_LOOKS):
            world.look()
        with pytest.raises(IllegalTransition, match="was over at"):
            world.alerts.acknowledge(TENANT, world.listed()[0]["id"], actor="ada")

    def test_not_by_another_tenant(self, world: World) -> None:
        world.look(finding())
        with pytest.raises(AlertNotFound):
            world.alerts.acknowledge("elsewhere", world.listed()[0]["id"], actor="eve")


def test_hysteresis(world: World) -> None:
    """A condition that comes and goes is one alert; one that stays away is resolved after some looks, once."""
    world.look(finding())
    for _ in range(5):
        for _ in range(CALM_LOOKS - 1):
            world.look()
        world.look(finding())
    assert [(a["state"], a["looks"]) for a in world.listed()] == [("open", 6)]
    assert (len(world.raised), world.resolved) == (1, [])
    for _ in range(CALM_LOOKS + 3):
        world.look()
    (alert,) = world.listed()
    assert alert["state"] == "resolved"
    assert alert["ended_at"] is not None
    assert [(event.alert, event.endpoint) for event in world.resolved] == [(alert["id"], ENDPOINT)]


def test_after_it_was_resolved_it_is_another_alert(world: World) -> None:
    world.look(finding())
    for _ in range(CALM_LOOKS):
        world.look()
    world.look(finding())
    assert [a["state"] for a in world.listed()] == ["open", "resolved"]
    assert len(world.raised) == 2


def test_different_things_are_different_alerts(world: World) -> None:
    world.look(finding(), finding("drift", Severity.INFO), finding(version=2), finding(version=None))
    world.look(finding(endpoint="other"), endpoint="other")
    world.look(finding(tenant="elsewhere"), tenant="elsewhere")
    assert len(world.listed()) == 5
    assert len(world.listed("elsewhere")) == 1
    assert len(world.raised) == 6
    assert [a["endpoint"] for a in world.listed(endpoint="other")] == ["other"]


def test_the_calm_of_one_does_not_touch_another(world: World) -> None:
    world.look(finding(), finding("errors", version=None))
    world.look(finding(endpoint="other"), endpoint="other")
    for _ in range(CALM_LOOKS):
        world.look(finding())
    states = {(a["endpoint"], a["kind"]): a["state"] for a in world.listed()}
    assert states == {
        (ENDPOINT, "performance"): "open",
        (ENDPOINT, "errors"): "resolved",
        ("other", "performance"): "open",
    }


def test_a_new_process_goes_on_with_what_is_open(
    world: World, database: Database, clock: ManualClock
) -> None:
    world.look(finding())
    world.alerts = Alerts(database, clock=clock, bus=world.bus)
    world.look(finding())
    assert [(a["state"], a["looks"]) for a in world.listed()] == [("open", 2)]
    world.alerts = Alerts(database, clock=clock, bus=world.bus)
    for _ in range(CALM_LOOKS):
        world.look()
    assert [a["state"] for a in world.listed()] == ["resolved"]
    assert len(world.raised) == 1


def test_an_alert_that_cannot_be_stored_is_not_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = MonitoringStore.add_alert

    def dies(*arguments: Any, **named: Any) -> int:
        real(*arguments, **named)
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(MonitoringStore, "add_alert", dies)
        with pytest.raises(RuntimeError):
            world.look(finding())
    assert (world.listed(), world.raised) == ([], [])


def test_newest_first_and_limited(world: World) -> None:
    for version in range(1, 6):
        world.look(*[finding(version=v) for v in range(1, version + 1)])
    assert [a["version"] for a in world.listed()] == [5, 4, 3, 2, 1]
    assert [a["version"] for a in world.listed(limit=2)] == [5, 4]


def test_severities_are_ordered_and_every_kind_is_explained() -> None:
    assert [s.word for s in sorted(Severity)] == ["info", "warning", "critical", "emergency"]
    assert all(kind.meaning and kind.look_at for kind in KINDS.values())
