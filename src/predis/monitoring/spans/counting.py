"""Windows by time: what came for an endpoint, and for each level of its segments, in each stretch of time.

A window begins at a multiple of its length and holds the requests that were received in it; that is our own clock, so clients whose clocks
jump cannot make windows. A request counts in the levels of its first row, a row in its own. A request that got no prediction has no inputs
to tell its levels from and counts in the level "(inputs not kept)" of each segment. Copies for shadows count nowhere: nobody got them.

Counts are exact and merge by addition. Labels count in the window of their prediction, however late they come.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from predis.monitoring.store import Key, Row, pack_counts, unpack_counts
from predis.state.records import Block, Status
from predis.stats import Profile, latency, score_buckets

WHOLE = 0  # the number of the endpoint as a whole
_IN_MIND = 3  # newest windows of a version
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]
Place = tuple[int, int]  # number of a level, start of a window


@dataclass
class _Span:
    """One level in one window. ``strange``: int64[3, inputs], values that were missing, out of range, unseen."""

    requests: int = 0
    failed: int = 0
    rejected: int = 0
    rows: int = 0
    latency: Counts = field(default_factory=lambda: np.zeros(latency.BUCKETS, np.int64))
    scores: Counts = field(default_factory=lambda: np.zeros(score_buckets.BUCKETS, np.int64))
    strange: Counts = field(default_factory=lambda: np.zeros((3, 0), np.int64))

    @classmethod
    def of(cls, row: Row) -> _Span:
        known = {name: row[name] for name in ("requests", "failed", "rejected", "rows")}
        latencies, scores, strange = (unpacked(row[name]) for name in ("latency", "scores", "strange"))
        return cls(**known, latency=latencies, scores=scores, strange=strange.reshape(3, -1))

    def row(self) -> Row:
        return {
            **vars(self),
            **{name: packed(getattr(self, name)) for name in ("latency", "scores", "strange")},
        }


class Spans:
    """The newest windows of one version.

    Args:
        key: tenant, endpoint and version.
        length: of a window, in nanoseconds.
    """

    def __init__(self, key: Key, *, length: int) -> None:
        self.key = key
        self._length = length
        self._spans: dict[Place, _Span] = {}
        self._changed: set[Place] = set()
        self._recalled: set[int] = set()

    def unknown(self, block: Block) -> list[int]:
        """Starts of the windows that the block falls into and that have to be ``recall``ed first."""
        starts = np.unique(block.received_at // self._length * self._length).tolist()
        return [start for start in starts if start not in self._recalled]

    def recall(self, starts: Iterable[int], rows: Iterable[Row]) -> None:
        """Take in windows as the database has them; what it has no row of is empty."""
        self._recalled.update(starts)
        self._spans.update(((row["number"], row["start"]), _Span.of(row)) for row in rows)

    def count(
        self, block: Block, cells: NDArray[np.uint16], *, refused: list[int], profile: Profile | None
    ) -> None:
        """Add a block of answers.

        Args:
            cells: uint16[rows, segments], the numbers of each row's levels.
            refused: the numbers of a request without a row.
            profile: what out of range means, and unseen; without it only missing values are counted.
        """
        starts = block.received_at // self._length * self._length
        strange = _strange(block.features, profile)
        of_rows = np.repeat(starts, block.rows)
        first = np.cumsum(block.rows, dtype=np.int64) - block.rows
        for start in np.unique(starts).tolist():
            requests, rows = starts == start, of_rows == start
            self._add(block, (WHOLE, start), requests=requests, rows=rows, strange=strange)
            empty = requests & (block.rows == 0)
            for at in range(cells.shape[1]):
                column = cells[:, at]
                mine = np.full(len(requests), refused[at], np.int64)
                mine[block.rows > 0] = column[first[block.rows > 0]]
                for number in np.unique(np.concatenate([column[rows], mine[empty]])).tolist():
                    self._add(
                        block, (number, start), requests=requests & (mine == number), rows=rows & (column == number), strange=strange
                    )  # fmt: skip

    def _add(
        self,
        block: Block,
        place: Place,
        *,
        requests: Flags,
        rows: Flags,
        strange: Flags,
    ) -> None:
        span = self._spans.setdefault(place, _Span())
        status = block.status[requests]
        span.requests += len(status)
        span.failed += int(np.count_nonzero(status == Status.FAILED))
        span.rejected += int(np.count_nonzero(status == Status.REJECTED))
        span.rows += int(np.count_nonzero(rows))
        span.latency = span.latency + latency.count(block.latency_us[requests][status == Status.OK] / 1e6)
        span.scores = span.scores + score_buckets.count(block.scores[rows])
        if strange.shape[2]:
            more = strange[:, rows].sum(axis=1, dtype=np.int64)
            span.strange = more + span.strange if span.strange.shape == more.shape else more
        self._changed.add(place)

    def changed(self) -> list[Row]:
        """Rows of the windows that changed since the last call. Old ones are forgotten: nothing is likely to fall into them again."""
        rows = [
            {
                **self.key, "number": number, "start": start, "length": self._length, **self._spans[number, start].row(),
                "matured": 0, "measured": 0, "measured_at": 0, "measures": {},
            }
            for number, start in sorted(self._changed)
        ]  # fmt: skip
        self._changed.clear()
        kept = set(sorted(self._recalled)[-_IN_MIND:])
        if len(kept) < len(self._recalled):
            self._recalled = kept
            self._spans = {place: span for place, span in self._spans.items() if place[1] in kept}
        return rows


def packed(counts: Counts) -> bytes:
    """Counts as bytes, few where most are 0."""
    return zlib.compress(pack_counts(counts.ravel()), 1)


def unpacked(content: bytes) -> Counts:
    return unpack_counts(zlib.decompress(content))


def _strange(features: NDArray[np.float64], profile: Profile | None) -> Flags:
    """bool[3, rows, inputs]: what is missing, out of the reference's range, and a category it never had; no inputs where none were kept."""
    if not features.shape[1] or (profile is not None and len(profile.bins) != features.shape[1]):
        return np.zeros((3, len(features), 0), np.bool_)
    found = np.zeros((3, *features.shape), np.bool_)
    found[0] = np.isnan(features)
    for at, bins in enumerate(profile.bins if profile else ()):
        column = features[:, at]
        if bins.kind == "categorical":
            found[2, :, at] = (column < 0) | (column >= len(bins.levels))
        elif bins.edges:
            found[1, :, at] = (column < bins.edges[0]) | (column > bins.edges[-1])
    return found
