"""What ingest keeps in mind of one version: its counters, its newest slots of traffic, its open drift window, how it differs as a shadow.

A tally begins as the rows of the database are, counts blocks, and gives back the rows that changed. It knows no database, and so not
whether its rows were stored: who keeps tallies forgets them where that is not certain.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from predis.clock import NANOSECONDS
from predis.monitoring.shadows import comparable
from predis.monitoring.store import Key, Prediction, Row, pack_counts, pack_scores, unpack_counts
from predis.state.records import REASON, Arm, Block, Status
from predis.stats import Moments, Profile, latency, score_buckets

# Traffic is kept per slot of wall time, so fine that a rollout sees a burst of errors in the second in which it begins.
SLOT_S = 1
SLOT = SLOT_S * NANOSECONDS
_SLOTS_IN_MIND = 8
_FLIP = 0.5
_DIFFERENCE_MAX = 1e100  # whatever is further apart is as far apart as that; its square must be a number
Counts = NDArray[np.int64]


@dataclass
class _Traffic:
    """Requests of one slot, or of an arm."""

    requests: int = 0
    failed: int = 0
    rejected: int = 0
    latency: Counts = field(default_factory=lambda: np.zeros(latency.BUCKETS, np.int64))

    @classmethod
    def of(cls, row: Row) -> _Traffic:
        return cls(row["requests"], row["failed"], row["rejected"], unpack_counts(row["latency"]))

    @classmethod
    def counted(cls, block: Block, mine: NDArray[np.bool_]) -> _Traffic:
        """Those of a block's requests."""
        status = block.status[mine]
        return cls(
            len(status),
            int(np.count_nonzero(status == Status.FAILED)),
            int(np.count_nonzero(status == Status.REJECTED)),
            latency.count(block.latency_us[mine][status == Status.OK] / 1e6),
        )

    def add(self, more: _Traffic) -> None:
        self.requests += more.requests
        self.failed += more.failed
        self.rejected += more.rejected
        self.latency = self.latency + more.latency

    def row(self) -> Row:
        return {**vars(self), "latency": pack_counts(self.latency)}


@dataclass
class _Arm:
    """What came to a version in one way."""

    traffic: _Traffic
    rows: int
    duplicates: int
    scores: Counts
    first_at: int
    last_at: int

    @classmethod
    def of(cls, row: Row) -> _Arm:
        known = {name: row[name] for name in ("rows", "duplicates", "first_at", "last_at")}
        return cls(_Traffic.of(row), scores=unpack_counts(row["scores"]), **known)

    @classmethod
    def empty(cls, at: int) -> _Arm:
        return cls(_Traffic(), 0, 0, np.zeros(score_buckets.BUCKETS, np.int64), at, at)

    def add(self, block: Block, traffic: _Traffic, *, new: int, repeated: int) -> None:
        self.traffic.add(traffic)
        self.rows += new
        self.duplicates += repeated
        self.scores = self.scores + score_buckets.count(block.scores)
        self.first_at = min(self.first_at, int(block.received_at.min()))
        self.last_at = max(self.last_at, int(block.received_at.max()))

    def row(self) -> Row:
        """The row of counters, but for what others count."""
        return {
            **self.traffic.row(), "rows": self.rows, "duplicates": self.duplicates, "matured": 0,
            "scores": pack_counts(self.scores), "first_at": self.first_at, "last_at": self.last_at,
        }  # fmt: skip


@dataclass
class _Differences:
    """How far a shadow's scores are from the answers."""

    rows: int = 0
    flips: int = 0
    moments: Moments = field(default_factory=Moments)
    worst: float = 0.0
    sizes: Counts = field(default_factory=lambda: np.zeros(score_buckets.BUCKETS, np.int64))

    @classmethod
    def of(cls, row: Row) -> _Differences:
        moments = Moments(row["rows"], row["mean"], row["m2"])
        return cls(row["rows"], row["flips"], moments, row["worst"], unpack_counts(row["sizes"]))

    def add(self, scores: NDArray[np.float64], answers: NDArray[np.float64]) -> None:
        with np.errstate(
            invalid="ignore", over="ignore"
        ):  # two infinities of the same sign are the same score
            apart = np.where(scores == answers, 0.0, scores - answers)
        apart = np.clip(apart, -_DIFFERENCE_MAX, _DIFFERENCE_MAX)
        self.rows += len(apart)
        self.flips += int(np.count_nonzero((scores >= _FLIP) != (answers >= _FLIP)))
        self.moments += Moments.of(apart)
        self.worst = max(self.worst, float(np.abs(apart).max(initial=0.0)))
        self.sizes = self.sizes + score_buckets.count(np.abs(apart))

    def row(self) -> Row:
        return {
            "rows": self.rows, "flips": self.flips, "mean": self.moments.mean, "m2": self.moments.m2, "worst": self.worst,
            "sizes": pack_counts(self.sizes),
        }  # fmt: skip


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
        counters, window, differences: what the database has of it; of counters a row for each arm.
    """

    def __init__(
        self,
        key: Key,
        *,
        counters: Iterable[Row] = (),
        window: Row | None = None,
        differences: Row | None = None,
    ) -> None:
        self.key = key
        self._arms = {Arm(row["arm"]): _Arm.of(row) for row in counters}
        self._counted: set[Arm] = set()
        self._slots: dict[int, _Traffic] = {}
        self._changed: set[int] = set()
        self._window = _Window.of(window) if window else None
        self._filled: dict[int, _Window] = {}
        self._differences = _Differences.of(differences) if differences else _Differences()
        self._compared = False

    def unknown_slots(self, block: Block) -> list[int]:
        """Slots that the block falls into and that have to be ``recall``ed first; a shadow's fall into none."""
        if block.arms[0] == Arm.SHADOW:
            return []
        return [start for start in np.unique(_starts(block)).tolist() if start not in self._slots]

    def recall(self, starts: Iterable[int], rows: Iterable[Row]) -> None:
        """Take in slots as the database has them; those it has no row of are empty."""
        self._slots.update((start, _Traffic()) for start in starts)
        self._slots.update((row["start"], _Traffic.of(row)) for row in rows)

    def count(self, block: Block, *, new: int, repeated: int) -> None:
        """Add requests of one arm to the counters, and answered ones to the slots.

        ``new`` and ``repeated`` are the scores that a label can be compared with, by whether their ids were known.
        """
        arm = Arm(block.arms[0])
        starts = _starts(block)
        total = _Traffic()
        for start in np.unique(starts).tolist():
            more = _Traffic.counted(block, starts == start)
            total.add(more)
            if arm != Arm.SHADOW:
                self._slots[start].add(more)
                self._changed.add(start)
        counted = self._arms.setdefault(arm, _Arm.empty(int(block.received_at[0])))
        counted.add(block, total, new=new, repeated=repeated)
        self._counted.add(arm)

    def compare(self, block: Block) -> None:
        """Add how far a shadow's scores are from the answers, row by row."""
        both = comparable(block)
        if both.any():
            self._differences.add(block.scores[both], block.answers[both])
            self._compared = True

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

    def changed_counters(self) -> list[Row]:
        """Rows of the arms that changed since the last call."""
        rows = [{**self.key, "arm": int(arm), **self._arms[arm].row()} for arm in sorted(self._counted)]
        self._counted.clear()
        return rows

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

    def changed_differences(self) -> list[Row]:
        """The row of differences, if it changed since the last call."""
        rows = [{**self.key, **self._differences.row()}] if self._compared else []
        self._compared = False
        return rows


def by_arm(block: Block) -> Sequence[Block]:
    """A block in parts of one arm each."""
    if (block.arms == block.arms[0]).all():
        return (block,)
    return [_part(block, block.arms == arm) for arm in np.unique(block.arms)]


def prediction_rows(block: Block, cells: NDArray[np.uint16] | None = None) -> dict[int, list[Prediction]]:
    """The answered requests as they wait for labels, by how many of their scores a label can be compared with: those that are not NaN.

    ``cells``: uint16[rows, segments], the levels that each row belongs to.
    """
    stops = np.cumsum(block.rows, dtype=np.int64)
    starts = stops - block.rows
    numbers = np.append(0, np.cumsum(~np.isnan(block.scores)))
    comparable = numbers[stops] - numbers[starts]
    packed = pack_scores(block.scores)
    scores = [
        packed[start:stop] for start, stop in zip((8 * starts).tolist(), (8 * stops).tolist(), strict=True)
    ]
    levels = (
        _split_cells(cells, starts, stops=stops) if cells is not None and cells.size else [None] * len(scores)
    )
    moments = (block.event_at.tolist(), block.received_at.tolist())
    rows = list(zip(block.ids, scores, *moments, levels, strict=True))
    if block.rows.all() and (comparable == comparable[0]).all():  # one row each, most often
        return {int(comparable[0]): rows}
    found: dict[int, list[Prediction]] = defaultdict(list)
    for count, row in zip(comparable.tolist(), rows, strict=True):
        if row[1]:
            found[count].append(row)
    return found


def _split_cells(cells: NDArray[np.uint16], starts: Counts, *, stops: Counts) -> list[bytes]:
    """The levels of each request's rows as bytes."""
    width = 2 * cells.shape[1]
    content = cells.astype("<u2").tobytes()
    pairs = zip((width * starts).tolist(), (width * stops).tolist(), strict=True)
    return [content[start:stop] for start, stop in pairs]


def split_features(profile: Profile, content: bytes) -> list[Counts]:
    """The counts of each feature from a window's concatenated bytes."""
    ends = np.cumsum([bins.size for bins in profile.bins])
    return np.split(unpack_counts(content), ends[:-1]) if profile.bins else []


def _part(block: Block, mine: NDArray[np.bool_]) -> Block:
    """Some requests of a block."""
    rows = np.repeat(mine, block.rows)
    arrays = {
        name: getattr(block, name)[mine]
        for name in ("status", "arms", "rows", "received_at", "event_at", "latency_us")
    }
    return replace(
        block, ids=[name for name, is_mine in zip(block.ids, mine.tolist(), strict=True) if is_mine], **arrays,
        scores=block.scores[rows], features=block.features[rows],
        answers=block.answers[rows] if len(block.answers) else block.answers, extra=_texts(block.extra, rows),
    )  # fmt: skip


def _texts(extra: bytes, mine: NDArray[np.bool_]) -> bytes:
    """The texts of some rows, which are numbered anew."""
    if not extra:
        return b""
    places = np.cumsum(mine) - 1
    return orjson.dumps(
        [
            [int(places[row]), column, text]
            for row, column, text in orjson.loads(extra)
            if column != REASON and mine[row]
        ]
    )


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
