"""The rows of retraining runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from predis.clock import iso
from predis.errors import Conflict
from predis.state.engine import Database
from predis.state.schema import retrainings

# States of a run, one line each; "running" carries the step it is in.
STATES = {
    "running": "a step of the workflow is at work",
    "rolling_out": "the challenger is better; its rollout is under way",
    "promoted": "the challenger answers everything; final",
    "rejected": "the challenger was not better out of time, or its rollout turned back; final",
    "failed": "a step could not be done; final",
}
FINAL = frozenset(("promoted", "rejected", "failed"))


@dataclass(frozen=True)
class Run:
    """One retraining run."""

    id: str
    tenant: str
    endpoint: str
    model: str
    trigger: str
    state: str
    step: str
    detail: dict[str, Any]
    champion: int
    challenger: int | None
    rollout: int | None
    created_at: int
    ended_at: int | None

    def to_dict(self) -> dict[str, Any]:
        shown = {name: value for name, value in vars(self).items() if name != "tenant"}
        return {**shown, "created_at": iso(self.created_at), "ended_at": iso(self.ended_at)}


class RetrainingStore:
    """Reads and writes runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, connection: sa.Connection, run: Run) -> None:
        """
        Raises:
            Conflict: the endpoint has a run that has not ended.
        """
        try:
            connection.execute(retrainings.insert(), vars(run))
        except sa.exc.IntegrityError:
            raise Conflict(
                f"endpoint {run.endpoint!r} is being retrained already; `predis retrain --list` shows how far it is"
            ) from None

    def note(self, run_id: str, **values: Any) -> None:
        """Change a run that has not ended; ``detail`` is added to what is there."""
        with self._database.write() as connection:
            live = sa.and_(retrainings.c.id == run_id, retrainings.c.ended_at.is_(None))
            if "detail" in values:
                before = connection.execute(sa.select(retrainings.c.detail).where(live)).scalar_one_or_none()
                values["detail"] = {**(before or {}), **values["detail"]}
            connection.execute(retrainings.update().where(live).values(**values))

    def in_use(self, connection: sa.Connection) -> set[tuple[str, str, int]]:
        """Tenant, model and number of the champions and challengers of runs that have not ended."""
        rows = connection.execute(
            sa.select(
                retrainings.c.tenant, retrainings.c.model, retrainings.c.champion, retrainings.c.challenger
            ).where(retrainings.c.ended_at.is_(None))
        )
        return {
            (row.tenant, row.model, number)
            for row in rows
            for number in (row.champion, row.challenger)
            if number is not None
        }

    def since(self, connection: sa.Connection) -> int | None:
        """When the oldest run that has not ended began: what it has put into the artifact store is not older."""
        began: int | None = connection.execute(
            sa.select(sa.func.min(retrainings.c.created_at)).where(retrainings.c.ended_at.is_(None))
        ).scalar()
        return began

    def run(self, run_id: str) -> Run | None:
        with self._database.read() as connection:
            row = connection.execute(sa.select(retrainings).filter_by(id=run_id)).one_or_none()
        return Run(**row._mapping) if row else None

    def newest(self, tenant: str, endpoint: str) -> Run | None:
        statement = sa.select(retrainings).filter_by(tenant=tenant, endpoint=endpoint)
        statement = statement.order_by(retrainings.c.created_at.desc()).limit(1)
        with self._database.read() as connection:
            row = connection.execute(statement).one_or_none()
        return Run(**row._mapping) if row else None

    def runs(self, tenant: str | None = None, *, active: bool = False, limit: int = 50) -> list[Run]:
        """Newest first."""
        statement = sa.select(retrainings).order_by(retrainings.c.created_at.desc()).limit(limit)
        if tenant is not None:
            statement = statement.filter_by(tenant=tenant)
        if active:
            statement = statement.where(retrainings.c.ended_at.is_(None))
        with self._database.read() as connection:
            return [Run(**row._mapping) for row in connection.execute(statement)]
