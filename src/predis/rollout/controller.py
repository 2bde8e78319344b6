"""Rollouts: start, wish, and the level-triggered loop that carries them out.

Each tick reads where a rollout stands and what is known, asks ``decide``, and applies the step: the next Route and the new state in ONE
transaction. A crash between ticks loses nothing, a crash inside one is undone by the database, and the next tick, in whatever process,
goes on from the row.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from predis.access.audit import Audit
from predis.clock import Clock, iso
from predis.errors import (
    AccessDenied,
    ChangeFrozen,
    Conflict,
    IllegalTransition,
    NotFound,
    PredisError,
    RolloutNotFound,
)
from predis.events import Bus, RolloutEnded, RouteChanged
from predis.monitoring.evidence import EvidenceReader
from predis.registry import Registry, Version
from predis.rollout.decision import Status, Step, decide
from predis.rollout.freezes import Freezes
from predis.rollout.gates import Ledger
from predis.rollout.gathering import Gatherer
from predis.rollout.plan import Plan
from predis.rollout.splits import Sides, baseline_of, split_of, without_segment
from predis.rollout.states import FINAL, State, check_wish
from predis.rollout.store import Rollout, RolloutStore
from predis.serving.endpoints import Endpoints
from predis.serving.route import Route, Split
from predis.serving.store import Endpoint, split_from_row, split_to_row
from predis.state import Database
from predis.stats import latency

log = logging.getLogger(__name__)

CHAMPION = "champion"
# What the baseline's slowest hundredth took is slow, but nobody waits for less than this.
_LEAST_SLOW_S = 0.01
_LEAST_ANSWERS = 100
_MOVES_KEPT = 200
# How much of the quality that a model showed at registration a candidate may lose: surely more turns it back, surely less lets it pass.
_ABORT, _MARGIN = 0.01, 0.05


@dataclass(frozen=True)
class Order:
    """What somebody wants deployed: a version by number, alias or ``latest``, and the plan's values that are not the defaults."""

    version: str | int
    plan: Mapping[str, Any]
    override_freeze: bool = False


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
        self._gatherer = Gatherer(self._reader, endpoints.store)
        self._audit = Audit(database, clock)
        self._clock = clock
        self._bus = bus
        self.freezes = Freezes(database, clock)

    def start(self, tenant: str, name: str, *, order: Order, actor: str) -> Rollout:
        """Begin to move an endpoint to a version.

        Raises:
            EndpointNotFound, ModelNotFound, VersionNotFound, AliasNotFound
            InvalidInput: the plan cannot be used.
            RolloutInProgress: the endpoint has one already.
            Conflict: the endpoint answers with that version already.
            ChangeFrozen: a freeze window is open.
            Untrusted: the tenant wants signed versions, and this one is not.
        """
        endpoint = self._endpoints.get(tenant, name)
        candidate = self._registry.version(tenant, endpoint.model, reference=order.version).number
        self._registry.deployable(tenant, endpoint.model, number=candidate)
        now = self._clock.time_ns()
        if not order.override_freeze:
            self._refuse_frozen(tenant, name, now=now)
        base = self._endpoints.current_route(endpoint).split
        baseline = baseline_of(base, str(order.plan.get("where", "")))
        if baseline == candidate:
            raise Conflict(f"endpoint {name!r} answers with version {candidate} already")
        if candidate in base.shadows:
            raise Conflict(f"version {candidate} is a shadow of endpoint {name!r}")
        full = Plan.from_dict({**self._defaults(endpoint, baseline), **order.plan})
        sides = Sides(baseline, candidate)
        if full.where and baseline is None:
            raise Conflict(f"endpoint {name!r} answers nothing yet; deploy a version to all requests first")
        split = split_of(full, base, sides=sides, state=State.WARMING, share=0.0, salt=base.salt)
        row: dict[str, Any] = {
            "tenant": tenant, "endpoint": name, "model": endpoint.model, "baseline": baseline, "candidate": candidate,
            "state": State.WARMING, "step": 0, "share": 0.0, "plan": full.to_dict(), "base": split_to_row(base), "marks": {}, "ledger": {},
            "looks": 0, "verdicts": [], "moves": [_move(now, State.WARMING, share=0.0, reason=f"started by {actor}")],
            "reason": "workers are loading the candidate", "wish": "", "wish_by": "", "overrides_freeze": order.override_freeze,
            "created_at": now, "began_at": None, "step_at": now, "ended_at": None, "created_by": actor,
        }  # fmt: skip
        with self._database.write() as connection:
            self._registry.hold(
                connection, tenant, model=endpoint.model, number=candidate
            )  # against its deletion
            made = self._endpoints.store.put_route(
                connection, endpoint, route=split, reason=f"warm version {candidate}", at=now, actor=actor
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
                "where": full.where,
            }
            self._audit.add(
                connection, tenant, actor=actor, action="rollout.start", target=name, detail=detail
            )
        self._bus.publish(RouteChanged(tenant=tenant, at_ns=now, endpoint=name, route=made.number))
        return self.get(tenant, rollout)

    def wish(
        self,
        tenant: str,
        rollout: int,
        *,
        wish: str,
        actor: str,
        note: str = "",
        override_freeze: bool = False,
    ) -> Rollout:
        """Ask for one of ``WISHES``; the next tick does it.

        Raises:
            RolloutNotFound
            IllegalTransition: it is in no state that could grant that.
            ChangeFrozen: it would go forward in a freeze window.
            AccessDenied: the plan wants the yes of somebody else than who started it.
        """
        found = self.get(tenant, rollout)
        check_wish(wish, found.state)
        if wish == "promote" and not (override_freeze or found.overrides_freeze):
            self._refuse_frozen(tenant, found.endpoint, now=self._clock.time_ns())
        if wish in ("approve", "promote") and found.plan["four_eyes"] and actor == found.created_by:
            raise AccessDenied(
                f"rollout {rollout} wants the yes of somebody else than {actor}, who started it"
            )
        with self._database.write() as connection:
            self._store.wish(connection, found, wish=wish, by=actor)
            detail = {"rollout": rollout, **({"note": note} if note else {})}
            self._audit.add(
                connection,
                tenant,
                actor=actor,
                action=f"rollout.{wish}",
                target=found.endpoint,
                detail=detail,
            )
        return self.get(tenant, rollout)

    def drop_segment(self, tenant: str, name: str, *, when: str, actor: str) -> Route:
        """Answer a segment's requests as all others from now on.

        Raises:
            EndpointNotFound
            NotFound: the endpoint has no such segment.
            RolloutInProgress
            ChangeFrozen
        """
        endpoint = self._endpoints.get(tenant, name)
        now = self._clock.time_ns()
        self._refuse_frozen(tenant, name, now=now)
        base = self._endpoints.current_route(endpoint).split
        if when not in [segment.when for segment in base.segments]:
            raise NotFound(
                f"endpoint {name!r} has no segment {when!r}; `predis endpoint show {name}` shows them"
            )
        with self._database.write() as connection:
            self._store.refuse_second(connection, tenant, endpoint=name)
            made = self._endpoints.store.put_route(
                connection,
                endpoint,
                route=without_segment(base, when),
                reason=f"without segment {when}",
                at=now,
                actor=actor,
            )
            if made.number != endpoint.route + 1:
                raise Conflict(f"the Route of endpoint {name!r} changed meanwhile; try again")
            self._audit.add(
                connection, tenant, actor=actor, action="segment.drop", target=name, detail={"when": when}
            )
        self._bus.publish(RouteChanged(tenant=tenant, at_ns=now, endpoint=name, route=made.number))
        return made

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

    def active(self) -> list[Rollout]:
        """Those of all tenants that have not ended."""
        return self._store.active()

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
        ledger = Ledger.from_dict(plan, rollout.ledger)
        frozen = (
            "" if rollout.overrides_freeze else self.freezes.reason(rollout.tenant, rollout.endpoint, now=now)
        )
        evidence, is_new = self._gatherer.gather(rollout, plan, ledger=ledger, frozen=frozen, now=now)
        step = decide(plan, _status(rollout), evidence=evidence, now=now)
        verdicts = [asdict(verdict) for verdict in step.verdicts] or rollout.verdicts
        if step.moved:
            if evidence.ledger is not None and step.share != rollout.share:
                ledger.close(evidence.sides)
            self._apply(rollout, plan, step=step, verdicts=verdicts, ledger=ledger, now=now)
        elif is_new or step.reason != rollout.reason or verdicts != rollout.verdicts:
            self._store.note(rollout, reason=step.reason, verdicts=verdicts, ledger=ledger.to_dict())

    def _apply(
        self,
        rollout: Rollout,
        plan: Plan,
        *,
        step: Step,
        verdicts: list[dict[str, Any]],
        ledger: Ledger,
        now: int,
    ) -> None:
        """The next Route, the new state, the champion's alias and the audit entry, or none of them."""
        endpoint = self._endpoints.get(rollout.tenant, rollout.endpoint)
        split = split_of(
            plan, split_from_row(rollout.base), sides=Sides(rollout.baseline, rollout.candidate), state=step.state, share=step.share,
            salt=f"rollout {rollout.id}",
        )  # fmt: skip
        values: dict[str, Any] = {
            "step": step.step, "share": step.share, "step_at": now, "reason": step.reason, "verdicts": verdicts,
            "ledger": ledger.to_dict(), "looks": rollout.looks + 1,
            "moves": [*rollout.moves, _move(now, step.state, share=step.share, reason=step.reason)][-_MOVES_KEPT:],
        }  # fmt: skip
        if rollout.began_at is None and step.state in (State.RUNNING, State.HOLDING):
            values |= {
                "marks": asdict(self._reader.mark(rollout.tenant, rollout.endpoint, now=now)),
                "began_at": now,
            }
        if step.state in FINAL:
            values["ended_at"] = now
        with self._database.write() as connection:
            route = self._next_route(connection, rollout, endpoint=endpoint, split=split, step=step, now=now)
            self._store.move(connection, rollout, target=step.state, values={**values, "route": route})
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
            if step.state == State.PROMOTED and not plan.where:
                self._registry.point(
                    connection,
                    rollout.tenant,
                    model=rollout.model,
                    alias=CHAMPION,
                    number=rollout.candidate,
                    actor="rollout",
                )
        log.info("rollout %d of %s: %s, %s", rollout.id, rollout.endpoint, step.state, step.reason)
        self._publish(rollout, step, route=route, now=now)

    def _next_route(
        self, connection: Any, rollout: Rollout, *, endpoint: Endpoint, split: Split, step: Step, now: int
    ) -> int:
        """The number of the Route that says so; of the present one where nothing changes for callers."""
        as_it_was = rollout.began_at is not None and step.share == rollout.share and step.state not in FINAL
        if as_it_was or step.state == State.WAITING:
            return rollout.route
        reason = f"rollout {rollout.id}: {step.reason}"
        made = self._endpoints.store.put_route(
            connection, endpoint, route=split, reason=reason, at=now, actor="rollout"
        )
        return made.number

    def _publish(self, rollout: Rollout, step: Step, *, route: int, now: int) -> None:
        if route != rollout.route:
            self._bus.publish(
                RouteChanged(tenant=rollout.tenant, at_ns=now, endpoint=rollout.endpoint, route=route)
            )
        if step.state in FINAL:
            self._bus.publish(
                RolloutEnded(
                    tenant=rollout.tenant, at_ns=now, rollout=rollout.id, endpoint=rollout.endpoint, candidate=rollout.candidate,
                    state=step.state,
                )
            )  # fmt: skip

    def _refuse_frozen(self, tenant: str, name: str, *, now: int) -> None:
        reason = self.freezes.reason(tenant, name, now=now)
        if reason:
            raise ChangeFrozen(f"endpoint {name!r} is {reason}; an administrator may override it")

    def _defaults(self, endpoint: Endpoint, baseline: int | None) -> dict[str, Any]:
        """What the plan has from the baseline: slow is slower than its p99 so far, and what has no AUC is gated by its errors."""
        if baseline is None:
            return {}
        found = _quality_gate(self._registry.version(endpoint.tenant, endpoint.model, reference=baseline))
        counts = self._reader.latency(endpoint.tenant, endpoint.name, version=baseline)
        if counts is not None and counts.sum() >= _LEAST_ANSWERS:
            found["slow_s"] = max(latency.quantile(counts, 0.99), _LEAST_SLOW_S)
        return found


def _quality_gate(version: Version) -> dict[str, Any]:
    """What takes the place of the AUC for a model that tells no probability: how near it comes, or how often it names the right class (its
    watched score is the class's number and, behind the point, how sure it was)."""
    if version.signature.task == "multiclass":
        right = "1 if score // 1 == label else 0"
        return {"auc_gate": False, "reward": right, "reward_abort": _ABORT, "reward_margin": _MARGIN}
    if version.signature.task == "regression":
        error = version.metrics.get("mae")
        if not error:  # in no unit that would be known
            return {"auc_gate": False}
        near = {
            "reward": "-abs(label - score)",
            "reward_abort": _ABORT * error,
            "reward_margin": _MARGIN * error,
        }
        return {"auc_gate": False, **near}
    return {}


def _status(rollout: Rollout) -> Status:
    return Status(
        state=rollout.state, step=rollout.step, share=rollout.share, step_at=rollout.step_at, began_at=rollout.began_at or 0,
        wish=rollout.wish, wish_by=rollout.wish_by, has_baseline=rollout.baseline is not None,
    )  # fmt: skip


def _move(at: int, state: str, *, share: float, reason: str) -> dict[str, Any]:
    return {"at": iso(at), "at_ns": at, "state": state, "share": share, "reason": reason}
