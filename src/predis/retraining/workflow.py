"""A retraining run as a durable DBOS workflow: every step is checkpointed, and a killed process goes on at the step it was in.

DBOS keeps its checkpoints in SQLite embedded, in PostgreSQL where the state database is one. It is started when the first run needs
it, or at once where an earlier process left a run unfinished.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from predis.errors import MissingExtra, PredisError, Unavailable
from predis.retraining.steps import Steps
from predis.retraining.store import RetrainingStore, Run
from predis.state.engine import translated

log = logging.getLogger(__name__)

_NAME = "retrain"
# Unfinished runs are only taken up by code that has the same steps in the same order: raise this when that changes.
_STEPS_VERSION = "retrain-2"
_TURN_S = 1.0
# How long a step waits between tries while the state database is away.
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, *(60.0,) * 10)
# What DBOS does not take up again.
_DEAD = frozenset(("ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"))


@dataclass(frozen=True)
class Track:
    """How a course of its own moves on. What it does must be a deterministic function of what earlier steps returned.

    Attributes:
        steps: those of a usual run, of which a course may use some.
        at: enter the step of a name and do its work once; what it returned, a small document.
        note: write values into the run's row, see ``RetrainingStore.note``.
        sleep: for so many seconds, across restarts.
    """

    steps: Steps
    at: Callable[[str, Callable[[], Any]], Any]
    note: Callable[[Mapping[str, Any]], None]
    sleep: Callable[[float], None]


Course = Callable[[Run, Track], str]
"""The steps of runs that renew no endpoint's model; returns the outcome, or ``rolling_out`` where somebody else will end the run."""


class Workflow:
    """Runs retraining runs durably.

    Args:
        url: database of the checkpoints.
        on_end: (run id, final state or "rolling_out") once a run's steps are done.
        courses: for runs with another course than an endpoint's, by what stands in the run's place of an endpoint.
    """

    def __init__(
        self,
        url: str,
        steps: Steps,
        *,
        store: RetrainingStore,
        on_end: Callable[[str, str], None],
        courses: Mapping[str, Course] | None = None,
    ) -> None:
        self._url = url
        self._steps = steps
        self._store = store
        self._on_end = on_end
        self._courses = courses or {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._function: Callable[[str], None] | None = None

    def start(self, run_id: str) -> None:
        """Begin a run, or go on with it where it was."""
        from dbos import DBOS, SetWorkflowID

        self.launch()
        assert self._function is not None
        with SetWorkflowID(run_id):
            status = DBOS.start_workflow(self._function, run_id).get_status().status
        if status in _DEAD:
            log.error("the workflow of retraining %s is dead (%s); the run has failed", run_id, status)
            self._on_end(run_id, "failed")

    def launch(self) -> None:
        """Start DBOS; it takes up what was left unfinished.

        Raises:
            MissingExtra: DBOS is not installed.
            Unavailable: its database does not answer, or has no room; the next call tries again.
        """
        with self._lock:
            if self._function is not None:
                return
            try:
                from dbos import DBOS
            except ImportError:
                raise MissingExtra.of("dbos", "retraining") from None
            DBOS(
                config={
                    "name": "predis",
                    "system_database_url": self._url,
                    "application_version": _STEPS_VERSION,
                    "executor_id": "control",
                    "log_level": "WARNING",
                }
            )
            function = self._define(DBOS)
            self._closing.clear()
            try:
                with translated():
                    DBOS.launch()
            except Unavailable:
                DBOS.destroy(workflow_completion_timeout_sec=0)
                raise
            self._function = function

    def close(self) -> None:
        """Stop working. What is at work is broken off and left to whoever launches next; without that the process could not end."""
        with self._lock:
            if self._function is not None:
                from dbos import DBOS

                self._closing.set()
                DBOS.destroy(workflow_completion_timeout_sec=0)
                # DBOS would tell at length of what is broken off.
                logging.getLogger("dbos").setLevel(logging.CRITICAL)
                self._steps.stop()
                self._function = None

    def _define(self, dbos: Any) -> Callable[[str], None]:
        """The workflow. Its steps must stay deterministic functions of what earlier steps returned."""

        def step(name: str, work: Callable[[], Any]) -> Any:
            return dbos.run_step({"name": name}, lambda: self._patiently(work))

        @dbos.workflow(name=_NAME)  # type: ignore[untyped-decorator]
        def retrain(run_id: str) -> None:
            try:
                outcome = self._run(run_id, step, sleep=dbos.sleep)
            except Exception as error:
                if self._closing.is_set():
                    raise
                # Of whatever kind it is: a run without an end would keep its endpoint from the next.
                unknown = not isinstance(error, PredisError)
                log.warning("retraining %s failed: %s", run_id, error, exc_info=unknown)
                outcome, detail = "failed", described(error)
                step("note_failure", lambda: self._store.note(run_id, detail=detail))
            step("end", lambda: self._on_end(run_id, outcome))

        function: Callable[[str], None] = retrain
        return function

    def _patiently(self, work: Callable[[], Any]) -> Any:
        """Do a step's work, again and again while the state database is away."""
        for pause_s in _PAUSES_S:
            try:
                return work()
            except Unavailable as error:
                log.warning("%s; trying again in %g s", error, pause_s)
                if self._closing.wait(pause_s):
                    raise
        return work()

    def _run(
        self, run_id: str, step: Callable[[str, Callable[[], Any]], Any], *, sleep: Callable[[float], None]
    ) -> str:
        steps, store = self._steps, self._store
        run = _existing(store, run_id)

        def at(name: str, work: Callable[[], Any]) -> Any:
            step(f"enter_{name}", lambda: store.note(run_id, step=name))
            return step(name, work)

        course = self._courses.get(run.endpoint)
        if course is not None:
            track = Track(steps, at, lambda values: step("note", lambda: store.note(run_id, **values)), sleep)
            return course(run, track)
        config = step("config", lambda: steps.config(run))
        built = at("build", lambda: steps.build(run, config))
        step(
            "note_build",
            lambda: store.note(run_id, detail={k: v for k, v in built.items() if k not in ("train", "test")}),
        )
        at("validate", lambda: steps.validate(run, config, built=built))
        trained = at("train", lambda: steps.train(run, config, built=built))
        step("note_train", lambda: store.note(run_id, detail={"train_seconds": trained["train_seconds"]}))
        compared = at("compare", lambda: steps.compare(run, config, built=built, trained=trained))
        step("note_compare", lambda: store.note(run_id, detail=compared))
        if compared["decision"] != "better":
            return "rejected"
        challenger = at("register", lambda: steps.register(run, config, built=built, trained=trained))
        step("note_register", lambda: store.note(run_id, challenger=challenger))
        rollout = at("rollout", lambda: steps.rollout(run, config, challenger=challenger))
        while rollout is None:  # another rollout holds the endpoint
            sleep(_TURN_S)
            rollout = step("rollout", lambda: steps.rollout(run, config, challenger=challenger))
        step("note_rollout", lambda: store.note(run_id, rollout=rollout))
        return "rolling_out"


def described(error: Exception) -> dict[str, str]:
    """What a run keeps of why it failed."""
    if isinstance(error, PredisError):
        return {"error": error.message, "code": error.code}
    return {"error": f"{type(error).__name__}: {error}", "code": PredisError.code}


def _existing(store: RetrainingStore, run_id: str) -> Run:
    run = store.run(run_id)
    if run is None:
        raise RuntimeError(f"retraining {run_id} has a workflow but no row")
    return run
