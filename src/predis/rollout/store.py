"""The rows of rollouts. Every change names the state it expects; one that changes no row raises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from predis.clock import iso
from predis.errors import IllegalTransition, RolloutInProgress
from predis.rollout import states
from predis.state.engine import Database
from predis.state.schema import rollouts


@dataclass(frozen=True)
class Rollout:
    """One move of an endpoint from a baseline to a candidate. ``route`` is the number of the Route it last made."""

    id: int
    tenant: str
    endpoint: str
    model: str
    baseline: int | None
    candidate: int
    state: str
    step: int
    plan: dict[str, Any]
    marks: dict[str, Any]
    route: int
    verdicts: list[dict[str, Any]]
    reason: str
    wish: str
    created_at: int
    step_at: int
    ended_at: int | None
    created_by: str

    def to_dict(self) -> dict[str, Any]:
        steps = self.plan["steps"]
        running = self.state == states.State.RUNNING
        share = steps[self.step] if running else 1.0 if self.state == states.State.PROMOTED else 0.0
        shown = {name: value for name, value in vars(self).items() if name not in ("marks", "tenant", "plan")}
        moments = {name: iso(getattr(self, name)) for name in ("created_at", "step_at", "ended_at")}
        return {
            **shown,
            "strategy": self.plan["strategy"],
            "steps": steps,
            "weight": share,
            "plan": self.plan,
            "ended_at_ns": self.ended_at,
            **moments,
        }


class RolloutStore:
    """Reads and writes rollouts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, connection: sa.Connection, row: Mapping[str, Any]) -> int:
        """
        Raises:
            RolloutInProgress: the endpoint has one that has not ended.
        """
        active = connection.execute(
            sa.select(rollouts.c.id, rollouts.c.candidate, rollouts.c.created_by)
            .filter_by(tenant=row["tenant"], endpoint=row["endpoint"])
            .where(rollouts.c.ended_at.is_(None))
        ).first()
        if active is not None:
            raise RolloutInProgress(
                f"endpoint {row['endpoint']!r} is in rollout {active.id} to version {active.candidate}, started by {active.created_by}; "
                f"promote or abort it first"
            )
        try:
            statement = rollouts.insert().values(**row).returning(rollouts.c.id)
            return int(connection.execute(statement).scalar_one())
        except sa.exc.IntegrityError:  # another control took the place between the look and the insert
            raise RolloutInProgress(f"endpoint {row['endpoint']!r} has a rollout in progress") from None

    def move(
        self, connection: sa.Connection, rollout: Rollout, *, target: str, values: Mapping[str, Any]
    ) -> None:
        """Change a rollout's state, if it still stands where the caller saw it.

        Raises:
            IllegalTransition: the move is not in the table, or the rollout has moved meanwhile.
        """
        states.check(rollout.state, target)
        statement = (
            rollouts.update()
            .where(
                rollouts.c.id == rollout.id,
                rollouts.c.state == rollout.state,
                rollouts.c.step == rollout.step,
            )
            .values(state=target, **values)
        )
        if connection.execute(statement).rowcount != 1:
            raise IllegalTransition(
                f"rollout {rollout.id} is no longer {rollout.state} at step {rollout.step}"
            )

    def note(self, rollout: Rollout, *, reason: str, verdicts: list[dict[str, Any]]) -> None:
        """Keep what the gates say while nothing moves."""
        with self._database.write() as connection:
            connection.execute(
                rollouts.update()
                .where(rollouts.c.id == rollout.id, rollouts.c.ended_at.is_(None))
                .values(reason=reason, verdicts=verdicts)
            )

    def wish(self, connection: sa.Connection, rollout: Rollout, *, wish: str) -> None:
        """
        Raises:
            IllegalTransition: the rollout has ended.
        """
        statement = (
            rollouts.update()
            .where(rollouts.c.id == rollout.id, rollouts.c.ended_at.is_(None))
            .values(wish=wish)
        )
        if connection.execute(statement).rowcount != 1:
            raise IllegalTransition(f"rollout {rollout.id} has ended ({rollout.state}); nothing to {wish}")

    def rollout(self, tenant: str, rollout: int) -> Rollout | None:
        with self._database.read() as connection:
            row = connection.execute(sa.select(rollouts).filter_by(tenant=tenant, id=rollout)).one_or_none()
        return Rollout(**row._mapping) if row else None

    def active(self) -> list[Rollout]:
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(rollouts).where(rollouts.c.ended_at.is_(None)).order_by(rollouts.c.id)
            )
            return [Rollout(**row._mapping) for row in rows]

    def rollouts(self, tenant: str, *, endpoint: str | None = None, limit: int = 50) -> list[Rollout]:
        """Newest first."""
        statement = sa.select(rollouts).filter_by(tenant=tenant).order_by(rollouts.c.id.desc()).limit(limit)
        if endpoint is not None:
            statement = statement.filter_by(endpoint=endpoint)
        with self._database.read() as connection:
            return [Rollout(**row._mapping) for row in connection.execute(statement)]
