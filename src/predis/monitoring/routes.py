"""Feedback, alerts and objectives over HTTP."""

from __future__ import annotations

from typing import Any, Protocol

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from predis.access.routes import Administrator, Operator, Predictor, Reader
from predis.clock import NANOSECONDS, parse_moment
from predis.errors import InvalidInput
from predis.monitoring.alerting.book import AlertRoute
from predis.monitoring.alerting.desk import Desk
from predis.monitoring.alerting.levels import ServiceLevels
from predis.monitoring.alerting.silences import LONGEST_DAYS, Silence
from predis.monitoring.alerts import Alerts
from predis.monitoring.feedback import Feedback
from predis.monitoring.history import History
from predis.monitoring.queries import Queries
from predis.monitoring.segments import configured
from predis.monitoring.spans.report import SpanReport
from predis.monitoring.why import Diagnosis


class Labels(BaseModel):
    """Labels of predictions: objects with ``id``, ``label`` (0 or 1; a number or a class, as the model has it) and, if wanted, ``row``,
    ``event_time`` and ``value``.
    """

    model_config = ConfigDict(extra="forbid")

    labels: list[Any]


class Acknowledgement(BaseModel):
    """What whoever takes care of it has to say."""

    model_config = ConfigDict(extra="forbid")

    note: str = Field(default="", max_length=1_000)


class NewSilence(BaseModel):
    """Which alerts are told to nobody (patterns such as ``churn-*``; empty: all), why, and until when, or for how many seconds.

    ``severity``: the most severe that is silenced. Empty: every severity but emergency.
    """

    model_config = ConfigDict(extra="forbid")

    endpoint: str = Field(default="", max_length=128)
    kind: str = Field(default="", max_length=64)
    severity: str = Field(default="", max_length=16)
    version: int | None = Field(default=None, ge=1, le=2**31 - 1)
    reason: str = Field(max_length=1_000)
    for_s: float | None = Field(default=None, gt=0, le=LONGEST_DAYS * 86_400, allow_inf_nan=False)
    until: str | float | None = None


class NewRoute(BaseModel):
    """Whom alerts are told to. ``config``: as the channel wants it; secrets by where they are found (``env:NAME``, ``file:NAME``)."""

    model_config = ConfigDict(extra="forbid")

    name: str
    channel: str
    config: dict[str, Any]
    endpoint: str = Field(default="", max_length=128)
    kinds: list[str] = Field(default_factory=list, max_length=50)
    severity: str = "warning"
    after_s: float = 0.0
    per_hour: int = 60


class Known(Protocol):
    """The endpoints of a tenant."""

    def get(self, tenant: str, name: str, /) -> Any:
        """Raises where there is no such endpoint."""

    def listed(self, tenant: str, /) -> list[Any]:
        """All of them."""


def router(feedback: Feedback, *, known: Any) -> APIRouter:
    """Routes under ``/api/v1`` for feedback. ``known(tenant, endpoint)`` raises where there is no such endpoint."""
    routes = APIRouter(tags=["monitoring"])

    @routes.post("/endpoints/{name}/feedback")
    def store_feedback(name: str, body: Labels, caller: Predictor) -> dict[str, int]:
        """Store labels; the answer comes when they are durable. Repeats are counted and change nothing."""
        known(caller.tenant, name)
        return feedback.store(caller.tenant, name, labels=body.labels)

    return routes


def alert_router(alerts: Alerts, desk: Desk) -> APIRouter:
    """Routes under ``/api/v1`` for alerts, silences, and whom alerts are told to."""
    routes = APIRouter(tags=["alerts"])

    @routes.get("/alerts")
    def list_alerts(caller: Reader, endpoint: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Alerts, newest first."""
        return alerts.listed(caller.tenant, endpoint=endpoint, limit=min(max(limit, 1), 1_000))

    @routes.get("/alerts/{alert}")
    def show_alert(alert: int, caller: Reader) -> dict[str, Any]:
        """One alert with what each route was told of its incident."""
        return alerts.shown(caller.tenant, alert)

    @routes.post("/alerts/{alert}/acknowledge")
    def acknowledge(alert: int, caller: Operator, body: Acknowledgement | None = None) -> dict[str, Any]:
        """Take care of an alert's incident: nothing escalates any more."""
        note = body.note if body else ""
        return alerts.acknowledge(caller.tenant, alert, actor=caller.name, note=note)

    _add_silences(routes, desk)
    _add_alert_routes(routes, desk)
    return routes


def objective_router(levels: ServiceLevels, *, known: Known) -> APIRouter:
    """Routes under ``/api/v1`` for objectives and their error budgets."""
    routes = APIRouter(tags=["alerts"])

    @routes.get("/objectives")
    def list_objectives(caller: Reader) -> list[dict[str, Any]]:
        """Every objective of every endpoint, with what is left of its error budget."""
        return [
            {"endpoint": endpoint.name, **shown}
            for endpoint in known.listed(caller.tenant)
            for shown in levels.shown(caller.tenant, endpoint.name)
        ]

    @routes.get("/endpoints/{name}/objectives")
    def show_objectives(name: str, caller: Reader) -> list[dict[str, Any]]:
        """The objectives of an endpoint, with what is left of their error budgets."""
        known.get(caller.tenant, name)
        return [{"endpoint": name, **shown} for shown in levels.shown(caller.tenant, name)]

    return routes


def _add_silences(routes: APIRouter, desk: Desk) -> None:
    @routes.get("/silences")
    def list_silences(caller: Reader, ended: bool = False) -> list[dict[str, Any]]:
        """Silences that last, newest first; with ``ended``, all."""
        return desk.silences.listed(caller.tenant, ended=ended)

    @routes.post("/silences", status_code=201)
    def add_silence(body: NewSilence, caller: Operator) -> dict[str, Any]:
        """Tell nobody of some alerts for a while."""
        given = body.model_dump(exclude={"for_s", "until"})
        now = desk.silences.now()
        silence = Silence(**given, starts_at=now, ends_at=_end(body, now=now))
        return desk.silences.add(caller.tenant, silence, actor=caller.name)

    @routes.delete("/silences/{silence}", status_code=204)
    def end_silence(silence: int, caller: Operator) -> None:
        """End a silence; alerts that it hid and that last are told."""
        desk.silences.end(caller.tenant, silence, actor=caller.name)


def _end(body: NewSilence, *, now: int) -> int:
    if (body.for_s is None) == (body.until is None):
        raise InvalidInput("a silence has either until or for_s")
    if body.until is not None:
        return parse_moment(body.until, where="until")
    assert body.for_s is not None
    return now + round(body.for_s * NANOSECONDS)


def _add_alert_routes(routes: APIRouter, desk: Desk) -> None:
    """Only administrators change them: a route makes the server send requests to wherever it names."""

    @routes.get("/alert-routes")
    def list_alert_routes(caller: Operator) -> list[dict[str, Any]]:
        """Whom alerts are told to, with how many notices were sent, wait, or were given up."""
        return desk.book.listed(caller.tenant)

    @routes.get("/alert-deliveries")
    def list_alert_deliveries(caller: Operator, limit: int = 100) -> list[dict[str, Any]]:
        """The outbox: what routes are to be told, and were; what waits first, then the newest."""
        return desk.outbox.listed(caller.tenant, limit=min(max(limit, 1), 1_000))

    @routes.post("/alert-routes", status_code=201)
    def add_alert_route(body: NewRoute, caller: Administrator) -> dict[str, Any]:
        """Tell alerts to somebody more."""
        route = AlertRoute(**{**body.model_dump(), "kinds": tuple(body.kinds)})
        return desk.book.add(caller.tenant, route, actor=caller.name)

    @routes.delete("/alert-routes/{name}", status_code=204)
    def remove_alert_route(name: str, caller: Administrator) -> None:
        """Remove a route, and what it was still to be told."""
        desk.book.remove(caller.tenant, name, actor=caller.name)

    @routes.post("/alert-routes/{name}/test")
    def test_alert_route(name: str, caller: Administrator) -> dict[str, Any]:
        """Send a test notice now: whether it was taken, and what went wrong."""
        return desk.book.test(caller.tenant, name, actor=caller.name)


class Query(BaseModel):
    """One SELECT over ``predictions``, ``labels``, ``shadows`` and a view of each endpoint. ``format``: json, csv or parquet."""

    model_config = ConfigDict(extra="forbid")

    sql: str
    format: str = "json"


def query_router(queries: Queries) -> APIRouter:
    """SQL over the prediction log."""
    routes = APIRouter(tags=["monitoring"])

    @routes.post("/query")
    def run_query(body: Query, caller: Reader) -> dict[str, Any]:
        """Answer one SELECT over the caller's own predictions and labels."""
        return queries.run(caller.tenant, body.sql, format=body.format)

    return routes


def why_router(diagnosis: Diagnosis, *, endpoints: Any) -> APIRouter:
    """Why an endpoint does worse."""
    routes = APIRouter(tags=["monitoring"])

    @routes.get("/endpoints/{name}/why")
    def explain(name: str, caller: Reader, version: int | None = None) -> dict[str, Any]:
        """Estimated and realised performance, what moved inputs do to the answers, and the worst segments.

        Of the version that answers most, unless one is named. The model is asked again, so this takes seconds.
        """
        endpoint = endpoints.get(caller.tenant, name)
        weights = endpoints.current_route(endpoint).weights
        number = version or max(weights, key=lambda each: weights[each], default=None)
        if number is None:
            raise InvalidInput(f"endpoint {name!r} serves no version; name one")
        return diagnosis.of(caller.tenant, name, number=number, segments=configured(endpoint.config))

    return routes


def span_router(report: SpanReport, *, known: Any) -> APIRouter:
    """Windows by time and by segment."""
    routes = APIRouter(tags=["monitoring"])

    @routes.get("/endpoints/{name}/windows")
    def list_windows(
        name: str, caller: Reader, since: str, version: int | None = None, segment: str | None = None
    ) -> dict[str, Any]:
        """What came and how well it was answered since a moment (RFC 3339), by time: of the endpoint, and of each level of its segments."""
        known(caller.tenant, name)
        moment = parse_moment(since, where="since")
        return report.listed(caller.tenant, name, since=moment, version=version, segment=segment)

    return routes


def history_router(history: History, *, known: Any) -> APIRouter:
    """Traffic of long ago."""
    routes = APIRouter(tags=["monitoring"])

    @routes.get("/endpoints/{name}/history")
    def show_history(
        name: str, caller: Reader, since: str, step_s: int = 60, version: int | None = None
    ) -> list[dict[str, Any]]:
        """Requests, failures and latency in bars of ``step_s`` seconds since a moment (RFC 3339), oldest first."""
        known(caller.tenant, name)
        moment = parse_moment(since, where="since")
        step = step_s * NANOSECONDS
        return history.traffic(caller.tenant, name, since=moment, step=step, version=version)

    return routes
