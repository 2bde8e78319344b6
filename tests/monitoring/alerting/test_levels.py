"""Error budgets from the journal on: traffic goes in, minutes and alerts come out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from predis.clock import ManualClock
from predis.errors import InvalidInput
from predis.monitoring.alerting.store import AlertingStore
from predis.state import Database
from predis.state.records import Status
from tests import toys
from tests.toys import ENDPOINT, SECOND, TENANT, Installation, record

OBJECTIVES = {"availability": 0.99, "latency": {"ms": 100, "share": 0.9}}


@pytest.fixture
def installation(database: Database, home: Path, clock: ManualClock) -> Iterator[Installation]:
    with toys.installed(database, home, clock) as found:
        found.register(data=False)
        found.create_endpoint(objectives=OBJECTIVES)
        found.deploy(1)
        yield found


def send(installation: Installation, count: int, **other: Any) -> None:
    at = other.pop("at", installation.clock.time_ns())
    for place in range(count):
        installation.journal.append(record(f"{at}-{place}-{sorted(other)}", at=at, **other))
    installation.beat()
    installation.digest()


def shown(installation: Installation) -> dict[str, dict[str, Any]]:
    installation.clock.advance(2)
    found = installation.platform.monitor.levels.shown(TENANT, ENDPOINT)
    return {level["objective"]: level for level in found}


def kinds(installation: Installation) -> dict[str, str]:
    alerts = installation.platform.alerts.listed(TENANT)
    return {a["kind"]: a["severity"] for a in alerts if a["state"] == "open" and a["kind"].startswith("slo_")}


def test_counted_by_minute_and_exactly_once(installation: Installation) -> None:
    send(installation, 90)
    send(installation, 6, latency_us=150_000)
    send(installation, 4, status=Status.FAILED)
    send(installation, 50, status=Status.REJECTED)  # the callers'
    found = shown(installation)
    availability, latency = found["availability"], found["latency"]
    assert (availability["requests"], availability["bad"]) == (100, 4)
    assert availability["budget_left"] == pytest.approx(1 - 0.04 / 0.01)
    assert (latency["requests"], latency["bad"], latency["limit_ms"]) == (96, 6, 100.0)
    assert latency["budget_left"] == pytest.approx(1 - (6 / 96) / 0.1)
    assert latency["achieved"] == pytest.approx(90 / 96)
    # Neither another look nor the end of the slots changes what was counted.
    installation.clock.advance(7_200)
    installation.platform._tidy()
    assert shown(installation)["availability"]["requests"] == 100


def test_what_comes_late_is_counted_in_its_minute(installation: Installation) -> None:
    then = installation.clock.time_ns()
    send(installation, 10)
    installation.clock.advance(1_800)
    send(installation, 5, at=then + 1)
    assert shown(installation)["availability"]["requests"] == 15
    store = AlertingStore(installation.platform.database)
    recent = installation.clock.time_ns() - 1_700 * 1_000_000_000
    assert store.minutes(TENANT, ENDPOINT, since=[recent, 0])[0] == (0, 0, 0)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
class TestAlerts:
    def test_fast_burn_and_its_end(self, installation: Installation) -> None:
        send(installation, 850)
        assert kinds(installation) == {}
        installation.clock.advance(3)
        send(installation, 150, status=Status.FAILED)  # 15 % of 1 %: a burn rate of 15
        assert kinds(installation) == {"slo_availability": "critical"}
        (alert,) = [a for a in installation.platform.alerts.listed(TENANT) if a["kind"] == "slo_availability"]
        assert (
            "burns 15.0 times as fast as it may over 1 h, 15.0 times over 5 min; the limit is 14.4"
            in alert["message"]
        )
        assert alert["command"] == f"predis slo {ENDPOINT}"
        # The short window clears first: of the pair of 6 h and 30 min it is not over yet.
        installation.clock.advance(400)
        send(installation, 100)
        assert kinds(installation) == {"slo_availability": "critical"}
        installation.clock.advance(7 * 3_600)
        for _ in range(4):
            send(installation, 100)
        assert kinds(installation) == {}

    def test_slow_burn_is_a_warning(self, installation: Installation) -> None:
        """4 of 100 in every hour for a day: a burn rate of 4, less than 6 and more than 3."""
        for _ in range(24):
            send(installation, 96)
            installation.clock.advance(1)
            send(installation, 4, status=Status.FAILED)
            installation.clock.advance(3_599)
            installation.platform.ingest.look()
        assert kinds(installation) == {"slo_availability": "warning"}

    def test_slow_answers(self, installation: Installation) -> None:
        """All of them: 10 times what a budget of 10 % allows. Without an objective there is nothing to complain of."""
        send(installation, 100, latency_us=150_000)
        assert kinds(installation) == {"slo_latency": "critical"}
        changes: dict[str, Any] = {"objectives": {}}
        installation.platform.endpoints.configure(TENANT, ENDPOINT, changes=changes, actor="test")
        for _ in range(3):
            installation.clock.advance(3)
            installation.digest()
        assert kinds(installation) == {}

    def test_a_configuration_that_cannot_be_kept(self, installation: Installation) -> None:
        with pytest.raises(InvalidInput, match="availability is a number"):
            installation.create_endpoint("other", objectives={"availability": 2})


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
class TestOutages:
    """No worker serves for a while; 100 requests came in each minute before."""

    @staticmethod
    def before(installation: Installation) -> None:
        installation.clock.advance(60 - installation.clock.time_ns() / SECOND % 60)
        for _ in range(10):
            send(installation, 100)
            installation.clock.advance(60)
            installation.beat()
            installation.platform.monitor.look()

    @staticmethod
    def down(installation: Installation, seconds: float) -> None:
        """The monitor looks on, and nobody beats."""
        until = installation.clock.time_ns() + seconds * SECOND
        while installation.clock.time_ns() < until:
            installation.clock.advance(5)
            installation.platform.monitor.look()

    def test_an_outage_counts_against_availability_once(self, installation: Installation) -> None:
        self.before(installation)
        self.down(installation, 120)
        down = installation.platform.alerts.listed(TENANT)[0]
        assert (down["kind"], down["severity"]) == ("endpoint_down", "emergency")
        installation.beat()
        send(installation, 100)  # it is up again
        found = shown(installation)
        availability, latency = found["availability"], found["latency"]
        assert availability["outage_s"] == pytest.approx(120, abs=6)
        assert (availability["requests"], availability["bad"], availability["missed"]) == (1_300, 200, 200)
        assert availability["budget_left"] == pytest.approx(1 - (200 / 1_300) / 0.01)
        assert (latency["requests"], latency["bad"], latency["missed"]) == (1_100, 0, 0)
        # Looking again, another process and time count nothing twice.
        installation.clock.advance(3_600)
        installation.beat()
        installation.platform.monitor.look()
        again = shown(installation)["availability"]
        assert (again["requests"], again["missed"], again["outage_s"]) == (
            1_300,
            200,
            availability["outage_s"],
        )

    def test_it_pages_once(self, installation: Installation) -> None:
        self.before(installation)
        self.down(installation, 600)
        installation.beat()
        send(installation, 100)
        found = {alert["kind"] for alert in installation.platform.alerts.listed(TENANT)}
        assert found == {"endpoint_down"}
        assert {pair["long"] for pair in shown(installation)["availability"]["burn"]} == {0.0}

    def test_what_was_answered_or_failed_in_it_is_not_counted_again(self, installation: Installation) -> None:
        """Only the heartbeat was lost: records of those minutes come late."""
        self.before(installation)
        then = installation.clock.time_ns()
        self.down(installation, 120)
        for minute in range(2):
            send(installation, 60, at=then + minute * 60 * SECOND)
            send(installation, 30, at=then + minute * 60 * SECOND, status=Status.FAILED)
        availability = shown(installation)["availability"]
        assert availability["missed"] == 200 - 2 * 90
        assert (availability["requests"], availability["bad"]) == (1_200, 60 + 20)

    def test_without_traffic_nobody_missed_anything(self, installation: Installation) -> None:
        self.down(installation, 60)
        availability = shown(installation)["availability"]
        assert (availability["requests"], availability["missed"], availability["budget_left"]) == (0, 0, 1.0)
        assert availability["outage_s"] > 50

    def test_what_lies_before_the_window_is_forgiven(self, installation: Installation) -> None:
        self.before(installation)
        self.down(installation, 120)
        installation.clock.advance(30 * 86_400 - 60)
        assert shown(installation)["availability"]["missed"] < 120
        installation.clock.advance(60)
        assert shown(installation)["availability"]["missed"] == 0
