"""What the control role is made of: registry, monitors, rollouts, retraining, the cache's predictor; built once, with their duties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from predis.access import Audit, Keys
from predis.app.home import open_registry
from predis.app.loops import Loop, yield_to_others
from predis.app.measures import ControlMetrics
from predis.app.predictor_training import COURSE, PlatformTrainings, PredictorCourse
from predis.cache.foretelling import FOLDER
from predis.cache.insight import Insight, load_s
from predis.cache.predictor.steward import Parts as PredictorParts
from predis.cache.predictor.steward import Steward
from predis.cache.predictor.triggers import Triggers
from predis.cache.predictor.versions import Versions
from predis.cache.sources.declarations import Declarations
from predis.cache.sources.desk import SourceDesk
from predis.clock import NANOSECONDS, Clock, SystemClock
from predis.console.overview import Overview, Parts
from predis.events import AlertRaised, Bus
from predis.metrics import NOTHING, Metrics, exposition
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
from predis.registry.registry import Inspect
from predis.registry.transfer import Transfers
from predis.retraining.config import check_retraining
from predis.retraining.runs import Parts as RetrainingParts
from predis.retraining.runs import Retrainings
from predis.retraining.store import RetrainingStore
from predis.rollout.backtest import Backtests, BacktestStore
from predis.rollout.backtest import Parts as BacktestParts
from predis.rollout.controller import Rollouts
from predis.rollout.store import RolloutStore
from predis.serving.config import check_serving
from predis.serving.endpoints import Endpoints
from predis.serving.store import Endpoint
from predis.settings import Settings
from predis.state import ArtifactStore, Database
from predis.stats import Calibration, Profile

_HOUR_S = 3_600.0
_TELL_S = 0.2
_BUDGETS_S = 30.0
_STEWARD_S = 2.0


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
        self.backtests = Backtests(self._backtest_parts(), self.endpoints, yield_to_others=yield_to_others)
        declarations = Declarations(database, clock, allow_code=settings.allow_code)
        self.retrainings, self.steward = self._renewals(declarations, metrics)
        self._tell_garbage_of_users()
        self.queries = Queries(database, settings.home / "log", take_in=self._take_in_all)
        self.history = History(database, clock, ages=_ages(settings))
        self.spans = SpanReport(database, clock, length_s=settings.span_s)
        self.diagnosis = Diagnosis(
            database, self.log, registry=self.registry, located=self, take_in=self._take_in_all
        )
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
            Loop("budgets", _BUDGETS_S, work=self._measure_budgets, background=True),
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
        return BacktestParts(
            registry=self.registry,
            store=BacktestStore(self.database),
            audit=self.audit,
            folder=self.settings.home / "log",
            version=self.version_of,
            take_in=self._take_in_all,
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
