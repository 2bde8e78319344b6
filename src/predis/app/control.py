"""The control role over HTTP: API and console on top of the platform, whose duties run while the application lives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from predis import __version__
from predis.access import routes as access_routes
from predis.app.bodies import Bounded
from predis.app.platform import Platform
from predis.cache import routes as cache_routes
from predis.console import routes as console_routes
from predis.errors import PredisError
from predis.metrics.exposition import CONTENT_TYPE
from predis.monitoring import routes as monitoring_routes
from predis.registry import routes as registry_routes
from predis.retraining import routes as retraining_routes
from predis.rollout import routes as rollout_routes
from predis.serving import routes as serving_routes
from predis.serving.rest import error_body, status_of

log = logging.getLogger(__name__)

_STREAMED = ("/api/v1/artifacts", "/api/v1/models/import")


def control_app(platform: Platform, *, run_loops: bool = True) -> Any:
    """The control role's ASGI application: API and console, with the loops running while it lives."""
    loops = platform.loops() if run_loops else []

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if run_loops:  # in a thread: DBOS is not to be asked where an event loop runs
            await asyncio.to_thread(platform.retrainings.resume)
        for loop in loops:
            loop.start()
        yield
        for loop in loops:
            loop.stop()
        platform.close()

    app = FastAPI(
        title="Predis", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json",
        dependencies=[Depends(access_routes.refuse)], swagger_ui_oauth2_redirect_url=None, strict_content_type=False,
    )  # fmt: skip
    app.state.keys = platform.keys
    _translate_errors(app)
    for router in _api_routers(platform):
        app.include_router(router, prefix="/api/v1")
    app.include_router(_metrics_route(platform))
    app.include_router(console_routes.pages())
    bounded = Bounded(app, most=platform.settings.max_body_bytes, streamed=_STREAMED)
    return access_routes.Guard(bounded, platform.keys, insecure=platform.settings.insecure)


def openapi() -> dict[str, Any]:
    """The control API's OpenAPI document, for the reference page. Needs no running installation."""
    from tempfile import TemporaryDirectory

    from predis.app.home import prepare
    from predis.settings import load

    with TemporaryDirectory() as folder:
        settings = load({"home": folder}, environ={})
        prepare(settings)
        platform = Platform(settings)
        try:
            app = FastAPI(title="Predis", version=__version__)
            for router in _api_routers(platform):
                app.include_router(router, prefix="/api/v1")
            return app.openapi()
        finally:
            platform.close()


def _api_routers(platform: Platform) -> list[Any]:
    from fastapi import APIRouter

    started = platform.clock.monotonic_s()
    health = APIRouter(tags=["health"])

    @health.get("/health")
    def show_health() -> dict[str, Any]:
        """Whether the control role answers, and for how long it has."""
        return {
            "status": "ok",
            "release": __version__,
            "up_s": round(platform.clock.monotonic_s() - started, 1),
        }

    return [
        health,
        access_routes.router(platform.keys, platform.audit),
        cache_routes.insight_router(platform.insight, platform.keys, folder=platform.settings.home / "cache"),
        cache_routes.router(platform.sources),
        cache_routes.predictor_router(platform.steward, platform.keys),
        registry_routes.router(platform.registry, platform.artifacts),
        registry_routes.transfer_router(platform.transfers),
        serving_routes.router(platform.endpoints),
        rollout_routes.backtest_router(platform.backtests),
        rollout_routes.router(platform.rollouts),
        monitoring_routes.query_router(platform.queries),
        monitoring_routes.history_router(platform.history, known=platform.endpoints.get),
        monitoring_routes.span_router(platform.spans, known=platform.endpoints.get),
        monitoring_routes.why_router(platform.diagnosis, endpoints=platform.endpoints),
        monitoring_routes.router(platform.feedback, known=platform.endpoints.get),
        monitoring_routes.alert_router(platform.alerts, platform.desk),
        monitoring_routes.objective_router(platform.monitor.levels, known=platform.endpoints),
        retraining_routes.router(platform.retrainings),
        console_routes.api(platform.overview),
    ]


def _metrics_route(platform: Platform) -> Any:
    from fastapi import APIRouter

    routes = APIRouter(include_in_schema=False)

    @routes.get("/metrics")
    def show_metrics(caller: access_routes.Reader) -> Response:
        """Metrics of all processes of this home, as Prometheus reads them."""
        return Response(platform.exposition(caller.tenant), media_type=CONTENT_TYPE)

    return routes


def _translate_errors(app: FastAPI) -> None:
    """Every error leaves as ``{"error", "code"}`` with the status of its class."""

    async def predis_error(_request: Request, error: Exception) -> Response:
        assert isinstance(error, PredisError)
        return Response(error_body(error), status_of(error), media_type="application/json")

    async def invalid(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return _plain_error(400, f"{where}: {first['msg']}", code="invalid_input")

    async def http_error(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(
            error.status_code, "invalid_input"
        )
        return _plain_error(error.status_code, f"{error.detail}", code=code)

    async def unexpected(request: Request, error: Exception) -> Response:
        log.error("a request to %s failed", request.url.path, exc_info=error)
        return _plain_error(500, "an internal error; the server's log has it", code="internal")

    app.add_exception_handler(PredisError, predis_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, unexpected)


def _plain_error(status: int, message: str, *, code: str) -> Response:
    import orjson

    return Response(orjson.dumps({"error": message, "code": code}), status, media_type="application/json")
