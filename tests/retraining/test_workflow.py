"""The workflow: steps in order, once each, and an end whatever happens in them. With DBOS on SQLite."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from predis.errors import InvalidInput, Unavailable
from predis.retraining import workflow as workflow_module
from predis.retraining.store import RetrainingStore, Run
from predis.retraining.workflow import Workflow
from predis.state import Database
from tests.toys import ENDPOINT, MODEL, TENANT

pytest.importorskip("dbos")
pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


class FakeSteps:
    """Steps that only say that they were called, and answer or raise what the test wants."""

    def __init__(self, **answers: Any) -> None:
        self.calls: list[str] = []
        self._answers = {
            "config": None,
            "build": {"rows": 10, "train": "digest", "test": "digest"},
            "validate": {"validated_columns": 3},
            "train": {"train_seconds": 1.5, "digest": "model"},
            "compare": {"decision": "better", "difference": 0.1},
            "register": 2,
            "rollout": [7],
            **answers,
        }

    def __getattr__(self, name: str) -> Any:
        def work(_run: Run, *_arguments: Any, **_named: Any) -> Any:
            if name != "config":
                self.calls.append(name)
            answer = self._answers[name]
            if name == "rollout":
                answer = answer.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return work


class Dispatch:
    """One workflow engine for many runs: each run has steps of its own."""

    def __init__(self) -> None:
        self.of: dict[str, FakeSteps] = {}
        self.stopped = threading.Event()

    def stop(self) -> None:
        self.stopped.set()

    def __getattr__(self, name: str) -> Any:
        return lambda run, *arguments, **named: getattr(self.of[run.id], name)(run, *arguments, **named)


class World:
    def __init__(self, database: Database, home: Path) -> None:
        self.store = RetrainingStore(database)
        self._database, self._url = database, f"sqlite:///{home / 'workflows.sqlite'}"
        self.steps = Dispatch()
        self.ends: list[tuple[str, str]] = []
        self._ended = threading.Semaphore(0)
        self.workflow = self.reopened()

    def reopened(self) -> Workflow:
        return Workflow(self._url, self.steps, store=self.store, on_end=self._on_end)  # type: ignore[arg-type]

    def restart(self) -> None:
        self.workflow.close()
        self.workflow = self.reopened()

    def _on_end(self, run: str, outcome: str) -> None:
        self.ends.append((run, outcome))
        self._ended.release()

    def add(self, steps: FakeSteps) -> str:
        number = len(self.steps.of) + 1
        run = Run(
            f"run-{number}", TENANT, f"{ENDPOINT}-{number}", MODEL, "manual", "running", "build", {}, 1, None, None, number, None
        )  # fmt: skip
        self.steps.of[run.id] = steps
        with self._database.write() as connection:
            self.store.add(connection, run)
        return run.id

    def wait(self) -> Run:
        assert self._ended.acquire(timeout=30)
        found = self.store.run(self.ends[-1][0])
        assert found is not None
        return found

    def run(self, steps: FakeSteps) -> tuple[Run, str]:
        """A whole run, and its outcome."""
        run = self.add(steps)
        self.workflow.start(run)
        found = self.wait()
        assert found.id == run
        return found, self.ends[-1][1]


@pytest.fixture
def world(database: Database, home: Path) -> Iterator[World]:
    found = World(database, home)
    yield found
    found.workflow.close()


ALL = ["build", "validate", "train", "compare", "register", "rollout"]


def test_outcomes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Better, not better, and waiting for its turn. (One test, for the engine takes a second to start and stop.)"""
    monkeypatch.setattr(workflow_module, "_TURN_S", 0.01)
    better = FakeSteps()
    run, outcome = world.run(better)
    assert (better.calls, outcome) == (ALL, "rolling_out")
    assert (run.step, run.challenger, run.rollout) == ("rollout", 2, 7)
    assert run.detail == {"rows": 10, "train_seconds": 1.5, "decision": "better", "difference": 0.1}

    worse = FakeSteps(compare={"decision": "not better"})
    run, outcome = world.run(worse)
    assert (worse.calls, outcome) == (ALL[:4], "rejected")
    assert (run.challenger, run.rollout) == (None, None)

    patient = FakeSteps(rollout=[None, None, 9])
    run, outcome = world.run(patient)
    assert patient.calls == [*ALL, "rollout", "rollout"]
    assert (run.rollout, outcome) == (9, "rolling_out")


def test_failures(world: World) -> None:
    """Whatever goes wrong in whatever step, the run ends and says why, or its endpoint could never be retrained again."""
    refused = InvalidInput("too few rows")
    for at in ALL:
        steps = FakeSteps(**{at: [refused] if at == "rollout" else refused})
        run, outcome = world.run(steps)
        assert (steps.calls, outcome) == (ALL[: ALL.index(at) + 1], "failed")
        assert (run.step, run.detail["error"], run.detail["code"]) == (at, "too few rows", "invalid_input")
    run, outcome = world.run(FakeSteps(config=refused))
    assert (run.detail["error"], outcome) == ("too few rows", "failed")
    for error in (KeyError("x"), RuntimeError("what is this"), OSError(28, "disk full")):
        run, outcome = world.run(FakeSteps(train=error))
        assert (outcome, run.detail["code"]) == ("failed", "internal")
        assert run.detail["error"].startswith(type(error).__name__)


def test_waits_for_the_state_database(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow_module, "_PAUSES_S", (0.0, 0.0))
    away = Unavailable("the state database does not answer")
    _, outcome = world.run(FakeSteps(rollout=[away, away, 7]))
    assert outcome == "rolling_out"
    run, outcome = world.run(FakeSteps(rollout=[away, away, away]))
    assert (outcome, run.detail["code"]) == ("failed", "unavailable")


def test_a_stop_does_not_wait_for_the_state_database(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workflow_module, "_PAUSES_S", (3_600.0,))
    tried, threads = threading.Event(), []

    def away(*_arguments: Any, **_named: Any) -> Any:
        threads.append(threading.current_thread())
        tried.set()
        raise Unavailable("the state database does not answer")

    steps = FakeSteps()
    steps.build = away
    run = world.add(steps)
    world.workflow.start(run)
    assert tried.wait(30)
    world.workflow.close()
    threads[0].join(30)
    assert not threads[0].is_alive()
    assert f"{run} failed" not in caplog.text
    assert world.ends == []


def test_started_twice_it_runs_once(world: World) -> None:
    steps = FakeSteps()
    run = world.add(steps)
    for _ in range(3):
        world.workflow.start(run)
    world.wait()
    world.workflow.start(run)
    world.run(FakeSteps())
    assert steps.calls == ALL
    assert world.ends == [("run-1", "rolling_out"), ("run-2", "rolling_out")]


def test_goes_on_at_the_step_it_was_in(world: World) -> None:
    """Control stops in the middle of a step, which is broken off; the next one does it again, and none before it."""
    reached = threading.Event()

    def interrupted(*_arguments: Any, **_named: Any) -> Any:
        first.calls.append("train")
        threads.append(threading.current_thread())
        reached.set()
        world.steps.stopped.wait(30)
        raise InvalidInput("the trainer was stopped too")

    threads: list[threading.Thread] = []
    first, second = FakeSteps(), FakeSteps()
    first.train = interrupted
    run = world.add(first)
    world.workflow.start(run)
    assert reached.wait(30)
    world.restart()
    threads[0].join(30)  # in life its process is gone before the next one is there
    world.steps.of[run] = second
    world.workflow.start(run)
    found = world.wait()
    assert (first.calls, second.calls) == (ALL[:3], ALL[2:])
    assert world.ends == [(run, "rolling_out")]
    assert "error" not in found.detail


def test_a_workflow_that_is_dead_ends_its_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the failure could be written down; the next start finds out."""
    from dbos import DBOS

    run = world.add(FakeSteps(train=RuntimeError()))

    def dies(*_arguments: Any, **named: Any) -> None:
        if "error" in named.get("detail", {}):
            raise RuntimeError("no place to write")

    with monkeypatch.context() as patch:
        patch.setattr(RetrainingStore, "note", dies)
        world.workflow.start(run)
        with pytest.raises(RuntimeError, match="no place to write"):
            DBOS.retrieve_workflow(run).get_result(polling_interval_sec=0.02)
    world.restart()
    assert world.ends == []
    world.workflow.start(run)
    assert world.ends == [(run, "failed")]


def test_a_launch_that_failed_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbos import DBOS

    def full() -> None:
        raise sa.exc.OperationalError("BEGIN IMMEDIATE", {}, Exception("database or disk is full"))

    with monkeypatch.context() as patch:
        patch.setattr(DBOS, "launch", full)
        for _ in range(2):
            with pytest.raises(Unavailable, match="disk is full"):
                world.workflow.launch()
    assert world.run(FakeSteps())[1] == "rolling_out"


def test_close_without_a_start(world: World) -> None:
    world.workflow.close()
    world.workflow.close()
