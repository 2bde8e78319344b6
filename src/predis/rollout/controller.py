"""Rollouts: start, wish, and the level-triggered loop that carries them out.

Each tick reads where a rollout stands and what is known, asks ``plan.decide``, and applies the step: the next Route and the new
state in ONE transaction. A crash between ticks loses nothing, a crash inside one is undone by the database, and the next tick, in
whatever process, goes on from the row.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from predis.access.audit import Audit
from predis.clock import Clock
from predis.errors import Conflict, IllegalTransition, PredisError, RolloutNotFound
from predis.events import Bus, RolloutEnded, RouteChanged
from predis.monitoring.evidence import EvidenceReader, Mark
from predis.registry import Registry
from predis.rollout.plan import Evidence, Plan, Status, Step, decide
from predis.rollout.states import FINAL, State
from predis.rollout.store import Rollout, RolloutStore
from predis.serving.endpoints import Endpoints
from predis.serving.follower import alive
from predis.serving.store import Endpoint
from predis.state import Database

log = logging.getLogger(__name__)

CHAMPION = "champion"
_SLOW_FACTOR = 2.0
_SLOW_LEAST_S = 0.02


class Rollouts:
    """Starts rollouts, takes wishes, and moves them on at every ``tick``."""

    def __init__(
        self, database: Database, endpoints: Endpoints, *, registry: Registry, clock: Clock, bus: Bus
    ) -> None:
        self._database = database
        self._endpoints = endpoints
        self._registry = registry
        self._store = RolloutStore(database)
        self._reader = EvidenceReader(database)
        self._audit = Audit(database, clock)
        self._clock = clock
        self._bus = bus

    def start(
        self, tenant: str, name: str, *, version: str | int, plan: Mapping[str, Any], actor: str
    ) -> Rollout:
        """Begin to move an endpoint to a version.

        Raises:
            EndpointNotFound, ModelNotFound, VersionNotFound, AliasNotFound
            InvalidInput: the plan cannot be used.
            RolloutInProgress: the endpoint has one already.
            Conflict: the endpoint answers with that version already.
        """
        endpoint = self._endpoints.get(tenant, name)
        candidate = self._registry.version(tenant, endpoint.model, reference=version).number
        route = self._endpoints.current_route(endpoint)
        baseline = max(route.weights, key=lambda number: route.weights[number]) if route.weights else None
        if baseline == candidate:
            raise Conflict(f"endpoint {name!r} answers with version {candidate} already")
        full = Plan.from_dict({**self._defaults(endpoint, baseline), **plan})
        weights = {candidate: 1.0} if baseline is None else {baseline: 1.0, candidate: 0.0}
        now = self._clock.time_ns()
        row: dict[str, Any] = {
            "tenant": tenant, "endpoint": name, "model": endpoint.model, "baseline": baseline, "candidate": candidate,
            "state": State.WARMING, "step": 0, "plan": full.to_dict(), "marks": {}, "route": 0, "verdicts": [],
            "reason": "workers are loading the candidate", "wish": "", "created_at": now, "step_at": now, "ended_at": None,
            "created_by": actor,
        }  # fmt: skip
        with self._database.write() as connection:
            made = self._endpoints.store.put_route(
                connection, endpoint, weights=weights, reason=f"warm version {candidate}", at=now, actor=actor
            )
            rollout = self._store.add(connection, {**row, "route": made.number})
            # If another rollout has ended since the look, the baseline may be another.
            if made.number != endpoint.route + 1:
                raise Conflict(f"the Route of endpoint {name!r} changed meanwhile; try again")
            detail = {
                "rollout": rollout,
                "candidate": candidate,
                "baseline": baseline,
                "strategy": full.strategy,
            }
            self._audit.add(
                connection, tenant, actor=actor, action="rollout.start", target=name, detail=detail
            )
        self._bus.publish(RouteChanged(tenant=tenant, at_ns=now, endpoint=name, route=made.number))
        return self.get(tenant, rollout)

    def wish(self, tenant: str, rollout: int, *, wish: str, actor: str) -> Rollout:
        """Ask for ``promote`` or ``abort``; the next tick does it.

        Raises:
            RolloutNotFound
            IllegalTransition: it has ended.
        """
        found = self.get(tenant, rollout)
        with self._database.write() as connection:
            self._store.wish(connection, found, wish=wish)
            self._audit.add(
                connection,
                tenant,
                actor=actor,
                action=f"rollout.{wish}",
                target=found.endpoint,
                detail={"rollout": rollout},
            )
        return self.get(tenant, rollout)

    def get(self, tenant: str, rollout: int) -> Rollout:
        """
        Raises:
            RolloutNotFound
        """
        found = self._store.rollout(tenant, rollout)
        if found is None:
            raise RolloutNotFound(f"there is no rollout {rollout}; `predis rollout list` shows them")
        return found

    def listed(self, tenant: str, *, endpoint: str | None = None) -> list[Rollout]:
        """Newest first."""
        return self._store.rollouts(tenant, endpoint=endpoint)

    def tick(self) -> None:
        """Look at every active rollout once. One that fails is logged and does not hold up the others."""
        for rollout in self._store.active():
            try:
                self._advance(rollout)
            except IllegalTransition as error:
                log.info("%s; another control was quicker", error)
            except PredisError:
                log.exception("rollout %d could not be looked at; trying again", rollout.id)

    def _advance(self, rollout: Rollout) -> None:
        now = self._clock.time_ns()
        plan = Plan.from_dict(rollout.plan)
        status = Status(
            state=rollout.state, step=rollout.step, created_at=rollout.created_at, step_at=rollout.step_at, wish=rollout.wish,
            has_baseline=rollout.baseline is not None,
        )  # fmt: skip
        step = decide(plan, status, evidence=self._evidence(rollout, plan, now=now), now=now)
        verdicts = [asdict(verdict) for verdict in step.verdicts] or rollout.verdicts
        if not step.moved:
            if step.reason != rollout.reason or verdicts != rollout.verdicts:
                self._store.note(rollout, reason=step.reason, verdicts=verdicts)
            return
        self._apply(rollout, step, verdicts=verdicts, now=now)

    def _evidence(self, rollout: Rollout, plan: Plan, *, now: int) -> Evidence:
        applied, problem = self._workers(rollout, now)
        if rollout.state != State.RUNNING or rollout.baseline is None:
            return Evidence(applied=applied, problem=problem)
        mark = Mark(rollout.marks["at"], rollout.marks["counters"])
        sides = [
            self._reader.side(
                rollout.tenant, rollout.endpoint, version=version, mark=mark, slow_s=plan.slow_s
            )
            for version in (rollout.baseline, rollout.candidate)
        ]
        return Evidence(applied=applied, problem=problem, baseline=sides[0], candidate=sides[1])

    def _workers(self, rollout: Rollout, now: int) -> tuple[bool, str]:
        """Whether every living worker serves the rollout's Route, and what one that cannot says."""
        name = f"{rollout.tenant}/{rollout.endpoint}"
        living = [worker for worker in self._endpoints.store.workers() if alive(worker, now)]
        for worker in living:
            problem = worker.problems.get(name)
            if problem and problem["route"] == rollout.route:
                return False, problem["message"]
        return bool(living) and all(worker.applied.get(name, -1) >= rollout.route for worker in living), ""

    def _apply(self, rollout: Rollout, step: Step, *, verdicts: list[dict[str, Any]], now: int) -> None:
        """The next Route, the new state, the champion's alias and the audit entry, or none of them."""
        endpoint = self._endpoints.get(rollout.tenant, rollout.endpoint)
        weights = _weights(rollout, step)
        values: dict[str, Any] = {
            "step": step.step,
            "step_at": now,
            "reason": step.reason,
            "verdicts": verdicts,
        }
        if step.state == State.RUNNING and rollout.state == State.WARMING:
            values["marks"] = asdict(self._reader.mark(rollout.tenant, rollout.endpoint, now=now))
        if step.state in FINAL:
            values["ended_at"] = now
        with self._database.write() as connection:
            reason = f"rollout {rollout.id}: {step.reason}"
            route = self._endpoints.store.put_route(
                connection, endpoint, weights=weights, reason=reason, at=now, actor="rollout"
            )
            self._store.move(connection, rollout, target=step.state, values={**values, "route": route.number})
            detail = {
                "rollout": rollout.id,
                "from": rollout.state,
                "to": step.state,
                "share": step.share,
                "reason": step.reason,
            }
            self._audit.add(
                connection,
                rollout.tenant,
                actor="rollout",
                action="rollout.move",
                target=rollout.endpoint,
                detail=detail,
            )
            if step.state == State.PROMOTED:
                self._registry.point(
                    connection,
                    rollout.tenant,
                    model=rollout.model,
                    alias=CHAMPION,
                    number=rollout.candidate,
                    actor="rollout",
                )
        log.info("rollout %d of %s: %s, %s", rollout.id, rollout.endpoint, step.state, step.reason)
        self._publish(rollout, step, route=route.number, now=now)

    def _publish(self, rollout: Rollout, step: Step, *, route: int, now: int) -> None:
        self._bus.publish(
            RouteChanged(tenant=rollout.tenant, at_ns=now, endpoint=rollout.endpoint, route=route)
        )
        if step.state in FINAL:
            self._bus.publish(
                RolloutEnded(
                    tenant=rollout.tenant,
                    at_ns=now,
                    rollout=rollout.id,
                    endpoint=rollout.endpoint,
                    candidate=rollout.candidate,
                    state=step.state,
                )
            )

    def _defaults(self, endpoint: Endpoint, baseline: int | None) -> dict[str, Any]:
        """A slow request is one slower than twice the baseline's p99 so far, and never one under 20 ms."""
        p99_s = (
            None if baseline is None else self._reader.p99_s(endpoint.tenant, endpoint.name, version=baseline)
        )
        if p99_s is None:
            return {}
        return {"slow_s": max(_SLOW_FACTOR * p99_s, _SLOW_LEAST_S)}


def _weights(rollout: Rollout, step: Step) -> dict[int, float]:
    """The Route of a step: the baseline first, so that a growing canary only takes keys over from it."""
    if step.state == State.PROMOTED:
        return {rollout.candidate: 1.0}
    if rollout.baseline is None:
        return {}
    if step.state in FINAL:
        return {rollout.baseline: 1.0}
    return {rollout.baseline: 1.0 - step.share, rollout.candidate: step.share}
