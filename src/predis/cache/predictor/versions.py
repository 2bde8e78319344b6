"""The predictor's versions in the registry, and from there to the gateway's workers.

A version is tables in a file, of the model ``cache-predictor``; the aliases ``champion`` and ``challenger`` say which are in use. Like any
version it is listed, verified, deleted and collected by the registry. It is no model that an endpoint could serve.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from predis.access import DEFAULT_TENANT
from predis.cache.predictor import standing
from predis.cache.predictor.standing import Standing
from predis.clock import Clock
from predis.errors import IntegrityFailure, ModelNotFound, VersionNotFound
from predis.registry import Field, Registry, Signature, Version
from predis.registry.model import File, digest_of
from predis.state import ArtifactStore, Database

log = logging.getLogger(__name__)

TENANT, MODEL, FORMAT, FILE = DEFAULT_TENANT, "cache-predictor", "cache-tables", "tables.json.zst"
CHAMPION, CHALLENGER = "champion", "challenger"
MOST_LOADS = 1.1  # of the sources, in LRU's: a version that would take more is not tried
_SIGNATURE = Signature((Field("key", "BYTES"),), (Field("next", "BYTES"),), "next")


class Damaged(Exception):
    """A version in use is not what was registered. Stays within the steward, which leaves the version."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number = number


class Versions:
    """Registers, points at and hands out versions.

    Args:
        folder: where workers look for what is in use.
    """

    def __init__(
        self, registry: Registry, artifacts: ArtifactStore, *, database: Database, clock: Clock, folder: Path
    ) -> None:
        self._registry = registry
        self._artifacts = artifacts
        self._database = database
        self._clock = clock
        self._folder = folder

    def add(
        self, tables: bytes, *, metrics: Mapping[str, float], lineage: Mapping[str, Any], actor: str
    ) -> int:
        """Register tables as the next version; its number. Those of a run that has registered some already are not registered twice.

        Raises:
            Untrusted: the tenant demands signatures.
        """
        for version in self.all():
            if lineage.get("retraining") and version.lineage.get("retraining") == lineage["retraining"]:
                return version.number
        stored = self._artifacts.put(tables)
        files = (File(FILE, stored.digest, len(tables)),)
        draft = Version(
            TENANT, MODEL, 0, FORMAT, digest_of(files), files, _SIGNATURE, dict(metrics), dict(lineage), self._clock.time_ns(), actor
        )  # fmt: skip
        return self._registry.add(draft, endorsements={}, actor=actor).number

    def all(self) -> list[Version]:
        """Newest first."""
        try:
            versions = self._registry.versions(TENANT, MODEL)
        except ModelNotFound:
            return []
        return [version for version in versions if version.format == FORMAT]

    def get(self, number: int) -> Version:
        """
        Raises:
            VersionNotFound
        """
        found = next((version for version in self.all() if version.number == number), None)
        if found is None:
            raise VersionNotFound(
                f"the predictor has no version {number}; predis cache predictor versions shows those it has"
            )
        return found

    def in_use(self) -> tuple[int, int]:
        """Champion and candidate; 0 for none."""
        aliases = self._registry.aliases(TENANT, MODEL)
        champion, candidate = aliases.get(CHAMPION, 0), aliases.get(CHALLENGER, 0)
        return champion, 0 if candidate == champion else candidate

    def point(self, alias: str, number: int, *, actor: str) -> None:
        """Let an alias say this version; 0: none."""
        aliases = self._registry.aliases(TENANT, MODEL)
        if number:
            with self._database.write() as connection:
                self._registry.point(connection, TENANT, model=MODEL, alias=alias, number=number, actor=actor)
        elif alias in aliases:
            self._registry.delete_alias(TENANT, MODEL, alias=alias, actor=actor)

    def establish(self, *, share: float) -> None:
        """Let the workers use what the aliases say, where they do not, or where a file of theirs is damaged.

        Args:
            share: of the keys, that the candidate answers for.

        Raises:
            Damaged: a version's artifact is not what was registered.
            OSError: the disk does not take it; what is in use stays.
        """
        champion, candidate = self.in_use()
        now = standing.read(self._folder)
        if (now.champion, now.candidate) == (champion, candidate) and not standing.damaged(self._folder, now):
            return
        digests, artifacts = ["", ""], {}
        reference: Mapping[str, int] = {}
        for place, number in enumerate((champion, candidate)):
            if number:
                version, contents = self._read(number)
                digests[place] = hashlib.sha256(contents).hexdigest()
                artifacts[digests[place]] = contents
                reference = reference if place else version.lineage.get("kinds", {})
        wanted = Standing(champion, digests[0], candidate, digests[1], share if candidate else 0.0, reference)
        standing.establish(self._folder, wanted, artifacts=artifacts)

    def _read(self, number: int) -> tuple[Version, bytes]:
        try:
            version = self.get(number)
            return version, self._registry.read_files(version)[FILE]
        except (IntegrityFailure, LookupError) as error:
            raise Damaged(number, f"its artifact is not to be trusted: {error}") from error
