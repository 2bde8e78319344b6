"""Moments and ids that cannot be, through the public API: counted, never fatal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from predis.app.control import control_app
from predis.clock import ManualClock
from predis.state import Database
from predis.state.records import Status
from tests import toys
from tests.toys import ENDPOINT, SECOND, Installation, record

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
_DAY_S = 86_400


@pytest.fixture
def installation(database: Database, home: Path, clock: ManualClock) -> Iterator[Installation]:
    with toys.installed(database, home, clock) as found:
        found.register(data=False)
        found.create_endpoint(objectives={"availability": 0.99})
        found.deploy(1)
        yield found


@pytest.fixture
def api(installation: Installation) -> TestClient:
    return TestClient(control_app(installation.platform, run_loops=False), base_url="http://127.0.0.1")


def predict(installation: Installation, name: str, *, at: int) -> None:
    installation.journal.append(record(name, at=at))
    installation.journal.append(record(f"{name}-failed", at=at, status=Status.FAILED))
    installation.beat()
    installation.digest()


def label(api: TestClient, *labels: dict[str, Any]) -> dict[str, int]:
    answer = api.post(f"/api/v1/endpoints/{ENDPOINT}/feedback", json={"labels": list(labels)})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def counted(api: TestClient) -> dict[str, Any]:
    overview = api.get("/api/v1/overview")
    assert overview.status_code == 200, overview.text
    (endpoint,) = overview.json()["endpoints"]
    return dict(endpoint)


def test_clocks_that_jump(installation: Installation, api: TestClient) -> None:
    """The server's and the workers' clock, and moments of events, far ahead and far back."""
    now = installation.clock.time_ns()
    for name, seconds in (("ahead", 400 * _DAY_S), ("back", -400 * _DAY_S), ("begin", -now // SECOND)):
        predict(installation, name, at=now + seconds * SECOND)
        label(api, {"id": name, "label": 1, "event_time": (now // SECOND) + seconds})
    for jump in (2 * _DAY_S, -3 * _DAY_S, _DAY_S):
        installation.clock.advance(jump)
        predict(installation, f"after {jump}", at=installation.clock.time_ns())
    found = counted(api)
    assert (found["traffic"]["requests"], found["traffic"]["failed"]) == (12, 6)
    assert found["labels"]["matured"] == 3
    for path in ("/alerts", "/objectives", f"/endpoints/{ENDPOINT}/objectives", "/alert-deliveries"):
        assert api.get(f"/api/v1{path}").status_code == 200


def test_late_repeated_and_unknown_feedback(installation: Installation, api: TestClient) -> None:
    predict(installation, "a", at=installation.clock.time_ns())
    installation.clock.advance(30 * _DAY_S)
    assert label(api, {"id": "a", "label": 1}, {"id": "nobody", "label": 0})["stored"] == 2
    assert label(api, {"id": "a", "label": 0}, {"id": "nobody", "label": 1})["duplicates"] == 2
    installation.beat()
    installation.digest()
    labels = counted(api)["labels"]
    assert labels["matured"] == 1
    assert labels["feedback"]["duplicates"] == 2
    assert labels["feedback"]["waiting"] == 1
