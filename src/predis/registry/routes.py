"""The registry over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from predis.access.routes import Operator, Reader
from predis.clock import iso
from predis.errors import NotFound
from predis.registry.model import CODE_FORMATS, Registration
from predis.registry.registry import Registry
from predis.registry.signature import Signature
from predis.state import ArtifactStore

MAX_ARTIFACT_BYTES = 8 << 30


class NewVersion(BaseModel):
    """A version to register. Files and data sets are named by the digests that uploading them returned."""

    model_config = ConfigDict(extra="forbid")

    format: str
    files: dict[str, str]
    signature: dict[str, Any] | None = None
    label: str = ""
    reference: str = ""
    holdout: str = ""
    training: str = ""
    lineage: dict[str, Any] = Field(default_factory=dict)
    alias: str = ""


class MovedAlias(BaseModel):
    """Where an alias is to point: a version number, another alias, or ``latest``."""

    model_config = ConfigDict(extra="forbid")

    version: str | int


def router(registry: Registry, artifacts: ArtifactStore) -> APIRouter:
    """Routes under ``/api/v1`` for artifacts, models, versions and aliases."""
    routes = APIRouter(tags=["registry"])

    @routes.put("/artifacts", status_code=201)
    async def upload(request: Request, caller: Operator) -> dict[str, Any]:
        """Store a file (the raw body) and return its SHA-256, by which versions name it."""
        stored = await artifacts.put_stream(request.stream(), limit_bytes=MAX_ARTIFACT_BYTES)
        return {"digest": stored.digest, "size_bytes": stored.size_bytes}

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
            **body.model_dump(exclude={"signature", "alias"}),
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

    @routes.put("/models/{model}/aliases/{alias}")
    def move_alias(model: str, alias: str, body: MovedAlias, caller: Operator) -> dict[str, Any]:
        """Point an alias at a version."""
        version = registry.alias(caller.tenant, model, alias=alias, to=body.version, actor=caller.name)
        return {"model": model, "alias": alias, "version": version.number}

    return routes
