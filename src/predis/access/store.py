"""The rows of access: API keys and the audit log."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from predis.state.engine import Database
from predis.state.schema import api_keys, audit


class AccessStore:
    """Reads and writes keys and audit entries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_key(self, row: dict[str, Any], *, entry: dict[str, Any]) -> None:
        """Store a key and the audit log's entry of it."""
        with self._database.write() as connection:
            connection.execute(api_keys.insert(), row)
            self.add_entry(connection, entry)

    def revoke_key(self, key_id: str, *, tenant: str, at: int, entry: dict[str, Any]) -> bool:
        """End a key and note it; ``False``, and no note, where there is no such live key."""
        live = sa.and_(api_keys.c.id == key_id, api_keys.c.tenant == tenant, api_keys.c.revoked_at.is_(None))
        with self._database.write() as connection:
            revoked = connection.execute(api_keys.update().where(live).values(revoked_at=at)).rowcount == 1
            if revoked:
                self.add_entry(connection, entry)
            return revoked

    def all_keys(self) -> list[Any]:
        """Every key of every tenant, the revoked ones too."""
        with self._database.read() as connection:
            return list(connection.execute(sa.select(api_keys)))

    def keys(self, tenant: str) -> list[dict[str, Any]]:
        shown = [c for c in api_keys.columns if c.name != "digest"]
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(*shown).filter_by(tenant=tenant).order_by(api_keys.c.created_at)
            )
            return [dict(row._mapping) for row in rows]

    def add_entry(self, connection: sa.Connection, row: dict[str, Any]) -> None:
        connection.execute(audit.insert(), row)

    def entries(self, tenant: str, *, limit: int) -> list[dict[str, Any]]:
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(audit).filter_by(tenant=tenant).order_by(audit.c.id.desc()).limit(limit)
            )
            return [dict(row._mapping) for row in rows]
