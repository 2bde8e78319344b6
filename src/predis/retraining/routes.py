"""Retraining over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from predis.access.routes import Operator, Reader
from predis.retraining.runs import Retrainings


def router(retrainings: Retrainings) -> APIRouter:
    """Routes under ``/api/v1`` for retraining runs."""
    routes = APIRouter(tags=["retraining"])

    @routes.post("/endpoints/{name}/retrain", status_code=202)
    def retrain(name: str, caller: Operator) -> dict[str, Any]:
        """Begin to renew an endpoint's model."""
        return retrainings.start(caller.tenant, name, trigger="manual", actor=caller.name).to_dict()

    @routes.get("/retrainings")
    def list_retrainings(caller: Reader, endpoint: str | None = None) -> list[dict[str, Any]]:
        """Retraining runs, newest first."""
        return [run for run in retrainings.listed(caller.tenant) if endpoint in (None, run["endpoint"])]

    @routes.get("/retrainings/{run}")
    def show_retraining(run: str, caller: Reader) -> dict[str, Any]:
        """One retraining run with what its steps found."""
        return retrainings.get(caller.tenant, run).to_dict()

    return routes
