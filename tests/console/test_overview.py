"""The overview: the document that the console, ``predis monitor`` and the demo read, whole in every situation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from predis import __version__
from predis.clock import ManualClock
from predis.console.overview import BAR, BAR_S
from predis.errors import EndpointNotFound, RolloutNotFound
from predis.monitoring.alerts import Finding, Severity
from predis.retraining.store import Run
from predis.state import Database
from predis.state.records import Status
from tests import toys
from tests.toys import ENDPOINT, MODEL, SECOND, TENANT, Installation, record

# -- the contract: every key, by the place it stands in ---------------------------------------------------------------------

SCORES = {"auc", "auc_low", "auc_high", "ks", "gini"}
CONTRACT: dict[str, set[str]] = {
    "": {"now", "tenant", "release", "system", "endpoints", "alerts", "rollouts", "retrainings"},
    "system": {"workers", "journal"},
    "system.workers[]": {"id", "pid", "seen_s", "healthy"},
    "system.journal": {"records", "dropped", "damaged"},
    "endpoints[]": {"name", "model", "health", "route", "traffic", "latency_ms", "labels", "versions"},
    "endpoints[].route": {"number", "weights", "segments", "shadows", "salt", "reason", "created_at"},
    "endpoints[].route.segments[]": {"when", "weights"},
    "endpoints[].traffic": {"requests", "failed", "rejected", "rows", "per_second", "series"},
    "endpoints[].traffic.series[]": {"at", "requests", "failed"},
    "endpoints[].latency_ms": {"p50", "p95", "p99"},
    "endpoints[].labels": {"predictions", "matured", "coverage", "age_s", "feedback"},
    "endpoints[].labels.feedback": {"received", "stored", "duplicates", "waiting"},
    "endpoints[].versions[]": {
        "version", "role", "weight", "requests", "rows", "matured", "last_at", "last_at_ns", "format", "created_at", "reference",
        "performance", "drift", "metrics",
    },
    "endpoints[].versions[].reference": SCORES,
    "endpoints[].versions[].performance[]": {
        "number", "rows", "positives", "coverage", "label_age_s", "first_event", "last_event", "task", "early_labels", "measures", *SCORES,
    },
    "endpoints[].versions[].drift": {"window", "rows", "first_event", "last_event", "features", "references"},
    "endpoints[].versions[].drift.features[]": {
        "feature", "kind", "psi", "threshold", "drifted", "persistent", "history", "seasonal", "broken",
    },
    "alerts[]": {
        "id", "tenant", "endpoint", "version", "kind", "severity", "state", "message", "evidence", "command", "opened_at",
        "seen_at", "event_at", "ended_at", "looks", "incident", "raised_at", "acknowledged_at", "acknowledged_by", "note", "look_at",
        "silenced",
    },
    "rollouts[]": {
        "id", "endpoint", "model", "baseline", "candidate", "state", "step", "share", "route", "verdicts", "moves", "reason", "wish",
        "wish_by", "overrides_freeze", "created_at", "began_at", "step_at", "ended_at", "created_by", "strategy", "where", "steps", "weight",
        "plan", "ended_at_ns",
    },
    "rollouts[].verdicts[]": {
        "gate", "verdict", "baseline", "candidate", "low", "high", "margin", "unit", "message",
    },
    "rollouts[].moves[]": {"at", "at_ns", "state", "share", "reason"},
    "retrainings[]": {
        "id", "endpoint", "model", "trigger", "state", "step", "detail", "champion", "challenger", "rollout", "created_at",
        "ended_at",
    },
}  # fmt: skip
# Objects whose keys are the user's, not ours.
FREE = {"endpoints[].versions[].metrics", "endpoints[].versions[].performance[].measures",
    "endpoints[].route.weights", "endpoints[].route.segments[].weights", "endpoints[].route.shadows", "alerts[].evidence",
    "rollouts[].plan", "retrainings[].detail", "endpoints[].versions[].drift.references"}  # fmt: skip


def shape(found: Any, place: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every object in a document with where it stands."""
    if isinstance(found, dict) and place not in FREE:
        yield place, set(found)
        for key, value in found.items():
            yield from shape(value, f"{place}.{key}".lstrip("."))
    elif isinstance(found, list):
        for value in found:
            yield from shape(value, place + "[]")


def check(found: dict[str, Any]) -> set[str]:
    """The document keeps the contract and is JSON that any parser reads; the places it has."""
    json.loads(json.dumps(found, allow_nan=False))
    places = set()
    for place, keys in shape(found):
        assert keys == CONTRACT[place], place
        places.add(place)
    return places


@pytest.fixture
def installation(database: Database, home: Path, clock: ManualClock) -> Iterator[Installation]:
    with toys.installed(database, home, clock) as found:
        yield found


only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def overview(installation: Installation, *, endpoint: str | None = None) -> dict[str, Any]:
    found = installation.platform.overview.of(TENANT, endpoint=endpoint)
    check(found)
    return found


def only(installation: Installation) -> dict[str, Any]:
    (found,) = overview(installation)["endpoints"]
    return found


class TestSituations:
    def test_nothing(self, installation: Installation) -> None:
        found = overview(installation)
        assert found == {
            "now": "2023-11-14T22:13:20Z", "tenant": TENANT, "release": __version__,
            "system": {"workers": [], "journal": {"records": 0, "dropped": 0, "damaged": 0}},
            "endpoints": [], "alerts": [], "rollouts": [], "retrainings": [],
        }  # fmt: skip

    def test_an_endpoint_without_a_version(self, installation: Installation) -> None:
        installation.register()
        installation.create_endpoint()
        found = only(installation)
        assert found == {
            "name": ENDPOINT, "model": MODEL, "health": "idle",
            "route": {
                "number": 0, "weights": {}, "segments": [], "shadows": {}, "salt": "", "reason": "", "created_at": None,
            },
            "traffic": {"requests": 0, "failed": 0, "rejected": 0, "rows": 0, "per_second": 0.0, "series": []},
            "latency_ms": {"p50": None, "p95": None, "p99": None},
            "labels": {
                "predictions": 0, "matured": 0, "coverage": None, "age_s": None,
                "feedback": {"received": 0, "stored": 0, "duplicates": 0, "waiting": 0},
            },
            "versions": [],
        }  # fmt: skip

    def test_a_version_nobody_has_asked(self, installation: Installation) -> None:
        installation.register(data=False)
        installation.create_endpoint()
        installation.deploy(1)
        found = only(installation)
        assert (found["health"], found["route"]["weights"]) == ("ok", {"1": 1.0})
        (version,) = found["versions"]
        assert version == {
            "version": 1, "role": "champion", "weight": 1.0, "requests": 0, "rows": 0, "matured": 0, "last_at": None,
            "last_at_ns": None, "format": "lightgbm", "created_at": "2023-11-14T22:13:20Z", "reference": None, "metrics": {},
            "performance": [], "drift": None,
        }  # fmt: skip

    def test_everything_at_once(self, installation: Installation) -> None:
        """Traffic, labels, drift, alerts, a rollout and a retraining: no place of the contract is missing."""
        installation.register()
        installation.register("z")
        installation.create_endpoint()
        installation.deploy(1)
        installation.start(2, strategy="direct", where="header.x_country == 'CH'")
        installation.beat()
        installation.platform.rollouts.tick()
        installation.start(2)
        installation.beat()
        installation.platform.rollouts.tick()
        for seed in range(3):
            installation.clock.advance(BAR_S)
            installation.beat()
            installation.observe(toys.table(200, seed=seed, shift=1.0), version=1)
            installation.observe(toys.table(50, seed=seed), version=2, column="z")
        installation.journal.append(record("failed", status=Status.FAILED, at=installation.clock.time_ns()))
        installation.clock.advance(BAR_S)
        installation.beat()
        installation.digest()
        installation.platform.rollouts.tick()
        run = Run(
            "retrain-1", TENANT, ENDPOINT, MODEL, "drift", "running", "train", {"rows": 5}, 1, None, None,
            installation.clock.time_ns(), None,
        )  # fmt: skip
        with installation.platform.database.write() as connection:
            installation.platform.retrainings._store.add(connection, run)
        found = overview(installation)
        assert check(found) == set(CONTRACT)
        (endpoint,) = found["endpoints"]
        assert {k: v for k, v in endpoint["traffic"].items() if k not in ("per_second", "series")} == {
            "requests": 751, "failed": 1, "rejected": 0, "rows": 750,
        }  # fmt: skip
        assert endpoint["labels"]["feedback"]["stored"] == endpoint["labels"]["matured"] == 750
        assert endpoint["labels"]["coverage"] == 1.0
        champion, candidate = endpoint["versions"]
        assert (champion["role"], champion["weight"], champion["rows"], champion["matured"]) == (
            "champion", 0.9, 600, 600,
        )  # fmt: skip
        assert (candidate["role"], candidate["weight"], candidate["rows"]) == ("candidate", 0.1, 150)
        assert [window["number"] for window in champion["performance"]] == [1, 2, 3]  # oldest first
        assert champion["reference"]["auc"] == pytest.approx(
            installation.platform.registry.version(TENANT, MODEL, reference=1).metrics["auc"]
        )
        assert (champion["drift"]["window"], candidate["drift"]) == (3, None)
        assert [alert["kind"] for alert in found["alerts"]] == ["drift"]
        assert [rollout["state"] for rollout in found["rollouts"]] == ["running", "promoted", "promoted"]
        assert [verdict["gate"] for verdict in found["rollouts"][0]["verdicts"]] == [
            "errors", "latency", "scores", "auc", "split",
        ]  # fmt: skip
        assert [r["id"] for r in found["retrainings"]] == ["retrain-1"]


@only_sqlite
class TestOneEndpoint:
    def test_only_its_own(self, installation: Installation) -> None:
        installation.register(data=False)
        for name in ("a", "b"):
            installation.create_endpoint(name)
            installation.deploy(1, endpoint=name)
            raise_alert(installation, endpoint=name)
        found = overview(installation, endpoint="b")
        assert [e["name"] for e in found["endpoints"]] == ["b"]
        assert {r["endpoint"] for r in found["rollouts"]} == {"b"}
        assert {a["endpoint"] for a in found["alerts"]} == {"b"}
        assert [e["name"] for e in overview(installation)["endpoints"]] == ["a", "b"]

    def test_unknown(self, installation: Installation) -> None:
        with pytest.raises(EndpointNotFound):
            overview(installation, endpoint="nowhere")

    def test_tenants_do_not_see_each_other(self, installation: Installation) -> None:
        installation.register(data=False)
        installation.create_endpoint()
        found = installation.platform.overview.of("elsewhere")
        assert (found["endpoints"], found["rollouts"], found["alerts"]) == ([], [], [])
        with pytest.raises(EndpointNotFound):
            installation.platform.overview.of("elsewhere", endpoint=ENDPOINT)


def raise_alert(
    installation: Installation, *kinds: str, severity: Severity = Severity.CRITICAL, endpoint: str = ENDPOINT
) -> None:
    findings = [
        Finding(
            tenant=TENANT, endpoint=endpoint, kind=kind, severity=severity, message="m", command="c", event_at=1, version=1
        )
        for kind in kinds or ("performance",)
    ]  # fmt: skip
    installation.platform.alerts.report(TENANT, endpoint, findings=findings)


@only_sqlite
class TestShadow:
    def test_how_far_it_is_from_the_answers(self, installation: Installation) -> None:
        installation.register()
        installation.register("z")
        installation.create_endpoint()
        installation.deploy(1)
        rollout = installation.start(2, strategy="shadow")
        shadow = installation.platform.overview.shadow
        assert shadow(TENANT, rollout.id) is None  # workers are loading it
        installation.beat()
        installation.platform.rollouts.tick()
        assert shadow(TENANT, rollout.id) == {
            "rows": 0, "flips": 0, "mean": None, "deviation": None, "worst": None,
        }  # fmt: skip
        (endpoint,) = overview(installation)["endpoints"]
        assert [v["role"] for v in endpoint["versions"]] == ["champion", "shadow"]
        table = toys.table(100)
        installation.copy(installation.send(table, version=1), table, version=2)
        installation.digest()
        found = shadow(TENANT, rollout.id)
        assert found is not None
        assert (found["rows"], found["flips"] > 90, found["worst"] > 0.5) == (100, True, True)
        installation.platform.rollouts.wish(TENANT, rollout.id, wish="abort", actor="test")
        installation.platform.rollouts.tick()
        assert shadow(TENANT, rollout.id) is None

    def test_of_no_shadow(self, installation: Installation) -> None:
        installation.register(data=False)
        installation.create_endpoint()
        installation.deploy(1)
        assert installation.platform.overview.shadow(TENANT, 1) is None
        with pytest.raises(RolloutNotFound):
            installation.platform.overview.shadow("elsewhere", 1)


@only_sqlite
class TestHealth:
    @pytest.fixture(autouse=True)
    def _deployed(self, installation: Installation) -> None:
        installation.register(data=False)
        installation.create_endpoint()
        installation.deploy(1)

    @pytest.mark.parametrize(
        ("severity", "health"),
        [
            (Severity.INFO, "ok"), (Severity.WARNING, "ok"), (Severity.CRITICAL, "degraded"), (Severity.EMERGENCY, "down"),
        ],
    )  # fmt: skip
    def test_by_the_worst_open_alert(
        self, installation: Installation, *, severity: Severity, health: str
    ) -> None:
        raise_alert(installation, severity=severity)
        assert only(installation)["health"] == health
        for _ in range(3):
            installation.platform.alerts.report(TENANT, ENDPOINT, findings=[])
        assert only(installation)["health"] == "ok"

    def test_without_a_living_worker(self, installation: Installation) -> None:
        installation.clock.advance(6)
        found = overview(installation)
        assert found["endpoints"][0]["health"] == "down"
        (worker,) = found["system"]["workers"]
        assert (worker["id"], worker["healthy"], worker["seen_s"]) == ("serving-0", False, 6.0)

    def test_an_old_alert_is_not_forgotten_among_newer_ones(self, installation: Installation) -> None:
        raise_alert(installation)
        for number in range(60):
            name = f"other-{number}"
            raise_alert(installation, severity=Severity.INFO, endpoint=name)
        found = overview(installation)
        assert found["endpoints"][0]["health"] == "degraded"


@only_sqlite
class TestTraffic:
    @pytest.fixture(autouse=True)
    def _deployed(self, installation: Installation) -> None:
        installation.register(data=False)
        installation.create_endpoint()
        installation.deploy(1)

    def send(self, installation: Installation, count: int, **other: Any) -> None:
        for place in range(count):
            at = installation.clock.time_ns()
            installation.journal.append(record(f"{at}-{place}", at=at, **other))
        installation.digest()

    def test_series_has_no_gaps_and_leaves_the_running_slot_out(self, installation: Installation) -> None:
        start = installation.clock.time_ns()
        assert start % BAR == 0
        self.send(installation, 3)
        installation.clock.advance(3 * BAR_S)
        self.send(installation, 2, status=Status.FAILED)
        assert [(s["requests"], s["failed"]) for s in only(installation)["traffic"]["series"]] == [
            (3, 0), (0, 0), (0, 0),
        ]  # fmt: skip
        installation.clock.advance(BAR_S)
        series = only(installation)["traffic"]["series"]
        assert [(s["requests"], s["failed"]) for s in series] == [(3, 0), (0, 0), (0, 0), (2, 2)]
        assert [s["at"] * SECOND for s in series] == [start + place * BAR for place in range(4)]

    def test_series_is_limited(self, installation: Installation) -> None:
        self.send(installation, 1)
        installation.clock.advance(40 * BAR_S)
        self.send(installation, 1)
        installation.clock.advance(40 * BAR_S)
        series = only(installation)["traffic"]["series"]
        assert len(series) <= 60
        assert sum(s["requests"] for s in series) == 1
        installation.clock.advance(100 * BAR_S)
        assert only(installation)["traffic"]["series"] == []

    def test_per_second(self, installation: Installation) -> None:
        for _ in range(3):
            self.send(installation, 20)
            installation.clock.advance(BAR_S)
        assert only(installation)["traffic"]["per_second"] == 4.0
        installation.clock.advance(10 * BAR_S)
        assert only(installation)["traffic"]["per_second"] == 0.0

    def test_latency_now_and_if_there_was_none_lately_over_everything(
        self, installation: Installation
    ) -> None:
        self.send(installation, 99, latency_us=1_000)
        self.send(installation, 1, latency_us=500_000)
        recent = only(installation)["latency_ms"]
        assert recent["p50"] == pytest.approx(1, rel=0.05)
        assert recent["p99"] == pytest.approx(1, rel=0.05)
        installation.clock.advance(1_000)
        assert only(installation)["latency_ms"] == recent

    def test_nothing_but_failures_has_no_latency(self, installation: Installation) -> None:
        self.send(installation, 3, status=Status.FAILED)
        assert only(installation)["latency_ms"] == {"p50": None, "p95": None, "p99": None}

    def test_a_version_that_answered_before(self, installation: Installation) -> None:
        self.send(installation, 5)
        for version in range(2, 9):
            installation.register(data=False)
            installation.deploy(version)
            self.send(installation, 1, version=version)
        found = only(installation)["versions"]
        assert [(v["version"], v["role"]) for v in found[:3]] == [
            (8, "champion"),
            (7, "previous"),
            (6, "previous"),
        ]
        assert len(found) == 6
        assert only(installation)["traffic"]["requests"] == 12

    def test_labels_have_an_age(self, installation: Installation) -> None:
        table = toys.table(200)
        ids = installation.send(table, version=1)
        installation.clock.advance(3_600)
        installation.label(ids[:150], table.slice(0, 150))
        installation.digest()
        assert only(installation)["labels"]["age_s"] is None  # no window is full yet
        installation.clock.advance(3_600)
        installation.label(ids[150:], table.slice(150))
        installation.digest()
        labels = only(installation)["labels"]
        assert labels["age_s"] == pytest.approx(3_600, abs=0.01)
        assert (labels["predictions"], labels["matured"], labels["coverage"]) == (200, 200, 1.0)
