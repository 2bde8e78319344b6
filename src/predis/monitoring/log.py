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
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from predis.clock import Clock
from predis.monitoring.ingest import CONSUMER
from predis.monitoring.store import MonitoringStore
from predis.registry.model import Version
from predis.registry.signature import Field
from predis.state.engine import Database
from predis.state.journal import JournalReader, Position, streams
from predis.state.records import Arm, Block, decode_all

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
        """Write what is due; requests written."""
        return self._write_all(now=False)

    def flush(self) -> int:
        """Write everything the journal holds now; requests written."""
        return self._write_all(now=True)

    def table(self, tenant: str, endpoint: str, *, columns: Sequence[Field]) -> pa.Table:
        """Every logged answer of an endpoint: id, row, version, event_at, score and the inputs asked for, as ``column_of`` says.

        What shadows made of copies is in the log as well, and left out here: nobody got it for an answer. Versions may differ in their
        inputs; a column that a version did not have is null for its rows.
        """
        files = self._store.log_files(tenant, endpoint)
        return pa.concat_tables(
            [_columns(None, columns), *(_columns(self._folder / f["path"], columns) for f in files)]
        )

    def newest(
        self, tenant: str, endpoint: str, *, version: int, columns: Sequence[Field], rows: int
    ) -> pa.Table:
        """As ``table`` has it, the newest answers of one version, oldest first; as many files as hold ``rows`` are read."""
        parts, read = [_columns(None, columns)], 0
        files = [f for f in self._store.log_files(tenant, endpoint) if f["version"] == version]
        for file in sorted(files, key=lambda each: -each["last_event"]):
            if read >= rows:
                break
            parts.insert(1, _columns(self._folder / file["path"], columns))
            read += parts[1].num_rows
        found = pa.concat_tables(parts).sort_by("event_at")
        return found.slice(max(0, found.num_rows - rows))

    def forget(self, *, before: int) -> int:
        """Delete files written before a moment (nanoseconds); how many went. The list is changed first: a file it names is there."""
        old = [f for f in self._store.all_log_files() if _written_ns(self._folder / f["path"]) < before]
        with self._database.write() as connection:
            for file in old:
                self._store.remove_log_file(connection, file)
        for file in old:
            (self._folder / file["path"]).unlink(missing_ok=True)
        return len(old)

    def _write_all(self, *, now: bool) -> int:
        total = 0
        for stream in streams(self._journal):
            while written := self._advance(stream, now=now):
                total += written
        return total

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
                # Nothing is left in it, and the next one is still being filled.
                self._finished[stream] = before.segment
                return 0
            blocks, unreadable = decode_all(batch.payloads)
            rows = [
                row
                for block in blocks
                if len(block.scores)
                for row in self._write(block, stream, start=before)
            ]
            damaged = batch.damaged + sum(batch.counts[place] for place in unreadable)
            with self._database.write() as connection:
                self._store.add_log_files(connection, rows)
                self._store.move(
                    connection,
                    name,
                    position=batch.position,
                    dropped=batch.dropped,
                    damaged=damaged,
                )
            self._written_at[stream] = self._clock.monotonic_s()
            reader.forget(self._slowest(stream))
            return sum(batch.counts)

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

    def _write(self, block: Block, stream: str, *, start: Position) -> list[dict[str, Any]]:
        """The files of one version, one for each day."""
        version = self._version(block.tenant, block.endpoint, number=block.version)
        table = _table(block, version)
        days = np.repeat(block.event_at // DAY, block.rows)
        key = {"tenant": block.tenant, "endpoint": block.endpoint, "version": block.version}
        kind = (
            "-shadow" if len(block.answers) else ""
        )  # of those that are decoded into a block beside the others
        name = f"{stream}-{start.segment}-{start.byte}-{block.features.shape[1]}{kind}"
        rows = []
        for day in np.unique(days):
            mine = days == day
            part = table if mine.all() else table.filter(pa.array(mine))
            label = np.datetime64(int(day), "D")
            path = f"{block.tenant}/{block.endpoint}/version={block.version}/day={label}/{name}.parquet"
            rows.append({**key, "path": path, **self._save(part, path)})
        return rows

    def _save(self, part: pa.Table, path: str) -> dict[str, int]:
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        # Dictionaries pay for texts of few levels, not for numbers and ids, nearly all of them different.
        texts = [f.name for f in part.schema if f.type == pa.string() and f.name != "id"]
        pq.write_table(part, partial, compression="zstd", use_dictionary=texts)
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


_ARMS = tuple(arm.name.lower() for arm in Arm)
_META_FIELDS = (
    pa.field("id", pa.string()),
    pa.field("row", pa.int32()),
    pa.field("version", pa.int32()),
    pa.field("event_at", pa.timestamp("ns", "UTC")),
    pa.field("received_at", pa.timestamp("ns", "UTC")),
    pa.field("score", pa.float64()),
    pa.field("arm", pa.string()),
    pa.field("answered", pa.float64()),  # of a shadow's copy: the score that the client got
)
_META_NAMES = frozenset(field.name for field in _META_FIELDS)


def _columns(path: Path | None, wanted: Sequence[Field]) -> pa.Table:
    """What was answered, of a file (or of none), with the inputs asked for; null where it has no such column."""
    inputs = [pa.field(column_of(field.name), _arrow_type(field)) for field in wanted]
    names = ["id", "row", "version", "event_at", "score", *(field.name for field in inputs)]
    schema = pa.schema([*_META_FIELDS, *inputs])
    if path is None:
        return schema.empty_table().select(names)
    part = pq.read_table(path, partitioning=None)
    part = part.filter(pc.not_equal(part.column("arm"), _ARMS[Arm.SHADOW]))
    for field in schema:
        if field.name not in part.column_names:
            part = part.append_column(field, pa.nulls(part.num_rows, field.type))
    return part.select(names).cast(pa.schema([schema.field(name) for name in names]))


def column_of(name: str) -> str:
    """The column of an input: its name, unless the log has a column of that name itself."""
    return f"input.{name}" if name in _META_NAMES else name


def _table(block: Block, version: Version | None) -> pa.Table:
    """One row per prediction; categorical codes become their texts again."""
    places = np.repeat(np.arange(len(block.rows)), block.rows)
    first_rows = np.cumsum(block.rows, dtype=np.int64) - block.rows
    moment = pa.timestamp("ns", "UTC")
    meta = [
        pa.array(block.ids, pa.string()).take(pa.array(places)),
        pa.array((np.arange(len(places)) - first_rows[places]).astype(np.int32)),
        pa.array(np.full(len(places), block.version, np.int32)),
        pa.array(block.event_at[places]).cast(moment),
        pa.array(block.received_at[places]).cast(moment),
        pa.array(block.scores),
        pa.array(_ARMS, pa.string()).take(pa.array(block.arms[places])),
        pa.array(block.answers) if len(block.answers) else pa.nulls(len(places), pa.float64()),
    ]
    if version is None or block.features.shape[1] != len(version.signature.feature_names):
        return pa.table(meta, schema=pa.schema(_META_FIELDS))
    unseen = block.unseen()
    levels = version.signature.levels
    columns, fields = meta, list(_META_FIELDS)
    for at, (name, values) in enumerate(
        zip(version.signature.feature_names, np.ascontiguousarray(block.features.T), strict=True)
    ):
        found = (
            _texts(values, levels[name], unseen=unseen.get(at, {}))
            if name in levels
            else pa.array(values, from_pandas=True)
        )
        columns.append(found)
        fields.append(pa.field(column_of(name), found.type))
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


def _arrow_type(field: Field) -> pa.DataType:
    return pa.string() if field.datatype == "BYTES" else pa.float64()
