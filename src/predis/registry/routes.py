"""The registry over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

import anyio.from_thread
from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from predis.access.routes import Administrator, Operator, Reader
from predis.clock import iso
from predis.errors import NotFound
from predis.registry.archive import MEDIA_TYPE
from predis.registry.garbage import DAY_S, LEAST_AGE_S
from predis.registry.model import CODE_FORMATS, Registration
from predis.registry.registry import Registry
from predis.registry.signature import Field as Input
from predis.registry.signature import Signature
from predis.registry.transfer import Admission, Transfers
from predis.state import ArtifactStore

MAX_ARTIFACT_BYTES = 8 << 30
_SOURCE_LENGTH = 1_000


class NewVersion(BaseModel):
    """A version to register. Files and data sets are named by the digests that uploading them returned."""

    model_config = ConfigDict(extra="forbid")

    format: str
    files: dict[str, str]
    signature: dict[str, Any] | None = None
    inputs: list[dict[str, Any]] = Field(
        default_factory=list, description="Those of the signature, where only they are known."
    )
    label: str = ""
    reference: str = ""
    holdout: str = ""
    training: str = ""
    parameters: dict[str, bool | int | float | str] = Field(default_factory=dict)
    revision: str = ""
    parent: int = Field(0, ge=0, lt=2**31)
    lineage: dict[str, Any] = Field(default_factory=dict)
    endorsements: dict[str, str] = Field(
        default_factory=dict, description="Signatures by the ids of their keys."
    )
    alias: str = ""


class MovedAlias(BaseModel):
    """Where an alias is to point: a version number, another alias, or ``latest``."""

    model_config = ConfigDict(extra="forbid")

    version: str | int


class Signatures(BaseModel):
    """Users' signatures over a version, in hexadecimal digits, by the ids of their keys."""

    model_config = ConfigDict(extra="forbid")

    endorsements: dict[str, str]


class NewTrustedKey(BaseModel):
    """A public Ed25519 key in PEM, and whose it is."""

    model_config = ConfigDict(extra="forbid")

    name: str
    public_key: str


class TrustPolicy(BaseModel):
    """What the tenant demands of its versions."""

    model_config = ConfigDict(extra="forbid")

    require_signatures: bool


class Collection(BaseModel):
    """What may be collected. ``keep_last``: of each model, versions that nothing needs are deleted too, but for so many of the newest."""

    model_config = ConfigDict(extra="forbid")

    older_than_s: float = Field(DAY_S, ge=LEAST_AGE_S, allow_inf_nan=False)
    keep_last: int | None = Field(None, ge=1)
    dry_run: bool = False


class Promoted(BaseModel):
    """Where a version was moved to: the environment and its URL, and which version it is there."""

    model_config = ConfigDict(extra="forbid")

    to: str = Field(max_length=128)
    control: str = Field(max_length=1_000)
    version: int


def router(registry: Registry, artifacts: ArtifactStore) -> APIRouter:
    """Routes under ``/api/v1`` for artifacts, models, versions, aliases and trust."""
    routes = APIRouter(tags=["registry"])

    @routes.put("/artifacts", status_code=201)
    async def upload(request: Request, caller: Operator) -> dict[str, Any]:
        """Store a file (the raw body) and return its SHA-256, by which versions name it."""
        stored = await artifacts.put_stream(request.stream(), limit_bytes=MAX_ARTIFACT_BYTES)
        return {"digest": stored.digest, "size_bytes": stored.size_bytes}

    _add_versions(routes, registry)
    _add_aliases(routes, registry)
    _add_trust(routes, registry)
    _add_garbage(routes, registry)
    return routes


def _add_versions(routes: APIRouter, registry: Registry) -> None:
    @routes.get("/models")
    def list_models(caller: Reader) -> list[dict[str, Any]]:
        """All models, with their newest version and aliases."""
        return [
            {
                "name": row["name"], "newest": row["newest"], "versions": row["count"],
                "aliases": registry.aliases(caller.tenant, row["name"]), "created_at": iso(row["created_at"]),
            }
            for row in registry.models(caller.tenant)
        ]  # fmt: skip

    @routes.get("/models/{model}/versions")
    def list_versions(model: str, caller: Reader) -> list[dict[str, Any]]:
        """A model's versions, newest first."""
        aliases = registry.aliases(caller.tenant, model)
        return [
            {
                **version.to_dict(),
                "aliases": sorted(a for a, number in aliases.items() if number == version.number),
            }
            for version in registry.versions(caller.tenant, model)
        ]

    @routes.post("/models/{model}/versions", status_code=201)
    def register(model: str, body: NewVersion, caller: Operator) -> dict[str, Any]:
        """Register a version: the model is loaded, its signature checked, its metrics and reference profile computed.

        A version of the format ``python`` needs an administrator, for it is code that runs here as the server.
        """
        if body.format in CODE_FORMATS:
            caller.require("admin")
        wanted = Registration(
            model=model,
            signature=Signature.from_dict(body.signature) if body.signature is not None else None,
            inputs=tuple(Input.from_dict(field) for field in body.inputs),
            **body.model_dump(exclude={"signature", "inputs", "alias"}),
        )
        return registry.register(caller.tenant, wanted, actor=caller.name, alias=body.alias).to_dict()

    @routes.get("/models/{model}/versions/{version}")
    def show_version(model: str, version: str, caller: Reader) -> dict[str, Any]:
        """One version by number, alias or ``latest``."""
        return registry.version(caller.tenant, model, reference=version).to_dict()

    @routes.get("/models/{model}/versions/{version}/profile")
    def show_profile(model: str, version: str, caller: Reader) -> dict[str, Any]:
        """A version's reference profile: bins and counts of its training inputs, scores and labels."""
        found = registry.version(caller.tenant, model, reference=version).profile
        if found is None:
            raise NotFound(
                f"{model}@{version} has no reference profile: it was registered without a reference data set"
            )
        return dict(found)

    @routes.post("/models/{model}/versions/{version}/verify")
    def verify(model: str, version: str, caller: Reader) -> dict[str, Any]:
        """Read every file of a version and compare its digest."""
        return registry.verify(caller.tenant, model, reference=version)

    @routes.get("/models/{model}/diff")
    def diff(model: str, before: str, after: str, caller: Reader) -> dict[str, Any]:
        """What is different between two versions (numbers, aliases or ``latest``)."""
        return registry.diff(caller.tenant, model, before=before, after=after)


def _add_aliases(routes: APIRouter, registry: Registry) -> None:
    @routes.get("/models/{model}/aliases")
    def list_aliases(model: str, caller: Reader) -> dict[str, int]:
        """A model's aliases and where they point."""
        return registry.aliases(caller.tenant, model)

    @routes.get("/models/{model}/aliases/history")
    def show_history(
        model: str, caller: Reader, limit: Annotated[int, Query(ge=1, le=1_000)] = 200
    ) -> list[dict[str, Any]]:
        """Who moved which alias, when, from what to what; newest first."""
        return registry.alias_moves(caller.tenant, model, limit=limit)

    @routes.put("/models/{model}/aliases/{alias}")
    def move_alias(model: str, alias: str, body: MovedAlias, caller: Operator) -> dict[str, Any]:
        """Point an alias at a version."""
        version = registry.alias(caller.tenant, model, alias=alias, to=body.version, actor=caller.name)
        return {"model": model, "alias": alias, "version": version.number}

    @routes.delete("/models/{model}/aliases/{alias}", status_code=204)
    def delete_alias(model: str, alias: str, caller: Operator) -> None:
        """Delete an alias; its history stays."""
        registry.delete_alias(caller.tenant, model, alias=alias, actor=caller.name)


def _add_trust(routes: APIRouter, registry: Registry) -> None:
    trust = registry.trust

    @routes.post("/models/{model}/versions/{version}/signatures", status_code=201)
    def sign(model: str, version: str, body: Signatures, caller: Operator) -> dict[str, Any]:
        """Keep users' signatures over a version; they must fit trusted keys."""
        signed = registry.sign(
            caller.tenant, model, reference=version, signatures=body.endorsements, actor=caller.name
        )
        return signed.to_dict()

    @routes.get("/trust/keys")
    def list_trusted_keys(caller: Reader) -> list[dict[str, Any]]:
        """The keys whose signatures the tenant trusts, and those it trusted once."""
        return trust.keys(caller.tenant)

    @routes.post("/trust/keys", status_code=201)
    def trust_key(body: NewTrustedKey, caller: Administrator) -> dict[str, str]:
        """Trust a key; its id."""
        key = trust.trust(caller.tenant, body.name, public_key=body.public_key, actor=caller.name)
        return {"id": key, "name": body.name}

    @routes.delete("/trust/keys/{key_id}", status_code=204)
    def revoke_trusted_key(key_id: str, caller: Administrator) -> None:
        """Trust a key no more, for good."""
        trust.revoke(caller.tenant, key_id, actor=caller.name)

    @routes.get("/trust/policy")
    def show_policy(caller: Reader) -> dict[str, bool]:
        """What the tenant demands of its versions."""
        return {"require_signatures": trust.required(caller.tenant)}

    @routes.put("/trust/policy")
    def set_policy(body: TrustPolicy, caller: Administrator) -> dict[str, bool]:
        """Demand signatures, or no more."""
        trust.require(caller.tenant, body.require_signatures, actor=caller.name)
        return {"require_signatures": body.require_signatures}


def _add_garbage(routes: APIRouter, registry: Registry) -> None:
    garbage = registry.garbage

    @routes.delete("/models/{model}/versions/{version}", status_code=204)
    def delete_version(model: str, version: int, caller: Administrator) -> None:
        """Delete a version that nothing needs; its files go with the next collection."""
        garbage.delete(caller.tenant, model, number=version, actor=caller.name)

    @routes.post("/garbage")
    def collect(body: Collection, caller: Administrator) -> dict[str, Any]:
        """Delete artifacts that nothing names, and old versions where that is asked for."""
        return garbage.collect(
            caller.tenant,
            older_than_s=body.older_than_s,
            keep_last=body.keep_last,
            dry_run=body.dry_run,
            actor=caller.name,
        )


class _Body:
    """A request's body, read in a thread as it comes. A caller who goes away ends it."""

    def __init__(self, request: Request) -> None:
        self._chunks: AsyncIterator[bytes] = request.stream()
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        if not self._rest:
            self._rest = anyio.from_thread.run(self._next)
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    async def _next(self) -> bytes:
        with suppress(ClientDisconnect):
            async for chunk in self._chunks:
                if chunk:
                    return chunk
        return b""


def transfer_router(transfers: Transfers) -> APIRouter:
    """Routes under ``/api/v1`` for versions that leave as archives and come as such."""
    routes = APIRouter(tags=["registry"])

    @routes.get("/models/{model}/versions/{version}/archive", response_class=StreamingResponse)
    def export(model: str, version: str, caller: Reader) -> StreamingResponse:
        """The version as one file: a tar of its manifest and its files."""
        archive = transfers.export(caller.tenant, model, reference=version)
        headers = {"content-length": str(archive.size_bytes)}
        return StreamingResponse(iter(archive), media_type=MEDIA_TYPE, headers=headers)

    @routes.post("/models/import", status_code=201)
    async def import_archive(
        request: Request,
        caller: Operator,
        name: str = "",
        alias: str = "",
        source: str = "",
        trust: bool = False,
    ) -> dict[str, Any]:
        """Make a version of an archive (the raw body); ``is_new`` is false where it was here already.

        ``name``: the model's name here, if another. ``trust``: an administrator stands for an archive of a program. ``source``: where it
        comes from, for the audit log.
        """
        if trust:
            caller.require("admin")
        wanted = Admission(
            model=name,
            alias=alias,
            trusted=trust,
            code=caller.role == "admin",
            source=source[:_SOURCE_LENGTH],
        )
        admitted = await run_in_threadpool(
            transfers.take_in, caller.tenant, _Body(request), wanted=wanted, actor=caller.name
        )
        return {**admitted.version.to_dict(), "is_new": admitted.is_new}

    @routes.post("/models/{model}/versions/{version}/promotions", status_code=201)
    def note_promotion(model: str, version: str, body: Promoted, caller: Operator) -> dict[str, Any]:
        """Note in the audit log that a version was moved to another environment."""
        found = transfers.promoted(
            caller.tenant, model, reference=version, detail=body.model_dump(), actor=caller.name
        )
        return found.to_dict()

    return routes
