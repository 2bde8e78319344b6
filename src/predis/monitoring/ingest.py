"""Reads the journal and keeps the evidence: counters, slots of traffic, drift windows, predictions that wait for labels.

What is derived from a batch of records and the position after it are committed in one transaction. A crash before the commit
repeats the batch, a crash after it does not: every record counts once. Only then are segments deleted.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from predis.clock import NANOSECONDS
from predis.monitoring.store import MonitoringStore, add_counts, pack_counts, unpack_counts
from predis.state.engine import Database
from predis.state.journal import JournalReader, streams
from predis.state.records import PredictionRecord, Status, decode
from predis.stats import Profile, latency

log = logging.getLogger(__name__)

CONSUMER = "windows:"
# Traffic is kept per slot of wall time: fine enough for a live chart, coarse enough to keep.
SLOT_S = 5
SLOT = SLOT_S * NANOSECONDS
Target = tuple[str, str, int]


@dataclass(frozen=True)
class Group:
    """The records of one version in one batch."""

    key: dict[str, Any]
    records: Sequence[PredictionRecord]


class ProfileOf(Protocol):
    """Finds the reference profile of a version."""

    def __call__(self, tenant: str, endpoint: str, *, number: int) -> Profile | None: ...


class Ingest:
    """One look at a time: ``look`` reads what is new in every stream.

    Args:
        profile: (tenant, endpoint, version) to its reference profile, or None.
        window_rows: predictions in one drift window.
    """

    def __init__(
        self,
        database: Database,
        journal: Path,
        *,
        profile: ProfileOf,
        window_rows: int,
    ) -> None:
        self._database = database
        self._journal = journal
        self._store = MonitoringStore(database)
        self._profile = profile
        self._window_rows = window_rows
        self._lock = threading.Lock()

    def look(self) -> int:
        """Records taken in. Call again while it is not zero. Whoever comes while another looks waits: a batch is taken once."""
        with self._lock:
            return sum(self._read(stream) for stream in streams(self._journal))

    def _read(self, stream: str) -> int:
        reader = JournalReader(self._journal / stream)
        name = CONSUMER + stream
        before = self._store.position(name)
        batch = reader.read(before)
        if batch.position == before:
            return 0
        records, unreadable = decoded(batch.payloads)
        if batch.dropped or batch.damaged or unreadable:
            log.warning(
                "%s: %d records were dropped, %d parts damaged",
                stream,
                batch.dropped,
                batch.damaged + unreadable,
            )
        with self._database.write() as connection:
            # By version, as feedback does: two transactions that want the same rows do not wait for each other in a ring.
            for group in sorted(grouped(records), key=lambda g: tuple(g.key.values())):
                self._take(connection, group)
            self._store.move(
                connection,
                name,
                position=batch.position,
                dropped=batch.dropped,
                damaged=batch.damaged + unreadable,
            )
        return len(batch.payloads)

    def _take(self, connection: Any, group: Group) -> None:
        answered = [record for record in group.records if record.status is Status.OK]
        rows = [row for record in answered for row in _prediction_rows(record)]
        new = self._store.add_predictions(connection, rows)
        self._count(connection, group, answered=answered, new=new, repeated=len(rows) - new)
        self._store.add_slots(connection, _slots(group))
        profile = self._profile(group.key["tenant"], group.key["endpoint"], number=group.key["version"])
        if profile is not None and answered:
            self._window(connection, group.key, profile=profile, records=answered)

    def _count(
        self, connection: Any, group: Group, *, answered: Sequence[PredictionRecord], new: int, repeated: int
    ) -> None:
        moments = [record.received_at for record in group.records]
        row = self._store.counters(connection, group.key) or {
            **group.key, "requests": 0, "failed": 0, "rejected": 0, "rows": 0, "duplicates": 0, "matured": 0,
            "latency": pack_counts(np.zeros(latency.BUCKETS)), "first_at": moments[0], "last_at": moments[0],
        }  # fmt: skip
        row["requests"] += len(group.records)
        row["failed"] += sum(record.status is Status.FAILED for record in group.records)
        row["rejected"] += sum(record.status is Status.REJECTED for record in group.records)
        row["rows"] += new
        row["duplicates"] += repeated
        row["latency"] = add_counts(row["latency"], _latency(answered))
        row["first_at"], row["last_at"] = (
            min([row["first_at"], *moments]),
            max([row["last_at"], *moments]),
        )
        self._store.put_counters(connection, row)

    def _window(
        self, connection: Any, key: dict[str, Any], *, profile: Profile, records: Sequence[PredictionRecord]
    ) -> None:
        """Add rows to the open window, closing it and opening the next whenever it is full."""
        features = np.concatenate([record.features for record in records])
        scores = np.concatenate([record.scores for record in records])
        events = np.repeat(
            [record.event_at for record in records], [len(record.scores) for record in records]
        )
        at = 0
        while at < len(scores):
            window = self._store.open_window(connection, key)
            if window is None or window["closed"]:
                window = _new_window(
                    key, profile, number=window["number"] + 1 if window else 1, event=int(events[at])
                )
            stop = min(len(scores), at + self._window_rows - window["rows"])
            part = slice(at, stop)
            window["features"] = add_counts(
                window["features"], pack_counts(np.concatenate(profile.count(features[part])))
            )
            window["scores"] = add_counts(window["scores"], pack_counts(profile.count_scores(scores[part])))
            window["score_sum"] += float(scores[part].sum(where=np.isfinite(scores[part])))
            window["rows"] += stop - at
            window["first_event"] = min(window["first_event"], int(events[part].min()))
            window["last_event"] = max(window["last_event"], int(events[part].max()))
            window["closed"] = window["rows"] >= self._window_rows
            self._store.put_window(connection, window)
            at = stop


def decoded(payloads: Sequence[bytes]) -> tuple[list[PredictionRecord], int]:
    """The records of a batch, and how many payloads were none."""
    records, unreadable = [], 0
    for payload in payloads:
        try:
            records.append(decode(payload))
        except ValueError:
            unreadable += 1
    return records, unreadable


def grouped(records: Sequence[PredictionRecord]) -> list[Group]:
    """Records by the version that answered, in the order they came."""
    found: dict[Target, list[PredictionRecord]] = defaultdict(list)
    for record in records:
        found[record.tenant, record.endpoint, record.version].append(record)
    return [Group({"tenant": t, "endpoint": e, "version": v}, group) for (t, e, v), group in found.items()]


def split_features(profile: Profile, content: bytes) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """The counts of each feature from a window's concatenated bytes."""
    sizes = [bins.size for bins in profile.bins]
    return np.split(unpack_counts(content), np.cumsum(sizes)[:-1])


def _new_window(key: dict[str, Any], profile: Profile, *, number: int, event: int) -> dict[str, Any]:
    return {
        **key,
        "number": number,
        "rows": 0,
        "first_event": event,
        "last_event": event,
        "features": pack_counts(np.zeros(sum(bins.size for bins in profile.bins))),
        "scores": pack_counts(np.zeros(profile.score_bins.size)),
        "score_sum": 0.0,
        "closed": False,
        "verdicts": {},
    }


def _prediction_rows(record: PredictionRecord) -> list[dict[str, Any]]:
    """One row per score; NaN, which no label can be compared with, is left to the windows."""
    return [
        {
            "tenant": record.tenant, "endpoint": record.endpoint, "id": record.id, "row": row, "version": record.version,
            "score": score, "event_at": record.event_at, "received_at": record.received_at,
        }
        for row, score in enumerate(record.scores.tolist())
        if not math.isnan(score)
    ]  # fmt: skip


def _slots(group: Group) -> list[dict[str, Any]]:
    by_slot: dict[int, list[PredictionRecord]] = defaultdict(list)
    for record in group.records:
        by_slot[record.received_at // SLOT * SLOT].append(record)
    return [
        {
            **group.key,
            "start": start,
            "requests": len(records),
            "failed": sum(record.status is Status.FAILED for record in records),
            "rejected": sum(record.status is Status.REJECTED for record in records),
            "latency": _latency([record for record in records if record.status is Status.OK]),
        }
        for start, records in by_slot.items()
    ]


def _latency(records: Sequence[PredictionRecord]) -> bytes:
    return pack_counts(latency.count(np.array([record.latency_us for record in records], np.float64) / 1e6))
