"""What ingest keeps in mind of one version: its counters, its newest slots of traffic and its open drift window.

A tally begins as the rows of the database are, counts blocks, and gives back the rows that changed. It knows no database, and so not
whether its rows were stored: who keeps tallies forgets them where that is not certain.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.clock import NANOSECONDS
from predis.monitoring.store import Key, Prediction, Row, pack_counts, pack_scores, unpack_counts
from predis.state.records import Block, Status
from predis.stats import Profile, latency

# Traffic is kept per slot of wall time: fine enough for a live chart, coarse enough to keep.
SLOT_S = 5
SLOT = SLOT_S * NANOSECONDS
_SLOTS_IN_MIND = 4
Counts = NDArray[np.int64]


@dataclass
class _Traffic:
    """Requests of one slot, or of all time."""

    requests: int = 0
    failed: int = 0
    rejected: int = 0
    latency: Counts = field(default_factory=lambda: np.zeros(latency.BUCKETS, np.int64))

    @classmethod
    def of(cls, row: Row) -> _Traffic:
        return cls(row["requests"], row["failed"], row["rejected"], unpack_counts(row["latency"]))

    def add(self, more: _Traffic) -> None:
        self.requests += more.requests
        self.failed += more.failed
        self.rejected += more.rejected
        self.latency = self.latency + more.latency

    def row(self) -> Row:
        return {**vars(self), "latency": pack_counts(self.latency)}


@dataclass
class _Window:
    """A drift window: how many of its rows fell into each bin of the profile."""

    number: int
    rows: int
    first_event: int
    last_event: int
    features: Counts
    scores: Counts
    score_sum: float
    closed: bool
    verdicts: dict[str, Any]

    @classmethod
    def of(cls, row: Row) -> _Window:
        known = {name: row[name] for name in cls.__dataclass_fields__}
        return cls(**{**known, **{name: unpack_counts(row[name]) for name in ("features", "scores")}})

    def row(self) -> Row:
        return {**vars(self), "features": pack_counts(self.features), "scores": pack_counts(self.scores)}


class Tally:
    """Counts the blocks of one version.

    Args:
        key: tenant, endpoint and version.
        counters, window: what the database has of it.
    """

    def __init__(self, key: Key, *, counters: Row | None, window: Row | None) -> None:
        self.key = key
        self._total = _Traffic.of(counters) if counters else _Traffic()
        self._rows = counters["rows"] if counters else 0
        self._duplicates = counters["duplicates"] if counters else 0
        self._moments = (counters["first_at"], counters["last_at"]) if counters else None
        self._slots: dict[int, _Traffic] = {}
        self._changed: set[int] = set()
        self._window = _Window.of(window) if window else None
        self._filled: dict[int, _Window] = {}

    def unknown_slots(self, block: Block) -> list[int]:
        """Slots that the block falls into and that have to be ``recall``ed first."""
        return [start for start in np.unique(_starts(block)).tolist() if start not in self._slots]

    def recall(self, starts: Iterable[int], rows: Iterable[Row]) -> None:
        """Take in slots as the database has them; those it has no row of are empty."""
        self._slots.update((start, _Traffic()) for start in starts)
        self._slots.update((row["start"], _Traffic.of(row)) for row in rows)

    def count(self, block: Block, *, new: int, repeated: int) -> None:
        """Add a block's requests to the counters and slots. ``new`` and ``repeated`` are its scores, by whether their ids were known."""
        starts = _starts(block)
        seconds = block.latency_us / 1e6
        answered = block.status == Status.OK
        for start in np.unique(starts).tolist():
            mine = starts == start
            status = block.status[mine]
            more = _Traffic(
                len(status),
                int(np.count_nonzero(status == Status.FAILED)),
                int(np.count_nonzero(status == Status.REJECTED)),
                latency.count(seconds[mine & answered]),
            )
            self._slots[start].add(more)
            self._total.add(more)
            self._changed.add(start)
        self._rows += new
        self._duplicates += repeated
        moments = (int(block.received_at.min()), int(block.received_at.max()))
        first, last = self._moments or moments
        self._moments = (min(first, moments[0]), max(last, moments[1]))

    def fill_windows(self, block: Block, profile: Profile, *, size: int) -> None:
        """Add a block's rows to the open window, closing it and opening the next whenever it has ``size``.

        Features that were not captured, or are not those of the profile, leave the window's features alone.
        """
        events = np.repeat(block.event_at, block.rows)
        captured = 0 < len(profile.bins) == block.features.shape[1]
        at = 0
        while at < len(events):
            if self._window is None or self._window.closed:
                number = self._window.number + 1 if self._window else 1
                self._window = _empty_window(profile, number=number, event=int(events[at]))
            window = self._window
            part = slice(at, at + max(0, size - window.rows))
            if captured:
                window.features = window.features + np.concatenate(profile.count(block.features[part]))
            scores = block.scores[part]
            window.scores = window.scores + profile.count_scores(scores)
            window.score_sum += float(scores.sum(where=np.isfinite(scores)))
            window.rows += len(scores)
            window.first_event = int(events[part].min(initial=window.first_event))
            window.last_event = int(events[part].max(initial=window.last_event))
            window.closed = window.rows >= size
            self._filled[window.number] = window
            at += len(scores)

    def counters(self) -> Row:
        """The row of counters, but for what others count."""
        first_at, last_at = self._moments or (0, 0)
        return {
            **self.key, **self._total.row(), "rows": self._rows, "duplicates": self._duplicates, "matured": 0,
            "first_at": first_at, "last_at": last_at,
        }  # fmt: skip

    def changed_slots(self) -> list[Row]:
        """Rows of the slots that changed since the last call. Old ones are forgotten: nothing is likely to fall into them again."""
        rows = [{**self.key, "start": start, **self._slots[start].row()} for start in sorted(self._changed)]
        self._changed.clear()
        for start in sorted(self._slots)[:-_SLOTS_IN_MIND]:
            del self._slots[start]
        return rows

    def changed_windows(self) -> list[Row]:
        """Rows of the windows that changed since the last call."""
        rows = [{**self.key, **window.row()} for window in self._filled.values()]
        self._filled.clear()
        return rows


def prediction_rows(block: Block) -> dict[int, list[Prediction]]:
    """The answered requests as they wait for labels, by how many of their scores a label can be compared with: those that are not NaN."""
    stops = np.cumsum(block.rows, dtype=np.int64)
    starts = stops - block.rows
    numbers = np.append(0, np.cumsum(~np.isnan(block.scores)))
    comparable = numbers[stops] - numbers[starts]
    packed = pack_scores(block.scores)
    scores = [
        packed[start:stop] for start, stop in zip((8 * starts).tolist(), (8 * stops).tolist(), strict=True)
    ]
    rows = list(zip(block.ids, scores, block.event_at.tolist(), block.received_at.tolist(), strict=True))
    if block.rows.all() and (comparable == comparable[0]).all():  # one row each, most often
        return {int(comparable[0]): rows}
    found: dict[int, list[Prediction]] = defaultdict(list)
    for count, row in zip(comparable.tolist(), rows, strict=True):
        if row[1]:
            found[count].append(row)
    return found


def split_features(profile: Profile, content: bytes) -> list[Counts]:
    """The counts of each feature from a window's concatenated bytes."""
    ends = np.cumsum([bins.size for bins in profile.bins])
    return np.split(unpack_counts(content), ends[:-1]) if profile.bins else []


def _starts(block: Block) -> Counts:
    """The slot of each request."""
    return block.received_at // SLOT * SLOT


def _empty_window(profile: Profile, *, number: int, event: int) -> _Window:
    return _Window(
        number=number,
        rows=0,
        first_event=event,
        last_event=event,
        features=np.zeros(sum(bins.size for bins in profile.bins), np.int64),
        scores=np.zeros(profile.score_bins.size, np.int64),
        score_sum=0.0,
        closed=False,
        verdicts={},
    )
