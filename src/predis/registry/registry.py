"""The registry: immutable, numbered versions of models, checked whole at registration and again at every load.

Registering loads the model and scores the data sets with it, so a version that exists has been shown to load, its signature
to fit its data, and its metrics to be its own. Files are in the artifact store before the row is written, in one transaction:
a crash leaves the whole version, or nothing (and files nobody names).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from predis.access.audit import Audit
from predis.clock import Clock
from predis.errors import (
    AliasNotFound,
    IntegrityFailure,
    InvalidInput,
    ModelNotFound,
    Untrusted,
    VersionNotFound,
)
from predis.events import Bus, VersionRegistered
from predis.registry.model import FORMATS, File, Registration, Version, check_file_name, check_name, digest_of
from predis.registry.signature import Field, Signature
from predis.registry.signing import Seals
from predis.registry.store import RegistryStore
from predis.state import ArtifactStore, Database

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy import Connection

    from predis.registry.evaluation import Scored

_MOST_VERSIONS = 2**31 - 1


class Inspect(Protocol):
    """Opens a model from its files, to be asked for its signature and for scores, and closed."""

    def __call__(
        self,
        kind: str,
        files: Mapping[str, bytes],
        *,
        signature: Signature | None,
        inputs: tuple[Field, ...],
    ) -> AbstractContextManager[Scored]: ...


class Registry:
    """Register, list, resolve, alias and verify.

    Args:
        inspect: opens a model from its files; given by ``app``, because the libraries that can are above the registry.
        seals: seals versions that are programs, and checks their seals before their files are handed out.
    """

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactStore,
        *,
        clock: Clock,
        bus: Bus,
        inspect: Inspect,
        seals: Seals,
    ) -> None:
        self._database = database
        self._artifacts = artifacts
        self._store = RegistryStore(database)
        self._audit = Audit(database, clock)
        self._clock = clock
        self._bus = bus
        self._inspect = inspect
        self._seals = seals

    def register(self, tenant: str, wanted: Registration, *, actor: str, alias: str = "") -> Version:
        """Make a new version of a model.

        Raises:
            InvalidInput: the name, format, signature or a data set does not fit; nothing is stored.
            ModelFailure: the files do not load as what they are said to be.
            Untrusted: the files name what a model's file must not.
            AccessDenied: the format is code, and this installation does not allow that.
            NotFound: a file or data set is not in the artifact store.
        """
        check_name(wanted.model, "model")
        if alias:
            _check_alias(alias)
        _check_plain(wanted)
        contents = {name: self._artifacts.read(digest) for name, digest in wanted.files.items()}
        files = tuple(
            File(name, wanted.files[name], len(content)) for name, content in sorted(contents.items())
        )
        signature, metrics, profile = self._evaluated(wanted, contents)
        draft = Version(
            tenant, wanted.model, 0, wanted.format, digest_of(files), files, signature, metrics, _lineage(wanted),
            self._clock.time_ns(), actor, profile,
        )  # fmt: skip
        draft = replace(draft, seal=self._seals.seal(draft))
        with self._database.write() as connection:
            version = replace(draft, number=self._store.add_version(connection, draft))
            target = f"{version.model}@{version.number}"
            self._audit.add(
                connection,
                tenant,
                actor=actor,
                action="model.register",
                target=target,
                detail={"digest": version.digest},
            )
            if alias:
                self.point(
                    connection, tenant, model=version.model, alias=alias, number=version.number, actor=actor
                )
        self._bus.publish(
            VersionRegistered(
                tenant=tenant, at_ns=self._clock.time_ns(), model=version.model, version=version.number
            )
        )
        return version

    def version(self, tenant: str, model: str, *, reference: str | int = "latest") -> Version:
        """One version by number, alias, or ``latest``.

        Raises:
            ModelNotFound, VersionNotFound, AliasNotFound
        """
        number = self.resolve(tenant, model, reference=reference)
        found = self._store.version(tenant, model, number=number)
        if found is None:
            raise VersionNotFound(
                f"model {model!r} has no version {number}; `predis model list {model}` shows those it has"
            )
        return found

    def resolve(self, tenant: str, model: str, *, reference: str | int) -> int:
        """The number that ``3``, an alias or ``latest`` means now."""
        if not self._store.has_model(tenant, model):
            raise ModelNotFound(f"there is no model {model!r}; `predis model list` shows the models")
        text = str(reference)
        if text.isdecimal():
            return min(int(text[:12]), _MOST_VERSIONS)
        if text == "latest":
            return self._store.versions(tenant, model)[0].number
        found = self._store.aliases(tenant, model).get(text)
        if found is None:
            raise AliasNotFound(
                f"model {model!r} has no alias {text!r}; give a version number, an alias or 'latest'"
            )
        return found

    def models(self, tenant: str) -> list[dict[str, Any]]:
        return self._store.models(tenant)

    def versions(self, tenant: str, model: str) -> list[Version]:
        """Newest first, without their profiles.

        Raises:
            ModelNotFound
        """
        if not self._store.has_model(tenant, model):
            raise ModelNotFound(f"there is no model {model!r}; `predis model list` shows the models")
        return self._store.versions(tenant, model)

    def aliases(self, tenant: str, model: str) -> dict[str, int]:
        return self._store.aliases(tenant, model)

    def alias(self, tenant: str, model: str, *, alias: str, to: str | int, actor: str) -> Version:
        """Point an alias at a version; what it pointed at before is in the audit log."""
        _check_alias(alias)
        version = self.version(tenant, model, reference=to)
        with self._database.write() as connection:
            self.point(
                connection, tenant, model=version.model, alias=alias, number=version.number, actor=actor
            )
        return version

    def point(
        self, connection: Connection, tenant: str, *, model: str, alias: str, number: int, actor: str
    ) -> None:
        """Move an alias to a version known to exist, in the caller's transaction."""
        before = self._store.alias_now(connection, tenant, model=model, alias=alias)
        row = {
            "tenant": tenant, "model": model, "alias": alias, "version": number, "moved_at": self._clock.time_ns(),
            "moved_by": actor,
        }  # fmt: skip
        self._store.move_alias(connection, row)
        detail = {"from": before, "to": number}
        self._audit.add(
            connection, tenant, actor=actor, action="model.alias", target=f"{model}@{alias}", detail=detail
        )

    def inspect(
        self,
        kind: str,
        files: Mapping[str, bytes],
        *,
        signature: Signature | None = None,
        inputs: tuple[Field, ...] = (),
    ) -> AbstractContextManager[Scored]:
        """Open a model that is not registered (yet), in a process of its own.

        Raises:
            AccessDenied: the format is code, and this installation does not allow that.
        """
        self._seals.check_allowed(kind)
        return self._inspect(kind, files, signature=signature, inputs=inputs)

    def open(self, version: Version) -> AbstractContextManager[Scored]:
        """Open a registered version to score tables with it, in a process of its own."""
        return self._inspect(version.format, self.read_files(version), signature=version.signature, inputs=())

    def read_files(self, version: Version) -> dict[str, bytes]:
        """A version's files, every digest checked, and its seal if its format needs one: what comes out may be loaded. Needs the artifact
        store only, not the database.

        Raises:
            IntegrityFailure: a file's bytes, or the list of files, are not what was registered.
            Untrusted: the version is a program and not sealed by this installation.
        """
        problem = _list_problem(version)
        if problem:
            raise IntegrityFailure(problem)
        self._seals.check(version)
        return {file.name: self._artifacts.read(file.digest) for file in version.files}

    def verify(self, tenant: str, model: str, *, reference: str | int) -> dict[str, Any]:
        """Read every file of a version and compare its digest; tells each file's state instead of stopping at the first."""
        version = self.version(tenant, model, reference=reference)
        report: list[dict[str, Any]] = []
        problem = _list_problem(version) or self._seal_problem(version)
        if problem:
            report.append({"name": "(all)", "digest": version.digest, "ok": False, "problem": problem})
        for file in version.files:
            try:
                self._artifacts.read(file.digest)
                report.append({"name": file.name, "digest": file.digest, "ok": True, "problem": ""})
            except (IntegrityFailure, LookupError) as error:
                report.append({"name": file.name, "digest": file.digest, "ok": False, "problem": str(error)})
        return {
            "model": model,
            "version": version.number,
            "digest": version.digest,
            "ok": all(f["ok"] for f in report),
            "files": report,
        }

    def read_table(self, digest: str) -> pa.Table:
        """A Parquet data set from the artifact store."""
        return self._table(digest, "data set")

    def _table(self, digest: str, what: str) -> pa.Table:
        from predis.registry.evaluation import read_parquet

        return read_parquet(self._artifacts.read(digest), what)

    def _evaluated(
        self, wanted: Registration, contents: Mapping[str, bytes]
    ) -> tuple[Signature, dict[str, float], dict[str, Any] | None]:
        """The whole signature, the metrics on the holdout, and the reference profile."""
        # Late: a worker has a registry too, and needs neither pyarrow nor statistics.
        from predis.registry.columns import infer_inputs
        from predis.registry.evaluation import metrics_of, profile_of, without

        reference = self._table(wanted.reference, "reference") if wanted.reference else None
        inputs = wanted.inputs
        if reference is not None and not inputs:
            inputs = infer_inputs(without(reference, wanted.label))
        with self.inspect(wanted.format, contents, signature=wanted.signature, inputs=inputs) as model:
            holdout = self._table(wanted.holdout, "holdout") if wanted.holdout else None
            metrics = {} if holdout is None else metrics_of(model, holdout, label=wanted.label)
            profile = None if reference is None else profile_of(model, reference, label=wanted.label)
            return model.signature, metrics, profile

    def _seal_problem(self, version: Version) -> str:
        try:
            self._seals.check(version)
        except Untrusted as error:
            return error.message
        return ""


def _list_problem(version: Version) -> str:
    """What is wrong with a version's list of files, if anything is."""
    if digest_of(version.files) == version.digest:
        return ""
    return f"{version.model}@{version.number}: the list of files does not fit the version's digest"


def _check_alias(alias: str) -> None:
    """
    Raises:
        InvalidInput: it cannot be an alias.
    """
    check_name(alias, "alias")
    if alias == "latest" or alias.isdigit():
        raise InvalidInput(f"{alias!r} always means a version of its own and cannot be an alias")
    if len(alias) > 64:
        raise InvalidInput(f"an alias has at most 64 characters, got {len(alias)}")


def _check_plain(wanted: Registration) -> None:
    """What can be told of a registration without reading a file.

    Raises:
        InvalidInput: there is no such format, no file, a file's name cannot be one, or the lineage is not JSON.
    """
    if wanted.format not in FORMATS:
        raise InvalidInput(f"format {wanted.format!r} is none of {', '.join(FORMATS)}")
    if not wanted.files:
        raise InvalidInput("a version needs at least one file")
    for name in wanted.files:
        check_file_name(name)
    try:
        json.dumps(dict(wanted.lineage), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the lineage is not JSON: {error}") from error


def _lineage(wanted: Registration) -> dict[str, Any]:
    data = {
        name: getattr(wanted, name)
        for name in ("reference", "holdout", "training", "label")
        if getattr(wanted, name)
    }
    return {**wanted.lineage, **data}
