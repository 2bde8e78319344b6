"""The rows of rollouts and freeze windows. Every change names the state it expects; one that changes no row raises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from predis.clock import iso
from predis.errors import IllegalTransition, RolloutInProgress
from predis.rollout import states
from predis.serving.store import split_from_row
from predis.state.engine import Database
from predis.state.schema import freezes, rollouts

_INNER = ("base", "ledger", "looks", "marks", "plan", "tenant")


@dataclass(frozen=True)
class Rollout:
    """One move of an endpoint from a baseline to a candidate.

    ``route`` is the number of the Route it last made, ``base`` the endpoint's split when it began, ``marks`` the counters when the
    candidate's evidence began, ``ledger`` what the gates remember, ``looks`` how often they have looked.
    """

    id: int
    tenant: str
    endpoint: str
    model: str
    baseline: int | None
    candidate: int
    state: str
    step: int
    share: float
    plan: dict[str, Any]
    base: dict[str, Any]
    marks: dict[str, Any]
    ledger: dict[str, Any]
    looks: int
    route: int
    verdicts: list[dict[str, Any]]
    moves: list[dict[str, Any]]
    reason: str
    wish: str
    wish_by: str
    overrides_freeze: bool
    created_at: int
    began_at: int | None
    step_at: int
    ended_at: int | None
    created_by: str

    def to_dict(self) -> dict[str, Any]:
        shown = {name: value for name, value in vars(self).items() if name not in _INNER}
        moments = {
            name: iso(getattr(self, name)) for name in ("created_at", "began_at", "step_at", "ended_at")
        }
        return {
            **shown,
            "strategy": self.plan["strategy"],
            "where": self.plan["where"],
            "steps": self.plan["steps"],
            "weight": self.share,
            "plan": self.plan,
            "ended_at_ns": self.ended_at,
            **moments,
        }


class RolloutStore:
    """Reads and writes rollouts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def in_use(self, connection: sa.Connection) -> set[tuple[str, str, int]]:
        """Tenant, model and number of every version that a rollout which has not ended moves from or to, or may go back to."""
        columns = (
            rollouts.c.tenant,
            rollouts.c.model,
            rollouts.c.baseline,
            rollouts.c.candidate,
            rollouts.c.base,
        )
        rows = connection.execute(sa.select(*columns).where(rollouts.c.ended_at.is_(None)))
        return {
            (row.tenant, row.model, number)
            for row in rows
            for number in (row.baseline, row.candidate, *split_from_row(row.base).versions())
            if number is not None
        }

    def add(self, connection: sa.Connection, row: Mapping[str, Any]) -> int:
        """
        Raises:
            RolloutInProgress: the endpoint has one that has not ended.
        """
        self.refuse_second(connection, row["tenant"], endpoint=row["endpoint"])
        try:
            statement = rollouts.insert().values(**row).returning(rollouts.c.id)
            return int(connection.execute(statement).scalar_one())
        except sa.exc.IntegrityError:  # another control took the place between the look and the insert
            raise RolloutInProgress(f"endpoint {row['endpoint']!r} has a rollout in progress") from None

    def refuse_second(self, connection: sa.Connection, tenant: str, *, endpoint: str) -> None:
        """
        Raises:
            RolloutInProgress: the endpoint has one that has not ended.
        """
        active = connection.execute(
            sa.select(rollouts.c.id, rollouts.c.candidate, rollouts.c.created_by)
            .filter_by(tenant=tenant, endpoint=endpoint)
            .where(rollouts.c.ended_at.is_(None))
        ).first()
        if active is not None:
            raise RolloutInProgress(
                f"endpoint {endpoint!r} is in rollout {active.id} to version {active.candidate}, started by {active.created_by}; "
                f"promote or abort it first"
            )

    def move(
        self, connection: sa.Connection, rollout: Rollout, *, target: str, values: Mapping[str, Any]
    ) -> None:
        """Change a rollout's state, if it still stands where the caller saw it. The wish it had is granted, or void.

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
                rollouts.c.route == rollout.route,
            )
            .values(state=target, wish="", wish_by="", **values)
        )
        if connection.execute(statement).rowcount != 1:
            raise IllegalTransition(
                f"rollout {rollout.id} is no longer {rollout.state} at step {rollout.step}"
            )

    def note(
        self, rollout: Rollout, *, reason: str, verdicts: list[dict[str, Any]], ledger: Mapping[str, Any]
    ) -> None:
        """Keep what the gates say and remember while nothing moves.

        Raises:
            IllegalTransition: somebody else has looked meanwhile, whose evidence must not count twice.
        """
        with self._database.write() as connection:
            noted = connection.execute(
                rollouts.update()
                .where(
                    rollouts.c.id == rollout.id,
                    rollouts.c.ended_at.is_(None),
                    rollouts.c.looks == rollout.looks,
                )
                .values(reason=reason, verdicts=verdicts, ledger=dict(ledger), looks=rollout.looks + 1)
            )
            if noted.rowcount != 1:
                raise IllegalTransition(f"rollout {rollout.id} was looked at meanwhile")

    def wish(self, connection: sa.Connection, rollout: Rollout, *, wish: str, by: str) -> None:
        """
        Raises:
            IllegalTransition: the rollout cannot grant that, or has moved meanwhile.
        """
        states.check_wish(wish, rollout.state)
        statement = (
            rollouts.update()
            .where(rollouts.c.id == rollout.id, rollouts.c.state == rollout.state)
            .values(wish=wish, wish_by=by)
        )
        if connection.execute(statement).rowcount != 1:
            raise IllegalTransition(
                f"rollout {rollout.id} is no longer {rollout.state}; look at it and ask again"
            )

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


class FreezeStore:
    """Reads and writes freeze windows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, connection: sa.Connection, row: Mapping[str, Any]) -> int:
        return int(connection.execute(freezes.insert().values(**row).returning(freezes.c.id)).scalar_one())

    def remove(self, connection: sa.Connection, tenant: str, *, freeze: int) -> bool:
        """Whether there was such a window."""
        return bool(connection.execute(freezes.delete().filter_by(tenant=tenant, id=freeze)).rowcount)

    def freezes(self, tenant: str) -> list[dict[str, Any]]:
        """In the order in which they were made."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(freezes).filter_by(tenant=tenant).order_by(freezes.c.id))
            return [dict(row._mapping) for row in rows]
