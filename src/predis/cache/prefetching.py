"""Prefetch, live: what follows a read is loaded before anybody asks, where that pays and hurts nobody.

After each read of a key that a source has, ``Prefetcher.read`` is told. What it does there costs one or two dictionary look-ups: it counts
what became of the key if it had been foretold, asks the ``Foresight`` what comes next, and puts that in a queue. All else happens later,
in a task of its own:

1. Keys that are in Valkey already are left out (one pipeline of EXISTS for all that wait).
2. A share of the rest is held back, by a hash of the key: not loaded, only watched, so that the gain is measured (``gain``).
3. A key whose source has no room to spare is dropped: a prefetch never makes a demand load wait. A source has room while no key waits
   for it and fewer than half of its calls run.
4. A key for which the source's budget has no token is dropped (``budget``): wasted loads stay within a tenth of its demand.
5. The others are loaded as if a client had asked: once, under a lease, with the source's time to live.

Everything is bounded: the queue, the keys watched, the loads under way. Dropped keys are counted by reason, and lose nothing but a chance.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from predis.cache.link import LinkDown
from predis.cache.predictor.budget import Budget
from predis.cache.predictor.gain import HoldBack, Judge, Outcome, Watch, Watched
from predis.cache.sources.failure import SourceFailed
from predis.cache.sources.source import Source
from predis.clock import Clock
from predis.metrics import NOTHING, Metrics

log = logging.getLogger(__name__)

Rule = Hashable
Pushed = Callable[[bytes], None]
Counted = Callable[[Watched, Outcome], None]

OUTCOMES = ("used", "late", "unread", "held back")
DROPS = ("queue", "source busy", "budget", "valkey", "failed")
_QUEUE = 1_024
_BATCH = 64


class Foresight(Protocol):
    """What follows a read: tables and rules, compiled."""

    def after(self, key: bytes, source: Source, *, value: bytes | None) -> Iterable[tuple[Rule, bytes]]:
        """Keys expected soon after this one was read, each with the rule that says so, the surest first.

        Args:
            value: what the read gave, where the gateway has it at hand.
        """


class Shelves(Protocol):
    """What the prefetcher needs of the worker's sources and of its Valkey."""

    def match(self, key: bytes) -> Source | None: ...

    def has_room(self, source: Source) -> bool:
        """Whether a load would make nobody wait."""

    async def load(self, keys: Sequence[bytes]) -> Sequence[bytes | SourceFailed | None]: ...

    async def present(self, keys: Sequence[bytes]) -> Sequence[bool]:
        """Which keys Valkey has.

        Raises:
            LinkDown
        """


@dataclass(frozen=True)
class Caution:
    """What keeps prefetching from harm: who is held back, which rules pay, what is watched, what a source may be asked for."""

    hold_back: HoldBack = field(default_factory=HoldBack)
    judge: Judge = field(default_factory=Judge)
    watch: Watch = field(default_factory=Watch)
    budget: Callable[[], Budget] = Budget


class _Expected(NamedTuple):
    rule: Rule
    key: bytes
    pushed: Pushed | None
    lot: bytes


class Prefetcher:
    """One worker's prefetching.

    Counted: foretold keys by outcome (used, late, unread, held back), and those dropped by reason (queue, source busy, budget, valkey,
    failed).

    Args:
        foresight: what is foretold; may be replaced at any time, between two reads.
        caution: what keeps prefetching from harm; shared with nobody.
    """

    def __init__(
        self,
        foresight: Foresight,
        shelves: Shelves,
        *,
        clock: Clock,
        caution: Caution,
        metrics: Metrics = NOTHING,
    ) -> None:
        self.foresight = foresight
        self.counted: Counted = _uncounted
        """Called with each foretold key and what became of it."""
        self.judge = caution.judge
        self.hold_back = caution.hold_back
        self.watch = caution.watch
        self._keys = {
            outcome: metrics.counter("predis_prefetch_keys_total", outcome=outcome) for outcome in OUTCOMES
        }
        self._drops = {
            reason: metrics.counter("predis_prefetch_dropped_total", reason=reason) for reason in DROPS
        }
        self.dropped: Counter[str] = Counter()
        self._shelves = shelves
        self._clock = clock
        self._make_budget = caution.budget
        self._budgets: dict[Source, Budget] = {}
        self._queue: deque[_Expected] = deque()
        self._queued: set[bytes] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False

    def read(
        self,
        key: bytes,
        source: Source,
        *,
        hit: bool,
        value: bytes | None = None,
        pushed: Pushed | None = None,
    ) -> bool:
        """A client read a key; whether it found it there because it was prefetched.

        Args:
            value: what it got, where that is at hand.
            pushed: called with each key that is loaded in consequence, once it is there.
        """
        prefetched = self.heard(key, source, hit=hit)
        self.expect(self.foresight.after(key, source, value=value), pushed)
        return prefetched

    def heard(self, key: bytes, source: Source, *, hit: bool) -> bool:
        """A key was read, here or through another worker; whether it was there because it was prefetched here."""
        watched = self.watch.read(key)
        if watched is not None:
            self._settle(watched, "hit" if hit else "miss", now=self._clock.monotonic_s())
        prefetched = hit and watched is not None and watched.group == "given"
        if prefetched:
            self._budget(source).give_back()
        elif not hit:
            self._budget(source).demand()
        return prefetched

    def expect(
        self, keys: Iterable[tuple[Rule, bytes]], pushed: Pushed | None = None, *, lot: bytes = b""
    ) -> None:
        """Keys that will be read soon, each with the rule that says so: load them where that pays and hurts nobody.

        Args:
            lot: of keys that are expected again and again: with another each time, it is not always the same that are held back.
        """
        now = self._clock.monotonic_s()
        for rule, expected in keys:
            if expected in self._queued or expected in self.watch or not self.judge.is_on(rule, now):
                continue
            if len(self._queue) >= _QUEUE:
                self._drop("queue")
                break
            self._queued.add(expected)
            self._queue.append(_Expected(rule, expected, pushed, lot))
        if self._queue and not self._draining:
            self._draining = True
            self._spawn(self._drain())

    def sweep(self) -> None:
        """Count the foretold keys whose time is over as unread. Call it now and then."""
        now = self._clock.monotonic_s()
        for watched in self.watch.over(now):
            self._settle(watched, "unread", now=now)

    async def close(self) -> None:
        """End what is under way."""
        self._queue.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def settled(self) -> None:
        """Wait until nothing is queued or under way."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def _drain(self) -> None:
        try:
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
                try:
                    present = await self._shelves.present([one.key for one in batch])
                except LinkDown:
                    self._drop("valkey", len(batch))
                    continue
                finally:
                    self._queued.difference_update(one.key for one in batch)
                self._give([entry for entry, there in zip(batch, present, strict=True) if not there])
        finally:
            self._draining = False

    def _give(self, absent: Sequence[_Expected]) -> None:
        """Hold back, drop or load each key that is not there."""
        now = self._clock.monotonic_s()
        for rule, key, pushed, lot in absent:
            source = self._shelves.match(key)
            if source is None or key in self.watch:
                continue
            if self.hold_back.holds(key + lot):
                self.watch.begin(key, rule, group="held", now=now)
            elif not self._shelves.has_room(source):
                self._drop("source busy")
            elif not self._budget(source).take():
                self._drop("budget")
            else:
                self.watch.begin(key, rule, group="given", now=now)
                self._spawn(self._load(key, pushed))

    async def _load(self, key: bytes, pushed: Pushed | None) -> None:
        (found,) = await self._shelves.load([key])
        if isinstance(found, SourceFailed):
            self._drop("failed")
            self.watch.read(key)  # neither read nor unread: it never was there
        elif found is not None and pushed is not None:
            pushed(key)

    def _settle(self, watched: Watched, outcome: Outcome, *, now: float) -> None:
        self.judge.settle(watched, outcome, now=now)
        self.counted(watched, outcome)
        given = {"hit": "used", "miss": "late", "unread": "unread"}[outcome]
        self._keys[given if watched.group == "given" else "held back"].add()

    def _drop(self, reason: str, keys: int = 1) -> None:
        self.dropped[reason] += keys
        self._drops[reason].add(keys)

    def _budget(self, source: Source) -> Budget:
        budget = self._budgets.get(source)
        if budget is None:
            budget = self._budgets[source] = self._make_budget()
        return budget

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _uncounted(_watched: Watched, _outcome: Outcome) -> None:
    pass


async def _logged(work: Awaitable[None]) -> None:
    try:
        await work
    except Exception:  # prefetching is an extra: what goes wrong in it reaches no client
        log.exception("prefetching failed")
