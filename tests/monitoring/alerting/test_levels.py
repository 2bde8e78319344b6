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
from tests.toys import ENDPOINT, TENANT, Installation, record

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
