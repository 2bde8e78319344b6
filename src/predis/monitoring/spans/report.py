"""Windows by time, as people see them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from predis.clock import NANOSECONDS, Clock, iso
from predis.errors import InvalidInput
from predis.monitoring.segments import LEVELS, OTHER
from predis.monitoring.spans.counting import WHOLE, unpacked
from predis.monitoring.spans.store import SpanStore
from predis.monitoring.store import Row
from predis.state.engine import Database
from predis.stats import latency, score_buckets

_MOST_WINDOWS = 2_000  # of time
_STRANGE = ("missing", "out_of_range", "unseen")


class SpanReport:
    """Reads windows by time."""

    def __init__(self, database: Database, clock: Clock, *, length_s: float) -> None:
        self._store = SpanStore(database)
        self._clock = clock
        self._length = round(length_s * NANOSECONDS)

    def listed(
        self,
        tenant: str,
        endpoint: str,
        *,
        since: int,
        version: int | None = None,
        segment: str | None = None,
    ) -> dict[str, Any]:
        """Windows that began at a moment or later: ``windows`` of the endpoint as a whole, ``segments`` by their levels, oldest first.

        Of each segment the ``LEVELS`` with the most rows are told apart, all others are one, "other"; ``levels`` says how many are
        followed. ``segment``: of this one only.

        Raises:
            InvalidInput: that would be more than 2,000 windows.
        """
        now = self._clock.time_ns()
        if (now - since) // self._length > _MOST_WINDOWS:
            raise InvalidInput(f"that would be more than {_MOST_WINDOWS} windows; ask for a later since")
        first = since // self._length * self._length
        rows, levels = self._store.listed(tenant, endpoint, since=first, until=now + 1, version=version)
        names = {row["number"]: (row["segment"], row["level"]) for row in levels}
        segments: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            if row["number"] in names:
                of, level = names[row["number"]]
                segments[of][level].append(row)
        return {
            "endpoint": endpoint,
            "length_s": self._length / NANOSECONDS,
            "windows": [_shown([row]) for row in rows if row["number"] == WHOLE],
            "segments": [
                {"segment": text, "levels": len(found), "windows": list(_by_level(found))}
                for text, found in sorted(segments.items())
                if segment in (None, text)
            ],
        }


def _by_level(found: dict[str, list[Row]]) -> Iterable[dict[str, Any]]:
    """The windows of a segment's largest levels, and those of all others as one."""
    volume = {level: sum(row["rows"] + row["failed"] for row in rows) for level, rows in found.items()}
    largest = sorted((level for level in found if level != OTHER), key=lambda level: -volume[level])
    kept = largest[: LEVELS if len(largest) > LEVELS + 1 else None]
    groups = {level: found[level] for level in kept}
    rest = [row for level, rows in found.items() if level not in groups for row in rows]
    for level, rows in {**groups, OTHER: rest}.items():
        times: dict[tuple[int, int], list[Row]] = defaultdict(list)
        for row in rows:
            times[row["start"], row["version"]].append(row)
        for time in sorted(times):
            yield {"level": level, **_shown(times[time])}


def _shown(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows of the same time and version as one. Measures do not add up: of several rows together they are not known."""
    requests, failed, rejected, count, matured = (
        sum(row[name] for row in rows) for name in ("requests", "failed", "rejected", "rows", "matured")
    )
    latencies = sum((unpacked(row["latency"]) for row in rows), np.zeros(latency.BUCKETS, np.int64))
    scores = sum((unpacked(row["scores"]) for row in rows), np.zeros(score_buckets.BUCKETS, np.int64))
    measures = dict(rows[0]["measures"]) if len(rows) == 1 else {}
    return {
        "at": iso(rows[0]["start"]),
        "length_s": rows[0]["length"] / NANOSECONDS,
        "version": rows[0]["version"],
        "requests": requests,
        "failed": failed,
        "rejected": rejected,
        "error_rate": failed / requests if requests else None,
        "latency_ms": {
            f"p{round(q * 100)}": latency.quantile(latencies, q) * 1000 if latencies.any() else None
            for q in (0.5, 0.95, 0.99)
        },
        "rows": count,
        "scores": {f"p{round(q * 100)}": _score(scores, q) for q in (0.05, 0.25, 0.5, 0.75, 0.95)},
        **_strange(rows, count),
        "labels": matured,
        "coverage": matured / count if count else None,
        "task": measures.pop("task", None),
        "label_age_s": measures.pop("label_age_s", None),
        "measures": measures,
    }


def _score(counts: Any, q: float) -> float | None:
    """A quantile of scores, as near as their buckets tell: the end of its bucket that is nearer to 0."""
    total = int(counts.sum())
    if not total:
        return None
    bucket = int(np.searchsorted(np.cumsum(counts), max(1, q * total)))
    ends = (
        score_buckets.EDGES[max(bucket - 1, 0)],
        score_buckets.EDGES[min(bucket, score_buckets.EDGES.size - 1)],
    )
    return float(min(ends, key=abs))


def _strange(rows: Sequence[Row], count: int) -> dict[str, Any]:
    """Shares of input values that are missing, out of range and unseen."""
    strange = [unpacked(row["strange"]).reshape(3, -1) for row in rows]
    width = max((each.shape[1] for each in strange), default=0)
    total = sum((each for each in strange if each.shape[1] == width), np.zeros((3, width), np.int64))
    values = max(1, count * width)
    return {name: float(total[at].sum()) / values for at, name in enumerate(_STRANGE)}
