"""The monitor, end to end: synthetic traffic goes in, alerts come out, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predis.clock import ManualClock
from predis.events import AlertRaised
from predis.monitoring.alerts import CALM_LOOKS
from predis.state import Database
from predis.state.records import Status
from tests import toys
from tests.toys import ENDPOINT, TENANT, Installation, record


@pytest.fixture
def installation(database: Database, home: Path, clock: ManualClock) -> Iterator[Installation]:
    with toys.installed(database, home, clock) as found:
        found.register()
        found.create_endpoint()
        found.deploy(1)
        yield found


only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def alerts(installation: Installation, *, state: str = "open") -> dict[str, str]:
    """Kinds and severities."""
    found = installation.platform.alerts.listed(TENANT)
    return {alert["kind"]: alert["severity"] for alert in found if alert["state"] == state}


def test_the_life_of_a_model(installation: Installation) -> None:
    """Calm, then inputs that move, then a relation that breaks, then calm again."""
    raised: list[AlertRaised] = []
    installation.platform.bus.subscribe(AlertRaised, raised.append)
    for seed in range(10, 12):
        installation.observe(toys.table(200, seed=seed), version=1)
    assert alerts(installation) == {}

    for seed in range(20, 23):  # inputs move, the relation stays
        installation.observe(toys.table(200, seed=seed, shift=0.9), version=1)
    assert alerts(installation)["drift"] == "warning"
    assert {event.severity for event in raised} <= {"info", "warning"}

    for seed in range(30, 33):  # inputs are back, the label hangs on another column now
        installation.observe(toys.table(200, seed=seed, driver="z"), version=1)
    assert alerts(installation)["performance"] == "critical"
    (critical,) = [event for event in raised if event.severity == "critical"]
    assert (critical.kind, critical.version, critical.endpoint) == ("performance", 1, ENDPOINT)

    for seed in range(40, 45):
        installation.observe(toys.table(200, seed=seed), version=1)
    assert alerts(installation) == {}
    assert set(alerts(installation, state="resolved")) == {"drift", "performance"}
    assert len(raised) == len({(e.kind, e.severity) for e in raised})


@only_sqlite
class TestTraffic:
    def send(self, installation: Installation, count: int, **other: Any) -> None:
        rng = np.random.default_rng(1)
        for place in range(count):
            at = installation.clock.time_ns()
            features = [[*rng.normal(size=2), rng.integers(2)]]
            installation.journal.append(
                record(f"{at}-{place}-{len(other)}", at=at, features=features, **other)
            )
        installation.digest()

    def test_errors_and_their_end(self, installation: Installation) -> None:
        self.send(installation, 100)
        assert alerts(installation) == {}
        self.send(installation, 10, status=Status.FAILED)
        assert alerts(installation) == {"errors": "critical"}
        installation.clock.advance(70)  # out of the minute
        installation.beat()
        self.send(installation, 100)
        for _ in range(CALM_LOOKS):
            installation.platform.monitor.look()
        assert alerts(installation) == {}

    def test_rejected_requests_are_the_callers_unless_they_are_most(self, installation: Installation) -> None:
        self.send(installation, 100)
        self.send(installation, 60, status=Status.REJECTED)
        assert alerts(installation) == {}, "no errors of the endpoint"
        self.send(installation, 60, status=Status.REJECTED, latency_us=11)
        assert alerts(installation) == {"data_break": "critical"}

    def test_latency(self, installation: Installation) -> None:
        self.send(installation, 100, latency_us=600_000)
        assert alerts(installation) == {"latency": "critical"}

    def test_few_requests_prove_nothing(self, installation: Installation) -> None:
        self.send(installation, 40, status=Status.FAILED)
        assert alerts(installation) == {}


@only_sqlite
class TestDown:
    def test_silence_is_an_emergency_and_one_sign_of_life_ends_it(self, installation: Installation) -> None:
        installation.clock.advance(5)
        installation.digest()
        assert alerts(installation) == {}
        installation.clock.advance(2)
        installation.digest()
        assert alerts(installation) == {"endpoint_down": "emergency"}
        installation.beat()
        for _ in range(CALM_LOOKS):
            installation.platform.monitor.look()
        assert alerts(installation) == {}

    def test_one_worker_of_two_is_enough(self, installation: Installation) -> None:
        installation.beat("serving-1")
        for _ in range(4):
            installation.clock.advance(3)
            installation.beat("serving-1")
            installation.digest()
        assert alerts(installation) == {}

    def test_an_endpoint_without_a_version_is_not_watched(self, installation: Installation) -> None:
        installation.create_endpoint("idle")
        installation.clock.advance(60)
        installation.digest()
        assert {a["endpoint"] for a in installation.platform.alerts.listed(TENANT)} == {ENDPOINT}

    def test_workers_get_time_after_control_has_started(
        self, installation: Installation, database: Database, home: Path
    ) -> None:
        installation.clock.advance(3_600)
        with toys.installed(database, home / "again", installation.clock) as restarted:
            restarted.digest()
            assert alerts(restarted) == {}
            restarted.clock.advance(10)
            restarted.digest()
            assert alerts(restarted) == {"endpoint_down": "emergency"}


@only_sqlite
class TestLostEvidence:
    def test_is_told(self, installation: Installation) -> None:
        installation.journal.append(b"no record")
        installation.digest()
        assert alerts(installation) == {"evidence": "warning"}
        (alert,) = installation.platform.alerts.listed(TENANT)
        assert alert["evidence"]["damaged"] == 1
        assert alert["message"].startswith("1 records")

    def test_is_told_until_it_is_over(self, installation: Installation) -> None:
        installation.journal.append(b"no record")
        installation.digest()
        for _ in range(10):
            installation.platform.monitor.look()
        assert alerts(installation) == {}
        installation.journal.append(b"no record")
        installation.digest()
        assert alerts(installation) == {"evidence": "warning"}
        newest = installation.platform.alerts.listed(TENANT)[0]
        assert newest["message"].startswith("1 records")


@only_sqlite
class TestWatched:
    def test_only_versions_with_traffic(self, installation: Installation) -> None:
        installation.register("z")
        installation.start(2)  # warming: it is in the Route, with a share of 0
        installation.observe(toys.table(600, seed=3, shift=3.0), version=2)
        assert alerts(installation) == {}
        installation.observe(toys.table(600, seed=4, shift=3.0), version=1)
        assert "drift" in alerts(installation)

    def test_drift_for_people(self, installation: Installation) -> None:
        platform = installation.platform
        endpoint = platform.endpoints.get(TENANT, ENDPOINT)
        watched = platform.watched(endpoint, platform.registry.version(TENANT, toys.MODEL, reference=1))
        assert platform.monitor.drift(watched) is None  # no window yet
        for seed in range(3):
            installation.observe(toys.table(200, seed=seed, shift=0.5 * seed), version=1)
        found = platform.monitor.drift(watched)
        assert found is not None
        assert (found["window"], found["rows"]) == (3, 200)
        assert {row["feature"] for row in found["features"]} == {"x", "z", "kind", "(score)"}
        assert all(len(row["history"]) == 3 for row in found["features"])

    def test_no_drift_without_a_profile(self, installation: Installation) -> None:
        platform = installation.platform
        installation.register(data=False)
        endpoint = platform.endpoints.get(TENANT, ENDPOINT)
        watched = platform.watched(endpoint, platform.registry.version(TENANT, toys.MODEL, reference=2))
        assert platform.monitor.drift(watched) is None


@only_sqlite
def test_an_outage_is_told_once_and_nothing_is_missed_where_no_rate_is_known(
    database: Database, home: Path, clock: ManualClock
) -> None:
    """Not one whole minute came before it."""
    with toys.installed(database, home, clock) as found:
        found.register()
        found.create_endpoint(objectives={"availability": 0.99})
        found.deploy(1)
        found.observe(toys.table(200, seed=10), version=1)
        clock.advance(10)
        for _ in range(CALM_LOOKS + 3):
            clock.advance(60)
            found.platform.monitor.look()
        assert alerts(found) == {"endpoint_down": "emergency"}
        (shown,) = found.platform.monitor.levels.shown(TENANT, ENDPOINT)
        assert (shown["bad"], shown["budget_left"]) == (0, 1.0)
