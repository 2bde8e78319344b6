"""The book of routes: whom a tenant's alerts are told to. Kept in the database.

Administrators add and remove routes. Others are declared, by ``predis.toml`` or by the setting ``exporters``: when control starts, the
book is made to say what they say, and until then nobody changes those but they.
"""

from __future__ import annotations

import logging
import math
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from predis.access.audit import Audit
from predis.clock import Clock, iso
from predis.errors import AlreadyExists, InvalidInput, NotFound
from predis.monitoring.alerting.channels import channel_of
from predis.monitoring.alerting.deliverer import Deliverer
from predis.monitoring.alerting.notices import test_notice
from predis.monitoring.alerting.severity import Severity
from predis.monitoring.alerting.store import FAILED, FOLDED, SENT, WAITING, AlertingStore, Row
from predis.state.engine import Database

log = logging.getLogger(__name__)

# What may declare routes, and where a route of it is changed.
ORIGINS: Mapping[str, str] = {
    "predis.toml": "change [alerts.routes] there, and start control again",
    "exporters": "change the setting exporters, and start control again",
}
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_LONGEST_WAIT_S = 7 * 86_400


@dataclass(frozen=True, kw_only=True)
class AlertRoute:
    """One route.

    Args:
        endpoint, kinds: shell patterns of what it is told of; empty: all.
        severity: the least that it is told of.
        after_s: it is told only once an incident went unacknowledged for so long; 0: at once.
        per_hour: notices in an hour beyond which the rest comes as a summary.
    """

    name: str
    channel: str
    config: Mapping[str, Any]
    endpoint: str = ""
    kinds: tuple[str, ...] = ()
    severity: str = Severity.WARNING.word
    after_s: float = 0.0
    per_hour: int = 60
    created_by: str = field(default="", compare=False)

    def check(self) -> None:
        """
        Raises:
            InvalidInput: a part of it cannot be used.
        """
        if not _NAME.fullmatch(self.name):
            raise InvalidInput(
                f"a route's name is of a-z, 0-9, _ and -, at most 64 of them, got {self.name!r:.80}"
            )
        channel_of(self.channel).check(self.config, f"route {self.name!r} ({self.channel})")
        Severity.of(self.severity)
        if not math.isfinite(self.after_s) or not 0 <= self.after_s <= _LONGEST_WAIT_S:
            raise InvalidInput(f"route {self.name!r}: after_s is 0 to {_LONGEST_WAIT_S} seconds")
        if not 1 <= self.per_hour <= 100_000:
            raise InvalidInput(f"route {self.name!r}: per_hour is 1 to 100000")


# A route that nobody added, and of which tenant.
Declared = tuple[str, AlertRoute]


class RouteBook:
    """The routes of all tenants."""

    def __init__(self, database: Database, deliverer: Deliverer, *, clock: Clock) -> None:
        self._database = database
        self._deliverer = deliverer
        self._store = AlertingStore(database)
        self._audit = Audit(database, clock)
        self._clock = clock

    def add(self, tenant: str, route: AlertRoute, *, actor: str) -> dict[str, Any]:
        """
        Raises:
            InvalidInput: a part of it cannot be used.
            AlreadyExists
        """
        route.check()
        row = self._row(tenant, route, actor=actor)
        with self._database.write() as connection:
            if not self._store.add_route(connection, row):
                raise AlreadyExists(f"there is a route {route.name!r} already; remove it first")
            self._note(connection, tenant, actor=actor, action="alert_route.add", row=row)
        return _shown(row, {})

    def remove(self, tenant: str, name: str, *, actor: str) -> None:
        """Remove a route, and what it was still to be told.

        Raises:
            NotFound
            InvalidInput: it is declared; whoever declares it would only bring it back.
        """
        row = self._get(tenant, name)
        if row["origin"]:
            raise InvalidInput(
                f"route {name!r} is declared by {row['origin']}: {ORIGINS.get(row['origin'], 'remove it there')}"
            )
        with self._database.write() as connection:
            self._store.remove_route(connection, tenant, name=name)
            self._note(connection, tenant, actor=actor, action="alert_route.remove", row=row)

    def declare(self, routes: Sequence[Declared], *, origin: str) -> None:
        """Make the routes of an origin those given: add, change, remove. What is unchanged goes on, with what it is still to be told.

        A name that somebody has given to a route of their own stays theirs; that is logged.
        """
        with self._database.write() as connection:
            before = {
                (row["tenant"], row["name"]): row for row in self._store.routes_from(connection, origin)
            }
            for tenant, route in routes:
                row = self._row(tenant, route, actor=origin, origin=origin)
                old = before.pop((tenant, route.name), None)
                if old is not None and all(old[name] == row[name] for name in row if name != "created_at"):
                    continue
                if old is not None:
                    self._store.change_route(connection, row)
                elif not self._store.add_route(connection, row):
                    log.warning(
                        "route %s of %s is not used: somebody added one of that name; remove that with "
                        "`predis alerts route remove %s` and start control again", route.name, origin, route.name,
                    )  # fmt: skip
                    continue
                self._note(connection, tenant, actor=origin, action="alert_route.add", row=row)
            for (tenant, name), row in before.items():
                self._store.remove_route(connection, tenant, name=name)
                self._note(connection, tenant, actor=origin, action="alert_route.remove", row=row)

    def test(self, tenant: str, name: str, *, actor: str) -> dict[str, Any]:
        """Send a test notice now, once, past the outbox: whether it was taken, and what went wrong.

        Raises:
            NotFound
        """
        route = self._get(tenant, name)
        key = uuid.uuid4().hex
        notice = test_notice(name, tenant=tenant, key=key, at=self._clock.time_ns())
        with self._database.write() as connection:
            self._note(connection, tenant, actor=actor, action="alert_route.test", row=route)
        problem = self._deliverer.attempt(route, notice=notice, key=key)
        return {"route": name, "sent": problem is None, "error": str(problem) if problem else ""}

    def listed(self, tenant: str) -> list[dict[str, Any]]:
        """With how many notices each was sent, and how many wait; by name. Of secrets only where they are found. ``origin``: what
        declares it; empty of one that somebody added.
        """
        with self._database.read() as connection:
            rows = self._store.routes(connection, tenant)
        counts = self._store.counts(tenant)
        states = (WAITING, SENT, FAILED, FOLDED)
        shown = [
            _shown(row, {state: counts.get((row["name"], state), 0) for state in states}) for row in rows
        ]
        for row in shown:
            newest = self._store.deliveries(tenant, route=row["name"])
            row["error"] = next((each["error"] for each in newest if each["error"]), "")
        return shown

    def _row(self, tenant: str, route: AlertRoute, *, actor: str, origin: str = "") -> Row:
        return {
            **asdict(route), "kinds": list(route.kinds), "tenant": tenant, "created_at": self._clock.time_ns(), "created_by": actor,
            "origin": origin,
        }  # fmt: skip

    def _get(self, tenant: str, name: str) -> Row:
        with self._database.read() as connection:
            row = self._store.route(connection, tenant, name=name)
        if row is None:
            raise NotFound(f"there is no alert route {name!r:.80}; `predis alerts route list` shows them")
        return row

    def _note(self, connection: Any, tenant: str, *, actor: str, action: str, row: Row) -> None:
        detail = {"channel": row["channel"], "severity": row["severity"], "config": row["config"]}
        self._audit.add(connection, tenant, actor=actor, action=action, target=row["name"], detail=detail)


def _shown(row: Row, counts: Mapping[str, int]) -> dict[str, Any]:
    shown = {name: value for name, value in row.items() if name != "tenant"}
    return {**shown, "created_at": iso(row["created_at"]), **counts}
