"""The rows of monitoring: positions, counters, windows, predictions, feedback, performance, alerts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa

from predis.state.engine import Database
from predis.state.journal import Position
from predis.state.schema import (
    alerts,
    counters,
    feedback,
    feedback_counts,
    journal_positions,
    log_files,
    performance,
    predictions,
    traffic,
    windows,
)

Row = dict[str, Any]
Key = dict[str, Any]  # tenant, endpoint and, where it matters, version


class MonitoringStore:
    """Reads and writes evidence. Methods that take a connection belong to the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- the journal's positions --------------------------------------------------------------------------------------

    def position(self, stream: str) -> Position:
        with self._database.read() as connection:
            row = connection.execute(sa.select(journal_positions).filter_by(stream=stream)).one_or_none()
        return Position(row.segment, row.position, row.records) if row else Position()

    def move(
        self, connection: sa.Connection, stream: str, *, position: Position, dropped: int, damaged: int
    ) -> None:
        found = connection.execute(
            sa.select(journal_positions.c.dropped, journal_positions.c.damaged).filter_by(stream=stream)
        ).one_or_none()
        row = {
            "stream": stream,
            "segment": position.segment,
            "position": position.byte,
            "records": position.ordinal,
            "dropped": dropped + (found.dropped if found else 0),
            "damaged": damaged + (found.damaged if found else 0),
        }
        connection.execute(self._database.upsert(journal_positions), row)

    def journal_totals(self, prefix: str) -> Row:
        """Records read, dropped and damaged over all streams read by one consumer."""
        c = journal_positions.c
        total = sa.select(
            sa.func.coalesce(sa.func.sum(c.records - c.dropped), 0).label("records"),
            sa.func.coalesce(sa.func.sum(c.dropped), 0).label("dropped"),
            sa.func.coalesce(sa.func.sum(c.damaged), 0).label("damaged"),
        ).where(c.stream.startswith(prefix))
        with self._database.read() as connection:
            return {name: int(value) for name, value in connection.execute(total).one()._mapping.items()}

    # -- counters, slots, windows ------------------------------------------------------------------------------------

    def counters(self, connection: sa.Connection, key: Key) -> Row | None:
        """A version's counters, held until the transaction ends: ingest and feedback both change them."""
        row = connection.execute(sa.select(counters).filter_by(**key).with_for_update()).one_or_none()
        return dict(row._mapping) if row else None

    def put_counters(self, connection: sa.Connection, row: Row) -> None:
        connection.execute(self._database.upsert(counters), row)

    def all_counters(self, tenant: str, endpoint: str) -> list[Row]:
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(counters).filter_by(tenant=tenant, endpoint=endpoint).order_by(counters.c.version)
            )
            return [dict(row._mapping) for row in rows]

    def add_slots(self, connection: sa.Connection, rows: Iterable[Row]) -> None:
        names = ("tenant", "endpoint", "version", "start")
        for row in rows:
            found = connection.execute(
                sa.select(traffic).filter_by(**{n: row[n] for n in names})
            ).one_or_none()
            if found is not None:
                for name in ("requests", "failed", "rejected"):
                    row[name] += getattr(found, name)
                row["latency"] = add_counts(row["latency"], found.latency)
            connection.execute(self._database.upsert(traffic), row)

    def recent_slots(self, tenant: str, endpoint: str, *, since: int) -> list[Row]:
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(traffic)
                .filter_by(tenant=tenant, endpoint=endpoint)
                .where(traffic.c.start >= since)
                .order_by(traffic.c.start)
            )
            return [dict(row._mapping) for row in rows]

    def open_window(self, connection: sa.Connection, key: Key) -> Row | None:
        row = connection.execute(
            sa.select(windows).filter_by(**key).order_by(windows.c.number.desc()).limit(1)
        ).one_or_none()
        return dict(row._mapping) if row else None

    def put_window(self, connection: sa.Connection, row: Row) -> None:
        connection.execute(self._database.upsert(windows), row)

    def closed_windows(self, key: Key, *, limit: int) -> list[Row]:
        """Newest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(windows)
                .filter_by(**key, closed=True)
                .order_by(windows.c.number.desc())
                .limit(limit)
            )
            return [dict(row._mapping) for row in rows]

    # -- predictions and feedback --------------------------------------------------------------------------------------

    def add_predictions(self, connection: sa.Connection, rows: Sequence[Row]) -> int:
        """How many of them were new."""
        return connection.execute(self._database.insert_new(predictions), rows).rowcount if rows else 0

    def add_feedback(self, connection: sa.Connection, rows: Sequence[Row]) -> int:
        """How many of them were new."""
        return connection.execute(self._database.insert_new(feedback), rows).rowcount if rows else 0

    def count_feedback(self, connection: sa.Connection, key: Key, *, received: int, stored: int) -> None:
        counts = {"received": received, "stored": stored, "duplicates": received - stored}
        connection.execute(self._database.insert_new(feedback_counts), {**key, **dict.fromkeys(counts, 0)})
        # Added by the database: many callers send labels at once.
        more = {name: feedback_counts.c[name] + count for name, count in counts.items()}
        connection.execute(feedback_counts.update().filter_by(**key).values(more))

    def feedback_totals(self, tenant: str, endpoint: str) -> Row:
        with self._database.read() as connection:
            found = connection.execute(
                sa.select(feedback_counts).filter_by(tenant=tenant, endpoint=endpoint)
            ).one_or_none()
            waiting = connection.execute(
                sa.select(sa.func.count())
                .select_from(feedback)
                .filter_by(tenant=tenant, endpoint=endpoint, matched=False)
            ).scalar_one()
        counts = {name: getattr(found, name, 0) for name in ("received", "stored", "duplicates")}
        return {**counts, "waiting": waiting}

    def endpoints_with_feedback(self) -> list[tuple[str, str]]:
        with self._database.read() as connection:
            rows = connection.execute(sa.select(feedback_counts.c.tenant, feedback_counts.c.endpoint))
            return [(row.tenant, row.endpoint) for row in rows]

    def matches(self, connection: sa.Connection, tenant: str, *, endpoint: str, limit: int) -> list[Any]:
        """Labels that wait and whose prediction is known, in the order they came."""
        f, p = feedback.c, predictions.c
        joined = sa.and_(f.tenant == p.tenant, f.endpoint == p.endpoint, f.id == p.id, f.row == p.row)
        statement = (
            sa.select(f.id, f.row, f.label, f.event_at.label("label_at"), p.version)
            .join(predictions, joined)
            .where(f.tenant == tenant, f.endpoint == endpoint, f.matched.is_(False))
            .order_by(f.sequence)
            .limit(limit)
        )
        return list(connection.execute(statement))

    def set_labels(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        """Write labels to their predictions and mark the feedback as used; keys are the bound names of the statements."""
        p, f, b = predictions.c, feedback.c, sa.bindparam
        connection.execute(
            predictions.update()
            .where(
                p.tenant == b("k_tenant"),
                p.endpoint == b("k_endpoint"),
                p.id == b("k_id"),
                p.row == b("k_row"),
            )
            .values(label=b("v_label"), labelled_event_at=b("v_label_at"), matured=b("v_matured")),
            rows,
        )
        connection.execute(
            feedback.update()
            .where(
                f.tenant == b("k_tenant"),
                f.endpoint == b("k_endpoint"),
                f.id == b("k_id"),
                f.row == b("k_row"),
            )
            .values(matched=True),
            [{name: row[name] for name in ("k_tenant", "k_endpoint", "k_id", "k_row")} for row in rows],
        )

    def matured(self, key: Key, *, start: int, stop: int, since: int = 0) -> list[Any]:
        """Labelled predictions of a version by the order in which their labels came: numbers ``start`` to ``stop`` - 1."""
        p = predictions.c
        statement = (
            sa.select(p.score, p.label, p.event_at, p.labelled_event_at)
            .filter_by(**key)
            .where(p.matured >= start, p.matured < stop, p.received_at >= since)
            .order_by(p.matured)
        )
        with self._database.read() as connection:
            return list(connection.execute(statement))

    def labels_since(self, tenant: str, endpoint: str) -> dict[tuple[str, int], float]:
        """Every label that has met its prediction, by prediction id and row."""
        p = predictions.c
        statement = (
            sa.select(p.id, p.row, p.label)
            .filter_by(tenant=tenant, endpoint=endpoint)
            .where(p.label.is_not(None))
        )
        with self._database.read() as connection:
            return {(row.id, row.row): row.label for row in connection.execute(statement)}

    def predictions_between(self, key: Key, *, first: int, last: int) -> int:
        p = predictions.c
        statement = (
            sa.select(sa.func.count())
            .select_from(predictions)
            .filter_by(**key)
            .where(p.event_at >= first, p.event_at <= last)
        )
        with self._database.read() as connection:
            return int(connection.execute(statement).scalar_one())

    def forget_predictions(self, connection: sa.Connection, *, before: int) -> int:
        """Drop predictions, and feedback that found none, older than a moment."""
        gone = connection.execute(predictions.delete().where(predictions.c.received_at < before)).rowcount
        connection.execute(feedback.delete().where(feedback.c.received_at < before))
        connection.execute(traffic.delete().where(traffic.c.start < before))
        return gone

    # -- performance ---------------------------------------------------------------------------------------------------

    def performance(self, key: Key, *, limit: int = 1_000) -> list[Row]:
        """Newest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(performance).filter_by(**key).order_by(performance.c.number.desc()).limit(limit)
            )
            return [dict(row._mapping) for row in rows]

    def add_performance(self, connection: sa.Connection, row: Row) -> None:
        connection.execute(self._database.insert_new(performance), row)

    # -- the prediction log --------------------------------------------------------------------------------------------

    def add_log_files(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        if rows:
            connection.execute(self._database.insert_new(log_files), rows)

    def log_files(self, tenant: str, endpoint: str) -> list[Row]:
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(log_files)
                .filter_by(tenant=tenant, endpoint=endpoint)
                .order_by(log_files.c.first_event)
            )
            return [dict(row._mapping) for row in rows]

    def all_log_files(self) -> list[Row]:
        """Those of every tenant and endpoint."""
        with self._database.read() as connection:
            return [dict(row._mapping) for row in connection.execute(sa.select(log_files))]

    def remove_log_file(self, connection: sa.Connection, file: Row) -> None:
        key = {name: file[name] for name in ("tenant", "endpoint", "path")}
        connection.execute(log_files.delete().filter_by(**key))

    # -- alerts --------------------------------------------------------------------------------------------------------

    def open_alert(self, connection: sa.Connection, key: Key) -> Row | None:
        """The open alert of a tenant, endpoint, kind and version."""
        statement = sa.select(alerts).filter_by(
            **{k: v for k, v in key.items() if k != "version"}, state="open"
        )
        version = key.get("version")
        statement = statement.where(
            alerts.c.version.is_(None) if version is None else alerts.c.version == version
        )
        row = connection.execute(statement).one_or_none()
        return dict(row._mapping) if row else None

    def open_alerts(self) -> list[Row]:
        """Those of every tenant that last, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(alerts).filter_by(state="open").order_by(alerts.c.id))
            return [dict(row._mapping) for row in rows]

    def newest_alert(self, tenant: str, endpoint: str, *, kind: str) -> Row | None:
        """Open or not."""
        newest = alerts.c.id.desc()
        statement = sa.select(alerts).filter_by(tenant=tenant, endpoint=endpoint, kind=kind).order_by(newest)
        with self._database.read() as connection:
            row = connection.execute(statement.limit(1)).one_or_none()
        return dict(row._mapping) if row else None

    def add_alert(self, connection: sa.Connection, row: Row) -> int:
        return int(connection.execute(alerts.insert().values(row).returning(alerts.c.id)).scalar_one())

    def update_alert(self, connection: sa.Connection, alert: int, *, values: Row) -> None:
        connection.execute(alerts.update().filter_by(id=alert).values(values))

    def alerts(self, tenant: str, *, endpoint: str | None = None, limit: int = 100) -> list[Row]:
        """Newest first."""
        statement = sa.select(alerts).filter_by(tenant=tenant).order_by(alerts.c.id.desc()).limit(limit)
        if endpoint is not None:
            statement = statement.filter_by(endpoint=endpoint)
        with self._database.read() as connection:
            return [dict(row._mapping) for row in connection.execute(statement)]


def pack_counts(counts: Any) -> bytes:
    """Counts as little-endian int64 bytes."""
    return np.asarray(counts, "<i8").tobytes()


def unpack_counts(content: bytes) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.frombuffer(content, "<i8").astype(np.int64)


def add_counts(first: bytes, second: bytes) -> bytes:
    return pack_counts(unpack_counts(first) + unpack_counts(second))
