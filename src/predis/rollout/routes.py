"""Rollouts over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from predis.access.routes import Operator, Reader
from predis.rollout.controller import Rollouts


class Deployment(BaseModel):
    """Which version an endpoint is to answer with, and how it gets there. ``plan`` overrides single values of the plan."""

    model_config = ConfigDict(extra="forbid")

    version: str | int
    strategy: str = "canary"
    plan: dict[str, Any] = Field(default_factory=dict)


def router(rollouts: Rollouts) -> APIRouter:
    """Routes under ``/api/v1`` for deployments and rollouts."""
    routes = APIRouter(tags=["rollouts"])

    @routes.post("/endpoints/{name}/deploy", status_code=202)
    def deploy(name: str, body: Deployment, caller: Operator) -> dict[str, Any]:
        """Begin to move an endpoint to a version."""
        plan = {**body.plan, "strategy": body.strategy}
        return rollouts.start(
            caller.tenant, name, version=body.version, plan=plan, actor=caller.name
        ).to_dict()

    @routes.get("/rollouts")
    def list_rollouts(caller: Reader, endpoint: str | None = None) -> list[dict[str, Any]]:
        """Rollouts, newest first."""
        return [rollout.to_dict() for rollout in rollouts.listed(caller.tenant, endpoint=endpoint)]

    @routes.get("/rollouts/{rollout}")
    def show_rollout(rollout: int, caller: Reader) -> dict[str, Any]:
        """One rollout with what its gates say."""
        return rollouts.get(caller.tenant, rollout).to_dict()

    @routes.post("/rollouts/{rollout}/promote", status_code=202)
    def promote(rollout: int, caller: Operator) -> dict[str, Any]:
        """Give the candidate everything, whatever the gates still wait for."""
        return rollouts.wish(caller.tenant, rollout, wish="promote", actor=caller.name).to_dict()

    @routes.post("/rollouts/{rollout}/abort", status_code=202)
    def abort(rollout: int, caller: Operator) -> dict[str, Any]:
        """Put the baseline back."""
        return rollouts.wish(caller.tenant, rollout, wish="abort", actor=caller.name).to_dict()

    return routes
