"""The monitor: one look at every endpoint, from evidence to alerts."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from predis.clock import NANOSECONDS, Clock
from predis.monitoring import checks
from predis.monitoring.alerting.burn import Objective
from predis.monitoring.alerting.levels import ServiceLevels
from predis.monitoring.alerts import Alerts, Finding, Severity
from predis.monitoring.checks import Rules, Watched
from predis.monitoring.drift import REPLAYED, SEASONS, DriftWatch
from predis.monitoring.ingest import CONSUMER
from predis.monitoring.losses import LossWatches
from predis.monitoring.refusals import Refusals, check_refused
from predis.monitoring.store import MonitoringStore
from predis.state.engine import Database


class Landscape(Protocol):
    """What stands where, as the monitor needs to know it; given by ``app.py`` from the serving side."""

    def endpoints(self) -> list[tuple[str, str]]:
        """(tenant, name) of every endpoint that has a Route with traffic."""

    def watched(self, tenant: str, endpoint: str) -> list[Watched]:
        """The versions its Route sends traffic to."""

    def objectives(self, tenant: str, endpoint: str) -> Sequence[Objective]:
        """What is promised of its availability and latency."""

    def newest_heartbeat(self) -> int:
        """When any worker was last heard of."""


class Monitor:
    """Looks at every endpoint and reports what is wrong with it."""

    def __init__(
        self,
        database: Database,
        alerts: Alerts,
        *,
        landscape: Landscape,
        rules: Rules,
        clock: Clock,
        down_s: float,
    ) -> None:
        self._store = MonitoringStore(database)
        self._alerts = alerts
        self._landscape = landscape
        self._rules = rules
        self._clock = clock
        self._down_s = down_s
        self.refusals = Refusals()  # who takes the journal in puts its own here
        self._started_at = clock.time_ns()
        self.levels = ServiceLevels(database, objectives=landscape.objectives, clock=clock)
        self._losses = LossWatches(database, clock)
        self._watches: dict[tuple[str, str, int], DriftWatch] = {}
        self._watching = threading.Lock()  # people ask for drift while the monitor looks

    def look(self) -> None:
        for tenant, endpoint in self._landscape.endpoints():
            self._alerts.report(tenant, endpoint, findings=self.findings(tenant, endpoint))

    def findings(self, tenant: str, endpoint: str) -> list[Finding]:
        """Everything that is wrong with one endpoint now."""
        now = self._clock.time_ns()
        slots = self._store.recent_slots(tenant, endpoint, since=checks.traffic_since(now))
        found: list[Finding | None] = [
            *checks.check_traffic(tenant, endpoint, slots=slots, rules=self._rules)
        ]
        found.append(check_refused(tenant, endpoint, slots=slots, refusals=self.refusals))
        self.levels.roll(tenant, endpoint)
        burning = self.levels.burning(tenant, endpoint)
        found += checks.check_levels(tenant, endpoint, burning=burning, now=now)
        for watched in self._landscape.watched(tenant, endpoint):
            key = {"tenant": tenant, "endpoint": endpoint, "version": watched.version}
            windows = self._store.performance(key, limit=self._rules.decay_windows)
            found.append(checks.check_performance(watched, windows, rules=self._rules))
            found.append(self._losses.look(watched))
            with self._watching:
                watch = self._watch(watched)
                found += watch.findings(watched) if watch else []
        # A worker gets as long to report after control has started as it may be silent afterwards.
        heard = max(self._landscape.newest_heartbeat(), self._started_at)
        silent_s = (now - heard) / NANOSECONDS
        found.append(checks.check_down(tenant, endpoint, silent_s=silent_s, limit_s=self._down_s, now=now))
        found.append(self._lost_evidence(tenant, endpoint, now=now))
        return [finding for finding in found if finding is not None]

    def drift(self, watched: Watched) -> dict[str, Any] | None:
        """The drift of one version in its newest closed window, for people to look at."""
        with self._watching:
            watch = self._watch(watched)
            if watch is None or watch.window is None:
                return None
            newest = watch.window
            return {
                "window": newest["number"],
                "rows": newest["rows"],
                "first_event": newest["first_event"],
                "last_event": newest["last_event"],
                "references": watch.references,
                "features": watch.table(),
            }

    def _watch(self, watched: Watched) -> DriftWatch | None:
        """The version's windows up to the newest one; None without a profile. What was fed in earlier looks is not read again."""
        if watched.profile is None:
            return None
        key = {"tenant": watched.tenant, "endpoint": watched.endpoint, "version": watched.version}
        watch = self._watches.get((watched.tenant, watched.endpoint, watched.version))
        if watch is None:
            watch = DriftWatch(watched.profile, self._rules)
            self._watches[watched.tenant, watched.endpoint, watched.version] = watch
        newest = self._store.closed_windows(key, limit=1)
        if newest and newest[0]["number"] > watch.number:
            missed = min(newest[0]["number"] - watch.number, REPLAYED)
            for window in reversed(self._store.closed_windows(key, limit=missed)):
                if window["number"] > watch.number:
                    watch.feed(window, seasons=self._seasons(key, window))
        return watch

    def _seasons(self, key: dict[str, Any], window: Mapping[str, Any]) -> dict[str, list[bytes]]:
        """What a version's inputs were at the same time a week ago, and a year."""
        found = {}
        for name, (ago, around) in SEASONS.items():
            moment = window["last_event"] - ago
            found[name] = self._store.window_features(key, first=moment - around, last=moment + around)
        return found

    def _lost_evidence(self, tenant: str, endpoint: str, *, now: int) -> Finding | None:
        """Records lost since this endpoint's last such alert: the counts only grow, the alert must not last for ever."""
        totals = self._store.journal_totals(CONSUMER)
        told = self._store.newest_alert(tenant, endpoint, kind="evidence")
        lost = sum(totals[name] - (told["evidence"][name] if told else 0) for name in ("dropped", "damaged"))
        if lost <= 0:
            return None
        return Finding(
            tenant=tenant, endpoint=endpoint, kind="evidence", severity=Severity.WARNING, event_at=now,
            message=f"{lost} records of predictions were lost before they were read: the disk was full, or control was away too long",
            command="predis doctor", evidence=totals,
        )  # fmt: skip
