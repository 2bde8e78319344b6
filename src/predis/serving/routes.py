"""Endpoints over the control API. Predictions have a port and a protocol of their own: ``rest.py``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from predis.access.routes import Operator, Reader
from predis.serving.endpoints import Endpoints


class NewEndpoint(BaseModel):
    """A name for clients to call, and the model that answers."""

    model_config = ConfigDict(extra="forbid")

    name: str
    model: str
    config: dict[str, Any] = Field(default_factory=dict)


def router(endpoints: Endpoints) -> APIRouter:
    """Routes under ``/api/v1`` for endpoints."""
    routes = APIRouter(tags=["endpoints"])

    @routes.get("/endpoints")
    def list_endpoints(caller: Reader) -> list[dict[str, Any]]:
        """All endpoints with their current Route."""
        return [endpoints.to_dict(endpoint) for endpoint in endpoints.listed(caller.tenant)]

    @routes.post("/endpoints", status_code=201)
    def create_endpoint(body: NewEndpoint, caller: Operator) -> dict[str, Any]:
        """A new endpoint; it answers once a version is deployed to it."""
        made = endpoints.create(
            caller.tenant, body.name, model=body.model, config=body.config, actor=caller.name
        )
        return endpoints.to_dict(made)

    @routes.get("/endpoints/{name}")
    def show_endpoint(name: str, caller: Reader) -> dict[str, Any]:
        """One endpoint with its current Route."""
        return endpoints.to_dict(endpoints.get(caller.tenant, name))

    @routes.patch("/endpoints/{name}")
    def configure_endpoint(name: str, config: dict[str, Any], caller: Operator) -> dict[str, Any]:
        """Change an endpoint's configuration: the keys given replace those there."""
        return endpoints.to_dict(endpoints.configure(caller.tenant, name, changes=config, actor=caller.name))

    return routes
