"""Versions that leave the registry as archives, and those that come into it so.

What comes in is as little believed as what is registered: its files must be what the manifest says, and the model is opened with its
signature in a process of its own. Its metrics and its profile travel with it, for the data sets they come from may not. A program (see
``SEALED_FORMATS``) is sealed here anew, and only if somebody stands for it: a signature by a key that the tenant trusts, or an
administrator who says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from predis.clock import Clock
from predis.errors import AccessDenied, ModelNotFound, Untrusted
from predis.registry.archive import Incoming, Manifest, Outgoing, Source, arrived
from predis.registry.model import CODE_FORMATS, SEALED_FORMATS, Version, check_name
from predis.registry.registry import Registry
from predis.state import ArtifactStore


@dataclass(frozen=True, kw_only=True)
class Admission:
    """How an archive is to be taken in.

    ``model`` is the model's name here, where it is another. ``trusted``: an administrator stands for the files. ``code``: the caller may
    bring in anybody's code. ``source`` is said to be where it comes from, for the audit log.
    """

    model: str = ""
    alias: str = ""
    trusted: bool = False
    code: bool = False
    source: str = ""


@dataclass(frozen=True)
class Admitted:
    """The version here, and whether it is new: an archive that comes again finds the version it made."""

    version: Version
    is_new: bool


class Transfers:
    """Exports and imports versions."""

    def __init__(self, registry: Registry, artifacts: ArtifactStore, *, clock: Clock) -> None:
        self._registry = registry
        self._artifacts = artifacts
        self._clock = clock

    def export(self, tenant: str, model: str, *, reference: str | int) -> Outgoing:
        """The archive of a version.

        Raises:
            ModelNotFound, VersionNotFound, AliasNotFound
            TooLarge: a file is larger than an archive can hold.
        """
        return Outgoing(self._registry.version(tenant, model, reference=reference), self._artifacts)

    def take_in(self, tenant: str, source: Source, *, wanted: Admission, actor: str) -> Admitted:
        """Make a version of an archive, with the identical digest; or find the one that was made of it before.

        Raises:
            InvalidInput: it is no archive this release reads, or its model does not fit its signature.
            IntegrityFailure: it is cut short or damaged.
            Untrusted: it is a program nobody here stands for, or unsigned where the tenant demands signatures.
            AccessDenied: it is code, and this installation or the caller's role does not allow that.
            ModelFailure: the files do not load as what they are said to be.
        """
        incoming = Incoming(source)
        model = check_name(wanted.model or incoming.manifest.version.model, "model")
        draft = arrived(incoming.manifest, tenant=tenant, model=model)
        endorsements = self._trusted(draft, incoming.manifest)
        self._check_program(draft, wanted=wanted, endorsed=bool(endorsements))
        incoming.store(self._artifacts)
        known = self._known(draft)
        if known is not None:
            if wanted.alias:
                self._registry.alias(tenant, model, alias=wanted.alias, to=known.number, actor=actor)
            return Admitted(known, is_new=False)
        contents = {file.name: self._artifacts.read(file.digest) for file in draft.files}
        with self._registry.inspect(draft.format, contents, signature=draft.signature):
            pass  # it loads, and its signature fits it
        detail = _detail(incoming.manifest, source=wanted.source)
        draft = replace(draft, created_at=self._clock.time_ns(), created_by=actor)
        version = self._registry.add(
            draft, endorsements=endorsements, actor=actor, alias=wanted.alias, deed=("model.import", detail)
        )
        return Admitted(version, is_new=True)

    def promoted(
        self, tenant: str, model: str, *, reference: str | int, detail: dict[str, Any], actor: str
    ) -> Version:
        """Note that a version was moved to another installation.

        Raises:
            ModelNotFound, VersionNotFound, AliasNotFound
        """
        version = self._registry.version(tenant, model, reference=reference)
        self._registry.note(version, actor=actor, action="model.promote", detail=detail)
        return version

    def _check_program(self, draft: Version, *, wanted: Admission, endorsed: bool) -> None:
        if draft.format in CODE_FORMATS and not wanted.code:
            raise AccessDenied(
                f"{draft.model} ({draft.format}) is code that would run here as the server; an administrator may import it"
            )
        self._registry.check_allowed(draft.format)
        if draft.format in SEALED_FORMATS and not (wanted.trusted or endorsed):
            raise Untrusted(
                f"{draft.model} ({draft.format}) is a program, and no key trusted here has signed it: have it signed where it comes "
                "from, or let an administrator who knows it import it with --trust"
            )

    def _trusted(self, draft: Version, manifest: Manifest) -> dict[str, str]:
        """The signatures that may count here: those by keys the tenant trusts. They name the model; under another name none holds."""
        if draft.model != manifest.version.model:
            return {}
        trusted = {key["id"] for key in self._registry.trust.keys(draft.tenant) if key["revoked_at"] is None}
        return {key: signature for key, signature in manifest.endorsements.items() if key in trusted}

    def _known(self, draft: Version) -> Version | None:
        """The newest version of the model that is the same files of the same format under the same signature."""
        try:
            versions = self._registry.versions(draft.tenant, draft.model)
        except ModelNotFound:
            return None
        same = (
            version
            for version in versions
            if (version.digest, version.format, version.signature)
            == (draft.digest, draft.format, draft.signature)
        )
        return next(same, None)


def _detail(manifest: Manifest, *, source: str) -> dict[str, Any]:
    version = manifest.version
    found = {"from": f"{version.model}@{version.number}"}
    return {**found, "source": source} if source else found
