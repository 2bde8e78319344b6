"""The registry's rows: models, versions, aliases."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from predis.registry.model import File, Version
from predis.registry.signature import Signature
from predis.state.engine import Database
from predis.state.schema import aliases, models, versions


class RegistryStore:
    """Reads and writes the registry; every call names the tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_version(self, connection: sa.Connection, version: Version) -> int:
        """Give a version its number and store it, whole, in the caller's transaction."""
        key = {"tenant": version.tenant, "name": version.model}
        connection.execute(self._database.insert_new(models), {**key, "created_at": version.created_at})
        # The model's row is the lock that keeps two registrations from taking the same number on PostgreSQL.
        connection.execute(sa.select(models.c.name).filter_by(**key).with_for_update())
        newest = connection.execute(
            sa.select(sa.func.max(versions.c.number)).filter_by(tenant=version.tenant, model=version.model)
        ).scalar()
        number = (newest or 0) + 1
        connection.execute(
            versions.insert(),
            {
                "tenant": version.tenant,
                "model": version.model,
                "number": number,
                "digest": version.digest,
                "format": version.format,
                "files": [vars(file) for file in version.files],
                "size_bytes": version.size_bytes,
                "signature": version.signature.to_dict(),
                "metrics": dict(version.metrics),
                "profile": version.profile,
                "seal": version.seal or None,
                "lineage": dict(version.lineage),
                "created_at": version.created_at,
                "created_by": version.created_by,
            },
        )
        return number

    def version(self, tenant: str, model: str, *, number: int) -> Version | None:
        with self._database.read() as connection:
            row = connection.execute(
                sa.select(versions).filter_by(tenant=tenant, model=model, number=number)
            ).one_or_none()
        return _version(row) if row else None

    def versions(self, tenant: str, model: str) -> list[Version]:
        """Newest first, without their profiles."""
        columns = [c for c in versions.columns if c.name != "profile"]
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(*columns).filter_by(tenant=tenant, model=model).order_by(versions.c.number.desc())
            ).all()
        return [_version(row) for row in rows]

    def models(self, tenant: str) -> list[dict[str, Any]]:
        newest = (
            sa.select(
                versions.c.model,
                sa.func.max(versions.c.number).label("newest"),
                sa.func.count().label("count"),
            )
            .filter_by(tenant=tenant)
            .group_by(versions.c.model)
            .subquery()
        )
        statement = (
            sa.select(models.c.name, models.c.created_at, newest.c.newest, newest.c.count)
            .join(newest, newest.c.model == models.c.name)
            .where(models.c.tenant == tenant)
            .order_by(models.c.name)
        )
        with self._database.read() as connection:
            return [dict(row._mapping) for row in connection.execute(statement)]

    def has_model(self, tenant: str, model: str) -> bool:
        with self._database.read() as connection:
            return (
                connection.execute(sa.select(models.c.name).filter_by(tenant=tenant, name=model)).first()
                is not None
            )

    def move_alias(self, connection: sa.Connection, row: dict[str, Any]) -> None:
        connection.execute(self._database.upsert(aliases), row)

    def alias_now(self, connection: sa.Connection, tenant: str, *, model: str, alias: str) -> int | None:
        return connection.execute(
            sa.select(aliases.c.version).filter_by(tenant=tenant, model=model, alias=alias)
        ).scalar_one_or_none()

    def aliases(self, tenant: str, model: str) -> dict[str, int]:
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(aliases.c.alias, aliases.c.version).filter_by(tenant=tenant, model=model)
            )
            return {row.alias: row.version for row in rows}


def _version(row: Any) -> Version:
    return Version(
        tenant=row.tenant,
        model=row.model,
        number=row.number,
        format=row.format,
        digest=row.digest,
        files=tuple(File(**file) for file in row.files),
        signature=Signature.from_dict(row.signature),
        metrics=row.metrics,
        lineage=row.lineage,
        created_at=row.created_at,
        created_by=row.created_by,
        profile=getattr(row, "profile", None),
        seal=row.seal or "",
    )
