"""Alerts: opened once, updated while they last, resolved with hysteresis. One per tenant, endpoint, kind and version.

Alerts of one endpoint and kind that are open at the same time are one incident; what people are told, acknowledge and silence is of it.
What routes are told is written in the transaction that opens, worsens or resolves an alert: there is no alert without its notices.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from predis.access.audit import Audit
from predis.clock import Clock, iso
from predis.errors import AlertNotFound, IllegalTransition
from predis.events import AlertRaised, AlertResolved, Bus
from predis.monitoring.alerting.hysteresis import Change, Patience, Sight, Standing, step
from predis.monitoring.alerting.kinds import KINDS, kind_of
from predis.monitoring.alerting.outbox import Outbox
from predis.monitoring.alerting.severity import Severity
from predis.monitoring.alerting.silences import silenced
from predis.monitoring.alerting.store import AlertingStore
from predis.monitoring.store import MonitoringStore, Row
from predis.state.engine import Database

__all__ = ["CALM_LOOKS", "KINDS", "Alerts", "Finding", "Severity"]

# Looks in a row without the condition before an alert is resolved, where its kind says nothing else.
CALM_LOOKS = Patience().closing
_MOMENTS = ("opened_at", "seen_at", "event_at", "ended_at", "raised_at", "acknowledged_at")
Key = tuple[str, str, str, int | None]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A condition that holds now, as a check found it. ``event_at``: the newest event it rests on.

    ``holds``: it is between the limits for closing and for opening, which keeps an open alert open and opens none.
    """

    tenant: str
    endpoint: str
    kind: str
    severity: Severity
    message: str
    command: str
    event_at: int
    version: int | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    holds: bool = False

    @property
    def key(self) -> Key:
        return (self.tenant, self.endpoint, self.kind, self.version)


class Alerts:
    """Turns findings into alerts, lists and acknowledges them."""

    def __init__(self, database: Database, *, clock: Clock, bus: Bus) -> None:
        self._database = database
        self._store = MonitoringStore(database)
        self._alerting = AlertingStore(database)
        self._outbox = Outbox(database, clock=clock)
        self._audit = Audit(database, clock)
        self._clock = clock
        self._bus = bus
        self._standings: dict[Key, Standing] = {}

    def report(self, tenant: str, endpoint: str, *, findings: Iterable[Finding]) -> None:
        """Tell everything that is wrong with an endpoint now; what is open and not among it calms down."""
        found: dict[Key, Finding] = {}
        for finding in findings:
            if finding.key not in found or _weight(finding) > _weight(found[finding.key]):
                found[finding.key] = finding
        rows = {_key(row): row for row in self._open(tenant, endpoint)}
        mine = {key for key in self._standings if key[:2] == (tenant, endpoint)}
        for key in sorted(found.keys() | rows.keys() | mine, key=str):
            self._look(key, found.get(key), row=rows.get(key))

    def _open(self, tenant: str, endpoint: str) -> list[Row]:
        rows = self._store.alerts(tenant, endpoint=endpoint, limit=1_000)
        return [row for row in rows if row["state"] == "open"]

    def _look(self, key: Key, finding: Finding | None, *, row: Row | None) -> None:
        before = self._standing(key, row)
        sight = None if finding is None else Sight(finding.severity, finding.holds)
        after, change = step(before, sight, patience=kind_of(key[2]).patience)
        alert = row["id"] if row else 0
        if change is not Change.NOTHING or (finding is not None and row is not None):
            alert = self._write(key, finding, row=row, severity=after.severity, change=change)
        # Only now: a look that could not be stored has not been.
        if after == Standing():
            self._standings.pop(key, None)
        else:
            self._standings[key] = after
        self._publish(key, alert, change=change, severity=after.severity)

    def _standing(self, key: Key, row: Row | None) -> Standing:
        """As this process remembers it, corrected by what the database knows: another process may have looked."""
        known = self._standings.get(key, Standing())
        severity = Severity.of(row["severity"]) if row else None
        return known if known.severity == severity else Standing(severity)

    def _write(
        self,
        key: Key,
        finding: Finding | None,
        *,
        row: Row | None,
        severity: Severity | None,
        change: Change,
    ) -> int:
        """Store what a look changed, and what routes are to be told of it; the alert's id."""
        now = self._clock.time_ns()
        values = {} if finding is None else _seen(finding, now=now)
        if severity is not None:
            values["severity"] = severity.word
        if change is Change.WORSENED:  # who acknowledged the milder one has not seen this
            values |= {"raised_at": now, "acknowledged_at": None, "acknowledged_by": "", "note": ""}
        if change is Change.RESOLVED:
            values |= {"state": "resolved", "ended_at": now}
        with self._database.write() as connection:
            if row is None:
                head = dict(zip(("tenant", "endpoint", "kind", "version"), key, strict=True))
                incident = self._alerting.open_incident(connection, head) or uuid.uuid4().hex
                alert = self._store.add_alert(
                    connection, {**head, **values, **_new(now), "incident": incident}
                )
            else:
                alert, incident = row["id"], row["incident"]
                looks = row["looks"] + (finding is not None)
                self._store.update_alert(connection, alert, values={**values, "looks": looks})
            if change is not Change.NOTHING:
                self._outbox.reconcile(connection, key[0], incident=incident)
        return alert

    def _publish(self, key: Key, alert: int, *, change: Change, severity: Severity | None) -> None:
        tenant, endpoint, kind, version = key
        now = self._clock.time_ns()
        if change in (Change.OPENED, Change.WORSENED) and severity is not None:
            self._bus.publish(
                AlertRaised(
                    tenant=tenant, at_ns=now, alert=alert, endpoint=endpoint, version=version, kind=kind, severity=severity.word,
                )
            )  # fmt: skip
        if change is Change.RESOLVED:
            self._bus.publish(AlertResolved(tenant=tenant, at_ns=now, alert=alert, endpoint=endpoint))

    def acknowledge(self, tenant: str, alert: int, *, actor: str, note: str = "") -> dict[str, Any]:
        """Somebody takes care of an alert's incident: nothing escalates any more, and routes are told who.

        Raises:
            AlertNotFound
            IllegalTransition: it is over.
        """
        with self._database.write() as connection:
            row = self._alerting.alert(connection, tenant, alert=alert)
            if row is None:
                raise _not_found(alert)
            values = {"acknowledged_at": self._clock.time_ns(), "acknowledged_by": actor, "note": note}
            if row["state"] != "open":
                raise IllegalTransition(
                    f"alert {alert} was over at {iso(row['ended_at'])}; there is nothing to do"
                )
            self._alerting.acknowledge(connection, row["incident"], values=values)
            self._outbox.reconcile(connection, tenant, incident=row["incident"])
            detail = {"incident": row["incident"], "note": note}
            self._audit.add(
                connection, tenant, actor=actor, action="alert.acknowledge", target=str(alert), detail=detail
            )
        return self.shown(tenant, alert)

    def shown(self, tenant: str, alert: int) -> dict[str, Any]:
        """One alert with what each route was told of its incident, newest first.

        Raises:
            AlertNotFound
        """
        with self._database.read() as connection:
            row = self._alerting.alert(connection, tenant, alert=alert)
        if row is None:
            raise _not_found(alert)
        deliveries = self._alerting.deliveries(tenant, incident=row["incident"])
        columns = ("route", "event", "severity", "state", "attempts", "error", "key")
        moments = ("created_at", "due_at", "ended_at")
        (alert_shown,) = self._shown(tenant, [row])
        return {
            **alert_shown,
            "meaning": kind_of(row["kind"]).meaning,
            "deliveries": [
                {name: each[name] for name in columns} | {name: iso(each[name]) for name in moments}
                for each in deliveries
            ],
        }

    def listed(self, tenant: str, *, endpoint: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Newest first."""
        return self._shown(tenant, self._store.alerts(tenant, endpoint=endpoint, limit=limit))

    def _shown(self, tenant: str, rows: list[Row]) -> list[dict[str, Any]]:
        now = self._clock.time_ns()
        silences = self._alerting.silences(tenant, until=now)
        return [
            {
                **row,
                **{name: iso(row[name]) for name in _MOMENTS},
                "look_at": kind_of(row["kind"]).look_at,
                "silenced": row["state"] == "open" and silenced(row, silences, now=now),
            }
            for row in rows
        ]


def _seen(finding: Finding, *, now: int) -> Row:
    return {
        "message": finding.message, "evidence": dict(finding.evidence), "command": finding.command, "seen_at": now,
        "event_at": finding.event_at,
    }  # fmt: skip


def _new(now: int) -> Row:
    """The columns of an alert just opened that no finding tells."""
    return {
        "state": "open",
        "opened_at": now,
        "raised_at": now,
        "looks": 1,
        "acknowledged_by": "",
        "note": "",
    }


def _key(row: Row) -> Key:
    return (row["tenant"], row["endpoint"], row["kind"], row["version"])


def _weight(finding: Finding) -> tuple[bool, Severity]:
    return not finding.holds, finding.severity


def _not_found(alert: int) -> AlertNotFound:
    return AlertNotFound(f"there is no alert {alert}; `predis alerts list` shows them")
