"""Garbage: versions deleted when asked, and artifacts that nothing names. Neither is ever taken from whoever can still need it.

Why that is so, whatever runs at the same time:

Versions. Whoever begins to use a version (an alias, a Route, a rollout, a child) calls ``Registry.hold`` in the transaction that writes the
use; deleting holds the same row, and asks for uses in the transaction that deletes. So one of the two comes first: the use, and the version
stays, or the deletion, and the user is told that there is no such version.

Artifacts. A registration names its artifacts in the transaction that adds the version, after making sure, in it, that each is there.
Collecting marks without a lock what no version names and nobody has written lately; then, in transactions that shut registrations out, it
looks again which of those are named, and deletes the rest while it still holds the lock. So a registration that is first keeps its
artifacts, and one that is second finds them gone and fails, whole. Time only spares it that: what was uploaded lately is left alone, and
storing a file again makes it new (a file is taken aside before its age is looked at, so one that is made new meanwhile comes back).
A crash between any two of these steps leaves artifacts that nothing names, for the next collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from predis.access.audit import Audit
from predis.clock import NANOSECONDS, Clock
from predis.errors import Conflict, ModelNotFound, VersionNotFound
from predis.registry.provenance import DATA
from predis.registry.store import RegistryStore
from predis.state import ArtifactStore, Database

if TYPE_CHECKING:
    from sqlalchemy import Connection

DAY_S = 86_400.0
# Uploading and registering take less; and the store does not make a file new again that is younger than a part of this.
LEAST_AGE_S = 3_600.0
_BATCH = 64  # artifacts deleted in one transaction: others wait for it

VersionName = tuple[str, str, int]
"""Tenant, model, number."""
InUse = Callable[["Connection"], set[VersionName]]
"""The versions in use, as the transaction sees them."""
Since = Callable[["Connection"], int | None]
"""The moment (ns) from which on artifacts may be in use that no version names yet; ``None``: none are."""


class Garbage:
    """Deletes versions and collects artifacts.

    What the registry cannot know is given by ``app``: ``in_use`` says in words who uses versions and tells which, ``since`` protects
    artifacts of work that is under way.
    """

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactStore,
        *,
        store: RegistryStore,
        audit: Audit,
        clock: Clock,
    ) -> None:
        self._database = database
        self._artifacts = artifacts
        self._store = store
        self._audit = audit
        self._clock = clock
        self.in_use: Mapping[str, InUse] = {}
        self.since: tuple[Since, ...] = ()

    def delete(self, tenant: str, model: str, *, number: int, actor: str) -> None:
        """Delete a version that nothing needs. Its artifacts go with the next collection, its number is not given again.

        Raises:
            VersionNotFound
            Conflict: something can still need it; the message says what.
        """
        with self._database.write() as connection:
            if not self._store.hold(connection, tenant, model=model, number=number):
                raise VersionNotFound(
                    f"model {model!r} has no version {number}; `predis model list {model}` shows those it has"
                )
            need = self._need(connection, tenant, model=model, number=number)
            if need:
                raise Conflict(f"{model}@{number} cannot be deleted: {need}")
            self._store.delete_version(connection, tenant, model=model, number=number)
            self._audit.add(
                connection, tenant, actor=actor, action="model.delete", target=f"{model}@{number}", detail={}
            )

    def collect(
        self, tenant: str, *, older_than_s: float, keep_last: int | None, dry_run: bool, actor: str
    ) -> dict[str, Any]:
        """Delete artifacts that nothing names and that are older, and what uploads have left half; of all tenants, for they share them.

        Args:
            keep_last: of each of the tenant's models, delete also older versions that nothing needs, but for so many of the newest. Their
                artifacts count as named in a dry run.
            dry_run: delete nothing; tell what would be.

        Returns:
            ``versions`` deleted, ``artifacts`` and ``bytes``, and how many uploads that came to nothing (``strays``).
        """
        before = self._clock.time_ns() - int(older_than_s * NANOSECONDS)
        versions = []
        if keep_last is not None:
            due = self._due(tenant, keep=keep_last, before=before)
            versions = [name for name in due if self._dropped(tenant, name, dry_run=dry_run, actor=actor)]
        sizes: dict[str, int] = {}
        unnamed = list(self._unnamed().items())
        for at in range(0, len(unnamed), _BATCH):
            sizes.update(self._discard(dict(unnamed[at : at + _BATCH]), before=before, dry_run=dry_run))
        abandoned_s = self._clock.time_ns() / NANOSECONDS - max(older_than_s, LEAST_AGE_S)
        strays = self._artifacts.discard_strays(abandoned_s, dry_run=dry_run)
        found = {
            "versions": [f"{model}@{number}" for model, number in versions],
            "artifacts": len(sizes), "bytes": sum(sizes.values()), "strays": strays, "dry_run": dry_run,
        }  # fmt: skip
        if not dry_run:
            self._note(tenant, actor=actor, detail=found)
        return found

    def _need(self, connection: Connection, tenant: str, *, model: str, number: int) -> str:
        """Who can still need a version, in words; nothing where nobody can."""
        aliases = self._store.aliases_now(connection, tenant, model=model)
        pointing = sorted(alias for alias, target in aliases.items() if target == number)
        if pointing:
            return f"the alias {pointing[0]!r} points at it"
        children = self._store.lineages(connection, tenant, model=model)
        born = sorted(child for child, lineage in children.items() if lineage.get("parent") == number)
        if born:
            return f"version {born[0]} goes back to it"
        for words, in_use in self.in_use.items():
            if (tenant, model, number) in in_use(connection):
                return f"{words} names it"
        return ""

    def _due(self, tenant: str, *, keep: int, before: int) -> Iterator[tuple[str, int]]:
        """Versions beyond the newest ``keep``, newest first: children go before their parents."""
        for row in self._store.models(tenant):
            for version in self._store.versions(tenant, row["name"])[keep:]:
                if version.created_at < before:
                    yield version.model, version.number

    def _dropped(self, tenant: str, name: tuple[str, int], *, dry_run: bool, actor: str) -> bool:
        """Whether a version was deleted, or would be."""
        model, number = name
        if dry_run:
            with self._database.read() as connection:
                return not self._need(connection, tenant, model=model, number=number)
        try:
            self.delete(tenant, model, number=number, actor=actor)
        except (Conflict, VersionNotFound, ModelNotFound):
            return False
        return True

    def _unnamed(self) -> dict[str, int]:
        """Artifacts that no version names, with their sizes."""
        held = self._artifacts.held()  # first: what is registered after this is not looked at
        with self._database.read() as connection:
            named = self._store.named(connection, DATA)
        return {digest: size for digest, size in held.items() if digest not in named}

    def _discard(self, sizes: Mapping[str, int], *, before: int, dry_run: bool) -> dict[str, int]:
        """Delete those that are still unnamed and old enough; which those are."""
        with self._database.write() as connection:
            self._store.lock_artifacts(connection, deleting=True)
            named = self._store.named(connection, DATA)
            moments = [before, *(moment for since in self.since if (moment := since(connection)) is not None)]
            unnamed = [digest for digest in sizes if digest not in named]
            old = min(moments) / NANOSECONDS
            return {d: sizes[d] for d in unnamed if self._artifacts.discard(d, before_s=old, dry_run=dry_run)}

    def _note(self, tenant: str, *, actor: str, detail: dict[str, Any]) -> None:
        with self._database.write() as connection:
            self._audit.add(
                connection, tenant, actor=actor, action="model.gc", target="artifacts", detail=detail
            )
