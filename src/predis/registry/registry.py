"""The registry: immutable, numbered versions of models, checked whole at registration and again at every load.

Registering loads the model and scores the data sets with it, so a version that exists has been shown to load, its signature
to fit its data, and its metrics to be its own. Files are in the artifact store before the row is written, in one transaction:
a crash leaves the whole version, or nothing (and files nobody names).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from predis.access.audit import Audit
from predis.clock import Clock, iso
from predis.errors import (
    AliasNotFound,
    IntegrityFailure,
    InvalidInput,
    ModelNotFound,
    NotFound,
    VersionNotFound,
)
from predis.events import Bus, VersionRegistered
from predis.registry.endorsing import Subject
from predis.registry.garbage import Garbage
from predis.registry.model import FORMATS, File, Registration, Version, check_file_name, check_name, digest_of
from predis.registry.provenance import digests_of, lineage_of
from predis.registry.signature import Field, Signature
from predis.registry.signing import Seals
from predis.registry.store import RegistryStore
from predis.registry.trust import Trust
from predis.registry.trust.trust import check_signed
from predis.state import ArtifactStore, Database

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy import Connection

    from predis.registry.dataset import DataSet
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
        self.trust = Trust(database, clock)
        self.garbage = Garbage(database, artifacts, store=self._store, audit=self._audit, clock=clock)

    def check_allowed(self, format: str) -> None:
        """
        Raises:
            AccessDenied: the format is code, and this installation does not allow that.
        """
        self._seals.check_allowed(format)

    def register(self, tenant: str, wanted: Registration, *, actor: str, alias: str = "") -> Version:
        """Make a new version of a model.

        Raises:
            InvalidInput: the name, format, signature, provenance or a data set does not fit; nothing is stored.
            ModelFailure: the files do not load as what they are said to be.
            Untrusted: the files name what a model's file must not; a signature given is not by a trusted key, or the tenant demands one.
            AccessDenied: the format is code, and this installation does not allow that.
            NotFound: a file or data set is not in the artifact store.
            VersionNotFound: there is no such parent.
        """
        check_name(wanted.model, "model")
        if alias:
            _check_alias(alias)
        _check_plain(wanted)
        lineage = lineage_of(wanted)
        contents = {name: self._artifacts.read(digest) for name, digest in wanted.files.items()}
        files = tuple(
            File(name, wanted.files[name], len(content)) for name, content in sorted(contents.items())
        )
        subject = Subject(wanted.model, wanted.format, digest_of(files))
        # Before anything is loaded; once more before anything is stored.
        with self._database.read() as connection:
            self.trust.admitted(connection, tenant, subject=subject, given=wanted.endorsements)
        signature, metrics, profile = self._evaluated(wanted, contents)
        draft = Version(
            tenant, wanted.model, 0, wanted.format, subject.digest, files, signature, metrics, lineage,
            self._clock.time_ns(), actor, profile,
        )  # fmt: skip
        return self.add(draft, endorsements=wanted.endorsements, actor=actor, alias=alias)

    def add(
        self,
        draft: Version,
        *,
        endorsements: Mapping[str, str],
        actor: str,
        alias: str = "",
        deed: tuple[str, Mapping[str, Any]] = ("model.register", {}),
    ) -> Version:
        """Seal, number and store a version that was shown to load. ``deed`` is what the audit log calls it, with its details.

        Raises:
            Untrusted: an endorsement is not by a trusted key, or the tenant demands one.
            NotFound: a file was collected as garbage meanwhile.
            VersionNotFound: there is no such parent.
        """
        if alias:
            _check_alias(alias)
        draft = replace(draft, seal=self._seals.seal(draft))
        with self._database.write() as connection:
            version = self._add(connection, draft, endorsements=endorsements)
            detail = {"digest": version.digest, **deed[1]}
            self._note(connection, version, actor=actor, action=deed[0], detail=detail)
            self.trust.keep(connection, version, actor=actor)
            if alias:
                self.point(
                    connection,
                    version.tenant,
                    model=version.model,
                    alias=alias,
                    number=version.number,
                    actor=actor,
                )
        now = self._clock.time_ns()
        self._bus.publish(
            VersionRegistered(tenant=version.tenant, at_ns=now, model=version.model, version=version.number)
        )
        return version

    def _add(self, connection: Connection, draft: Version, *, endorsements: Mapping[str, str]) -> Version:
        """Number and store a version whose files nobody deletes meanwhile."""
        self._store.lock_artifacts(connection, deleting=False)
        for digest in {file.digest for file in draft.files} | digests_of(draft.lineage):
            if not self._artifacts.exists(digest):
                raise NotFound(
                    f"file {digest[:12]}… was collected as garbage while it was registered; upload it again"
                )
        if draft.lineage.get("parent"):
            self.hold(connection, draft.tenant, model=draft.model, number=draft.lineage["parent"])
        subject = Subject(draft.model, draft.format, draft.digest)
        given, demand = self.trust.admitted(connection, draft.tenant, subject=subject, given=endorsements)
        draft = replace(draft, endorsements=given, must_be_signed=demand)
        return replace(draft, number=self._store.add_version(connection, draft))

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
        newest = self._newest(tenant, model)
        text = str(reference)
        if text.isdecimal():
            return min(int(text[:12]), _MOST_VERSIONS)
        if text == "latest":
            return newest
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
        self._newest(tenant, model)
        return self._store.versions(tenant, model)

    def aliases(self, tenant: str, model: str) -> dict[str, int]:
        return self._store.aliases(tenant, model)

    def alias(self, tenant: str, model: str, *, alias: str, to: str | int, actor: str) -> Version:
        """Point an alias at a version.

        Raises:
            InvalidInput: that cannot be an alias.
            ModelNotFound, VersionNotFound, AliasNotFound
        """
        _check_alias(alias)
        version = self.version(tenant, model, reference=to)
        with self._database.write() as connection:
            self.point(
                connection, tenant, model=version.model, alias=alias, number=version.number, actor=actor
            )
        return version

    def delete_alias(self, tenant: str, model: str, *, alias: str, actor: str) -> None:
        """
        Raises:
            ModelNotFound, AliasNotFound
        """
        self._newest(tenant, model)
        with self._database.write() as connection:
            before = self._store.move_alias(
                connection, self._move(tenant, model, alias=alias, number=None, actor=actor)
            )
            if before is None:
                raise AliasNotFound(f"model {model!r} has no alias {alias!r}")
            self._note_move(connection, tenant, target=f"{model}@{alias}", actor=actor, moved=(before, None))

    def point(
        self, connection: Connection, tenant: str, *, model: str, alias: str, number: int, actor: str
    ) -> None:
        """Move an alias to a version, in the caller's transaction. Where it points there already, nothing is done or noted.

        Raises:
            VersionNotFound: the version was deleted meanwhile.
        """
        self.hold(connection, tenant, model=model, number=number)
        row = self._move(tenant, model, alias=alias, number=number, actor=actor)
        before = self._store.move_alias(connection, row)
        if before == number:
            return
        self._note_move(connection, tenant, target=f"{model}@{alias}", actor=actor, moved=(before, number))

    def alias_moves(self, tenant: str, model: str, *, limit: int = 200) -> list[dict[str, Any]]:
        """Who moved which alias, when, from what to what; newest first.

        Raises:
            ModelNotFound
        """
        self._newest(tenant, model)
        moves = self._store.alias_moves(tenant, model, limit=limit)
        return [
            {
                "alias": move["alias"], "from": move["before"], "to": move["after"], "moved_at": iso(move["moved_at"]),
                "moved_by": move["moved_by"],
            }
            for move in moves
        ]  # fmt: skip

    def diff(self, tenant: str, model: str, *, before: str | int, after: str | int) -> dict[str, Any]:
        """What is different between two versions: see ``difference``.

        Raises:
            ModelNotFound, VersionNotFound, AliasNotFound
        """
        from predis.registry.difference import difference  # late: a worker needs no statistics

        pair = [self.version(tenant, model, reference=reference) for reference in (before, after)]
        return difference(pair[0], pair[1])

    def hold(self, connection: Connection, tenant: str, *, model: str, number: int) -> None:
        """Keep a version from being deleted until the caller's transaction ends: whoever begins to use one does so in it.

        Raises:
            VersionNotFound: there is no such version any more.
        """
        if not self._store.hold(connection, tenant, model=model, number=number):
            raise VersionNotFound(
                f"model {model!r} has no version {number}; `predis model list {model}` shows those it has"
            )

    def deployable(self, tenant: str, model: str, *, number: int) -> Version:
        """The version, if it may be deployed: whole, sealed where its format needs that, signed where the tenant demands it.

        Raises:
            ModelNotFound, VersionNotFound
            InvalidInput: it is nothing that an endpoint could serve.
            IntegrityFailure: the list of files is not what was registered.
            Untrusted: it is a program that is not sealed here, or not signed by a trusted key.
        """
        version = self.version(tenant, model, reference=number)
        if version.format not in FORMATS:
            raise InvalidInput(
                f"{model}@{number} is of the format {version.format}, which no endpoint serves"
            )
        self._check(version)
        return version

    def sign(
        self, tenant: str, model: str, *, reference: str | int, signatures: Mapping[str, str], actor: str
    ) -> Version:
        """Keep users' signatures (by the ids of their keys) over a version that is registered.

        Raises:
            InvalidInput: none is given, or too many.
            Untrusted: one does not fit a trusted key.
            ModelNotFound, VersionNotFound, AliasNotFound
        """
        if not signatures:
            raise InvalidInput("there is no signature to keep; `predis model sign` makes one")
        version = self.version(tenant, model, reference=reference)
        with self._database.write() as connection:
            self.hold(connection, tenant, model=model, number=version.number)
            subject = Subject(version.model, version.format, version.digest)
            given, _demand = self.trust.admitted(connection, tenant, subject=subject, given=signatures)
            self.trust.keep(connection, replace(version, endorsements=given), actor=actor)
        return self.version(tenant, model, reference=version.number)

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
            Untrusted: the version is a program and not sealed by this installation, or not signed and its tenant demands that.
        """
        self._check(version)
        return {file.name: self._artifacts.read(file.digest) for file in version.files}

    def verify(self, tenant: str, model: str, *, reference: str | int) -> dict[str, Any]:
        """Read every file of a version and compare its digest; tells each file's state instead of stopping at the first."""
        version = self.version(tenant, model, reference=reference)
        report: list[dict[str, Any]] = []
        problem = self._problem(version)
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
        from predis.registry.evaluation import metrics_of, profile_of, settled, survey

        with ExitStack() as opened:
            reference = surveyed = None
            inputs = wanted.inputs
            if wanted.reference:
                reference = opened.enter_context(self._data_set(wanted.reference, "reference"))
                surveyed = survey(reference, label=wanted.label)
                inputs = inputs or surveyed.inputs
            model = opened.enter_context(
                self.inspect(wanted.format, contents, signature=wanted.signature, inputs=inputs)
            )
            holdout = (
                opened.enter_context(self._data_set(wanted.holdout, "holdout")) if wanted.holdout else None
            )
            label = wanted.label
            signature = settled(model.signature, [reference, holdout], label=label)
            metrics: dict[str, float] = {}
            profile = calibration = None
            if holdout is not None:
                metrics, calibration = metrics_of(model, holdout, label=label, signature=signature)
            if reference is not None and surveyed is not None:
                profile = profile_of(
                    model, reference, sample=surveyed.sample, label=label, signature=signature
                )
                # Rows that the model was trained on flatter it.
                profile["calibration"] = calibration or profile["calibration"]
            return signature, metrics, profile

    @contextmanager
    def _data_set(self, digest: str, what: str) -> Iterator[DataSet]:
        from predis.registry.dataset import DataSet

        with self._artifacts.checked(digest) as path, DataSet(path, what) as found:
            yield found

    def _check(self, version: Version) -> None:
        """What can be told of a version without reading a file.

        Raises:
            IntegrityFailure: the list of files does not fit the digest.
            Untrusted: it is not sealed, or not signed, and has to be.
        """
        if digest_of(version.files) != version.digest:
            raise IntegrityFailure(
                f"{version.model}@{version.number}: the list of files does not fit the version's digest"
            )
        self._seals.check(version)
        check_signed(version)

    def _problem(self, version: Version) -> str:
        try:
            self._check(version)
        except IntegrityFailure as error:
            return error.message
        return ""

    def _newest(self, tenant: str, model: str) -> int:
        newest = self._store.newest(tenant, model)
        if newest is None:
            raise ModelNotFound(f"there is no model {model!r}; `predis model list` shows the models")
        return newest

    def _move(self, tenant: str, model: str, *, alias: str, number: int | None, actor: str) -> dict[str, Any]:
        return {
            "tenant": tenant, "model": model, "alias": alias, "version": number, "moved_at": self._clock.time_ns(),
            "moved_by": actor,
        }  # fmt: skip

    def _note_move(
        self,
        connection: Connection,
        tenant: str,
        *,
        target: str,
        actor: str,
        moved: tuple[int | None, int | None],
    ) -> None:
        detail = {"from": moved[0], "to": moved[1]}
        self._audit.add(connection, tenant, actor=actor, action="model.alias", target=target, detail=detail)

    def note(self, version: Version, *, actor: str, action: str, detail: dict[str, Any]) -> None:
        """Write a deed that changed nothing here into the audit log."""
        with self._database.write() as connection:
            self._note(connection, version, actor=actor, action=action, detail=detail)

    def _note(
        self, connection: Connection, version: Version, *, actor: str, action: str, detail: dict[str, Any]
    ) -> None:
        target = f"{version.model}@{version.number}"
        self._audit.add(connection, version.tenant, actor=actor, action=action, target=target, detail=detail)


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
        InvalidInput: there is no such format, no file, or a file's name cannot be one.
    """
    if wanted.format not in FORMATS:
        raise InvalidInput(f"format {wanted.format!r} is none of {', '.join(FORMATS)}")
    if not wanted.files:
        raise InvalidInput("a version needs at least one file")
    for name in wanted.files:
        check_file_name(name)
