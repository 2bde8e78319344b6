"""Feedback and alerts over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from predis.access.routes import Predictor, Reader
from predis.monitoring.alerts import Alerts
from predis.monitoring.feedback import Feedback


class Labels(BaseModel):
    """Labels of predictions: objects with ``id``, ``label`` (0 or 1) and, if wanted, ``row``, ``event_time`` and ``value``."""

    model_config = ConfigDict(extra="forbid")

    labels: list[Any]


def router(feedback: Feedback, alerts: Alerts, *, known: Any) -> APIRouter:
    """Routes under ``/api/v1`` for feedback and alerts. ``known(tenant, endpoint)`` raises where there is no such endpoint."""
    routes = APIRouter(tags=["monitoring"])

    @routes.post("/endpoints/{name}/feedback")
    def store_feedback(name: str, body: Labels, caller: Predictor) -> dict[str, int]:
        """Store labels; the answer comes when they are durable. Repeats are counted and change nothing."""
        known(caller.tenant, name)
        return feedback.store(caller.tenant, name, labels=body.labels)

    @routes.get("/alerts")
    def list_alerts(caller: Reader, endpoint: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Alerts, newest first."""
        return alerts.listed(caller.tenant, endpoint=endpoint, limit=min(max(limit, 1), 1_000))

    return routes
