"""Alerts at the command line, against a control role in this process and a receiver that is really there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from predis.clock import ManualClock
from predis.state import Database
from tests import toys
from tests.cli.asking import Run, commands
from tests.monitoring.alerting.receivers import Receiver
from tests.monitoring.alerting.worlds import SECRET, finding
from tests.toys import ENDPOINT, TENANT, Installation

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def installation(database: Database, home: Path, clock: ManualClock) -> Iterator[Installation]:
    with toys.installed(database, home, clock) as found:
        (home / "secrets").mkdir()
        (home / "secrets" / "hook").write_text(SECRET)
        yield found


@pytest.fixture
def run(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Run:
    return commands(installation, monkeypatch)


def add(run: Run, receiver: Receiver, *more: str) -> str:
    fields = ("--set", f"url={receiver.url}", "--set", "secret=file:hook")
    return run("alerts", "route", "add", "ops", "webhook", *fields, *more)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as found:
        yield found


def raise_one(installation: Installation, *findings: Any) -> None:
    installation.clock.advance(1)
    installation.platform.alerts.report(TENANT, ENDPOINT, findings=list(findings) or [finding()])
    installation.platform.desk.look()
    installation.platform.desk.deliverer.finish()


def test_listed_shown_and_acknowledged(run: Run, installation: Installation, receiver: Receiver) -> None:
    assert run("alerts") == "No alerts.\n"
    assert run("alerts", "deliveries") == "Nothing was to be told yet.\n"
    assert "route test ops" in add(run, receiver)
    assert "added by local" in run("alerts", "route", "list")
    raise_one(installation)
    assert "AUC fell to 0.61" in run("alerts", "--open")
    assert [a["kind"] for a in json.loads(run("alerts", "list", "--json"))] == ["performance"]
    shown = run("alerts", "show", "1")
    for part in ("it means", "look at", "predis monitor", "raised", "sent"):
        assert part in shown
    assert "AUC" not in run("alerts", "deliveries")
    (delivery,) = json.loads(run("alerts", "deliveries", "--json"))
    assert (delivery["route"], delivery["event"], delivery["state"]) == ("ops", "raised", "sent")
    assert run("alerts", "ack", "1", "--note", "on it") == "alert 1 is acknowledged by local\n"
    assert json.loads(run("alerts", "show", "1", "--json"))["note"] == "on it"
    assert "acknowledged by local" in run("alerts", "show", "1")
    assert "[alert_not_found]" in run("alerts", "show", "9", code=1)


def test_silences(run: Run, installation: Installation, receiver: Receiver) -> None:
    assert run("alerts", "silences") == "No silences.\n"
    add(run, receiver)
    said = run("alerts", "silence", "--endpoint", "toy-*", "--for", "2h", "--reason", "load test")
    assert said == "silence 1 lasts until 2023-11-15T00:13:20Z\n"
    raise_one(installation)
    assert receiver.requests == []
    assert "silenced" in run("alerts", "show", "1")
    assert "load test" in run("alerts", "silences")
    assert run("alerts", "unsilence", "1") == "silence 1 is over\n"
    raise_one(installation)
    assert [request.json["event"] for request in receiver.requests] == ["raised"]
    assert [s["active"] for s in json.loads(run("alerts", "silences", "--all", "--json"))] == [False]
    for wrong in (("--for", "2"), ("--for", "2h", "--until", "2026-01-01T00:00:00Z"), ()):
        run("alerts", "silence", "--reason", "x", *wrong, code=2 if wrong == ("--for", "2") else 1)


def test_routes(run: Run, receiver: Receiver) -> None:
    assert "route add --help" in run("alerts", "route", "list")
    add(run, receiver, "--kind", "slo_*", "--severity", "critical", "--after", "15m", "--per-hour", "5")
    (row,) = json.loads(run("alerts", "route", "list", "--json"))
    assert (row["kinds"], row["severity"], row["after_s"], row["per_hour"]) == (
        ["slo_*"],
        "critical",
        900.0,
        5,
    )
    assert run("alerts", "route", "test", "ops") == "ops took it\n"
    receiver.answer = lambda _request: 503
    assert "ops did not take it: status 503" in run("alerts", "route", "test", "ops", code=1)
    assert "already_exists" in run("alerts", "route", "add", "ops", "slack", "--set", "url=file:s", code=1)
    refused = run(
        "alerts", "route", "add", "b", "slack", "--set", "url=https://hooks.slack.com/T0/s3cret", code=1
    )
    assert "invalid_input" in refused
    assert "s3cret" not in refused
    assert run("alerts", "route", "remove", "ops") == "nothing goes to ops any more\n"
    assert "not_found" in run("alerts", "route", "remove", "ops", code=1)
    run("alerts", "route", "add", "c", "slack", "--set", "url", code=2)


def test_error_budgets(run: Run, installation: Installation) -> None:
    assert "No objectives." in run("slo")
    installation.register(data=False)
    installation.create_endpoint(objectives={"availability": 0.99})
    installation.deploy(1)
    at = installation.clock.time_ns()
    for place in range(200):
        status = toys.Status.FAILED if place == 0 else toys.Status.OK
        installation.journal.append(toys.record(f"p-{place}", at=at, status=status))
    installation.digest()
    shown = run("slo", ENDPOINT)
    assert "50.0%" in shown
    assert "1 h 0.5 (14.4)" in shown
    (level,) = json.loads(run("slo", "--json"))
    assert (level["requests"], level["bad"], level["endpoint"]) == (200, 1, ENDPOINT)
