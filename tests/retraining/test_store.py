"""The rows of retraining runs: one at a time per endpoint, and what has ended stays."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from predis.errors import Conflict
from predis.retraining.store import FINAL, STATES, RetrainingStore, Run
from predis.state import Database
from tests.toys import ENDPOINT, MODEL, TENANT


def run(number: int, **other: Any) -> Run:
    given = {
        "id": f"run-{number}", "tenant": TENANT, "endpoint": ENDPOINT, "model": MODEL, "trigger": "manual", "state": "running",
        "step": "build", "detail": {}, "champion": 1, "challenger": None, "rollout": None, "created_at": number, "ended_at": None,
        **other,
    }  # fmt: skip
    return Run(**given)


def add(database: Database, found: Run) -> None:
    with database.write() as connection:
        RetrainingStore(database).add(connection, found)


def test_one_at_a_time(database: Database) -> None:
    store = RetrainingStore(database)
    add(database, run(1))
    with pytest.raises(Conflict, match="being retrained already"):
        add(database, run(2))
    add(database, run(3, endpoint="other"))
    add(database, run(4, tenant="elsewhere"))
    store.note("run-1", state="failed", ended_at=9)
    add(database, run(5))
    assert [r.id for r in store.runs(TENANT)] == ["run-5", "run-3", "run-1"]
    assert [r.id for r in store.runs(active=True)] == ["run-5", "run-4", "run-3"]
    assert [r.id for r in store.runs(TENANT, limit=1)] == ["run-5"]


def test_one_at_a_time_however_many_ask_at_once(database: Database) -> None:
    start, outcomes = threading.Barrier(4), []

    def ask(number: int) -> None:
        start.wait()
        try:
            add(database, run(number))
            outcomes.append("started")
        except Conflict:
            outcomes.append("refused")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 3 + ["started"]


def test_notes_add_up(database: Database) -> None:
    store = RetrainingStore(database)
    add(database, run(1))
    store.note("run-1", detail={"rows": 10, "error": "a"})
    store.note("run-1", detail={"error": "b"}, step="train")
    store.note("run-1", challenger=2)
    found = store.run("run-1")
    assert found is not None
    assert (found.detail, found.step, found.challenger) == ({"rows": 10, "error": "b"}, "train", 2)


def test_what_has_ended_stays(database: Database) -> None:
    store = RetrainingStore(database)
    add(database, run(1))
    store.note("run-1", state="promoted", ended_at=5, detail={"a": 1})
    before = store.run("run-1")
    store.note("run-1", state="failed", ended_at=7, detail={"b": 2}, step="train")
    assert store.run("run-1") == before


def test_none(database: Database) -> None:
    assert RetrainingStore(database).run("run-9") is None
    RetrainingStore(database).note("run-9", state="failed")


def test_as_a_document() -> None:
    shown = run(1, created_at=1_700_000_000_000_000_000).to_dict()
    assert (shown["created_at"], shown["ended_at"], shown["id"]) == ("2023-11-14T22:13:20Z", None, "run-1")
    assert "tenant" not in shown


def test_states() -> None:
    assert set(STATES) > FINAL
    assert {state for state in STATES if STATES[state].endswith("final")} == FINAL
