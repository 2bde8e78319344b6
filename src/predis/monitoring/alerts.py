"""Alerts: opened once, updated while they last, resolved with hysteresis. One per tenant, endpoint, kind and version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from predis.clock import Clock, iso
from predis.events import AlertRaised, AlertResolved, Bus
from predis.monitoring.store import MonitoringStore
from predis.state.engine import Database

# Looks in a row without the condition before an alert is resolved: a value at its limit must not open and close all day.
CALM_LOOKS = 3


class Severity(IntEnum):
    """What an alert asks of people. Moved inputs inform or warn; only consequences are critical."""

    INFO = 0
    WARNING = 1
    CRITICAL = 2
    EMERGENCY = 3

    @property
    def word(self) -> str:
        return self.name.lower()


KINDS: Mapping[str, str] = {
    "performance": "a version's quality on matured labels fell below its reference",
    "drift": "inputs of a version moved away from its reference profile",
    "errors": "too large a share of an endpoint's predictions failed",
    "latency": "an endpoint answers too slowly",
    "endpoint_down": "no worker answers for an endpoint",
    "evidence": "records of predictions were lost before they could be read",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A condition that holds now, as a check found it. ``event_at``: the newest event it rests on."""

    tenant: str
    endpoint: str
    kind: str
    severity: Severity
    message: str
    command: str
    event_at: int
    version: int | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str, int | None]:
        return (self.tenant, self.endpoint, self.kind, self.version)


class Alerts:
    """Turns findings into alerts and lists them."""

    def __init__(self, database: Database, *, clock: Clock, bus: Bus) -> None:
        self._database = database
        self._store = MonitoringStore(database)
        self._clock = clock
        self._bus = bus
        self._calm: dict[int, int] = {}

    def report(self, tenant: str, endpoint: str, *, findings: list[Finding]) -> None:
        """Tell everything that is wrong with an endpoint now; what is open and not among it calms down."""
        for finding in findings:
            self._raise(finding)
        present = {finding.key for finding in findings}
        for alert in self._store.alerts(tenant, endpoint=endpoint, limit=1_000):
            if (
                alert["state"] == "open"
                and (tenant, endpoint, alert["kind"], alert["version"]) not in present
            ):
                self._calm_down(alert)

    def _raise(self, finding: Finding) -> None:
        now = self._clock.time_ns()
        tenant, endpoint, kind, version = finding.key
        key = {"tenant": tenant, "endpoint": endpoint, "kind": kind, "version": version}
        values = {
            "severity": finding.severity.word, "message": finding.message, "evidence": dict(finding.evidence),
            "command": finding.command, "seen_at": now, "event_at": finding.event_at,
        }  # fmt: skip
        with self._database.write() as connection:
            found = self._store.open_alert(connection, key)
            if found is None:
                alert = self._store.add_alert(
                    connection, {**key, **values, "state": "open", "opened_at": now, "looks": 1}
                )
            else:
                alert = found["id"]
                self._store.update_alert(connection, alert, values={**values, "looks": found["looks"] + 1})
        self._calm.pop(alert, None)
        if found is None or Severity[found["severity"].upper()] < finding.severity:
            event = AlertRaised(
                tenant=tenant,
                at_ns=now,
                alert=alert,
                endpoint=endpoint,
                version=version,
                kind=kind,
                severity=finding.severity.word,
            )
            self._bus.publish(event)

    def _calm_down(self, alert: dict[str, Any]) -> None:
        self._calm[alert["id"]] = self._calm.get(alert["id"], 0) + 1
        if self._calm[alert["id"]] < CALM_LOOKS:
            return
        now = self._clock.time_ns()
        with self._database.write() as connection:
            self._store.update_alert(connection, alert["id"], values={"state": "resolved", "ended_at": now})
        del self._calm[alert["id"]]
        self._bus.publish(
            AlertResolved(tenant=alert["tenant"], at_ns=now, alert=alert["id"], endpoint=alert["endpoint"])
        )

    def listed(self, tenant: str, *, endpoint: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Newest first."""
        moments = ("opened_at", "seen_at", "event_at", "ended_at")
        return [
            {**row, **{name: iso(row[name]) for name in moments}}
            for row in self._store.alerts(tenant, endpoint=endpoint, limit=limit)
        ]
