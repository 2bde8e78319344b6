"""The audit log: who did what to which thing, written in the same transaction as the deed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from predis.access.store import AccessStore
from predis.clock import Clock, iso
from predis.state.engine import Database

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Audit:
    """Adds entries to the log and lists them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._store = AccessStore(database)
        self._clock = clock

    def add(
        self,
        connection: Connection,
        tenant: str,
        *,
        actor: str,
        action: str,
        target: str,
        detail: dict[str, Any] | None = None,
    ) -> None:
        """Note a deed in the caller's transaction: it is in the log exactly if it happened."""
        row = {
            "tenant": tenant, "at": self._clock.time_ns(), "actor": actor, "action": action, "target": target, "detail": detail or {},
        }  # fmt: skip
        self._store.add_entry(connection, row)

    def entries(self, tenant: str, *, limit: int = 200) -> list[dict[str, Any]]:
        """Newest first."""
        return [{**row, "at": iso(row["at"])} for row in self._store.entries(tenant, limit=limit)]
