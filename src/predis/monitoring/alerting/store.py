"""The rows of alerting: routes, the outbox, silences, minutes of objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from predis.state.engine import Database
from predis.state.schema import (
    alert_deliveries,
    alert_routes,
    alert_silences,
    alerts,
    objective_minutes,
    traffic,
)

Row = dict[str, Any]
# States of a delivery. What is folded is told in a summary, not by itself.
WAITING, SENT, FAILED, FOLDED, SUMMARISED = "waiting", "sent", "failed", "folded", "summarised"
# Of routes that are told of the alerts of all tenants.
EVERY_TENANT = "*"
_MINUTE = 60 * 1_000_000_000
_SOME = 20


class AlertingStore:
    """Methods that take a connection belong to the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- alerts as the outbox sees them --------------------------------------------------------------------------------

    def incident(self, connection: sa.Connection, incident: str) -> list[Row]:
        """Its alerts, oldest first."""
        return _rows(connection, sa.select(alerts).filter_by(incident=incident).order_by(alerts.c.id))

    def open_incident(self, connection: sa.Connection, alert: Mapping[str, Any]) -> str | None:
        """The incident of an endpoint and kind that has an open alert."""
        key = {name: alert[name] for name in ("tenant", "endpoint", "kind")}
        statement = sa.select(alerts.c.incident).filter_by(**key, state="open").limit(1)
        return connection.execute(statement).scalar_one_or_none()

    def open_incidents(self, connection: sa.Connection) -> list[tuple[str, str]]:
        """(tenant, incident) of every one that has an open alert."""
        statement = sa.select(alerts.c.tenant, alerts.c.incident).filter_by(state="open").distinct()
        return [(row.tenant, row.incident) for row in connection.execute(statement)]

    def alert(self, connection: sa.Connection, tenant: str, *, alert: int) -> Row | None:
        return _row(connection, sa.select(alerts).filter_by(tenant=tenant, id=alert))

    def acknowledge(self, connection: sa.Connection, incident: str, *, values: Row) -> int:
        """How many open alerts it were."""
        open_ = alerts.update().filter_by(incident=incident, state="open")
        return connection.execute(open_.values(values)).rowcount

    # -- routes --------------------------------------------------------------------------------------------------------

    def routes(self, connection: sa.Connection, tenant: str) -> list[Row]:
        """A tenant's routes and those of every tenant, as the tenant's, by name."""
        return [
            {**row, "tenant": tenant}
            for row in _rows(connection, _routes_of(tenant).order_by(alert_routes.c.name))
        ]

    def route(self, connection: sa.Connection, tenant: str, *, name: str) -> Row | None:
        """One of ``routes``."""
        row = _row(connection, _routes_of(tenant).filter_by(name=name))
        return None if row is None else {**row, "tenant": tenant}

    def routes_from(self, connection: sa.Connection, origin: str) -> list[Row]:
        """Those of all tenants that one origin declares."""
        return _rows(connection, sa.select(alert_routes).filter_by(origin=origin))

    def add_route(self, connection: sa.Connection, row: Row) -> bool:
        """Whether there was none of this name."""
        return bool(connection.execute(self._database.insert_new(alert_routes), row).rowcount)

    def change_route(self, connection: sa.Connection, row: Row) -> None:
        """Put a route in the place of that of its tenant and name. What it is still to be told stays."""
        key = {name: row[name] for name in ("tenant", "name")}
        connection.execute(alert_routes.update().filter_by(**key).values(row))

    def remove_route(self, connection: sa.Connection, tenant: str, *, name: str) -> bool:
        """Whether there was one. What it was still to be told is dropped with it."""
        dropped = alert_deliveries.delete().filter_by(route=name)
        if tenant != EVERY_TENANT:
            dropped = dropped.filter_by(tenant=tenant)
        connection.execute(dropped)
        return bool(connection.execute(alert_routes.delete().filter_by(tenant=tenant, name=name)).rowcount)

    # -- the outbox ----------------------------------------------------------------------------------------------------

    def told(self, connection: sa.Connection, incident: str) -> dict[str, Row]:
        """The newest delivery of an incident to each route, by route."""
        statement = sa.select(alert_deliveries).filter_by(incident=incident).order_by(alert_deliveries.c.id)
        return {row["route"]: row for row in _rows(connection, statement)}

    def told_since(self, connection: sa.Connection, tenant: str, *, route: str, since: int) -> int:
        """Deliveries to a route that count towards its limit, made since a moment: not what was folded, nor what ends an incident."""
        d = alert_deliveries.c
        statement = (
            sa.select(sa.func.count())
            .select_from(alert_deliveries)
            .filter_by(tenant=tenant, route=route)
            .where(
                d.created_at > since,
                d.state.in_((WAITING, SENT, FAILED)),
                d.event.not_in(("resolved", "summary", "test")),
            )
        )
        return int(connection.execute(statement).scalar_one())

    def add_delivery(self, connection: sa.Connection, row: Row) -> int:
        statement = alert_deliveries.insert().values(row).returning(alert_deliveries.c.id)
        return int(connection.execute(statement).scalar_one())

    def due(self, connection: sa.Connection, *, now: int, farthest: int, limit: int) -> list[Row]:
        """What may be sent now: of each incident and route only the oldest that waits, so that their order stays.

        ``farthest``: beyond that nothing is put off; what is said to be is of a clock that was ahead.
        """
        d, earlier = alert_deliveries.c, alert_deliveries.alias()
        first = (
            sa.select(sa.func.min(earlier.c.id))
            .where(
                earlier.c.state == WAITING,
                earlier.c.tenant == d.tenant,
                earlier.c.route == d.route,
                earlier.c.incident == d.incident,
            )
            .scalar_subquery()
        )
        statement = (
            sa.select(alert_deliveries)
            .where(d.state == WAITING, sa.or_(d.due_at <= now, d.due_at > farthest), d.id == first)
            .order_by(d.id)
            .limit(limit)
        )
        return _rows(connection, statement)

    def claim(self, connection: sa.Connection, delivery: Row, *, until: int) -> bool:
        """Take a delivery for oneself until a moment; False where somebody else has."""
        statement = (
            alert_deliveries.update()
            .filter_by(id=delivery["id"], state=WAITING, due_at=delivery["due_at"])
            .values(due_at=until, attempts=alert_deliveries.c.attempts + 1)
        )
        return bool(connection.execute(statement).rowcount)

    def end_delivery(self, connection: sa.Connection, delivery: int, *, values: Row) -> None:
        connection.execute(alert_deliveries.update().filter_by(id=delivery).values(values))

    def folded(self, connection: sa.Connection) -> list[tuple[str, str]]:
        """(tenant, route) that have something to be summed up."""
        d = alert_deliveries.c
        statement = sa.select(d.tenant, d.route).filter_by(state=FOLDED).distinct()
        return [(row.tenant, row.route) for row in connection.execute(statement)]

    def fold(self, connection: sa.Connection, tenant: str, *, route: str) -> list[Row]:
        """What a route's next summary is about; it is in no other."""
        key = {"tenant": tenant, "route": route, "state": FOLDED}
        found = _rows(
            connection, sa.select(alert_deliveries).filter_by(**key).order_by(alert_deliveries.c.id)
        )
        connection.execute(alert_deliveries.update().filter_by(**key).values(state=SUMMARISED))
        return found

    def newest_summary(self, connection: sa.Connection, tenant: str, *, route: str) -> int:
        """When it was made; 0 where there was none."""
        statement = sa.select(sa.func.max(alert_deliveries.c.created_at)).filter_by(
            tenant=tenant, route=route, event="summary"
        )
        return int(connection.execute(statement).scalar() or 0)

    def waiting(self) -> int:
        """Deliveries of all tenants that wait."""
        count = sa.select(sa.func.count()).select_from(alert_deliveries).filter_by(state=WAITING)
        with self._database.read() as connection:
            return int(connection.execute(count).scalar_one())

    def deliveries(self, tenant: str, *, incident: str | None = None, route: str | None = None) -> list[Row]:
        """Newest first; of an incident all, of a route some."""
        statement = sa.select(alert_deliveries).filter_by(tenant=tenant)
        if incident is not None:
            statement = statement.filter_by(incident=incident)
        if route is not None:
            statement = statement.filter_by(route=route).limit(_SOME)
        with self._database.read() as connection:
            return _rows(connection, statement.order_by(alert_deliveries.c.id.desc()))

    def newest_deliveries(self, tenant: str, *, limit: int) -> list[Row]:
        """What waits first, then newest first."""
        d = alert_deliveries.c
        waits_first = sa.case((d.state == WAITING, 0), else_=1)
        statement = sa.select(alert_deliveries).filter_by(tenant=tenant).order_by(waits_first, d.id.desc())
        with self._database.read() as connection:
            return _rows(connection, statement.limit(limit))

    # -- outages -------------------------------------------------------------------------------------------------------

    def times_of(self, tenant: str, endpoint: str, *, kind: str, since: int) -> list[Row]:
        """``opened_at``, ``seen_at`` and ``evidence`` of an endpoint's alerts of a kind that were seen after a moment, oldest first."""
        columns = (alerts.c.opened_at, alerts.c.seen_at, alerts.c.evidence)
        statement = sa.select(*columns).filter_by(tenant=tenant, endpoint=endpoint, kind=kind)
        with self._database.read() as connection:
            return _rows(connection, statement.where(alerts.c.seen_at > since).order_by(alerts.c.opened_at))

    def asked_between(self, tenant: str, endpoint: str, *, since: int, until: int) -> tuple[int, int | None]:
        """Requests of minutes that lie wholly between two moments, and when the oldest of these began."""
        c = objective_minutes.c
        statement = (
            sa.select(sa.func.coalesce(sa.func.sum(c.requests), 0), sa.func.min(c.start))
            .filter_by(tenant=tenant, endpoint=endpoint)
            .where(c.start >= since, c.start + _MINUTE <= until)
        )
        with self._database.read() as connection:
            requests, oldest = connection.execute(statement).one()
        return int(requests), oldest

    def counts(self, tenant: str) -> dict[tuple[str, str], int]:
        """Deliveries by (route, state)."""
        d = alert_deliveries.c
        statement = (
            sa.select(d.route, d.state, sa.func.count()).filter_by(tenant=tenant).group_by(d.route, d.state)
        )
        with self._database.read() as connection:
            return {(route, state): count for route, state, count in connection.execute(statement)}

    def forget_deliveries(self, connection: sa.Connection, *, before: int) -> None:
        """Drop what was ended before a moment, but for the newest of incidents that are open."""
        d = alert_deliveries.c
        lasting = sa.select(alerts.c.incident).filter_by(state="open")
        old = alert_deliveries.delete().where(d.ended_at < before, d.incident.not_in(lasting))
        connection.execute(old)

    # -- silences ------------------------------------------------------------------------------------------------------

    def silences(self, tenant: str, *, until: int, connection: sa.Connection | None = None) -> list[Row]:
        """Those that end after a moment, oldest first."""
        c = alert_silences.c
        statement = sa.select(alert_silences).filter_by(tenant=tenant).where(c.ends_at > until).order_by(c.id)
        if connection is not None:
            return _rows(connection, statement)
        with self._database.read() as reading:
            return _rows(reading, statement)

    def add_silence(self, connection: sa.Connection, row: Row) -> int:
        statement = alert_silences.insert().values(row).returning(alert_silences.c.id)
        return int(connection.execute(statement).scalar_one())

    def end_silence(self, connection: sa.Connection, tenant: str, *, silence: int, at: int) -> bool:
        """Whether there was one to end."""
        lasting = alert_silences.update().filter_by(tenant=tenant, id=silence)
        return bool(
            connection.execute(lasting.where(alert_silences.c.ends_at > at).values(ends_at=at)).rowcount
        )

    # -- minutes of objectives -----------------------------------------------------------------------------------------

    def behind(self, tenant: str, endpoint: str) -> list[int]:
        """Minutes of which the slots of traffic know more requests than the minutes do."""
        minute = (traffic.c.start - traffic.c.start % _MINUTE).label("minute")
        seen = (
            sa.select(minute, sa.func.sum(traffic.c.requests - traffic.c.rejected).label("requests"))
            .filter_by(tenant=tenant, endpoint=endpoint)
            .group_by(minute)
        )
        known = sa.select(objective_minutes.c.start, objective_minutes.c.requests).filter_by(
            tenant=tenant, endpoint=endpoint
        )
        with self._database.read() as connection:
            found = list(connection.execute(seen))
            if not found:
                return []
            oldest = min(row.minute for row in found)
            have = {
                row.start: row.requests
                for row in connection.execute(known.where(objective_minutes.c.start >= oldest))
            }
        return [row.minute for row in found if row.requests > have.get(row.minute, 0)]

    def slots(self, tenant: str, endpoint: str, *, minute: int) -> list[Row]:
        """The slots of traffic of a minute, of every version."""
        c = traffic.c
        statement = (
            sa.select(c.requests, c.failed, c.rejected, c.latency)
            .filter_by(tenant=tenant, endpoint=endpoint)
            .where(c.start >= minute, c.start < minute + _MINUTE)
        )
        with self._database.read() as connection:
            return _rows(connection, statement)

    def put_minutes(self, rows: Sequence[Row]) -> None:
        with self._database.write() as connection:
            connection.execute(self._database.upsert(objective_minutes), rows)

    def minutes(self, tenant: str, endpoint: str, *, since: Sequence[int]) -> list[tuple[int, int, int]]:
        """(requests, failed, slow) since each of these moments."""
        c = objective_minutes.c
        sums = [
            sa.func.coalesce(sa.func.sum(sa.case((c.start >= moment, column), else_=0)), 0)
            for moment in since
            for column in (c.requests, c.failed, c.slow)
        ]
        statement = sa.select(*sums).filter_by(tenant=tenant, endpoint=endpoint).where(c.start >= min(since))
        with self._database.read() as connection:
            found = [int(value) for value in connection.execute(statement).one()]
        return [(found[at], found[at + 1], found[at + 2]) for at in range(0, len(found), 3)]

    def forget_minutes(self, connection: sa.Connection, *, before: int) -> None:
        connection.execute(objective_minutes.delete().where(objective_minutes.c.start < before))


def _routes_of(tenant: str) -> sa.Select[Any]:
    return sa.select(alert_routes).where(alert_routes.c.tenant.in_((tenant, EVERY_TENANT)))


def _rows(connection: sa.Connection, statement: Any) -> list[Row]:
    return [dict(row._mapping) for row in connection.execute(statement)]


def _row(connection: sa.Connection, statement: Any) -> Row | None:
    row = connection.execute(statement).one_or_none()
    return dict(row._mapping) if row else None
