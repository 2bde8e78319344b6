"""Keys that are read on a schedule: told by the learner, loaded by a worker shortly before they are due.

``Timetable`` is the learner's side. It hears the access stream and, at most once a second, writes down which keys are read at a steady
period (``predictor.rhythms``), when they were read last, and until when reads are known of.

``Scheduling`` is a gateway worker's side. It follows that file and asks the worker's ``Prefetcher`` for each key a little before it is
due: by the tolerance of its schedule, twice what a load of its source takes, and one look. From there on it is a prefetch like any
other: not loaded where Valkey has it and will have it until it is due (a value that expires before is loaded anew instead), held back in
part, within the source's budget, judged under the name of its schedule, and off while that does not pay.

Several workers
---------------
A scheduled read may come to any worker, so each key is one worker's, by a hash, to ask for; the read, if another worker gets it, is
known to the first from the learner's file, with what Valkey answered. Where nobody looked at reads then, nothing is counted.

Not asked for are keys whose source keeps values for too short a time to last from the load to the read.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from predis.cache.predictor import schedules
from predis.cache.predictor.rhythms import Rhythms
from predis.cache.predictor.schedules import Schedule, Schedules
from predis.cache.predictor.tables import Matched
from predis.cache.prefetching import Prefetcher
from predis.cache.sources.source import Source
from predis.clock import NANOSECONDS, Clock
from predis.errors import IntegrityFailure

log = logging.getLogger(__name__)

_TELL_S, _SPARED = 1.0, 50  # at most so often, and so many times what it takes is spent on other things
_LOOK_S = 0.25
_LEAST_LOAD_S = 0.01
_NEWS_S = 3.0  # after which the learner has surely told of a read


class Timetable:
    """The learner's side.

    Args:
        folder: the predictor's, in the home.
        match: the source of a key.
        clock: seconds of any beginning.
        wall: seconds since 1970, as the gateway's workers count them.
    """

    def __init__(
        self,
        folder: Path,
        match: Callable[[bytes], Matched | None],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._wall = wall
        self._rhythms = Rhythms(match)
        self._tell_at = clock() + _TELL_S
        self._told = Schedules(0.0, ())

    def hear(self, worker: str, events: np.ndarray[Any, Any]) -> None:
        """A batch of one worker's events."""
        self._rhythms.take(worker, events)
        now = self._clock()
        if now >= self._tell_at:
            self._tell()
            self._tell_at = now + max(_TELL_S, _SPARED * (self._clock() - now))

    def _tell(self) -> None:
        found = self._rhythms.schedules(round(self._wall() * 1e6))
        if not found and not self._told.schedules:
            return
        told = Schedules(self._rhythms.seen_us / 1e6, found)
        try:
            schedules.write(self._folder, told)
        except OSError as error:
            log.warning("schedules were not written (%s); those in use stay", error.strerror)
            return
        self._told = told


class Sourced(Protocol):
    """What is needed of a worker's sources."""

    def match(self, key: bytes) -> Source | None: ...

    def load_s(self, source: Source) -> float:
        """How long a load takes, in seconds; 0 while nobody knows."""


class Share(NamedTuple):
    """Which of the keys are one worker's."""

    worker: int = 0
    workers: int = 1

    def has(self, key: bytes) -> bool:
        return zlib.crc32(key) % self.workers == self.worker


class Scheduling:
    """A gateway worker's side. ``run`` while it serves."""

    def __init__(
        self,
        folder: Path,
        prefetcher: Prefetcher,
        *,
        sources: Sourced,
        share: Share,
        clock: Clock,
    ) -> None:
        self._folder = folder
        self._prefetcher = prefetcher
        self._sources = sources
        self._share = share
        self._clock = clock
        self._stamp: tuple[int, int] | None = None
        self._known: dict[bytes, Schedule] = {}
        self._seen_s = 0.0
        self._waiting: list[tuple[float, bytes]] = []  # a heap: when to ask, and for what
        self._asked: dict[bytes, tuple[float, float]] = {}  # when, and for when

    def due_in_s(self, key: bytes) -> float | None:
        """How long it is until a key's next read; None where it has no schedule."""
        schedule = self._known.get(key)
        if schedule is None:
            return None
        now = self._now_s()
        return max(0.0, schedule.due_s(now) - now)

    def needed_s(self, key: bytes) -> float:
        """For how long a key's value has to last to be there when it is due, if it was asked for; else 0."""
        asked = self._asked.get(key)
        schedule = self._known.get(key)
        if asked is None or schedule is None:
            return 0.0
        return max(0.0, asked[1] + schedule.tolerance_s - self._now_s())

    async def run(self) -> None:
        """Follow, ask and count, until cancelled."""
        while True:
            try:
                self.look()
                self.ask()
                self.settle()
            except Exception:  # an extra: what goes wrong in it reaches no client
                log.exception("looking for what is due failed; trying again")
            await asyncio.sleep(_LOOK_S)

    def look(self) -> bool:
        """Take on what was told since; whether there was anything."""
        try:
            found = (self._folder / schedules.FILE).stat()
        except OSError:
            return False
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            told = schedules.read(self._folder)
        except IntegrityFailure as error:
            log.warning("%s; schedules stay as they are", error.message)
            return False
        self._known = {one.key: one for one in told.schedules}
        self._seen_s = told.seen_s
        self._asked = {key: asked for key, asked in self._asked.items() if key in self._known}
        self._waiting = [entry for one in told.schedules if (entry := self._next(one)) is not None]
        heapq.heapify(self._waiting)
        return True

    def ask(self) -> None:
        """Ask for the keys that are due soon."""
        now = self._now_s()
        wanted = []
        while self._waiting and self._waiting[0][0] <= now:
            schedule = self._known[heapq.heappop(self._waiting)[1]]
            if schedule.is_over(now):
                continue
            following = self._next(schedule)
            if following is not None and following[0] <= now:  # the clock may have jumped past it
                self._asked[schedule.key] = (now, schedule.due_s(now))
                wanted.append((schedule.rule, schedule.key))
                following = self._next(schedule)
            if following is not None:
                heapq.heappush(self._waiting, following)
        if wanted:
            self._prefetcher.expect(wanted, lot=b" %d" % now)

    def settle(self) -> None:
        """Count what became of keys that were asked for and were read through another worker."""
        if self._share.workers == 1:
            return
        now = self._now_s()
        for key, (asked, due) in self._asked.items():
            if key not in self._prefetcher.watch:
                continue
            schedule, source = self._known[key], self._sources.match(key)
            if schedule.last_s > asked and source is not None:
                self._prefetcher.heard(key, source, hit=schedule.hit)
            elif now > due + schedule.tolerance_s + _NEWS_S and self._seen_s < due + schedule.tolerance_s:
                self._prefetcher.watch.read(key)  # nobody looked: neither read nor unread

    def _next(self, schedule: Schedule) -> tuple[float, bytes] | None:
        """When to ask for a key next; None for those of others, and where it is of no use."""
        source = self._sources.match(schedule.key) if self._share.has(schedule.key) else None
        if source is None:
            return None
        lead = schedule.tolerance_s + 2 * max(self._sources.load_s(source), _LEAST_LOAD_S) + _LOOK_S
        lives = source.ttl_s * (1 - source.jitter) + source.stale_s
        if min(lives, schedule.period_s) <= lead + schedule.tolerance_s:
            return None
        due = schedule.due_s(self._now_s())
        if self._was_asked(schedule, due):
            due += schedule.period_s
        return due - lead, schedule.key

    def _was_asked(self, schedule: Schedule, due: float) -> bool:
        _, before = self._asked.get(schedule.key, (0.0, -math.inf))
        return abs(due - before) < schedule.period_s / 2  # each read moves the moment a little

    def _now_s(self) -> float:
        return self._clock.time_ns() / NANOSECONDS


def shown(folder: Path) -> list[dict[str, Any]]:
    """The schedules in use, for people and programs, the next due first; none where they are not what they should be."""
    now = time.time()
    try:
        told = schedules.read(folder).schedules
    except IntegrityFailure as error:
        log.warning("%s", error.message)
        return []
    rows = [
        {
            "key": one.key.decode("utf-8", "replace"),
            "rule": one.rule,
            "period_s": round(one.period_s, 3),
            "tolerance_s": round(one.tolerance_s, 3),
            "last_s": one.last_s,
            "due_s": one.due_s(now),
        }
        for one in told
        if not one.is_over(now)
    ]
    return sorted(rows, key=lambda row: (row["due_s"], row["key"]))
