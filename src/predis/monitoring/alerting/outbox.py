"""The outbox: what each route is to be told of an incident, as rows that are written with the alert itself.

It is level-triggered: whatever happened, ``reconcile`` compares what an incident is now with what each route was last told of it, and
writes the difference. So the same few lines serve a new alert, one that grew worse, an acknowledgement, an end, a silence that ran
out, a route that was added later, and the next route when nobody has acknowledged in time.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from predis.clock import NANOSECONDS, Clock, iso
from predis.monitoring.alerting.notices import Notice, incident_notice, summary_notice
from predis.monitoring.alerting.severity import Severity
from predis.monitoring.alerting.silences import silenced
from predis.monitoring.alerting.store import FOLDED, WAITING, AlertingStore, Row
from predis.state.engine import Database

_HOUR = 3_600 * NANOSECONDS
SUMMARY_S = 300.0


@dataclass(frozen=True)
class _Wanted:
    """What a route is to know of an incident. ``alerts``: those it is about."""

    event: str
    severity: Severity
    alerts: Sequence[Row]


class Outbox:
    """Writes deliveries; ``Deliverer`` carries them out."""

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._store = AlertingStore(database)
        self._clock = clock

    def look(self) -> int:
        """Deliveries that time alone made due to be written: silences that ran out, escalation, summaries, new routes."""
        with self._database.read() as connection:
            incidents = self._store.open_incidents(connection)
            behind = [each for each in incidents if self._missing(connection, each[0], incident=each[1])]
            folded = self._store.folded(connection)
        if not behind and not folded:
            return 0
        with self._database.write() as connection:
            told = sum(self.reconcile(connection, tenant, incident=incident) for tenant, incident in behind)
            return told + sum(self._sum_up(connection, each[0], route=each[1]) for each in folded)

    def listed(self, tenant: str, *, limit: int) -> list[dict[str, Any]]:
        """What routes are to be told, and were: what waits first, then the newest. ``due_at``: when it is tried next, or was."""
        columns = ("id", "route", "incident", "event", "severity", "state", "attempts", "error")
        moments = ("created_at", "due_at", "ended_at")
        return [
            {name: row[name] for name in columns}
            | {"title": row["notice"]["title"]}
            | {name: iso(row[name]) for name in moments}
            for row in self._store.newest_deliveries(tenant, limit=limit)
        ]

    def reconcile(self, connection: Any, tenant: str, *, incident: str) -> int:
        """Write what routes have still to be told of an incident; how many deliveries."""
        missing = self._missing(connection, tenant, incident=incident)
        now = self._clock.time_ns()
        for route, told, wanted in missing:
            notice = incident_notice(
                wanted.event, wanted.alerts, at=now, escalated=route["after_s"] > 0 and told is None
            )
            self._write(
                connection,
                route,
                notice=notice,
                fold=self._folds(connection, route, told=told, wanted=wanted),
            )
        return len(missing)

    def _missing(
        self, connection: Any, tenant: str, *, incident: str
    ) -> list[tuple[Row, Row | None, _Wanted]]:
        """(route, what it was told last, what it is to be told)."""
        now = self._clock.time_ns()
        routes = self._store.routes(connection, tenant)
        if not routes:
            return []
        alerts = self._store.incident(connection, incident)
        silences = self._store.silences(tenant, until=now, connection=connection)
        audible = [
            alert for alert in alerts if alert["state"] == "open" and not silenced(alert, silences, now=now)
        ]
        told = self._store.told(connection, incident)
        found = []
        for route in routes:
            last = told.get(route["name"])
            wanted = _wanted(route, last, alerts=alerts, audible=audible, now=now)
            if wanted is not None:
                found.append((route, last, wanted))
        return found

    def _folds(self, connection: Any, route: Row, *, told: Row | None, wanted: _Wanted) -> bool:
        """Whether the route is told in a summary only. The end of what it was told goes out in any case."""
        if wanted.event == "resolved":
            return told is not None and told["state"] not in (WAITING, "sent", "failed")
        since = self._clock.time_ns() - _HOUR
        before = self._store.told_since(connection, route["tenant"], route=route["name"], since=since)
        return before >= int(route["per_hour"])

    def _sum_up(self, connection: Any, tenant: str, *, route: str) -> int:
        """Write a summary of what was folded, if the last one is long enough ago."""
        now = self._clock.time_ns()
        newest = self._store.newest_summary(connection, tenant, route=route)
        if now - newest < SUMMARY_S * NANOSECONDS:
            return 0
        folded = self._store.fold(connection, tenant, route=route)
        if not folded:
            return 0
        key = uuid.uuid4().hex
        notice = summary_notice(folded, tenant=tenant, key=key, at=now)
        self._write(connection, {"tenant": tenant, "name": route}, notice=notice, fold=False)
        return 1

    def _write(self, connection: Any, route: Mapping[str, Any], *, notice: Notice, fold: bool) -> None:
        now = self._clock.time_ns()
        self._store.add_delivery(
            connection,
            {
                "tenant": route["tenant"], "route": route["name"], "incident": notice["incident"], "event": notice["event"],
                "severity": notice["severity"], "key": uuid.uuid4().hex, "notice": notice, "state": FOLDED if fold else WAITING,
                "attempts": 0, "error": "", "created_at": now, "due_at": now, "ended_at": now if fold else None,
            },
        )  # fmt: skip


def _wanted(
    route: Row, told: Row | None, *, alerts: Sequence[Row], audible: Sequence[Row], now: int
) -> _Wanted | None:
    """What a route is to be told now; None where it knows all that concerns it."""
    active = told is not None and told["event"] != "resolved"
    if all(alert["state"] != "open" for alert in alerts):
        return _Wanted("resolved", _worst(alerts), alerts) if active else None
    mine = [alert for alert in audible if _concerns(route, alert)]
    if not mine:
        return None
    severity = _worst(mine)
    acknowledged = all(alert["acknowledged_at"] is not None for alert in mine)
    if not active:
        return _Wanted("raised", severity, mine) if _due(route, mine, now=now) else None
    assert told is not None
    if severity > Severity.of(told["severity"]):
        return _Wanted("worsened", severity, mine)
    if acknowledged and told["event"] != "acknowledged":
        return _Wanted("acknowledged", severity, mine)
    if not acknowledged and told["event"] == "acknowledged":  # another alert has joined the incident
        return _Wanted("raised", severity, mine)
    return None


def _concerns(route: Row, alert: Row) -> bool:
    return (
        (not route["endpoint"] or fnmatchcase(alert["endpoint"], route["endpoint"]))
        and (not route["kinds"] or any(fnmatchcase(alert["kind"], kind) for kind in route["kinds"]))
        and Severity.of(alert["severity"]) >= Severity.of(route["severity"])
    )


def _due(route: Row, alerts: Sequence[Row], *, now: int) -> bool:
    """At once; or, of a route that others escalate to, once nobody has acknowledged for as long as it says."""
    if not route["after_s"]:
        return True
    waiting = [alert["raised_at"] for alert in alerts if alert["acknowledged_at"] is None]
    return bool(waiting) and now - min(waiting) >= route["after_s"] * NANOSECONDS


def _worst(alerts: Sequence[Row]) -> Severity:
    return max(Severity.of(alert["severity"]) for alert in alerts)
