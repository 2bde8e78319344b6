"""Where sources are declared: ``[cache.sources.NAME]`` in ``predis.toml``, and the state database, by API and CLI.

What the file declares counts: the API neither changes it nor declares a source of the same name.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from predis.access import DEFAULT_TENANT, Audit
from predis.cache.sources.opening import caller_of
from predis.cache.sources.source import Source
from predis.cache.store import SourceStore, WriteStore
from predis.clock import Clock
from predis.errors import AlreadyExists, Conflict, InvalidInput, InvalidSetting, PredisError, SourceNotFound
from predis.settings import CACHE, section
from predis.state.engine import Database

log = logging.getLogger(__name__)


class Declared(NamedTuple):
    """A source, and whether the file declares it."""

    source: Source
    by_file: bool


def sources_of_file(config: Path | None = None) -> list[Source]:
    """What the TOML file declares; a ``tenant`` beside the other fields says whose it is.

    Raises:
        InvalidSetting: it cannot be read, or declares what is no source.
    """
    where, found = section(CACHE, config=config)
    sources = found.get("sources", {}) if isinstance(found, Mapping) else None
    unknown = set(found) - {"sources"} if isinstance(found, Mapping) else set()
    if not isinstance(sources, Mapping) or unknown:
        raise InvalidSetting(f"{where} must be tables of sources, as in [cache.sources.users]")
    try:
        return [_of_entry(name, entry) for name, entry in sources.items()]
    except InvalidInput as error:
        raise InvalidSetting(f"{where}: {error}") from None


class Declarations:
    """Reads, adds and removes declarations.

    Args:
        config: the TOML file; by default the one that settings are read from.
        allow_code: whether sources may be Python functions.
    """

    def __init__(
        self, database: Database, clock: Clock, *, config: Path | None = None, allow_code: bool = False
    ) -> None:
        self._database = database
        self._store = SourceStore(database)
        self._writes = WriteStore(database)
        self._audit = Audit(database, clock)
        self._clock = clock
        self._config = config
        self.allow_code = allow_code
        self._told: set[str] = set()

    def all(self, tenant: str | None = None) -> list[Declared]:
        """Every source that can be used, of one tenant or of all. What cannot is logged, once.

        Raises:
            Unavailable: the database does not answer.
            InvalidSetting: the file cannot be read, or declares what is no source.
        """
        found = {(s.tenant, s.name): Declared(s, True) for s in self.of_file()}
        for row in self._store.rows(tenant):
            try:
                source = Source.of(row["name"], row["declared"], tenant=row["tenant"])
            except PredisError as error:  # of another release
                if str(error) not in self._told:
                    self._told.add(str(error))
                    log.error("%s", error)
                continue
            found.setdefault((source.tenant, source.name), Declared(source, False))
        return [found[name] for name in sorted(found) if tenant in (None, name[0])]

    def get(self, tenant: str, name: str) -> Declared:
        """
        Raises:
            SourceNotFound: there is none of this name.
        """
        for declared in self.all(tenant):
            if declared.source.name == name:
                return declared
        raise SourceNotFound(f"there is no source {name!r}; `predis cache source list` shows those there are")

    def of_file(self) -> list[Source]:
        """What the file declares."""
        return sources_of_file(self._config)

    def add(self, source: Source, *, actor: str, replace: bool = False) -> Declared:
        """Declare a source, durable on return; gateways follow within a second.

        Raises:
            AlreadyExists: there is one of this name, and it is not to be replaced.
            Conflict: the file declares it; or writes wait for it, and it would not be written to from a queue any more.
            InvalidInput: it cannot be opened: a driver or function that is not there, a variable that it may not read.
            AccessDenied: it runs Python code, which is not allowed here.
        """
        existing = {declared.source.name: declared.by_file for declared in self.all(source.tenant)}
        if existing.get(source.name):
            raise Conflict(f"source {source.name!r} is declared in predis.toml; change it there")
        if source.name in existing and not replace:
            raise AlreadyExists(f"there is a source {source.name!r} already; say replace to change it")
        caller_of(source, allow_code=self.allow_code, by_file=False).close()
        row = {
            "tenant": source.tenant, "name": source.name, "declared": source.to_dict(),
            "changed_at": self._clock.time_ns(), "changed_by": actor,
        }  # fmt: skip
        with self._database.write() as connection:
            waiting = self._writes.count(connection, source.tenant, source=source.name)
            if waiting and source.writes != "behind":
                raise Conflict(
                    f"{waiting} writes wait for source {source.name!r}; they would not reach it with writes = {source.writes!r}: "
                    "let it take them first, or remove it and discard them"
                )
            self._store.put(connection, row)
            detail = {"pattern": source.pattern, "kind": source.kind, "writes": source.writes}
            self._audit.add(
                connection, source.tenant, actor=actor, action="source.add", target=source.name, detail=detail
            )
        return Declared(source, False)

    def remove(self, tenant: str, name: str, *, actor: str, discard: bool = False) -> None:
        """End a source: its keys are keys like any other. Values stay until they expire.

        Args:
            discard: drop the writes that it has not taken.

        Raises:
            SourceNotFound: there is none of this name.
            Conflict: the file declares it; or writes wait for it, and are not to be discarded.
        """
        if self.get(tenant, name).by_file:
            raise Conflict(f"source {name!r} is declared in predis.toml; remove it there")
        with self._database.write() as connection:
            waiting = self._writes.count(connection, tenant, source=name)
            if waiting and not discard:
                raise Conflict(
                    f"{waiting} writes wait for source {name!r}; let it take them first, or discard them (--discard)"
                )
            self._writes.discard(connection, tenant, source=name)
            self._store.remove(connection, tenant, name=name)
            detail = {"discarded": waiting} if waiting else None
            self._audit.add(
                connection, tenant, actor=actor, action="source.remove", target=name, detail=detail
            )


def _of_entry(name: str, entry: Any) -> Source:
    if not isinstance(entry, Mapping):
        raise InvalidInput(f"source {name!r} must be a table")
    tenant = entry.get("tenant", DEFAULT_TENANT)
    if not isinstance(tenant, str) or not tenant:
        raise InvalidInput(f"source {name!r}: tenant must be a text")
    return Source.of(name, {key: value for key, value in entry.items() if key != "tenant"}, tenant=tenant)
