"""The rows of trust: keys, endorsements, policies."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from predis.registry.model import Endorsement
from predis.state.engine import Database
from predis.state.schema import endorsements, policies, trusted_keys

REQUIRE_SIGNATURES = "require_signatures"


class TrustStore:
    """Reads and writes what a tenant trusts; every call works in the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_key(self, connection: sa.Connection, row: dict[str, Any]) -> bool:
        """``False`` where the key is there already, revoked or not."""
        return bool(connection.execute(self._database.insert_new(trusted_keys), row).rowcount)

    def keys(self, connection: sa.Connection, tenant: str) -> list[dict[str, Any]]:
        """Oldest first, revoked ones too."""
        rows = connection.execute(
            sa.select(trusted_keys)
            .filter_by(tenant=tenant)
            .order_by(trusted_keys.c.added_at, trusted_keys.c.id)
        )
        return [dict(row._mapping) for row in rows]

    def key(self, connection: sa.Connection, tenant: str, *, key: str) -> dict[str, Any] | None:
        """A key, held against its revocation until the caller's transaction ends."""
        row = connection.execute(
            sa.select(trusted_keys).filter_by(tenant=tenant, id=key).with_for_update(read=True)
        ).one_or_none()
        return dict(row._mapping) if row else None

    def revoke(self, connection: sa.Connection, tenant: str, *, key: str, at: int, actor: str) -> bool:
        """``False`` where there is no such key, or it is revoked already."""
        changed = connection.execute(
            trusted_keys.update()
            .filter_by(tenant=tenant, id=key)
            .where(trusted_keys.c.revoked_at.is_(None))
            .values(revoked_at=at, revoked_by=actor)
        )
        return bool(changed.rowcount)

    def endorse(self, connection: sa.Connection, row: dict[str, Any]) -> None:
        connection.execute(self._database.upsert(endorsements), row)

    def endorsements(
        self, connection: sa.Connection, tenant: str, *, model: str, number: int | None = None
    ) -> dict[int, tuple[Endorsement, ...]]:
        """By version, oldest first: those by keys that are trusted now. Of one version where its number is given."""
        joined = sa.and_(
            trusted_keys.c.tenant == endorsements.c.tenant,
            trusted_keys.c.id == endorsements.c.key,
            trusted_keys.c.revoked_at.is_(None),
        )
        statement = (
            sa.select(endorsements, trusted_keys.c.name, trusted_keys.c.public_key)
            .join(trusted_keys, joined)
            .where(endorsements.c.tenant == tenant, endorsements.c.model == model)
            .order_by(endorsements.c.signed_at, endorsements.c.key)
        )
        if number is not None:
            statement = statement.where(endorsements.c.version == number)
        found: dict[int, tuple[Endorsement, ...]] = {}
        for row in connection.execute(statement):
            one = Endorsement(row.key, row.name, row.public_key, row.signature)
            found[row.version] = (*found.get(row.version, ()), one)
        return found

    def forget(self, connection: sa.Connection, tenant: str, *, model: str, number: int) -> None:
        """Remove a deleted version's endorsements."""
        connection.execute(endorsements.delete().filter_by(tenant=tenant, model=model, version=number))

    def required(self, connection: sa.Connection, tenant: str) -> bool:
        """Whether the tenant demands signatures."""
        statement = sa.select(policies.c.value).filter_by(tenant=tenant, name=REQUIRE_SIGNATURES)
        return bool(connection.execute(statement).scalar_one_or_none())

    def set_policy(self, connection: sa.Connection, row: dict[str, Any]) -> None:
        connection.execute(self._database.upsert(policies), row)
