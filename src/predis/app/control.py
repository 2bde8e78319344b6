"""The control role, put together: registry, monitors, rollouts, retraining, API and console."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from predis import __version__
from predis.access import Audit, Keys
from predis.access import routes as access_routes
from predis.app.home import open_registry
from predis.app.measures import ControlMetrics
from predis.app.predictor_training import COURSE, PlatformTrainings, PredictorCourse
from predis.cache import routes as cache_routes
from predis.cache.foretelling import FOLDER
from predis.cache.insight import Insight, load_s
from predis.cache.predictor.steward import Parts as PredictorParts
from predis.cache.predictor.steward import Steward
from predis.cache.predictor.triggers import Triggers
from predis.cache.predictor.versions import Versions
from predis.cache.sources.declarations import Declarations
from predis.cache.sources.desk import SourceDesk
from predis.clock import NANOSECONDS, Clock, SystemClock
from predis.console import routes as console_routes
from predis.console.overview import Overview, Parts
from predis.errors import PredisError
from predis.events import AlertRaised, Bus
from predis.metrics import NOTHING, Metrics, exposition
from predis.metrics.exposition import CONTENT_TYPE
from predis.monitoring import routes as monitoring_routes
from predis.monitoring.alerting.book import Declared
from predis.monitoring.alerting.burn import Objective, check_objectives, objectives_of
from predis.monitoring.alerting.desk import Desk
from predis.monitoring.alerts import Alerts
from predis.monitoring.checks import Rules, Watched
from predis.monitoring.evidence import EvidenceReader
from predis.monitoring.exporters import Exporting, Health
from predis.monitoring.exporters.exporting import exporters_of, health_of
from predis.monitoring.exporters.telling import CHANNEL, Telling
from predis.monitoring.feedback import Feedback
from predis.monitoring.history import Ages, History
from predis.monitoring.ingest import Ingest
from predis.monitoring.log import PredictionLog
from predis.monitoring.monitor import Monitor
from predis.monitoring.queries import Queries
from predis.monitoring.segments import check_monitoring
from predis.monitoring.spans.report import SpanReport
from predis.monitoring.spans.segmenting import Segmenters
from predis.monitoring.store import MonitoringStore
from predis.monitoring.why import Diagnosis
from predis.registry import Signature, Version
from predis.registry import routes as registry_routes
from predis.registry.registry import Inspect
from predis.registry.transfer import Transfers
from predis.retraining import routes as retraining_routes
from predis.retraining.config import check_retraining
from predis.retraining.runs import Parts as RetrainingParts
from predis.retraining.runs import Retrainings
from predis.retraining.store import RetrainingStore
from predis.rollout import routes as rollout_routes
from predis.rollout.backtest import Backtests, BacktestStore
from predis.rollout.backtest import Parts as BacktestParts
from predis.rollout.controller import Rollouts
from predis.rollout.store import RolloutStore
from predis.serving import routes as serving_routes
from predis.serving.config import check_serving
from predis.serving.endpoints import Endpoints
from predis.serving.rest import error_body, status_of
from predis.serving.store import Endpoint
from predis.settings import Settings
from predis.state import ArtifactStore, Database
from predis.stats import Calibration, Profile

log = logging.getLogger(__name__)

_HOUR_S = 3_600.0
_TELL_S = 0.2
_TELL_AGAIN_S = 30.0
_STEWARD_S = 2.0
_BACKGROUND_NICENESS = 10


class Platform:
    """Everything the control role is made of, built once from the settings.

    Args:
        metrics: where the control process writes its numbers; what only looks into an installation writes none.
        inspect: how models are opened at registration; in processes of their own unless given.
        alert_routes: those that ``predis.toml`` declares.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        metrics: Metrics = NOTHING,
        inspect: Inspect | None = None,
        alert_routes: Sequence[Declared] = (),
    ) -> None:
        self.settings = settings
        self.clock = clock = clock or SystemClock()
        self.bus = Bus()
        self.database = database = Database(settings.database_url)
        self.artifacts = ArtifactStore(settings.store_url)
        self.keys = Keys(database, clock)
        self.audit = Audit(database, clock)
        self.registry = open_registry(settings, database, clock=clock, bus=self.bus, inspect=inspect)
        self.transfers = Transfers(self.registry, self.artifacts, clock=clock)
        self.endpoints = Endpoints(database, self.registry, clock=clock)
        self.endpoints.checks += (check_retraining, check_serving, check_monitoring, check_objectives)
        self._versions: dict[tuple[str, str, int], Version] = {}
        self._profiles: dict[tuple[str, str, int], Profile] = {}
        self.ingest = Ingest(
            database, settings.journal_folder, profile=self.profile_of, window_rows=settings.window_rows,
            span_s=settings.span_s,
            segmenter=Segmenters(
                lambda tenant, name: self.endpoints.get(tenant, name).config,
                version=self.version_of, profile=self.profile_of, clock=clock,
            ),
        )  # fmt: skip
        self.log = PredictionLog(
            database,
            settings.journal_folder,
            folder=settings.home / "log",
            version=self.version_of,
            clock=clock,
        )
        self.feedback = Feedback(
            database,
            clock,
            window_rows=settings.label_window_rows,
            span_s=settings.span_s,
            models=_Models(self),
        )
        self.alerts = Alerts(database, clock=clock, bus=self.bus)
        self.telling = Telling(exporters_of(settings, for_notices=True))
        self.desk = Desk(
            database,
            settings.secrets_folder,
            clock=clock,
            metrics=metrics,
            declared={"predis.toml": alert_routes, "exporters": self.telling.routes},
            channels={CHANNEL: self.telling.channel},
        )
        self.monitor = Monitor(
            database,
            self.alerts,
            landscape=_Landscape(self),
            rules=_rules(settings),
            clock=clock,
            down_s=settings.endpoint_down_s,
        )
        self.monitor.refusals = self.ingest.refusals
        self.rollouts = Rollouts(database, self.endpoints, registry=self.registry, clock=clock, bus=self.bus)
        self.backtests = Backtests(self._backtest_parts(), self.endpoints, yield_to_others=_yield_to_others)
        declarations = Declarations(database, clock, allow_code=settings.allow_code)
        self.retrainings, self.steward = self._renewals(declarations, metrics)
        self._tell_garbage_of_users()
        self.queries = Queries(database, settings.home / "log", take_in=self._take_in_all)
        self.history = History(database, clock, ages=_ages(settings))
        self.spans = SpanReport(database, clock, length_s=settings.span_s)
        self.diagnosis = Diagnosis(database, self.log, registry=self.registry, located=self)
        self.sources = SourceDesk(database, declarations, clock=clock, metrics=metrics)
        self.insight = Insight(settings.home / "cache", settings.metrics_folder)
        self.overview = Overview(self._overview_parts(), clock)
        self.bus.subscribe(AlertRaised, self.retrainings.on_alert)
        self.measures = ControlMetrics(metrics, MonitoringStore(database), bus=self.bus, clock=clock)
        self.exporting = Exporting(settings, metrics=metrics, clock=clock, health=self._health_of_endpoints)

    def _tell_garbage_of_users(self) -> None:
        """Who uses versions and artifacts is known above the registry."""
        runs = RetrainingStore(self.database)
        self.registry.garbage.in_use = {
            "the Route of an endpoint": self.endpoints.store.in_use,
            "a rollout that has not ended": RolloutStore(self.database).in_use,
            "a retraining run that has not ended": runs.in_use,
        }
        self.registry.garbage.since = (runs.since,)

    def watched(self, endpoint: Endpoint, version: Version) -> Watched:
        """One version as the monitor's checks see it."""
        profile = self.profile_of(endpoint.tenant, endpoint.name, number=version.number)
        return Watched(
            endpoint.tenant,
            endpoint.name,
            version.number,
            endpoint.model,
            version.metrics,
            profile,
            version.signature.task,
        )

    def loops(self) -> list[Loop]:
        """The duties of the control role, each in a thread of its own."""
        settings = self.settings
        exporting = Loop("export", settings.export_interval_s, work=self.exporting.look, background=True)
        return [
            *([exporting] if self.exporting.active else []),
            Loop("ingest", settings.ingest_ms / 1000, work=self._take_in, background=True),
            Loop("log", 1.0, work=self.log.look, background=True),
            Loop("rollouts", settings.rollout_tick_ms / 1000, work=self.rollouts.tick),
            Loop("checks", settings.check_ms / 1000, work=self._check),
            Loop("alerting", _TELL_S, work=self.desk.look),
            Loop("retraining", 1.0, work=self.retrainings.tick),
            Loop("predictor", _STEWARD_S, work=self.steward.tick, background=True),
            Loop("measures", 1.0, work=self._measure),
            Loop("budgets", _TELL_AGAIN_S, work=self._measure_budgets, background=True),
            Loop("housekeeping", _HOUR_S, work=self._tidy),
        ]

    def close(self) -> None:
        self.desk.close()
        self.telling.close()
        self.exporting.close()
        self.backtests.close()
        self.retrainings.close()
        self.database.close()

    def _take_in(self) -> None:
        self.ingest.catch_up()
        self.measures.caught_up()

    def _take_in_all(self) -> None:
        """Everything up to now, the log as well."""
        self._take_in()
        self.log.flush()

    def exposition(self, tenant: str) -> bytes:
        """Metrics of all processes, as Prometheus reads them. Where there are keys, a tenant does not see the others."""
        return exposition(self.settings.metrics_folder, tenant=tenant if self.keys.exist() else None)

    def _health_of_endpoints(self) -> list[Health]:
        return health_of(_Landscape(self).endpoints(), MonitoringStore(self.database).open_alerts())

    def _check(self) -> None:
        while self.feedback.mature():
            pass
        self.monitor.look()

    def _measure(self) -> None:
        self.measures.look()
        self.sources.measure()

    def _measure_budgets(self) -> None:
        for tenant, endpoint in _Landscape(self).endpoints():
            self.measures.budgets(tenant, endpoint, levels=self.monitor.levels.shown(tenant, endpoint))

    def _tidy(self) -> None:
        now = self.clock.time_ns()
        before = now - self.settings.prediction_days * 86_400 * NANOSECONDS
        store = MonitoringStore(self.database)
        with self.database.write() as connection:
            store.forget_predictions(connection, before=before)
        self.log.forget(before=before)
        self.history.tidy()
        self.monitor.levels.forget()
        self.desk.forget()

    def version_of(self, tenant: str, endpoint: str, *, number: int) -> Version | None:
        """A version by its endpoint; versions never change, so each is read once."""
        key = (tenant, endpoint, number)
        if key not in self._versions:
            try:
                model = self.endpoints.get(tenant, endpoint).model
                self._versions[key] = self.registry.version(tenant, model, reference=number)
            except LookupError:
                return None
        return self._versions[key]

    def profile_of(self, tenant: str, endpoint: str, *, number: int) -> Profile | None:
        """A version's reference profile, read once."""
        key = (tenant, endpoint, number)
        if key not in self._profiles:
            version = self.version_of(tenant, endpoint, number=number)
            if version is None or not version.profile:
                return None
            self._profiles[key] = Profile.from_dict(version.profile)
        return self._profiles[key]

    def _retraining_parts(self) -> RetrainingParts:
        return RetrainingParts(
            database=self.database,
            artifacts=self.artifacts,
            registry=self.registry,
            endpoints=self.endpoints,
            rollouts=self.rollouts,
            log=self.log,
            evidence=MonitoringStore(self.database),
            take_in=self._take_in,
        )

    def _renewals(self, declarations: Declarations, metrics: Metrics) -> tuple[Retrainings, Steward]:
        """What renews models of endpoints and the cache's predictor, and what decides on the latter's versions."""
        settings, clock, cache = self.settings, self.clock, self.settings.home / "cache"
        versions = Versions(
            self.registry, self.artifacts, database=self.database, clock=clock, folder=cache / FOLDER
        )
        course = PredictorCourse(
            cache / "accesses", self.artifacts, versions=versions,
            sources=lambda: [declared.source for declared in declarations.all()],
            load_s=lambda: load_s(settings.metrics_folder), models=settings.predictor_models,
        )  # fmt: skip
        retrainings = Retrainings(
            self._retraining_parts(), settings=settings, clock=clock, bus=self.bus, courses={COURSE: course}
        )
        triggers = Triggers(cache / "accesses", retrain_s=settings.cache_train_hours * 3_600.0)
        trainings = PlatformTrainings(retrainings, models=settings.predictor_models)
        parts = PredictorParts(versions, trainings, triggers, share=settings.cache_trial_share)
        course.steward = Steward(cache, parts, database=self.database, clock=clock, metrics=metrics)
        return retrainings, course.steward

    def _backtest_parts(self) -> BacktestParts:
        def take_in() -> None:
            self._take_in()
            self.log.flush()

        return BacktestParts(
            registry=self.registry,
            store=BacktestStore(self.database),
            audit=self.audit,
            folder=self.settings.home / "log",
            version=self.version_of,
            take_in=take_in,
            clock=self.clock,
            fresh_s=self.settings.inspect_timeout_s,
        )

    def _of_endpoints(self, tenant: str) -> list[dict[str, Any]]:
        """Retraining runs but for those of the cache's predictor, which is no endpoint's."""
        return [run for run in self.retrainings.listed(tenant) if run["endpoint"] != COURSE]

    def _overview_parts(self) -> Parts:
        return Parts(
            registry=self.registry,
            endpoints=self.endpoints,
            rollouts=self.rollouts,
            alerts=self.alerts,
            monitor=self.monitor,
            store=MonitoringStore(self.database),
            evidence=EvidenceReader(self.database),
            watched=self.watched,
            retrainings=self._of_endpoints,
        )


class _Models:
    """The models behind endpoints, as feedback needs to know them."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def signature(self, tenant: str, endpoint: str, *, number: int | None = None) -> Signature | None:
        if number is None:
            found = self._platform.endpoints.get(tenant, endpoint)
            weights = self._platform.endpoints.current_route(found).weights if found.route else {}
            number = max(weights, key=lambda each: weights[each], default=None)
        if number is None:
            return None
        version = self._platform.version_of(tenant, endpoint, number=number)
        return version.signature if version else None

    def calibration(self, tenant: str, endpoint: str, *, number: int) -> Calibration | None:
        version = self._platform.version_of(tenant, endpoint, number=number)
        found = (version.profile or {}).get("calibration") if version else None
        return Calibration.from_dict(found) if found else None


class _Landscape:
    """The serving side as the monitor needs to know it."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def endpoints(self) -> list[tuple[str, str]]:
        return [(e.tenant, e.name) for e in self._platform.endpoints.store.endpoints() if e.route]

    def watched(self, tenant: str, endpoint: str) -> list[Watched]:
        platform = self._platform
        found = platform.endpoints.get(tenant, endpoint)
        route = platform.endpoints.current_route(found)
        versions = [platform.version_of(tenant, endpoint, number=number) for number in route.answering()]
        return [platform.watched(found, version) for version in versions if version is not None]

    def objectives(self, tenant: str, endpoint: str) -> tuple[Objective, ...]:
        return objectives_of(self._platform.endpoints.get(tenant, endpoint).config, endpoint)

    def newest_heartbeat(self) -> int:
        return max((worker.seen_at for worker in self._platform.endpoints.store.workers()), default=0)


class Loop:
    """One duty, again and again until stopped. What goes wrong in one round is logged; the next round tries again.

    Args:
        background: leave the processor to others where there is not enough for all: what this duty does may wait, answers may not.
    """

    def __init__(
        self, name: str, period_s: float, *, work: Callable[[], object], background: bool = False
    ) -> None:
        self._name = name
        self._period_s = period_s
        self._work = work
        self._background = background
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._told, self._told_at = "", 0.0

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 3.0) -> None:
        self._stop.set()
        self._thread.join(timeout_s)

    def _tell(self, error: PredisError) -> None:
        """Log a problem once, and again now and then while it lasts."""
        now = time.monotonic()
        if str(error) != self._told or now - self._told_at > _TELL_AGAIN_S:
            log.warning("%s: %s; trying again", self._name, error)
            self._told, self._told_at = str(error), now

    def _run(self) -> None:
        if self._background:
            _yield_to_others()
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                self._work()
            except PredisError as error:
                self._tell(error)
            except Exception:
                log.exception("%s failed; trying again", self._name)
            self._stop.wait(max(0.0, self._period_s - (time.monotonic() - started)))


def _yield_to_others() -> None:
    """Lower the priority of this thread. Linux alone has threads with priorities of their own; elsewhere it would be the process's."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):  # a container may forbid it
            niceness = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, niceness + _BACKGROUND_NICENESS)


def control_app(platform: Platform, *, run_loops: bool = True) -> Any:
    """The control role's ASGI application: API and console, with the loops running while it lives."""
    loops = platform.loops() if run_loops else []

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        platform.retrainings.resume() if run_loops else None
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
    return access_routes.Guard(app, platform.keys, insecure=platform.settings.insecure)


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
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_input")
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


def _ages(settings: Settings) -> Ages:
    return Ages(
        seconds_h=settings.history_seconds_h,
        minutes_h=settings.history_minutes_h,
        hours_h=settings.history_hours_h,
        days_h=settings.history_days_h,
    )


def _rules(settings: Settings) -> Rules:
    return Rules(
        decay_margin=settings.decay_margin,
        decay_share=settings.decay_share,
        decay_windows=settings.decay_windows,
        drift_alpha=settings.drift_alpha,
        drift_floor=settings.drift_floor,
        error_rate_limit=settings.error_rate_limit,
        latency_limit_ms=settings.latency_limit_ms,
    )
