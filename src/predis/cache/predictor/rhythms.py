"""Which keys are read at a steady period: found in the sample by key of the access stream.

A dashboard that looks every 5 s, a report at every full hour: each comes back after the value has expired, and so is a miss each time,
which no eviction policy mends. Of each key the moments of the last nine reads are kept. They are steady when they lie on a grid:

1. The period is first taken to be the median of the eight intervals. Each interval is a whole number of periods, so a read that was not
   seen (the sample rests at times) makes two periods of one and spoils nothing.
2. The grid's phase is the median of what is left; the reads near it, within a twentieth of the period, give period and phase anew by
   least squares.
3. Eight of the nine reads have to lie within 3 % of the period, and within 20 s, of that grid, so one read may be a stray one; and six of
   the eight intervals have to be one period. A key that has a schedule keeps it while six reads are on the grid.

Reads that come by chance hardly ever are: of a million windows of nine reads at random moments, evenly or in bursts, fewer than ten pass
(the tests measure it), and what passed by chance fails within a few reads more. Only the sample by key is used, as all reads of a key are
in it. The misses alone would not do: any key that is read all the time misses at the period of its time to live.

Reads within half a second of one that is known are the same visit: of a page that reads a key twice, of two workers. Rings of several
workers are read one after the other, so reads come out of order by some tenths of a second; the moments are sorted when they are looked at.
A clock that is set back makes all moments doubtful: then everything is forgotten. A clock set forward is a missed read.

Memory is bounded: so many keys, of which the one not read for longest goes; keys that have a schedule stay.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from predis.cache.predictor.schedules import MOST, PATIENCE, Schedule
from predis.cache.predictor.tables import Matched
from predis.cache.ring import KEY_BYTES, Flag
from predis.cache.ring_reader import keys_of

READS = 9
_ENOUGH, _STILL = 8, 6  # reads on the grid: to begin a schedule, and to keep it
_ONES = 6  # intervals that are one period: of bursts with long pauses between, few are
_NEAR, _SPREAD = 0.05, 0.03  # of a period, from the grid: to be fitted to, and to be on it
_MOST_SPREAD_US = 20e6
_SAME_US = 500_000
_LEAST_US, _LONGEST_US = 2e6, 2 * 86_400e6
_SLACK_US = 10_000  # added to what is seen of the spread
_BACK_US = 1_000_000  # a clock may be corrected by so much
_SPATIAL, _HIT = int(Flag.SPATIAL), int(Flag.HIT)


class Grid(NamedTuple):
    """Of each row of moments, in microseconds: the grid that fits it best."""

    period: NDArray[np.float64]
    anchor: NDArray[np.float64]
    """The grid's point at the last read, counted from the row's first."""
    spread: NDArray[np.float64]
    """The greatest distance of a read that is on the grid."""
    on: NDArray[np.int64]
    """How many reads are on it."""
    ones: NDArray[np.int64]
    """How many intervals are one period."""


def fit(moments: NDArray[np.int64]) -> Grid:
    """Fit a grid to each row.

    Args:
        moments: shape (rows, READS), rising within a row.

    >>> grid = fit(np.array([[0, 5, 10, 15, 20, 25, 30, 35, 40]]) * 1_000_000)
    >>> float(grid.period[0]), float(grid.anchor[0]), int(grid.on[0])
    (5000000.0, 40000000.0, 9)
    """
    since = (moments - moments[:, :1]).astype(np.float64)
    gaps = np.diff(since, axis=1)
    period = np.maximum(np.median(gaps, axis=1), 1.0)
    steps = np.zeros_like(since)
    each = np.rint(gaps / period[:, None])
    np.cumsum(each, axis=1, out=steps[:, 1:])
    rest = since - period[:, None] * steps
    near = np.abs(rest - np.median(rest, axis=1)[:, None]) <= _NEAR * period[:, None]
    period, start = _line(steps, since, near=near, period=period)
    away = np.abs(since - start[:, None] - period[:, None] * steps)
    on = near & (away <= np.minimum(_SPREAD * period, _MOST_SPREAD_US)[:, None])
    return Grid(
        period=period,
        anchor=start + period * steps[:, -1],
        spread=np.where(on, away, 0.0).max(axis=1),
        on=on.sum(axis=1),
        ones=(each == 1).sum(axis=1),
    )


def _line(
    steps: NDArray[np.float64],
    since: NDArray[np.float64],
    *,
    near: NDArray[np.bool_],
    period: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slope and beginning of the least squares line through the near points of each row; ``period`` where they have no slope."""
    count = np.maximum(near.sum(axis=1), 1)
    x = (steps * near).sum(axis=1) / count
    y = (since * near).sum(axis=1) / count
    across = np.where(near, steps - x[:, None], 0.0)
    square = (across**2).sum(axis=1)
    slope = np.where(
        square > 0, (across * (since - y[:, None])).sum(axis=1) / np.maximum(square, 1e-9), period
    )
    return slope, y - slope * x


class Rhythms:
    """Learns schedules from the access stream.

    Args:
        match: the source of a key; others than those of sources are not learnt, as nobody could load them.
        most_keys: how many keys are watched for a rhythm.

    Attributes:
        seen_us: the latest read of the sample: what is known of until then.
    """

    def __init__(self, match: Callable[[bytes], Matched | None], *, most_keys: int = 32_768) -> None:
        self._match = match
        self._moments = np.zeros((most_keys, READS), np.int64)
        self._last_hit = np.zeros(most_keys, np.bool_)
        self._counts = np.zeros(most_keys, np.int64)
        self._places: OrderedDict[bytes, int] = OrderedDict()  # the key read longest ago first
        # Of keys that have a schedule, its name and nominal period.
        self._rules: dict[bytes, tuple[str, float]] = {}
        self._newest: dict[str, int] = {}
        self.seen_us = 0

    def __len__(self) -> int:
        return len(self._places)

    def take(self, worker: str, events: np.ndarray[Any, Any]) -> None:
        """Learn from a batch of one worker's events, in order."""
        sampled = events[(events["flags"] & _SPATIAL != 0) & (events["length"] <= KEY_BYTES)]
        hits = (sampled["flags"] & _HIT).tolist()
        for key, us, hit in zip(keys_of(sampled), sampled["us"].tolist(), hits, strict=True):
            if us < self._newest.get(worker, 0) - _BACK_US:
                self._forget()
            self._newest[worker] = us
            self.seen_us = max(self.seen_us, us)
            if key in self._places or self._match(key) is not None:
                self._read(key, us, hit=bool(hit))

    def schedules(self, now_us: int) -> tuple[Schedule, ...]:
        """The keys that are read at a steady period now, at most ``MOST``.

        Args:
            now_us: what the time is.
        """
        keys = [key for key, place in self._places.items() if self._counts[place] >= READS]
        places = np.array([self._places[key] for key in keys], np.int64)
        moments = np.sort(self._moments[places], axis=1)
        grid = fit(moments)
        known = np.array([key in self._rules for key in keys], np.bool_)
        steady = (grid.on >= _ENOUGH) & (grid.ones >= _ONES) | known & (grid.on >= _STILL)
        due = steady & (moments[:, -1] + PATIENCE * grid.period >= self.seen_us)
        due &= (grid.period >= _LEAST_US) & (grid.period <= _LONGEST_US)
        rows = sorted(np.flatnonzero(due).tolist(), key=lambda row: not known[row])  # those in use stay
        found = []
        before, self._rules = self._rules, {}
        for row in rows[:MOST]:
            key, period_s = keys[row], float(grid.period[row]) / 1e6
            source = self._match(key)
            if source is None:
                continue
            rule = _named(source.matched.template, period_s, before=before.get(key))
            schedule = Schedule(
                key=key,
                rule=rule[0],
                period_s=period_s,
                tolerance_s=(float(grid.spread[row]) + _SLACK_US) / 1e6,
                anchor_s=(int(moments[row, 0]) + float(grid.anchor[row])) / 1e6,
                last_s=int(moments[row, -1]) / 1e6,
                hit=bool(self._last_hit[places[row]]),
            )
            if not schedule.is_over(now_us / 1e6):
                self._rules[key] = rule
                found.append(schedule)
        return tuple(found)

    def _read(self, key: bytes, us: int, *, hit: bool) -> None:
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = self._free()
            self._counts[place] = 0
        else:
            self._places.move_to_end(key)
            known = self._moments[place, : self._counts[place]]
            if len(known) and int(np.abs(known - us).min()) < _SAME_US:
                return
        count = int(self._counts[place])
        if not count or us > int(self._moments[place, :count].max()):
            self._last_hit[place] = hit
        if count < READS:
            self._moments[place, count] = us
            self._counts[place] = count + 1
        else:
            self._moments[place, int(self._moments[place].argmin())] = us

    def _free(self) -> int:
        """A place for a key that is new."""
        if len(self._places) < len(self._counts):
            return len(self._places)
        key = next(iter(self._places))
        while key in self._rules:  # they are fewer than the places
            self._places.move_to_end(key)
            key = next(iter(self._places))
        return self._places.pop(key)

    def _forget(self) -> None:
        self._places.clear()
        self._rules.clear()
        self._newest.clear()
        self.seen_us = 0


def _named(template: str, period_s: float, *, before: tuple[str, float] | None) -> tuple[str, float]:
    """The name under which a schedule is judged, with the period it says; the one it had while that is still true."""
    if before is not None and abs(period_s - before[1]) <= _NEAR * before[1]:
        return before
    nominal = float(f"{period_s:.2g}")
    unit, name = next(
        (u, n) for u, n in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")) if nominal >= 2 * u
    )
    return f"{template} every {nominal / unit:.3g} {name}", nominal
