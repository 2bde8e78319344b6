"""The rows of windows by time: levels of segments, windows, and the labels that they are measured with."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from predis.monitoring.store import Key, Row
from predis.state.engine import Database
from predis.state.schema import labelled, segment_levels, segment_windows

_KEPT = ("matured", "measured", "measured_at", "measures")


class SpanStore:
    """Reads and writes windows by time. Methods that take a connection belong to the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def levels(self, connection: sa.Connection, tenant: str, *, endpoint: str) -> list[Row]:
        """Number, segment and level of everything that is followed."""
        c = segment_levels.c
        rows = connection.execute(
            sa.select(c.number, c.segment, c.level).filter_by(tenant=tenant, endpoint=endpoint)
        )
        return [dict(row._mapping) for row in rows]

    def add_levels(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        connection.execute(segment_levels.insert(), rows)

    def windows(self, connection: sa.Connection, key: Key, *, starts: Collection[int]) -> list[Row]:
        """Those of a version that begin at these moments."""
        c = segment_windows.c
        rows = connection.execute(sa.select(segment_windows).filter_by(**key).where(c.start.in_(starts)))
        return [dict(row._mapping) for row in rows]

    def put_windows(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        """Write what was counted of answers; what comes of labels is for ``add_matured`` and ``put_measures``."""
        connection.execute(self._database.upsert(segment_windows, keep=_KEPT), rows)

    def add_matured(
        self, connection: sa.Connection, key: Key, *, counts: Sequence[tuple[int, int, int]]
    ) -> None:
        """Labels that have come: number, start and how many. ``key``: of a version. Windows that were dropped stay so."""
        c, b = segment_windows.c, sa.bindparam
        statement = (
            segment_windows.update()
            .filter_by(**key)
            .where(c.number == b("b_number"), c.start == b("b_start"))
            .values(matured=c.matured + b("b_count"))
        )
        rows = [{"b_number": number, "b_start": start, "b_count": count} for number, start, count in counts]
        connection.execute(statement, rows)

    def due(self, tenant: str, endpoint: str, *, least: int, before: int, limit: int) -> list[Row]:
        """Windows with labels that they were not measured with: those that have ``least`` and were last measured before a moment.

        Of one version, those of the same time together, newest first.
        """
        c = segment_windows.c
        statement = (
            sa.select(c.version, c.number, c.start, c.length, c.matured)
            .filter_by(tenant=tenant, endpoint=endpoint)
            .where(c.matured > c.measured, c.matured >= least, c.measured_at < before)
            .order_by(c.start.desc(), c.version, c.number)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [dict(row._mapping) for row in connection.execute(statement)]

    def labels(self, key: Key, *, since: int, until: int, limit: int) -> list[Any]:
        """Scores with their labels, of predictions received between two moments, the newest ones; in the order they were received."""
        c = labelled.c
        statement = (
            sa.select(c.score, c.label, c.event_at, c.labelled_event_at, c.cells)
            .filter_by(**key)
            .where(c.received_at >= since, c.received_at < until)
            .order_by(c.received_at.desc())
            .limit(limit)
        )
        with self._database.read() as connection:
            return list(reversed(connection.execute(statement).all()))

    def put_measures(self, connection: sa.Connection, key: Key, *, values: Row) -> None:
        """``key``: of one window."""
        connection.execute(segment_windows.update().filter_by(**key).values(**values))

    def listed(
        self, tenant: str, endpoint: str, *, since: int, until: int, version: int | None = None
    ) -> tuple[list[Row], list[Row]]:
        """Windows that begin between two moments, oldest first, and the levels that there are."""
        c = segment_windows.c
        statement = sa.select(segment_windows).filter_by(tenant=tenant, endpoint=endpoint)
        statement = statement.where(c.start >= since, c.start < until)
        if version is not None:
            statement = statement.where(c.version == version)
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(c.start, c.version, c.number))
            found = [dict(row._mapping) for row in rows]
            return found, self.levels(connection, tenant, endpoint=endpoint)

    def forget(self, connection: sa.Connection, *, before: int) -> None:
        """Drop windows that began before a moment."""
        connection.execute(segment_windows.delete().where(segment_windows.c.start < before))
