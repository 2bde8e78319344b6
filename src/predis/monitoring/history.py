"""History: what was counted, kept the longer the coarser.

    seconds -> minutes -> hours -> days

Counts merge by addition, latencies by buckets; so what is made coarser loses resolution and no request. Each step happens in one
transaction: slots are in one width or the next, never in both or none. Drift windows, whose counts merge as well, are joined by the hour
and then by the day at the same ages. Each age has its setting. Windows by time, whose measures do not
merge, are dropped as old as traffic by the hour is made coarser.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from predis.clock import NANOSECONDS, Clock, iso
from predis.errors import InvalidInput
from predis.monitoring.spans.store import SpanStore
from predis.monitoring.store import MonitoringStore, Row, pack_counts, unpack_counts
from predis.state.engine import Database
from predis.stats import latency

SECOND, MINUTE, HOUR, DAY = (seconds * NANOSECONDS for seconds in (1, 60, 3_600, 86_400))
_WIDTHS = (SECOND, MINUTE, HOUR, DAY)
_MOST_BARS = 2_000
_KEEP_WINDOWS = 24  # of each version: checks look at the newest, whatever their age


@dataclass(frozen=True)
class Ages:
    """How old counts of each width get, in hours, before they are made coarser; those of days are dropped then."""

    seconds_h: float = 1.0
    minutes_h: float = 48.0
    hours_h: float = 24.0 * 60
    days_h: float = 24.0 * 3_650

    def of(self, width: int) -> int:
        """In nanoseconds."""
        hours = (self.seconds_h, self.minutes_h, self.hours_h, self.days_h)
        return round(hours[_WIDTHS.index(width)] * HOUR)


class History:
    """Makes counts coarser as they age, and reads them back."""

    def __init__(self, database: Database, clock: Clock, *, ages: Ages) -> None:
        self._database = database
        self._store = MonitoringStore(database)
        self._spans = SpanStore(database)
        self._clock = clock
        self._ages = ages

    def tidy(self) -> None:
        """Make coarser what is old enough, and drop what is older than anything is kept."""
        now = self._clock.time_ns()
        for fine, coarse in pairwise(_WIDTHS):
            # Whole coarse slots only: what is merged once is not touched again.
            before = (now - self._ages.of(fine)) // coarse * coarse
            with self._database.write() as connection:
                self._store.take_turn(connection)
                old = self._store.take_slots(connection, width=fine, before=before)
                since = min((row["start"] for row in old), default=before) // coarse * coarse
                known = self._store.merged_slots(connection, width=coarse, since=since, before=before)
                merged = _merged([*known, *old], coarse)
                self._store.put_merged(connection, merged)
        with self._database.write() as connection:
            self._store.take_slots(connection, width=DAY, before=now - self._ages.of(DAY))
            self._spans.forget(connection, before=now - self._ages.of(HOUR))
            self._store.forget_performance(connection, before=now - self._ages.of(DAY))
        self._join_windows(HOUR, before=now - self._ages.of(MINUTE))
        self._join_windows(DAY, before=now - self._ages.of(HOUR))

    def traffic(
        self, tenant: str, endpoint: str, *, since: int, step: int, version: int | None = None
    ) -> list[dict[str, Any]]:
        """Requests in bars of ``step`` nanoseconds from ``since`` to now, oldest first, those without any left out.

        What is kept only coarser than a bar falls into the bar in which it begins.

        Raises:
            InvalidInput: the step is no whole number of seconds, or there would be more than 2,000 bars.
        """
        now = self._clock.time_ns()
        if step < SECOND or step % SECOND:
            raise InvalidInput("step is a whole number of seconds")
        if (now - since) // step > _MOST_BARS:
            raise InvalidInput(
                f"that would be more than {_MOST_BARS} bars; ask for a longer step or a later since"
            )
        rows = self._store.traffic_since(tenant, endpoint, since=since // step * step)
        bars: dict[int, list[Row]] = defaultdict(list)
        for row in rows:
            if version is None or row["version"] == version:
                bars[row["start"] // step * step].append(row)
        return [_bar(start, bars[start]) for start in sorted(bars)]

    def _join_windows(self, width: int, *, before: int) -> None:
        """Join closed windows of a version that ended within the same stretch of time."""
        with self._database.write() as connection:
            self._store.take_turn(connection)
            groups: dict[Any, list[Row]] = defaultdict(list)
            for row in self._store.old_windows(
                connection, before=before // width * width, spare=_KEEP_WINDOWS
            ):
                key = (row["tenant"], row["endpoint"], row["version"], row["last_event"] // width)
                groups[key].append(row)
            for rows in groups.values():
                if len(rows) > 1:
                    joined = _joined(rows)
                    self._store.replace_windows(connection, joined, gone=[row["number"] for row in rows])


def _merged(rows: Sequence[Row], width: int) -> list[Row]:
    """Slots of one width, by version and start."""
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        start = row["start"] // width * width
        groups[row["tenant"], row["endpoint"], row["version"], start].append(row)
    return [
        {
            "tenant": tenant,
            "endpoint": endpoint,
            "version": version,
            "width": width,
            "start": start,
            **_summed(some),
        }
        for (tenant, endpoint, version, start), some in groups.items()
    ]


def _summed(rows: Sequence[Row]) -> Row:
    counts = {name: sum(row[name] for row in rows) for name in ("requests", "failed", "rejected")}
    return {**counts, "latency": pack_counts(np.sum([unpack_counts(row["latency"]) for row in rows], axis=0))}


def _bar(start: int, rows: Sequence[Row]) -> dict[str, Any]:
    found = _summed(rows)
    counts = unpack_counts(found.pop("latency"))
    quantiles = {
        f"p{round(q * 100)}_ms": latency.quantile(counts, q) * 1000 if counts.sum() else None
        for q in (0.5, 0.95, 0.99)
    }
    return {"at": iso(start), **found, **quantiles}


def _joined(rows: Sequence[Row]) -> Row:
    """Windows of a version as one, under the number of the newest."""
    found = dict(max(rows, key=lambda row: row["number"]))
    for name in ("features", "scores"):
        found[name] = pack_counts(np.sum([unpack_counts(row[name]) for row in rows], axis=0))
    found |= {name: sum(row[name] for row in rows) for name in ("rows", "score_sum")}
    found["first_event"] = min(row["first_event"] for row in rows)
    found["last_event"] = max(row["last_event"] for row in rows)
    return found
