"""The workflow: steps in order, once each, and an end whatever happens in them. With DBOS on SQLite."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from predis.errors import InvalidInput
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


class World:
    def __init__(self, database: Database, home: Path) -> None:
        self.store = RetrainingStore(database)
        self._database, self._url = database, f"sqlite:///{home / 'workflows.sqlite'}"
        self.ends: list[tuple[str, str]] = []
        self._ended = threading.Event()
        self.workflow: Workflow | None = None

    def launch(self, steps: Any) -> Workflow:
        self.workflow = Workflow(self._url, steps, store=self.store, on_end=self._on_end)
        return self.workflow

    def _on_end(self, run: str, outcome: str) -> None:
        self.ends.append((run, outcome))
        self._ended.set()

    def add(self, number: int = 1) -> str:
        run = Run(
            f"run-{number}", TENANT, f"{ENDPOINT}-{number}", MODEL, "manual", "running", "build", {}, 1, None, None, number, None
        )  # fmt: skip
        with self._database.write() as connection:
            self.store.add(connection, run)
        return run.id

    def wait(self) -> Run:
        assert self._ended.wait(30)
        self._ended.clear()
        found = self.store.run(self.ends[-1][0])
        assert found is not None
        return found

    def run(self, steps: FakeSteps) -> Run:
        run = self.add()
        self.launch(steps).start(run)
        return self.wait()


@pytest.fixture
def world(database: Database, home: Path) -> Iterator[World]:
    found = World(database, home)
    yield found
    if found.workflow is not None:
        found.workflow.close()


ALL = ["build", "validate", "train", "compare", "register", "rollout"]


def test_to_the_rollout(world: World) -> None:
    steps = FakeSteps()
    run = world.run(steps)
    assert (steps.calls, world.ends) == (ALL, [("run-1", "rolling_out")])
    assert (run.step, run.challenger, run.rollout) == ("rollout", 2, 7)
    assert run.detail == {"rows": 10, "train_seconds": 1.5, "decision": "better", "difference": 0.1}


def test_not_better_registers_nothing(world: World) -> None:
    steps = FakeSteps(compare={"decision": "not better"})
    run = world.run(steps)
    assert (steps.calls, world.ends) == (ALL[:4], [("run-1", "rejected")])
    assert (run.challenger, run.rollout) == (None, None)


@pytest.mark.parametrize("at", ALL)
def test_a_step_that_cannot_be_done(world: World, at: str) -> None:
    error = InvalidInput("too few rows")
    steps = FakeSteps(**{at: [error] if at == "rollout" else error})
    run = world.run(steps)
    assert (steps.calls, world.ends) == (ALL[: ALL.index(at) + 1], [("run-1", "failed")])
    assert (run.step, run.detail["error"], run.detail["code"]) == (at, "too few rows", "invalid_input")


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("what is this"), OSError(28, "disk full")])
def test_an_error_nobody_thought_of_ends_the_run_too(world: World, error: Exception) -> None:
    """Or the endpoint could never be retrained again."""
    run = world.run(FakeSteps(train=error))
    assert world.ends == [("run-1", "failed")]
    assert run.detail["code"] == "internal"
    assert type(error).__name__ in run.detail["error"]


def test_waits_for_its_turn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow_module, "_TURN_S", 0.01)
    steps = FakeSteps(rollout=[None, None, 9])
    run = world.run(steps)
    assert steps.calls == [*ALL, "rollout", "rollout"]
    assert (run.rollout, world.ends) == (9, [("run-1", "rolling_out")])


def test_started_twice_it_runs_once(world: World) -> None:
    steps = FakeSteps()
    run = world.add()
    workflow = world.launch(steps)
    for _ in range(3):
        workflow.start(run)
    world.wait()
    workflow.start(run)
    other = world.add(2)
    steps._answers["rollout"].append(8)
    workflow.start(other)
    world.wait()
    assert steps.calls == ALL * 2
    assert world.ends == [("run-1", "rolling_out"), ("run-2", "rolling_out")]


def test_goes_on_at_the_step_it_was_in(world: World) -> None:
    """The process stops in the middle of a step; the next one does that step again, and none before it."""

    class Stopped(BaseException):
        """What a stop looks like from inside: nothing more is written."""

    first, second = FakeSteps(train=Stopped()), FakeSteps()
    run = world.add()
    reached = threading.Event()

    def hang(*_arguments: Any, **_named: Any) -> Any:
        first.calls.append("train")
        reached.set()
        threading.Event().wait(20) if not stopping.is_set() else None
        raise Stopped

    stopping = threading.Event()
    first.train = lambda *_a, **_n: (first.calls.append("train"), reached.set(), stopping.wait(20), _stop())[-1]

    def _stop() -> Any:
        raise Stopped

    world.launch(first).start(run)
    assert reached.wait(30)
    assert world.workflow is not None
    world.workflow.close()
    stopping.set()
    assert first.calls == ALL[:3]
    world.launch(second).start(run)
    world.wait()
    assert second.calls == ALL[2:]
    assert world.ends == [("run-1", "rolling_out")]


def test_close_without_a_start(world: World) -> None:
    world.launch(FakeSteps()).close()
