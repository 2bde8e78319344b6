"""The registry's rows: models, versions, aliases and their moves."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from predis.registry.model import Endorsement, File, Version
from predis.registry.signature import Signature
from predis.registry.trust.store import TrustStore
from predis.state.engine import Database
from predis.state.schema import alias_moves, aliases, models, versions

_ARTIFACTS_LOCK = 0x7072_6566  # of PostgreSQL's advisory locks: whoever deletes artifacts against whoever begins to name them


class RegistryStore:
    """Reads and writes the registry; every call names the tenant.

    A model's row is the lock of its versions: who adds, deletes, or begins to use one holds it until their transaction ends.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._trust = TrustStore(database)

    def add_version(self, connection: sa.Connection, version: Version) -> int:
        """Give a version its number and store it, whole, in the caller's transaction."""
        key = {"tenant": version.tenant, "name": version.model}
        connection.execute(
            self._database.insert_new(models), {**key, "created_at": version.created_at, "numbered": 0}
        )
        newest = connection.execute(
            sa.select(models.c.numbered).filter_by(**key).with_for_update()
        ).scalar_one()
        number: int = newest + 1
        connection.execute(models.update().filter_by(**key).values(numbered=number))
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

    def hold(self, connection: sa.Connection, tenant: str, *, model: str, number: int) -> bool:
        """Whether a version exists; if so it does until the caller's transaction ends."""
        connection.execute(sa.select(models.c.name).filter_by(tenant=tenant, name=model).with_for_update())
        found = connection.execute(
            sa.select(versions.c.number).filter_by(tenant=tenant, model=model, number=number)
        )
        return found.first() is not None

    def delete_version(self, connection: sa.Connection, tenant: str, *, model: str, number: int) -> None:
        """Delete a version that is held; its number is not given again."""
        connection.execute(versions.delete().filter_by(tenant=tenant, model=model, number=number))
        self._trust.forget(connection, tenant, model=model, number=number)

    def version(self, tenant: str, model: str, *, number: int) -> Version | None:
        with self._database.read() as connection:
            row = connection.execute(
                sa.select(versions).filter_by(tenant=tenant, model=model, number=number)
            ).one_or_none()
            if row is None:
                return None
            found = self._trust.endorsements(connection, tenant, model=model, number=number)
            demand = self._trust.required(connection, tenant)
        return _version(row, found.get(number, ()), demand=demand)

    def versions(self, tenant: str, model: str) -> list[Version]:
        """Newest first, without their profiles."""
        columns = [c for c in versions.columns if c.name != "profile"]
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(*columns).filter_by(tenant=tenant, model=model).order_by(versions.c.number.desc())
            ).all()
            found = self._trust.endorsements(connection, tenant, model=model)
            demand = self._trust.required(connection, tenant)
        return [_version(row, found.get(row.number, ()), demand=demand) for row in rows]

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

    def newest(self, tenant: str, model: str) -> int | None:
        """The highest number of a model's versions; ``None`` where there is no such model, or no version is left of it."""
        with self._database.read() as connection:
            number: int | None = connection.execute(
                sa.select(sa.func.max(versions.c.number)).filter_by(tenant=tenant, model=model)
            ).scalar()
        return number

    def move_alias(self, connection: sa.Connection, row: dict[str, Any]) -> int | None:
        """Point an alias at ``row["version"]``, or delete it where that is ``None``, and note the move; where it pointed."""
        key = {name: row[name] for name in ("tenant", "model", "alias")}
        before: int | None = connection.execute(
            sa.select(aliases.c.version).filter_by(**key).with_for_update()
        ).scalar_one_or_none()
        if before is not None and before == row["version"]:
            return before
        if row["version"] is None:
            connection.execute(aliases.delete().filter_by(**key))
        else:
            connection.execute(self._database.upsert(aliases), row)
        move = {
            **key, "before": before, "after": row["version"], "moved_at": row["moved_at"], "moved_by": row["moved_by"],
        }  # fmt: skip
        connection.execute(alias_moves.insert(), move)
        return before

    def alias_moves(self, tenant: str, model: str, *, limit: int) -> list[dict[str, Any]]:
        """Newest first."""
        columns = [c for c in alias_moves.columns if c.name not in ("id", "tenant", "model")]
        statement = (
            sa.select(*columns)
            .filter_by(tenant=tenant, model=model)
            .order_by(alias_moves.c.id.desc())
            .limit(limit)
        )
        with self._database.read() as connection:
            return [dict(row._mapping) for row in connection.execute(statement)]

    def aliases(self, tenant: str, model: str) -> dict[str, int]:
        with self._database.read() as connection:
            return self.aliases_now(connection, tenant, model=model)

    def aliases_now(self, connection: sa.Connection, tenant: str, *, model: str) -> dict[str, int]:
        rows = connection.execute(
            sa.select(aliases.c.alias, aliases.c.version).filter_by(tenant=tenant, model=model)
        )
        return {row.alias: row.version for row in rows}

    def lineages(self, connection: sa.Connection, tenant: str, *, model: str) -> dict[int, dict[str, Any]]:
        """Every version's lineage by its number."""
        rows = connection.execute(
            sa.select(versions.c.number, versions.c.lineage).filter_by(tenant=tenant, model=model)
        )
        return {row.number: row.lineage for row in rows}

    def lock_artifacts(self, connection: sa.Connection, *, deleting: bool) -> None:
        """Until the caller's transaction ends, nobody deletes artifacts; or, ``deleting``, nobody else begins to name any.

        SQLite lets one transaction write at a time: there it is so already.
        """
        if connection.dialect.name == "postgresql":
            lock = sa.func.pg_advisory_xact_lock if deleting else sa.func.pg_advisory_xact_lock_shared
            connection.execute(sa.select(lock(_ARTIFACTS_LOCK)))

    def named(self, connection: sa.Connection, fields: Collection[str]) -> set[str]:
        """The digests that versions of all tenants name: of their files, and in these fields of their lineages."""
        found: set[str] = set()
        for row in connection.execute(sa.select(versions.c.files, versions.c.lineage)):
            found.update(file["digest"] for file in row.files)
            found.update(str(row.lineage[name]) for name in fields if name in row.lineage)
        return found


def _version(row: Any, endorsements: tuple[Endorsement, ...], *, demand: bool) -> Version:
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
        endorsements=endorsements,
        must_be_signed=demand,
    )
