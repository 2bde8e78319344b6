"""Alerts, routes and receivers, and no control role around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from predis.clock import ManualClock
from predis.events import Bus
from predis.monitoring.alerting.book import AlertRoute
from predis.monitoring.alerting.desk import Desk
from predis.monitoring.alerting.silences import Silence
from predis.monitoring.alerts import CALM_LOOKS, Alerts, Finding, Severity
from predis.state import Database
from predis.state.schema import alert_deliveries
from tests.toys import ENDPOINT, SECOND, TENANT

SECRET = "5ecret-of-the-hook"


def finding(kind: str = "performance", severity: Severity = Severity.CRITICAL, **other: Any) -> Finding:
    given = {
        "tenant": TENANT, "endpoint": ENDPOINT, "version": 1, "message": "AUC fell to 0.61", "command": "predis monitor",
        "event_at": 1_600_000_000 * SECOND, "evidence": {"auc": 0.61}, **other,
    }  # fmt: skip
    return Finding(kind=kind, severity=severity, **given)


class World:
    def __init__(self, database: Database, folder: Path, clock: ManualClock) -> None:
        self.database, self.folder, self.clock = database, folder, clock
        folder.mkdir(exist_ok=True)
        (folder / "hook").write_text(SECRET + "\n")
        self.alerts = Alerts(database, clock=clock, bus=Bus())
        self.desk = Desk(database, folder, clock=clock)

    def restart(self) -> None:
        """Another process takes over; nothing may hang on what the old one remembered."""
        self.alerts = Alerts(self.database, clock=self.clock, bus=Bus())
        self.desk = Desk(self.database, self.folder, clock=self.clock)

    def look(self, *findings: Finding, endpoint: str = ENDPOINT, tenant: str = TENANT) -> None:
        self.clock.advance(1)
        self.alerts.report(tenant, endpoint, findings=list(findings))

    def resolve(self, endpoint: str = ENDPOINT) -> None:
        for _ in range(CALM_LOOKS):
            self.look(endpoint=endpoint)

    def route(self, name: str = "ops", url: str = "http://127.0.0.1:9/", **other: Any) -> None:
        given = {"channel": "webhook", "config": {"url": url, "secret": "file:hook"}, **other}
        self.desk.book.add(TENANT, AlertRoute(name=name, **given), actor="test")

    def silence(self, seconds: float = 60, **other: Any) -> int:
        now = self.clock.time_ns()
        silence = Silence(reason="test", starts_at=now, ends_at=now + round(seconds * SECOND), **other)
        return int(self.desk.silences.add(TENANT, silence, actor="ada")["id"])

    def pump(self) -> None:
        """What the loop does, to its end."""
        self.desk.look()
        self.desk.deliverer.finish()

    def rows(self, route: str | None = None) -> list[dict[str, Any]]:
        """The outbox, oldest first."""
        with self.database.read() as connection:
            found = connection.execute(sa.select(alert_deliveries).order_by(alert_deliveries.c.id))
            return [dict(row._mapping) for row in found if route in (None, row.route)]

    def told(self, route: str = "ops") -> list[tuple[str, str]]:
        """(event, severity) of what a route was, or is to be, told."""
        return [(row["event"], row["severity"]) for row in self.rows(route)]
