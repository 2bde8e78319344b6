"""What routes are to be told: grouped, once, in order, with silences, escalation and acknowledgement."""

from __future__ import annotations

import pytest

from predis.monitoring.alerting.outbox import SUMMARY_S
from predis.monitoring.alerting.store import AlertingStore
from predis.monitoring.alerts import Severity
from predis.state import Database
from tests.monitoring.alerting.worlds import World, finding
from tests.toys import ENDPOINT, TENANT

only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def test_the_life_of_an_incident(world: World) -> None:
    world.route(severity="info")
    world.look(finding("drift", Severity.INFO))
    for _ in range(3):
        world.look(finding("drift", Severity.INFO))
        world.desk.outbox.look()
    world.look(finding("drift", Severity.WARNING))
    world.alerts.acknowledge(TENANT, 1, actor="ada", note="on it")
    world.resolve()
    assert world.told() == [
        ("raised", "info"), ("worsened", "warning"), ("acknowledged", "warning"), ("resolved", "warning"),
    ]  # fmt: skip
    rows = world.rows()
    assert len({row["incident"] for row in rows}) == 1
    assert len({row["key"] for row in rows}) == 4
    assert rows[2]["notice"]["acknowledged_by"] == "ada"
    assert rows[0]["notice"]["command"] == "predis monitor"
    assert rows[0]["notice"]["look_at"]


def test_alerts_of_one_endpoint_and_kind_are_one_incident(world: World) -> None:
    """Told of once; over when the last of them is."""
    world.route()
    world.look(finding(version=1))
    world.look(finding(version=1), finding(version=2))
    world.look(finding(version=1), finding(version=2), finding("errors", version=None))
    assert world.told() == [("raised", "critical")] * 2
    for _ in range(3):
        world.look(finding(version=2), finding("errors", version=None))
    assert len(world.told()) == 2
    world.resolve()
    assert world.told() == [("raised", "critical")] * 2 + [("resolved", "critical")] * 2
    assert [len(row["notice"]["alerts"]) for row in world.rows()] == [1, 1, 1, 2]


def test_after_its_end_it_is_another_incident(world: World) -> None:
    world.route()
    for _ in range(2):
        world.look(finding())
        world.resolve()
    assert [event for event, _ in world.told()] == ["raised", "resolved"] * 2
    assert len({row["incident"] for row in world.rows()}) == 2


def test_it_is_written_with_the_alert_or_not_at_all(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.route()
    real = AlertingStore.add_delivery

    def dies(*arguments: object) -> int:
        real(*arguments)  # type: ignore[arg-type]
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(AlertingStore, "add_delivery", dies)
        with pytest.raises(RuntimeError):
            world.look(finding())
    assert (world.rows(), world.alerts.listed(TENANT)) == ([], [])
    world.look(finding())
    assert world.told() == [("raised", "critical")]


def test_nothing_hangs_on_what_a_process_remembers(world: World) -> None:
    world.route()
    world.look(finding())
    world.restart()
    world.look(finding())
    world.desk.outbox.look()
    world.restart()
    world.resolve()
    assert world.told() == [("raised", "critical"), ("resolved", "critical")]


@only_sqlite
class TestRouting:
    def test_who_is_told_of_what(self, world: World) -> None:
        world.route("all", severity="info")
        world.route("critical", severity="critical")
        world.route("drift", kinds=("dri*", "data_break"))
        world.route("other", endpoint="other-*")
        world.look(finding(), finding("drift", Severity.WARNING), finding("evidence", Severity.INFO))
        world.look(finding(endpoint="other-1"), endpoint="other-1")
        told = {
            name: [row["notice"]["kind"] for row in world.rows(name)]
            for name in ("all", "critical", "drift", "other")
        }
        assert told == {
            "all": ["drift", "evidence", "performance", "performance"], "critical": ["performance"] * 2, "drift": ["drift"],
            "other": ["performance"],
        }  # fmt: skip

    def test_a_route_added_later_is_told_of_what_lasts(self, world: World) -> None:
        world.look(finding())
        world.desk.outbox.look()
        world.route()
        assert world.desk.outbox.look() == 1
        assert world.desk.outbox.look() == 0
        assert world.told() == [("raised", "critical")]

    def test_of_what_it_was_never_told_it_is_not_told_the_end(self, world: World) -> None:
        world.look(finding())
        world.resolve()
        world.route()
        world.desk.outbox.look()
        assert world.rows() == []

    def test_tenants_do_not_hear_of_each_other(self, world: World) -> None:
        world.route()
        world.look(finding(tenant="elsewhere"), tenant="elsewhere")
        world.desk.outbox.look()
        assert world.rows() == []


@only_sqlite
class TestEscalation:
    def test_the_next_route_is_told_if_nobody_acknowledges(self, world: World) -> None:
        world.route("first")
        world.route("second", after_s=900)
        world.look(finding())
        world.clock.advance(899)
        world.desk.outbox.look()
        assert world.rows("second") == []
        world.clock.advance(1)
        world.desk.outbox.look()
        (row,) = world.rows("second")
        assert (row["event"], row["notice"]["escalated"]) == ("raised", True)
        world.look(finding())
        world.resolve()
        assert world.told("second") == [("raised", "critical"), ("resolved", "critical")]

    def test_not_if_somebody_has(self, world: World) -> None:
        world.route("second", after_s=900)
        world.look(finding())
        world.alerts.acknowledge(TENANT, 1, actor="ada")
        world.clock.advance(10_000)
        world.desk.outbox.look()
        assert world.rows() == []

    def test_getting_worse_starts_it_anew(self, world: World) -> None:
        world.route("second", after_s=900)
        world.look(finding("drift", Severity.WARNING))
        world.alerts.acknowledge(TENANT, 1, actor="ada")
        world.clock.advance(10_000)
        world.look(finding("drift", Severity.CRITICAL))
        world.clock.advance(899)
        world.desk.outbox.look()
        assert world.rows() == []
        world.clock.advance(1)
        world.desk.outbox.look()
        assert world.told("second") == [("raised", "critical")]

    def test_another_alert_that_joins_is_told_in_spite_of_the_acknowledgement(self, world: World) -> None:
        world.route()
        world.look(finding(version=1))
        world.alerts.acknowledge(TENANT, 1, actor="ada")
        world.look(finding(version=1), finding(version=2))
        assert [event for event, _ in world.told()] == ["raised", "acknowledged", "raised"]


@only_sqlite
class TestSilences:
    def test_nobody_is_told_and_machines_go_on(self, world: World) -> None:
        world.route()
        world.silence(endpoint="toy-*", kind="perf*")
        world.look(finding(), finding("errors"))
        assert [row["notice"]["kind"] for row in world.rows()] == ["errors"]
        assert {a["kind"]: a["silenced"] for a in world.alerts.listed(TENANT)} == {
            "performance": True, "errors": False,
        }  # fmt: skip

    def test_what_lasts_longer_is_told(self, world: World) -> None:
        world.route()
        world.silence(60)
        world.look(finding())
        world.clock.advance(58)
        world.desk.outbox.look()
        assert world.rows() == []
        world.clock.advance(2)
        world.desk.outbox.look()
        assert world.told() == [("raised", "critical")]

    def test_ended_by_hand(self, world: World) -> None:
        world.route()
        number = world.silence(3_600)
        world.look(finding())
        world.desk.silences.end(TENANT, number, actor="ada")
        world.desk.outbox.look()
        assert world.told() == [("raised", "critical")]

    def test_the_end_of_what_was_told_is_told(self, world: World) -> None:
        world.route()
        world.look(finding())
        world.silence(3_600)
        world.resolve()
        assert world.told() == [("raised", "critical"), ("resolved", "critical")]

    def test_an_emergency_has_to_be_named(self, world: World) -> None:
        world.route()
        world.silence()
        world.look(finding("endpoint_down", Severity.EMERGENCY))
        assert world.told() == [("raised", "emergency")]
        world.silence(severity="emergency", endpoint=ENDPOINT)
        assert world.alerts.listed(TENANT)[0]["silenced"]


@only_sqlite
class TestRateLimit:
    def test_a_flood_is_summed_up(self, world: World) -> None:
        world.route(per_hour=5)
        many = [finding(f"kind_{number:02}") for number in range(40)]
        world.look(*many)
        states = [row["state"] for row in world.rows()]
        assert (states.count("waiting"), states.count("folded")) == (5, 35)
        world.desk.outbox.look()
        summary = world.rows()[-1]
        assert (summary["event"], summary["severity"]) == ("summary", "critical")
        assert "35 more notices about 35 incidents: 35 raised" in summary["notice"]["title"]
        assert "kind_05" in summary["notice"]["message"]
        assert "and 15 more" in summary["notice"]["message"]
        # The ends of the five are told, those of the others summed up, and not before it is time.
        world.resolve()
        waiting = [row["event"] for row in world.rows() if row["state"] == "waiting"]
        assert waiting.count("resolved") == 5
        world.desk.outbox.look()
        assert world.told().count(("summary", "critical")) == 1
        world.clock.advance(SUMMARY_S)
        world.desk.outbox.look()
        assert "35 resolved" in world.rows()[-1]["notice"]["title"]

    def test_after_an_hour_there_is_room_again(self, world: World) -> None:
        world.route(per_hour=1)
        world.look(finding("a"), finding("b"))
        world.clock.advance(3_601)
        world.look(finding("a"), finding("b"), finding("c"))
        assert [row["state"] for row in world.rows()] == ["waiting", "folded", "waiting"]


def test_old_deliveries_go_and_what_lasts_stays(world: World, database: Database) -> None:
    world.route()
    world.look(finding("drift"), finding())
    for row in world.rows():
        with database.write() as connection:
            AlertingStore(database).end_delivery(
                connection, row["id"], values={"state": "sent", "ended_at": world.clock.time_ns()}
            )
    for _ in range(3):
        world.look(finding())
    world.clock.advance(91 * 86_400)
    world.desk.forget()
    assert sorted(row["notice"]["kind"] for row in world.rows()) == [
        "drift",
        "performance",
    ]  # of drift, the waiting end
