"""The overview: what stands where and how it does, gathered from every part for one tenant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from predis import __version__
from predis.clock import NANOSECONDS, Clock, iso
from predis.monitoring.alerts import Alerts
from predis.monitoring.checks import Watched
from predis.monitoring.evidence import EvidenceReader, Mark
from predis.monitoring.ingest import CONSUMER
from predis.monitoring.monitor import Monitor
from predis.monitoring.store import MonitoringStore, Row, unpack_counts
from predis.registry import Registry, Version
from predis.rollout.controller import Rollouts
from predis.serving.endpoints import Endpoints
from predis.serving.follower import alive
from predis.serving.route import Route
from predis.serving.store import Endpoint
from predis.stats import latency

# The chart has bars of several slots of traffic each.
BAR_S = 5
BAR = BAR_S * NANOSECONDS
SERIES_BARS = 60
_SHOWN_VERSIONS = 6
_SHOWN_RESOLVED = 20


@dataclass(frozen=True)
class Parts:
    """Where the overview looks."""

    registry: Registry
    endpoints: Endpoints
    rollouts: Rollouts
    alerts: Alerts
    monitor: Monitor
    store: MonitoringStore
    evidence: EvidenceReader
    watched: Callable[[Endpoint, Version], Watched]
    retrainings: Callable[[str], list[dict[str, Any]]]


class Overview:
    """Builds the document that the console and ``predis monitor`` show."""

    def __init__(self, parts: Parts, clock: Clock) -> None:
        self._parts = parts
        self._clock = clock

    def of(self, tenant: str, *, endpoint: str | None = None) -> dict[str, Any]:
        """The whole overview, or that of one endpoint.

        Raises:
            EndpointNotFound: there is no such endpoint.
        """
        parts, now = self._parts, self._clock.time_ns()
        chosen = [parts.endpoints.get(tenant, endpoint)] if endpoint else parts.endpoints.listed(tenant)
        alerts = _told(parts.alerts.listed(tenant, endpoint=endpoint, limit=1_000))
        workers = parts.endpoints.store.workers()
        return {
            "now": iso(now),
            "tenant": tenant,
            "release": __version__,
            "system": {
                "workers": [
                    {
                        "id": w.id,
                        "pid": w.pid,
                        "seen_s": (now - w.seen_at) / NANOSECONDS,
                        "healthy": alive(w, now),
                    }
                    for w in workers
                ],
                "journal": parts.store.journal_totals(CONSUMER),
            },
            "endpoints": [
                self._endpoint(e, alerts, now=now, up=any(alive(w, now) for w in workers)) for e in chosen
            ],
            "alerts": alerts,
            "rollouts": [
                rollout.to_dict() for rollout in parts.rollouts.listed(tenant, endpoint=endpoint)[:20]
            ],
            "retrainings": [r for r in parts.retrainings(tenant) if endpoint in (None, r["endpoint"])][:20],
        }

    def shadow(self, tenant: str, rollout: int) -> dict[str, Any] | None:
        """How the scores of a rollout's shadow differ from the answers so far; None of one that has ended, or copies nothing.

        Raises:
            RolloutNotFound
        """
        found = self._parts.rollouts.get(tenant, rollout)
        if found.plan["strategy"] != "shadow" or found.began_at is None or found.ended_at is not None:
            return None
        mark = Mark(**found.marks)
        compared = self._parts.evidence.shadow(tenant, found.endpoint, version=found.candidate, mark=mark)
        return {
            "rows": compared.rows,
            "flips": compared.flips,
            "mean": compared.difference.mean if compared.rows else None,
            "deviation": compared.difference.variance**0.5 if compared.rows > 1 else None,
            "worst": compared.worst if compared.rows else None,
        }

    def _endpoint(
        self, endpoint: Endpoint, alerts: list[dict[str, Any]], *, now: int, up: bool
    ) -> dict[str, Any]:
        store = self._parts.store
        route = self._parts.endpoints.current_route(endpoint)
        counters = store.all_counters(endpoint.tenant, endpoint.name)
        slots = store.recent_slots(endpoint.tenant, endpoint.name, since=(now // BAR - SERIES_BARS) * BAR)
        feedback = store.feedback_totals(endpoint.tenant, endpoint.name)
        versions = [
            self._version(endpoint, number, route=route, counters=counters)
            for number in _shown(route, counters)
        ]
        return {
            "name": endpoint.name,
            "model": endpoint.model,
            "health": _health(endpoint, route, alerts=alerts, up=up),
            "route": route.to_dict(),
            "traffic": {
                **{
                    name: sum(row[name] for row in counters)
                    for name in ("requests", "failed", "rejected", "rows")
                },
                "per_second": _per_second(slots, now),
                "series": _series(slots, now),
            },
            "latency_ms": _latency_ms(slots, counters),
            "labels": self._labels(endpoint, counters, feedback=feedback),
            "versions": versions,
        }

    def _labels(self, endpoint: Endpoint, counters: list[Row], *, feedback: Row) -> dict[str, Any]:
        rows, matured = (sum(row[name] for row in counters) for name in ("rows", "matured"))
        ages = []
        for row in counters:
            key = {"tenant": endpoint.tenant, "endpoint": endpoint.name, "version": row["version"]}
            ages += [window["label_age_s"] for window in self._parts.store.performance(key, limit=1)]
        return {
            "predictions": rows,
            "matured": matured,
            "coverage": matured / rows if rows else None,
            "age_s": float(np.median(ages)) if ages else None,
            "feedback": feedback,
        }

    def _version(
        self, endpoint: Endpoint, number: int, *, route: Route, counters: list[Row]
    ) -> dict[str, Any]:
        version = self._parts.registry.version(endpoint.tenant, endpoint.model, reference=number)
        key = {"tenant": endpoint.tenant, "endpoint": endpoint.name, "version": number}
        counted = next((row for row in counters if row["version"] == number), None)
        reference = {name: version.metrics.get(name) for name in ("auc", "auc_low", "auc_high", "ks", "gini")}
        return {
            "version": number,
            "role": _role(number, route),
            "weight": route.weights.get(number, 0.0),
            "requests": counted["requests"] if counted else 0,
            "rows": counted["rows"] if counted else 0,
            "matured": counted["matured"] if counted else 0,
            "last_at": iso(counted["last_at"]) if counted else None,
            "last_at_ns": counted["last_at"] if counted else None,
            "format": version.format,
            "created_at": iso(version.created_at),
            "reference": reference if reference["auc"] is not None else None,
            "metrics": dict(version.metrics),
            "performance": [
                _performance(row) for row in reversed(self._parts.store.performance(key, limit=60))
            ],
            "drift": self._drift(endpoint, version),
        }

    def _drift(self, endpoint: Endpoint, version: Version) -> dict[str, Any] | None:
        drift = self._parts.monitor.drift(self._parts.watched(endpoint, version))
        if drift is None:
            return None
        return {**drift, "first_event": iso(drift["first_event"]), "last_event": iso(drift["last_event"])}


def _told(alerts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every open alert and the newest that are over; newest first."""
    over = [alert["id"] for alert in alerts if alert["state"] != "open"][:_SHOWN_RESOLVED]
    return [alert for alert in alerts if alert["state"] == "open" or alert["id"] in over]


def _shown(route: Route, counters: list[Row]) -> list[int]:
    """Versions of the Route first, by weight, then the newest that answered before."""
    serving = sorted(route.versions(), key=lambda number: -route.weights.get(number, 0.0))
    earlier = sorted((row["version"] for row in counters if row["version"] not in serving), reverse=True)
    return [*serving, *earlier][:_SHOWN_VERSIONS]


def _role(number: int, route: Route) -> str:
    if number in route.shadows:
        return "shadow"
    if number not in route.weights:
        return "segment" if number in route.versions() else "previous"
    return "champion" if number == next(iter(route.weights)) else "candidate"


def _health(endpoint: Endpoint, route: Route, *, alerts: list[dict[str, Any]], up: bool) -> str:
    if not route.weights:
        return "idle"
    worst = {a["severity"] for a in alerts if a["endpoint"] == endpoint.name and a["state"] == "open"}
    if not up or "emergency" in worst:
        return "down"
    return "degraded" if "critical" in worst else "ok"


def _per_second(slots: list[Row], now: int) -> float:
    """Requests per second over the newest whole bars, up to a quarter of a minute."""
    newest = now // BAR * BAR
    counted = [slot for slot in slots if newest - 3 * BAR <= slot["start"] < newest]
    span = max(1, len({slot["start"] // BAR for slot in counted})) * BAR_S
    return float(sum(slot["requests"] for slot in counted) / span)


def _series(slots: list[Row], now: int) -> list[dict[str, Any]]:
    """Traffic per bar, oldest first, gaps as zeros, the running bar left out."""
    last = now // BAR * BAR
    requests: Counter[int] = Counter()
    failed: Counter[int] = Counter()
    for slot in slots:
        bar = slot["start"] // BAR * BAR
        requests[bar] += slot["requests"]
        failed[bar] += slot["failed"]
    if not requests:
        return []
    first = max(min(requests), last - SERIES_BARS * BAR)
    return [
        {"at": start // NANOSECONDS, "requests": requests[start], "failed": failed[start]}
        for start in range(first, last, BAR)
    ]


def _latency_ms(slots: list[Row], counters: list[Row]) -> dict[str, float | None]:
    """Quantiles over the recent slots, or over everything where there was no traffic lately."""
    parts = [row["latency"] for row in slots] or [row["latency"] for row in counters]
    counts = sum((unpack_counts(part) for part in parts), np.zeros(latency.BUCKETS, np.int64))
    if not counts.sum():
        return {"p50": None, "p95": None, "p99": None}
    return {f"p{round(q * 100)}": latency.quantile(counts, q) * 1000 for q in (0.5, 0.95, 0.99)}


def _performance(row: Row) -> dict[str, Any]:
    shown = {name: row[name] for name in ("number", "rows", "positives", "coverage", "label_age_s")}
    scores = {name: row["scores"].get(name) for name in ("auc", "auc_low", "auc_high", "ks", "gini")}
    shown |= {"task": row["task"], "early_labels": row["early_labels"], "measures": row["scores"]}
    return {**shown, **scores, "first_event": iso(row["first_event"]), "last_event": iso(row["last_event"])}
