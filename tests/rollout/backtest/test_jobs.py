"""Backtests in the background: one at a time, followed, cancelled, and what is left of one whose control died."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from predis.app.control import control_app
from predis.clock import ManualClock
from predis.errors import Conflict, InvalidInput, NotFound, VersionNotFound
from predis.state import Database
from tests import toys
from tests.rollout.backtest.log import begin, ended, serve


class Held:
    """Models that score when they are told to."""

    usable = True

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.go = threading.Event()

    def hold(self, installed: toys.Installation) -> None:
        registry = installed.platform.registry
        opened = registry.open

        @contextmanager
        def open_held(version: Any) -> Iterator[Any]:
            with opened(version) as self._model:
                yield self

        registry.open = open_held  # type: ignore[method-assign]

    def score(self, table: Any) -> Any:
        self.asked.set()
        assert self.go.wait(60)
        return self._model.score(table)

    def timings(self, table: Any, *, rows: int) -> list[float]:
        return [0.001]


@pytest.fixture
def installed(database: Database, home: Path, clock: ManualClock) -> Iterator[toys.Installation]:
    with toys.installed(database, home, clock) as found:
        for column in ("x", "z"):
            found.register(column)
        found.create_endpoint()
        serve(found, 1)
        found.send(toys.table(300), version=1)
        clock.advance(1)
        yield found


@pytest.fixture
def held(installed: toys.Installation) -> Iterator[Held]:
    found = Held()
    found.hold(installed)
    yield found
    found.go.set()


def test_it_runs_in_the_background_to_a_report(installed: toys.Installation, held: Held) -> None:
    row = begin(installed, 2)
    assert held.asked.wait(60)
    assert installed.platform.backtests.get(toys.TENANT, row.id).state == "running"
    held.go.set()
    found = ended(installed, row)
    assert (found.state, found.progress, found.error) == ("done", 1.0, "")
    assert found.report is not None
    assert found.asked["baseline"] == 1
    listed = installed.platform.backtests.listed(toys.TENANT, endpoint=toys.ENDPOINT)
    assert [each.id for each in listed] == [row.id]
    (noted,) = [
        each for each in installed.platform.audit.entries(toys.TENANT) if each["action"] == "backtest.start"
    ]
    assert noted["target"] == toys.ENDPOINT
    assert noted["detail"] == {"backtest": row.id, "candidate": 2, "baseline": 1}


def test_one_at_a_time_on_an_endpoint(installed: toys.Installation, held: Held) -> None:
    row = begin(installed, 2)
    with pytest.raises(Conflict, match=f"backtest {row.id} of version 2 runs"):
        begin(installed, 2)
    held.go.set()
    ended(installed, row)
    assert ended(installed, begin(installed, 2)).state == "done"


def test_a_cancelled_one_stops_and_makes_room(
    installed: toys.Installation, held: Held, clock: ManualClock
) -> None:
    row = begin(installed, 2)
    assert held.asked.wait(60)
    cancelled = installed.platform.backtests.cancel(toys.TENANT, row.id)
    assert (cancelled.state, cancelled.error) == ("cancelled", "it was cancelled")
    with pytest.raises(Conflict, match="has ended"):
        installed.platform.backtests.cancel(toys.TENANT, row.id)
    clock.advance(60)  # it looks now and then whether anybody still wants it
    held.go.set()
    found = ended(installed, row)
    assert (found.state, found.report) == ("cancelled", None)


def test_what_a_dead_control_left_is_told_and_makes_room(
    installed: toys.Installation, clock: ManualClock
) -> None:
    store = installed.platform.backtests._parts.store
    now = clock.time_ns()
    row = {
        "tenant": toys.TENANT, "endpoint": toys.ENDPOINT, "candidate": 2, "state": "running", "progress": 0.4, "asked": {}, "report": None,
        "error": "", "created_at": now, "seen_at": now, "ended_at": None, "created_by": "test",
    }  # fmt: skip
    number = store.add(row, alive_since=0, noted=lambda _connection, _number: None)
    assert installed.platform.backtests.get(toys.TENANT, number).state == "running"
    clock.advance(3_600)
    found = installed.platform.backtests.get(toys.TENANT, number)
    assert (found.state, found.error) == ("failed", "the control role that ran it ended")
    assert ended(installed, begin(installed, 2)).state == "done"


def test_closing_ends_what_runs_and_says_so(installed: toys.Installation, held: Held) -> None:
    row = begin(installed, 2)
    assert held.asked.wait(60)
    closer = threading.Thread(target=installed.platform.backtests.close)
    closer.start()
    held.go.set()
    closer.join(60)
    found = installed.platform.backtests.get(toys.TENANT, row.id)
    assert (found.state, found.error) == ("failed", "the control role was stopped")


def test_what_makes_no_sense_is_refused_before_it_begins(installed: toys.Installation) -> None:
    with pytest.raises(VersionNotFound):
        begin(installed, 9)
    with pytest.raises(InvalidInput, match="version 1 is the baseline itself"):
        begin(installed, 1)
    with pytest.raises(InvalidInput, match="since is a span"):
        begin(installed, 2, since="yesterday")
    serve(installed)
    with pytest.raises(InvalidInput, match="serves no version to compare with"):
        begin(installed, 2)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_over_http(installed: toys.Installation) -> None:
    keys = installed.platform.keys
    client = TestClient(control_app(installed.platform, run_loops=False), base_url="http://127.0.0.1")
    path = f"/api/v1/endpoints/{toys.ENDPOINT}/backtests"
    started = client.post(path, json={"candidate": 2})
    assert started.status_code == 202, started.text
    number = started.json()["id"]
    installed.platform.backtests.wait(number, timeout_s=60)
    shown = client.get(f"/api/v1/backtests/{number}").json()
    assert (shown["state"], shown["report"]["candidate"]) == ("done", 2)
    listed = client.get("/api/v1/backtests", params={"endpoint": toys.ENDPOINT}).json()
    assert [(each["id"], "report" in each) for each in listed] == [(number, False)]
    assert client.post(f"/api/v1/backtests/{number}/cancel").status_code == 409
    assert client.post(path, json={"candidate": 2, "rows": 0}).status_code == 400
    assert client.post(path, json={"candidate": 2, "what": 1}).status_code == 400
    assert client.post("/api/v1/endpoints/none/backtests", json={"candidate": 2}).status_code == 404
    viewer = keys.create("viewer", role="viewer", tenant=toys.TENANT)
    stranger = keys.create("stranger", role="operator", tenant="other")
    may_look = {"authorization": f"Bearer {viewer}"}
    assert client.get(f"/api/v1/backtests/{number}", headers=may_look).status_code == 200
    assert client.post(path, json={"candidate": 2}, headers=may_look).status_code == 403
    elsewhere = {"authorization": f"Bearer {stranger}"}
    assert client.get(f"/api/v1/backtests/{number}", headers=elsewhere).status_code == 404
    assert client.post(path, json={"candidate": 2}, headers=elsewhere).status_code == 404
    assert client.get("/api/v1/backtests", headers=elsewhere).json() == []


def test_nobody_else_s_and_none_that_is_not(installed: toys.Installation) -> None:
    row = ended(installed, begin(installed, 2))
    for tenant, number in (("other", row.id), (toys.TENANT, row.id + 1)):
        with pytest.raises(NotFound):
            installed.platform.backtests.get(tenant, number)
        with pytest.raises(NotFound):
            installed.platform.backtests.cancel(tenant, number)
