"""The registry: immutable, numbered versions of models, checked whole at registration and again at every load.

Registering loads the model and scores the data sets with it, so a version that exists has been shown to load, its signature
to fit its data, and its metrics to be its own. Files are in the artifact store before the row is written, in one transaction:
a crash leaves the whole version, or nothing (and files nobody names).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from predis.access.audit import Audit
from predis.clock import Clock
from predis.errors import AliasNotFound, IntegrityFailure, InvalidInput, ModelNotFound, VersionNotFound
from predis.events import Bus, VersionRegistered
from predis.registry.model import FORMATS, File, Registration, Version, check_name, digest_of
from predis.registry.signature import Field, Signature, encode_table, infer_inputs
from predis.registry.store import RegistryStore
from predis.state import ArtifactStore, Database
from predis.state.records import Matrix
from predis.stats import binary_scores, build_profile

if TYPE_CHECKING:
    from sqlalchemy import Connection

SAMPLE_ROWS = 100_000
_MOST_VERSIONS = 2**31 - 1


Score = Callable[[Matrix], Matrix]


class Inspect(Protocol):
    """Loads a model from its files: its whole signature, and how to score a feature matrix with it."""

    def __call__(
        self,
        kind: str,
        contents: Mapping[str, bytes],
        *,
        signature: Signature | None,
        inputs: tuple[Field, ...],
    ) -> tuple[Signature, Score]: ...


class Registry:
    """Register, list, resolve, alias and verify.

    Args:
        inspect: loads a model from its files and returns its signature and scoring function; given by ``app.py``, because
            the libraries that can are above the registry.
    """

    def __init__(
        self, database: Database, artifacts: ArtifactStore, *, clock: Clock, bus: Bus, inspect: Inspect
    ) -> None:
        self._database = database
        self._artifacts = artifacts
        self._store = RegistryStore(database)
        self._audit = Audit(database, clock)
        self._clock = clock
        self._bus = bus
        self._inspect = inspect

    def register(self, tenant: str, wanted: Registration, *, actor: str, alias: str = "") -> Version:
        """Make a new version of a model.

        Raises:
            InvalidInput: the name, format, signature or a data set does not fit; nothing is stored.
            ModelFailure: the files do not load as what they are said to be.
            NotFound: a file or data set is not in the artifact store.
        """
        check_name(wanted.model, "model")
        if alias:
            _check_alias(alias)
        if wanted.format not in FORMATS:
            raise InvalidInput(f"format {wanted.format!r} is none of {', '.join(FORMATS)}")
        _check_plain(wanted)
        contents = {name: self._artifacts.read(digest) for name, digest in wanted.files.items()}
        files = tuple(
            File(name, wanted.files[name], len(content)) for name, content in sorted(contents.items())
        )
        reference = self._table(wanted.reference, "reference")
        inputs = () if reference is None else infer_inputs(_without(reference, wanted.label))
        signature, score = self._inspect(wanted.format, contents, signature=wanted.signature, inputs=inputs)
        metrics = self._metrics(wanted, signature, score=score)
        profile = (
            _profile(reference, wanted.label, signature=signature, score=score)
            if reference is not None
            else None
        )
        draft = Version(
            tenant, wanted.model, 0, wanted.format, digest_of(files), files, signature, metrics, _lineage(wanted),
            self._clock.time_ns(), actor, profile,
        )  # fmt: skip
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

    def read_files(self, version: Version) -> dict[str, bytes]:
        """A version's files, every digest checked. Needs the artifact store only, not the database.

        Raises:
            IntegrityFailure: a file's bytes, or the list of files, are not what was registered.
        """
        problem = _list_problem(version)
        if problem:
            raise IntegrityFailure(problem)
        return {file.name: self._artifacts.read(file.digest) for file in version.files}

    def verify(self, tenant: str, model: str, *, reference: str | int) -> dict[str, Any]:
        """Read every file of a version and compare its digest; tells each file's state instead of stopping at the first."""
        version = self.version(tenant, model, reference=reference)
        report: list[dict[str, Any]] = []
        problem = _list_problem(version)
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
        return _parquet(self._artifacts.read(digest), "data set")

    def _table(self, digest: str, what: str) -> pa.Table | None:
        return _parquet(self._artifacts.read(digest), what) if digest else None

    def _metrics(self, wanted: Registration, signature: Signature, *, score: Score) -> dict[str, float]:
        table = self._table(wanted.holdout, "holdout")
        if table is None:
            return {}
        labels = _labels(table, wanted.label, what="holdout")
        if labels is None:
            raise InvalidInput("metrics need the labels: name the holdout's label column")
        if labels.min() == labels.max():
            raise InvalidInput("metrics need labels of both kinds: every label of the holdout is the same")
        scores = score(encode_table(table, signature.inputs))
        # Log loss and Brier score have no value where scores are not probabilities, and JSON has no NaN.
        return {k: float(v) for k, v in asdict(binary_scores(scores, labels)).items() if math.isfinite(v)}


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
        InvalidInput: there is no file, a file's name cannot be one, or the lineage is not JSON.
    """
    if not wanted.files:
        raise InvalidInput("a version needs at least one file")
    for name in wanted.files:
        if not name.isprintable() or not 0 < len(name) <= 255:
            raise InvalidInput(f"a file's name is 1 to 255 printable characters, got {name[:80]!r}")
    try:
        json.dumps(dict(wanted.lineage), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the lineage is not JSON: {error}") from error


def _profile(reference: pa.Table, label: str, *, signature: Signature, score: Score) -> dict[str, Any]:
    table = _sampled(reference)
    matrix = encode_table(table, signature.inputs)
    profile = build_profile(
        matrix,
        names=signature.feature_names,
        levels=signature.levels,
        scores=score(matrix),
        labels=_labels(table, label, what="reference"),
    )
    return profile.to_dict()


def _without(table: pa.Table, column: str) -> pa.Table:
    return table.drop_columns([column]) if column in table.column_names else table


def _sampled(table: pa.Table) -> pa.Table:
    """At most SAMPLE_ROWS rows, evenly spread, so that time order and seasons stay represented."""
    if table.num_rows <= SAMPLE_ROWS:
        return table
    return table.take(np.linspace(0, table.num_rows - 1, SAMPLE_ROWS).astype(np.int64))


def _labels(table: pa.Table, label: str, *, what: str) -> Matrix | None:
    if not label or label not in table.column_names:
        return None
    try:
        values = table.column(label).cast(pa.float64()).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        values = np.array([np.nan])
    if not np.isin(values, (0.0, 1.0)).all():
        raise InvalidInput(f"column {label!r} of the {what} must hold 0 and 1 only")
    return np.asarray(values, np.float64)


def _parquet(content: bytes, what: str) -> pa.Table:
    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidInput(f"the {what} is not a Parquet file: {error}") from error
    if table.num_rows == 0:
        raise InvalidInput(f"the {what} has no rows")
    return table


def _lineage(wanted: Registration) -> dict[str, Any]:
    data = {
        name: getattr(wanted, name)
        for name in ("reference", "holdout", "training", "label")
        if getattr(wanted, name)
    }
    return {**wanted.lineage, **data}
