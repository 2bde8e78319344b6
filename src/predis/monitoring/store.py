"""The rows of monitoring: positions, counters, windows, predictions, feedback, shadows, performance, alerts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import sqlalchemy as sa

from predis.clock import NANOSECONDS
from predis.state.engine import Database
from predis.state.journal import Position
from predis.state.records import Arm
from predis.state.schema import (
    alerts,
    counters,
    feedback,
    feedback_counts,
    journal_positions,
    labelled,
    log_files,
    loss_watches,
    performance,
    predictions,
    shadow_differences,
    shadow_labels,
    shadow_predictions,
    traffic,
    traffic_history,
    windows,
)

Row = dict[str, Any]
Key = dict[str, Any]  # tenant, endpoint and, where it matters, version
# Id, scores, moment of the event, moment received, and the levels of its rows where segments are followed.
Prediction = tuple[str, bytes, int, int, bytes | None]

# "prjl"; any number that other users of the server's advisory locks are unlikely to take.
_TAKING_IN = 0x7072_6A6C
_NAN = np.array([np.nan], "<f8").tobytes()
_IDS_IN_STATEMENT = 1_000


class MonitoringStore:
    """Reads and writes evidence. Methods that take a connection belong to the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- the journal's positions --------------------------------------------------------------------------------------

    def position(self, stream: str) -> Position:
        with self._database.read() as connection:
            row = connection.execute(sa.select(journal_positions).filter_by(stream=stream)).one_or_none()
        return Position(row.segment, row.position, row.records) if row else Position()

    def take_turn(self, connection: sa.Connection) -> None:
        """Wait for every other transaction that takes records in or matches labels; the next of them waits for this one's end.

        A shadow's copy and its label may come in either order, from different processes: whichever comes second must see the first.
        """
        if self._database.dialect == "postgresql":  # SQLite's writers wait for each other as it is
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _TAKING_IN})

    def positions(self, connection: sa.Connection, prefix: str) -> dict[str, Position]:
        """How far each stream has been read by one consumer."""
        c = journal_positions.c
        rows = connection.execute(
            sa.select(c.stream, c.segment, c.position, c.records).where(c.stream.startswith(prefix))
        )
        return {stream.removeprefix(prefix): Position(*position) for stream, *position in rows}

    def move(
        self, connection: sa.Connection, stream: str, *, position: Position, dropped: int, damaged: int
    ) -> None:
        """Note how far a stream has been read, and what was found lost since the last time."""
        row = {
            "stream": stream,
            "segment": position.segment,
            "position": position.byte,
            "records": position.ordinal,
            "dropped": dropped,
            "damaged": damaged,
        }
        connection.execute(self._database.upsert(journal_positions, add=("dropped", "damaged")), row)

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

    def journal_streams(self, prefix: str) -> list[Row]:
        """Name of each stream that one consumer reads, and the requests it has read (``records``) and found dropped there."""
        c = journal_positions.c
        statement = (
            sa.select(c.stream, c.records, c.dropped).where(c.stream.startswith(prefix)).order_by(c.stream)
        )
        with self._database.read() as connection:
            return [
                {
                    "stream": row.stream.removeprefix(prefix),
                    "records": row.records - row.dropped,
                    "dropped": row.dropped,
                }
                for row in connection.execute(statement)
            ]

    # -- counters, slots, windows ------------------------------------------------------------------------------------

    def counters(self, connection: sa.Connection, key: Key) -> list[Row]:
        """A version's counters, one row for each arm, held until the transaction ends: ingest and feedback both change them."""
        statement = sa.select(counters).filter_by(**key).order_by(counters.c.arm).with_for_update()
        return [dict(row._mapping) for row in connection.execute(statement)]

    def put_counters(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        """Write what ingest counts; how many labels have matured is for ``add_matured`` alone."""
        connection.execute(self._database.upsert(counters, keep=("matured",)), rows)

    def add_matured(self, connection: sa.Connection, key: Key, *, count: int) -> None:
        """``key``: of one arm."""
        connection.execute(counters.update().filter_by(**key).values(matured=counters.c.matured + count))

    def counters_by_arm(self, tenant: str, endpoint: str) -> list[Row]:
        """Those of every version and arm, by version."""
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(counters)
                .filter_by(tenant=tenant, endpoint=endpoint)
                .order_by(counters.c.version, counters.c.arm)
            )
            return [dict(row._mapping) for row in rows]

    def all_counters(self, tenant: str, endpoint: str) -> list[Row]:
        """What each version answered, whether it was compared with another or not. Copies for shadows are no answers."""
        found: dict[int, Row] = {}
        for row in self.counters_by_arm(tenant, endpoint):
            if row.pop("arm") != Arm.SHADOW:
                version = row["version"]
                found[version] = _added(found[version], row) if version in found else row
        return list(found.values())

    def slots(self, connection: sa.Connection, key: Key, *, starts: Sequence[int]) -> list[Row]:
        """The slots of traffic that begin at these moments, as far as there are any."""
        rows = connection.execute(sa.select(traffic).filter_by(**key).where(traffic.c.start.in_(starts)))
        return [dict(row._mapping) for row in rows]

    def put_slots(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        connection.execute(self._database.upsert(traffic), rows)

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

    def put_windows(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        connection.execute(self._database.upsert(windows), rows)

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

    def window_features(self, key: Key, *, first: int, last: int, limit: int = 50) -> list[bytes]:
        """The counts of a version's closed windows that ended between two moments, the newest of them."""
        w = windows.c
        statement = (
            sa.select(w.features)
            .filter_by(**key, closed=True)
            .where(w.last_event >= first, w.last_event <= last)
            .order_by(w.number.desc())
            .limit(limit)
        )
        with self._database.read() as connection:
            return list(connection.scalars(statement))

    # -- predictions and feedback --------------------------------------------------------------------------------------

    def add_predictions(self, connection: sa.Connection, key: Key, *, rows: Sequence[Prediction]) -> int:
        """How many of them were new. ``key``: of one arm.

        In the order of their ids, which are neighbours in the index more often than not, and past SQLAlchemy's own treatment of rows:
        this is the one statement whose cost is felt.
        """
        ordered = sorted(rows, key=itemgetter(0))
        head = (key["tenant"], key["endpoint"], key["version"], key["arm"])
        if self._database.dialect == "postgresql":
            return _run(connection, _ADD_ON_POSTGRES, parameters=(*head, *_array_literals(ordered)))
        added = at = 0
        for size, statement in _ADD_MANY_ON_SQLITE.items():
            while len(ordered) - at >= size:
                parameters = (*head, *chain.from_iterable(ordered[at : at + size]))
                added += _run(connection, statement, parameters=parameters)
                at += size
        rest = [(*head, *row) for row in ordered[at:]]
        return added + (_run(connection, _ADD_ON_SQLITE, parameters=rest) if rest else 0)

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

    def matches(self, connection: sa.Connection, tenant: str, *, endpoint: str, limit: int) -> list[Row]:
        """Labels that wait and whose prediction is known, with their scores, in the order they came."""
        f, p = feedback.c, predictions.c
        joined = sa.and_(f.tenant == p.tenant, f.endpoint == p.endpoint, f.id == p.id)
        # Eight bytes of all scores; NULL where there is no such row, whose place might not even fit the number that a place is.
        known = sa.cast(f.row, sa.BigInteger) * 8 < sa.func.length(p.scores)
        score = sa.case((known, sa.func.substr(p.scores, f.row * 8 + 1, 8)))
        statement = (
            sa.select(
                f.id, f.row, f.label, f.value, f.event_at.label("labelled_event_at"), p.version, p.arm,
                score.label("score"), p.event_at, p.received_at, p.cells, sa.func.length(p.scores).label("size"),
            )
            .join(predictions, joined)
            .where(f.tenant == tenant, f.endpoint == endpoint, f.matched.is_(False), score != _NAN)
            .order_by(f.sequence)
            .limit(limit)
        )  # fmt: skip
        rows = [dict(row._mapping) for row in connection.execute(statement)]
        for row, value in zip(rows, unpack_scores(b"".join(row["score"] for row in rows)), strict=True):
            row["score"] = value
            size = row.pop("size") // 8
            if row["cells"]:
                width = len(row["cells"]) // size
                row["cells"] = row["cells"][row["row"] * width : (row["row"] + 1) * width]
        return rows

    def set_labels(self, connection: sa.Connection, key: Key, *, rows: Sequence[Row]) -> None:
        """Store scores with the labels they have met (``version``, ``number`` and the columns of ``matches``); their feedback is used."""
        f, b = feedback.c, sa.bindparam
        connection.execute(labelled.insert(), [{**key, **row} for row in rows])
        connection.execute(
            feedback.update()
            .where(
                f.tenant == key["tenant"],
                f.endpoint == key["endpoint"],
                f.id == b("k_id"),
                f.row == b("k_row"),
            )
            .values(matched=True),
            [{"k_id": row["id"], "k_row": row["row"]} for row in rows],
        )

    def matured(self, key: Key, *, start: int, stop: int, since: int = 0) -> list[Any]:
        """Labelled scores of a version by the order in which their labels came: numbers ``start`` to ``stop`` - 1."""
        c = labelled.c
        statement = (
            sa.select(c.score, c.label, c.event_at, c.labelled_event_at)
            .filter_by(**key)
            .where(c.number >= start, c.number < stop, c.received_at >= since)
            .order_by(c.number)
        )
        with self._database.read() as connection:
            return list(connection.execute(statement))

    def labels_from(self, key: Key, *, start: int, limit: int) -> list[Any]:
        """Labelled scores of a version from a number on: number, score, label, and when the prediction's event was."""
        c = labelled.c
        statement = (
            sa.select(c.number, c.score, c.label, c.event_at)
            .filter_by(**key)
            .where(c.number >= start)
            .order_by(c.number)
            .limit(limit)
        )
        with self._database.read() as connection:
            return list(connection.execute(statement))

    def loss_watch(self, key: Key) -> Row | None:
        """What detectors of risen loss remember of a version."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(loss_watches).filter_by(**key)).one_or_none()
        return dict(row._mapping) if row else None

    def put_loss_watch(self, row: Row) -> None:
        with self._database.write() as connection:
            connection.execute(self._database.upsert(loss_watches), row)

    def rewards(self, key: Key, *, start: int, stop: int, since: int, arm: Arm | None) -> list[Any]:
        """Labels of a version's answers like ``matured``, with what a reward is made of: score, label, value.

        ``arm``: of which requests; None: of all.
        """
        c = labelled.c
        statement = (
            sa.select(c.score, c.label, c.value)
            .filter_by(**key, **({} if arm is None else {"arm": arm}))
            .where(c.number >= start, c.number < stop, c.received_at >= since)
            .order_by(c.number)
        )
        with self._database.read() as connection:
            return list(connection.execute(statement))

    def labels_since(self, tenant: str, endpoint: str) -> dict[tuple[str, int], float]:
        """Every label that has met its answer, by prediction id and row."""
        c = labelled.c
        statement = sa.select(c.id, c.row, c.label).filter_by(tenant=tenant, endpoint=endpoint)
        with self._database.read() as connection:
            return {(row.id, row.row): row.label for row in connection.execute(statement)}

    def labels_of(self, tenant: str) -> list[Any]:
        """Labels that have met their answers: endpoint, id, row, version, label, value and when the label became known."""
        c = labelled.c
        statement = sa.select(c.endpoint, c.id, c.row, c.version, c.label, c.value, c.labelled_event_at)
        with self._database.read() as connection:
            return list(connection.execute(statement.filter_by(tenant=tenant)))

    def predictions_between(self, key: Key, *, first: int, last: int) -> int:
        """Scores of a version whose events lie between two moments."""
        p = predictions.c
        statement = (
            sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(p.scores)), 0))
            .filter_by(**key)
            .where(p.event_at >= first, p.event_at <= last)
        )
        with self._database.read() as connection:
            return int(connection.execute(statement).scalar_one()) // 8

    def forget_predictions(self, connection: sa.Connection, *, before: int) -> int:
        """Drop predictions, shadow copies, and feedback that found none, older than a moment; how many answered requests went.

        Predictions stand nearly in the order in which they were received, so those before the first that is young are all but all.
        """
        p = predictions.c
        young = sa.select(p.sequence).where(p.received_at >= before).order_by(p.sequence).limit(1)
        first = connection.execute(young).scalar_one_or_none()
        old = predictions.delete()
        gone = connection.execute(old if first is None else old.where(p.sequence < first)).rowcount
        for table in (labelled, feedback, shadow_predictions, shadow_labels):
            connection.execute(table.delete().where(table.c.received_at < before))
        return gone

    # -- history -------------------------------------------------------------------------------------------------------

    def take_slots(self, connection: sa.Connection, *, width: int, before: int) -> list[Row]:
        """Remove slots of a width that began before a moment, and give them back."""
        table = traffic if width == NANOSECONDS else traffic_history
        old = table.c.start < before
        if table is traffic_history:
            old &= table.c.width == width
        rows = [dict(row._mapping) for row in connection.execute(sa.select(table).where(old))]
        connection.execute(table.delete().where(old))
        return rows

    def merged_slots(self, connection: sa.Connection, *, width: int, since: int, before: int) -> list[Row]:
        """Slots of a width that began between two moments: what comes late is added to them."""
        h = traffic_history.c
        statement = sa.select(traffic_history).where(h.width == width, h.start >= since, h.start < before)
        rows = connection.execute(statement)
        return [dict(row._mapping) for row in rows]

    def put_merged(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        if rows:
            connection.execute(self._database.upsert(traffic_history), rows)

    def traffic_since(self, tenant: str, endpoint: str, *, since: int) -> list[Row]:
        """Slots of every width that began at a moment or later."""
        found = []
        with self._database.read() as connection:
            for table in (traffic_history, traffic):
                statement = sa.select(table).filter_by(tenant=tenant, endpoint=endpoint)
                found += [
                    dict(r._mapping) for r in connection.execute(statement.where(table.c.start >= since))
                ]
        return found

    def old_windows(self, connection: sa.Connection, *, before: int, spare: int) -> list[Row]:
        """Closed windows that ended before a moment, but for the newest ``spare`` of each version."""
        w = windows.c
        newest = sa.func.max(w.number).over(partition_by=(w.tenant, w.endpoint, w.version)).label("newest")
        ranked = sa.select(windows, newest).subquery()
        statement = sa.select(ranked).where(
            ranked.c.closed, ranked.c.last_event < before, ranked.c.number <= ranked.c.newest - spare
        )
        rows = [dict(row._mapping) for row in connection.execute(statement)]
        return [{name: value for name, value in row.items() if name != "newest"} for row in rows]

    def replace_windows(self, connection: sa.Connection, row: Row, *, gone: Sequence[int]) -> None:
        """Put one window in the place of several of its version."""
        key = {name: row[name] for name in ("tenant", "endpoint", "version")}
        connection.execute(windows.delete().filter_by(**key).where(windows.c.number.in_(gone)))
        connection.execute(windows.insert(), row)

    def forget_performance(self, connection: sa.Connection, *, before: int) -> None:
        """Drop performance windows that were closed before a moment. When their events were says nothing: old data may be replayed."""
        connection.execute(performance.delete().where(performance.c.closed_at < before))

    # -- shadows -------------------------------------------------------------------------------------------------------

    def known_copies(self, connection: sa.Connection, key: Key, *, ids: Iterable[str]) -> set[str]:
        """Which of these requests a shadow has a copy of already."""
        c = shadow_predictions.c
        return {
            name
            for some in _pieces(ids)
            for name in connection.scalars(sa.select(c.id).filter_by(**key).where(c.id.in_(some)))
        }

    def add_copies(self, connection: sa.Connection, key: Key, *, rows: Sequence[Row]) -> None:
        """``rows``: id, scores, answers, received_at; none of them ``known_copies``."""
        connection.execute(shadow_predictions.insert(), [{**key, **row} for row in rows])

    def copies(self, connection: sa.Connection, key: Key, *, ids: Iterable[str]) -> list[Row]:
        """What shadows of an endpoint made of these requests, by version."""
        c = shadow_predictions.c
        found = [
            dict(row._mapping)
            for some in _pieces(ids)
            for row in connection.execute(
                sa.select(c.version, c.id, c.scores, c.answers, c.received_at)
                .filter_by(**key)
                .where(c.id.in_(some))
            )
        ]
        return sorted(found, key=itemgetter("version"))

    def matched_labels(self, connection: sa.Connection, key: Key, *, ids: Iterable[str]) -> list[Row]:
        """Labels of these requests that have met their answer, in the order they came."""
        f = feedback.c
        found = [
            dict(row._mapping)
            for some in _pieces(ids)
            for row in connection.execute(
                sa.select(f.id, f.row, f.label, f.value, f.sequence)
                .filter_by(**key, matched=True)
                .where(f.id.in_(some))
            )
        ]
        return sorted(found, key=itemgetter("sequence"))

    def add_shadow_labels(self, connection: sa.Connection, key: Key, *, rows: Sequence[Row]) -> None:
        """``rows``: the columns of ``shadow_labels`` but the key's."""
        connection.execute(shadow_labels.insert(), [{**key, **row} for row in rows])

    def shadow_rewards(self, key: Key, *, start: int, stop: int, since: int) -> list[Any]:
        """Like ``rewards``, of a shadow's copies, each with the score that was answered for the same row."""
        c = shadow_labels.c
        statement = (
            sa.select(c.score, c.answered, c.label, c.value)
            .filter_by(**key)
            .where(c.number >= start, c.number < stop, c.received_at >= since)
            .order_by(c.number)
        )
        with self._database.read() as connection:
            return list(connection.execute(statement))

    def differences(self, connection: sa.Connection, key: Key) -> Row | None:
        row = connection.execute(sa.select(shadow_differences).filter_by(**key)).one_or_none()
        return dict(row._mapping) if row else None

    def put_differences(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        connection.execute(self._database.upsert(shadow_differences), rows)

    def all_differences(self, tenant: str, endpoint: str) -> list[Row]:
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(shadow_differences).filter_by(tenant=tenant, endpoint=endpoint)
            )
            return [dict(row._mapping) for row in rows]

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


# Ids are unique within an endpoint; the first prediction of an id stays. Several rows in one statement cost less than half of what they
# cost one by one; in very many there is no more to gain.
_ADD_ON_SQLITE = (
    "INSERT INTO predictions (tenant, endpoint, version, arm, id, scores, event_at, received_at, cells) "
    "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING"
)
_ADD_MANY_ON_SQLITE = {
    size: _ADD_ON_SQLITE.replace(
        "(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        ", ".join(
            f"(?1, ?2, ?3, ?4, ?{at}, ?{at + 1}, ?{at + 2}, ?{at + 3}, ?{at + 4})"
            for at in range(5, 5 + 5 * size, 5)
        ),
    )
    for size in (128, 16)
}
_ADD_ON_POSTGRES = (
    "INSERT INTO predictions (tenant, endpoint, version, arm, id, scores, event_at, received_at, cells) "
    "SELECT %s, %s, %s, %s, given.* FROM unnest(%s::text[], %s::bytea[], %s::bigint[], %s::bigint[], %s::bytea[]) AS given "
    "ON CONFLICT DO NOTHING"
)


def _array_literals(rows: Sequence[Prediction]) -> list[str]:
    """The columns of rows as PostgreSQL writes arrays; its driver's way of making them takes several times as long."""
    ids, scores, event_at, received_at, cells = zip(*rows, strict=True)
    columns = (
        ['"' + each.replace("\\", "\\\\").replace('"', '\\"') + '"' for each in ids],
        ['"\\\\x' + each.hex() + '"' for each in scores],
        map(str, event_at),
        map(str, received_at),
        ["NULL" if each is None else '"\\\\x' + each.hex() + '"' for each in cells],
    )
    return ["{" + ",".join(column) + "}" for column in columns]


def _pieces(ids: Iterable[str]) -> Iterator[list[str]]:
    """Ids in as many as a statement takes."""
    every = list(ids)
    return (every[at : at + _IDS_IN_STATEMENT] for at in range(0, len(every), _IDS_IN_STATEMENT))


def _added(one: Row, other: Row) -> Row:
    """The counters of two arms of a version as one row."""
    found = {
        **one,
        "first_at": min(one["first_at"], other["first_at"]),
        "last_at": max(one["last_at"], other["last_at"]),
    }
    for name in ("requests", "failed", "rejected", "rows", "duplicates", "matured"):
        found[name] += other[name]
    for name in ("latency", "scores"):
        found[name] = pack_counts(unpack_counts(one[name]) + unpack_counts(other[name]))
    return found


def _run(connection: sa.Connection, statement: str, *, parameters: Any) -> int:
    """Rows that a driver's own statement wrote."""
    options = {"preserve_rowcount": True}
    return connection.exec_driver_sql(statement, parameters, execution_options=options).rowcount


def pack_counts(counts: Any) -> bytes:
    """Counts as little-endian int64 bytes."""
    return np.asarray(counts, "<i8").tobytes()


def unpack_counts(content: bytes) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.frombuffer(content, "<i8").astype(np.int64)


def pack_scores(scores: Any) -> bytes:
    """Scores as little-endian float64 bytes. Of the many NaNs there are only one is stored, so that SQL can tell it."""
    values = np.asarray(scores, "<f8")
    return np.where(np.isnan(values), np.nan, values).tobytes()


def unpack_scores(content: bytes) -> list[float]:
    return list(np.frombuffer(content, "<f8").tolist())
