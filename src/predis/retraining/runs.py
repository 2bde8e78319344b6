"""Retraining runs: started by an alert or by hand, carried by the workflow, ended by their rollout."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from predis.access.audit import Audit
from predis.clock import NANOSECONDS, Clock
from predis.errors import Conflict, PredisError, RetrainingNotFound
from predis.events import AlertRaised, Bus, RetrainingEnded
from predis.retraining.config import RetrainingConfig
from predis.retraining.steps import Parts, Steps
from predis.retraining.store import FINAL, RetrainingStore, Run
from predis.retraining.workflow import Course, Workflow, described
from predis.settings import Settings

__all__ = ["Parts", "Renewed", "Retrainings"]

log = logging.getLogger(__name__)


class Renewed(NamedTuple):
    """What a run renews; ``champion`` is 0 where there is nothing yet."""

    tenant: str
    endpoint: str
    model: str
    champion: int


_OUTCOMES = {"promoted": "promoted", "concluded": "rejected", "aborted": "rejected", "failed": "failed"}


class Retrainings:
    """Starts runs, lists them, and closes those whose rollout has ended."""

    def __init__(
        self,
        parts: Parts,
        *,
        settings: Settings,
        clock: Clock,
        bus: Bus,
        courses: Mapping[str, Course] | None = None,
    ) -> None:
        self._parts = parts
        self._settings = settings
        self._clock = clock
        self._bus = bus
        self._store = RetrainingStore(parts.database)
        self._audit = Audit(parts.database, clock)
        self._complaints: dict[int, str] = {}
        url = (
            parts.database.url
            if parts.database.dialect == "postgresql"
            else f"sqlite:///{settings.home / 'workflows.sqlite'}"
        )
        self._workflow = Workflow(
            url, Steps(parts, settings), store=self._store, on_end=self._steps_done, courses=courses
        )

    def start(self, tenant: str, name: str, *, trigger: str, actor: str) -> Run:
        """Begin to renew an endpoint's model.

        Raises:
            EndpointNotFound
            InvalidInput: the endpoint has no usable retraining configuration.
            Conflict: it serves nothing yet, or a run is under way.
            MissingExtra: the workflow engine is not installed.
        """
        endpoint = self._parts.endpoints.get(tenant, name)
        RetrainingConfig.of(endpoint.config, name)
        route = self._parts.endpoints.current_route(endpoint)
        if not route.weights:
            raise Conflict(f"endpoint {name!r} serves no version yet; deploy one first")
        champion = max(route.weights, key=lambda number: route.weights[number])
        renewed = Renewed(tenant, name, endpoint.model, champion)
        return self.begin(renewed, trigger=trigger, actor=actor)

    def begin(self, renewed: Renewed, *, trigger: str, actor: str) -> Run:
        """Begin a run.

        Raises:
            Conflict: one is under way.
            MissingExtra: the workflow engine is not installed.
            Unavailable: its database does not answer.
        """
        self._workflow.launch()
        tenant, name, model, champion = renewed
        run = Run(
            id=f"retrain-{uuid.uuid4().hex[:12]}", tenant=tenant, endpoint=name, model=model, trigger=trigger, state="running",
            step="build", detail={}, champion=champion, challenger=None, rollout=None, created_at=self._clock.time_ns(), ended_at=None,
        )  # fmt: skip
        with self._parts.database.write() as connection:
            self._store.add(connection, run)
            detail = {"run": run.id, "trigger": trigger, "champion": champion}
            self._audit.add(
                connection, tenant, actor=actor, action="retraining.start", target=name, detail=detail
            )
        try:
            self._workflow.start(run.id)
        except Exception as error:  # a run without an end would keep its endpoint from the next
            self._store.note(run.id, detail=described(error))
            self._end(run.id, "failed")
            raise
        return run

    def end(self, run_id: str, outcome: str, *, why: str) -> None:
        """Close a run whose rollout was another's, with its outcome; one that has ended stays as it is."""
        run = self._store.run(run_id)
        if run is not None and run.ended_at is None:
            self._store.note(run_id, detail={"rollout_reason": why})
            self._end(run_id, outcome)

    def newest(self, tenant: str, endpoint: str) -> Run | None:
        """The newest run of an endpoint."""
        return self._store.newest(tenant, endpoint)

    def get(self, tenant: str, run_id: str) -> Run:
        """
        Raises:
            RetrainingNotFound
        """
        run = self._store.run(run_id)
        if run is None or run.tenant != tenant:
            raise RetrainingNotFound(
                f"there is no retraining run {run_id!r}; `predis retrain --list` shows them"
            )
        return run

    def listed(self, tenant: str) -> list[dict[str, Any]]:
        """Newest first."""
        return [run.to_dict() for run in self._store.runs(tenant)]

    def on_alert(self, alert: AlertRaised) -> None:
        """Renew a model at once when an alert of a kind that its endpoint names is raised."""
        self._consider(alert.tenant, alert.endpoint, kind=alert.kind, alert=alert.alert)

    def _consider(self, tenant: str, name: str, *, kind: str, alert: int) -> None:
        """Start a run for an alert, unless one is under way or just was."""
        try:
            if self._wanted(tenant, name, kind=kind):
                self.start(tenant, name, trigger=kind, actor=f"alert {alert}")
        except Conflict:
            log.debug("alert %d: another was faster to renew %r", alert, name)
        except PredisError as error:
            if self._complaints.get(alert) != error.message:  # an alert that lasts asks every second
                log.warning("alert %d could not start a retraining: %s", alert, error)
            self._complaints[alert] = error.message

    def _wanted(self, tenant: str, name: str, *, kind: str) -> bool:
        endpoint = self._parts.endpoints.get(tenant, name)
        if "retraining" not in endpoint.config or kind not in RetrainingConfig.of(endpoint.config, name).on:
            return False
        earlier = next((run for run in self._store.runs(tenant) if run.endpoint == name), None)
        cooldown_ns = self._settings.retrain_cooldown_s * NANOSECONDS
        return earlier is None or (
            earlier.ended_at is not None and self._clock.time_ns() - earlier.ended_at >= cooldown_ns
        )

    def resume(self) -> None:
        """Take up what an earlier process left unfinished. A run whose workflow never began is begun."""
        unfinished = [run for run in self._store.runs(active=True) if run.state == "running"]
        for run in unfinished:
            log.info("retraining %s of %s goes on at step %s", run.id, run.endpoint, run.step)
            self._workflow.start(run.id)

    def tick(self) -> None:
        """Close runs whose rollout has ended; for alerts that last, try again once the cool-down has passed."""
        for run in self._store.runs(active=True):
            if run.state == "rolling_out" and run.rollout is not None:
                rollout = self._parts.rollouts.get(run.tenant, run.rollout)
                if rollout.ended_at is not None:
                    self._store.note(run.id, detail={"rollout_reason": rollout.reason})
                    self._end(run.id, _OUTCOMES[rollout.state])
        for alert in self._parts.evidence.open_alerts():
            self._consider(alert["tenant"], alert["endpoint"], kind=alert["kind"], alert=alert["id"])

    def close(self) -> None:
        self._workflow.close()

    def _steps_done(self, run_id: str, outcome: str) -> None:
        if outcome in FINAL:
            self._end(run_id, outcome)
        else:
            self._store.note(run_id, state=outcome)

    def _end(self, run_id: str, outcome: str) -> None:
        now = self._clock.time_ns()
        self._store.note(run_id, state=outcome, ended_at=now)
        run = self._store.run(run_id)
        if run is not None:
            self._bus.publish(
                RetrainingEnded(
                    tenant=run.tenant, at_ns=now, run=run_id, endpoint=run.endpoint, outcome=outcome
                )
            )
