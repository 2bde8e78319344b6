"""The prediction log: what was asked and answered, as Parquet, partitioned by endpoint, version and day.

A second reader of the journal, with a position of its own: it waits for a whole segment (or ``max_age``), so that files are few and
large, while the windows are up to date within a fraction of a second. A file counts only if the database lists it, and it is
listed in the transaction that moves the position: a crash leaves at worst a file that nobody lists, written over on the next try.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from predis.clock import Clock
from predis.monitoring.ingest import CONSUMER, Group, decoded, grouped
from predis.monitoring.store import MonitoringStore
from predis.registry.model import Version
from predis.registry.signature import Field
from predis.state.engine import Database
from predis.state.journal import JournalReader, Position, streams
from predis.state.records import PredictionRecord, Status

LOG_CONSUMER = "log:"
DAY = 86_400_000_000_000
_CHUNK_BYTES = 8 << 20


class VersionOf(Protocol):
    """Finds a version by its endpoint, or None where it is unknown."""

    def __call__(self, tenant: str, endpoint: str, *, number: int) -> Version | None: ...


class PredictionLog:
    """Writes and reads the log of one installation.

    Args:
        folder: where the Parquet files go.
        version: (tenant, endpoint, number) to the version, or None where it is unknown.
        max_age_s: how long records may wait for their segment to fill.
    """

    def __init__(
        self, database: Database, journal: Path, *, folder: Path, version: VersionOf, clock: Clock,
        max_age_s: float = 60.0,
    ) -> None:  # fmt: skip
        self._database = database
        self._journal = journal
        self._folder = folder
        self._store = MonitoringStore(database)
        self._version = version
        self._clock = clock
        self._max_age_s = max_age_s
        self._lock = threading.Lock()
        self._written_at: dict[str, float] = {}
        self._finished: dict[str, int] = {}

    def look(self) -> int:
        """Write what is due; records written."""
        return sum(self._advance(stream, now=False) for stream in streams(self._journal))

    def flush(self) -> int:
        """Write everything the journal holds now; records written."""
        total = 0
        for stream in streams(self._journal):
            while written := self._advance(stream, now=True):
                total += written
        return total

    def table(self, tenant: str, endpoint: str, *, columns: Sequence[Field]) -> pa.Table:
        """Every logged prediction of an endpoint: id, row, version, event_at, score and the inputs asked for, as ``column_of`` says.

        Versions may differ in their inputs; a column that a version did not have is null for its rows.
        """
        inputs = [pa.field(column_of(field.name), _arrow_type(field)) for field in columns]
        names = ["id", "row", "version", "event_at", "score", *(field.name for field in inputs)]
        schema = pa.schema([*_META_FIELDS, *inputs])
        parts = [schema.empty_table().select(names)]
        for file in self._store.log_files(tenant, endpoint):
            part = pq.read_table(self._folder / file["path"], partitioning=None)
            for field in schema:
                if field.name not in part.column_names:
                    part = part.append_column(field, pa.nulls(part.num_rows, field.type))
            parts.append(part.select(names).cast(pa.schema([schema.field(name) for name in names])))
        return pa.concat_tables(parts)

    def forget(self, *, before: int) -> int:
        """Delete files written before a moment (nanoseconds); how many went. The list is changed first: a file it names is there."""
        old = [f for f in self._store.all_log_files() if _written_ns(self._folder / f["path"]) < before]
        with self._database.write() as connection:
            for file in old:
                self._store.remove_log_file(connection, file)
        for file in old:
            (self._folder / file["path"]).unlink(missing_ok=True)
        return len(old)

    def _advance(self, stream: str, *, now: bool) -> int:
        with self._lock:
            reader = JournalReader(self._journal / stream)
            name = LOG_CONSUMER + stream
            before = self._store.position(name)
            old = self._is_old(stream)
            if not (now or old or self._has_whole(stream, reader, before=before)):
                return 0
            batch = reader.read(before, max_bytes=_CHUNK_BYTES)
            if batch.position == before:
                return 0
            if not (now or old) and batch.position.segment == reader.newest():
                self._finished[stream] = (
                    before.segment
                )  # nothing is left in it, and the next one is still being filled
                return 0
            records, unreadable = decoded(batch.payloads)
            answered = [record for record in records if record.status is Status.OK]
            rows = [row for group in grouped(answered) for row in self._write(group, stream, start=before)]
            with self._database.write() as connection:
                self._store.add_log_files(connection, rows)
                self._store.move(
                    connection,
                    name,
                    position=batch.position,
                    dropped=batch.dropped,
                    damaged=batch.damaged + unreadable,
                )
            self._written_at[stream] = self._clock.monotonic_s()
            reader.forget(self._slowest(stream))
            return len(batch.payloads)

    def _is_old(self, stream: str) -> bool:
        """Whether records may have waited long enough."""
        now = self._clock.monotonic_s()
        return now - self._written_at.setdefault(stream, now) >= self._max_age_s

    def _has_whole(self, stream: str, reader: JournalReader, *, before: Position) -> bool:
        """Whether a segment beyond what was read is full. Reads no record."""
        first = max(before.segment, 1) + (self._finished.get(stream) == before.segment)
        return reader.newest() > first

    def _slowest(self, stream: str) -> Position:
        """What both readers of the stream are done with."""
        positions = [self._store.position(consumer + stream) for consumer in (CONSUMER, LOG_CONSUMER)]
        return min(positions, key=lambda p: (p.segment, p.byte))

    def _write(self, group: Group, stream: str, *, start: Position) -> list[dict[str, Any]]:
        version = self._version(group.key["tenant"], group.key["endpoint"], number=group.key["version"])
        table = _table(group.records, version)
        days = table.column("event_at").cast(pa.int64()).to_numpy() // DAY
        rows = []
        for day in np.unique(days):
            part = table.filter(pa.array(days == day))
            label = np.datetime64(int(day), "D")
            key = group.key
            path = f"{key['tenant']}/{key['endpoint']}/version={key['version']}/day={label}/{stream}-{start.segment}-{start.byte}.parquet"
            rows.append({**key, "path": path, **self._save(part, path)})
        return rows

    def _save(self, part: pa.Table, path: str) -> dict[str, int]:
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        pq.write_table(part, partial, compression="zstd")
        partial.replace(target)
        events = part.column("event_at").cast(pa.int64()).to_numpy()
        return {
            "rows": part.num_rows, "size_bytes": target.stat().st_size, "first_event": int(events.min()), "last_event": int(events.max()),
        }  # fmt: skip


def _written_ns(path: Path) -> int:
    """When a file was written; 0 where it is gone."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


_META_FIELDS = (
    pa.field("id", pa.string()),
    pa.field("row", pa.int32()),
    pa.field("version", pa.int32()),
    pa.field("event_at", pa.timestamp("ns", "UTC")),
    pa.field("received_at", pa.timestamp("ns", "UTC")),
    pa.field("score", pa.float64()),
)
_META_NAMES = frozenset(field.name for field in _META_FIELDS)


def column_of(name: str) -> str:
    """The column of an input: its name, unless the log has a column of that name itself."""
    return f"input.{name}" if name in _META_NAMES else name


def _table(records: Sequence[PredictionRecord], version: Version | None) -> pa.Table:
    """One row per prediction; categorical codes become their texts again."""
    counts = [len(record.scores) for record in records]
    meta = {
        "id": np.repeat(np.array([record.id for record in records], object), counts),
        "row": np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
        "version": np.full(sum(counts), records[0].version, np.int32),
        "event_at": np.repeat([record.event_at for record in records], counts),
        "received_at": np.repeat([record.received_at for record in records], counts),
        "score": np.concatenate([record.scores for record in records]),
    }
    columns = [pa.array(meta[field.name]).cast(field.type) for field in _META_FIELDS]
    features = np.concatenate([record.features for record in records])
    if version is None or features.shape[1] != len(version.signature.feature_names):
        return pa.table(columns, schema=pa.schema(_META_FIELDS))
    unseen = _unseen(records, counts)
    fields = list(_META_FIELDS)
    levels = version.signature.levels
    for at, name in enumerate(version.signature.feature_names):
        values = features[:, at]
        if name in levels:
            columns.append(
                _texts(
                    values,
                    levels[name],
                    unseen={row: text for (row, column), text in unseen.items() if column == at},
                )
            )
        else:
            columns.append(pa.array(values, from_pandas=True))
        fields.append(pa.field(column_of(name), columns[-1].type))
    return pa.table(columns, schema=pa.schema(fields))


def _texts(codes: np.ndarray[Any, Any], levels: Sequence[str], *, unseen: dict[int, str]) -> pa.Array:
    known = np.isfinite(codes) & (codes >= 0)
    indices = pa.array(np.where(known, codes, 0).astype(np.int32), mask=~known)
    texts = pa.array(levels, pa.string()).take(indices)
    if not unseen:
        return texts
    plain = texts.to_pylist()
    for row, text in unseen.items():
        plain[row] = text
    return pa.array(plain, pa.string())


def _unseen(records: Sequence[PredictionRecord], counts: Sequence[int]) -> dict[tuple[int, int], str]:
    """Texts outside the levels, by row of the table and column."""
    found: dict[tuple[int, int], str] = {}
    start = 0
    for record, count in zip(records, counts, strict=True):
        if record.extra:
            for row, column, text in orjson.loads(record.extra):
                found[start + row, column] = text
        start += count
    return found


def _arrow_type(field: Field) -> pa.DataType:
    return pa.string() if field.datatype == "BYTES" else pa.float64()
