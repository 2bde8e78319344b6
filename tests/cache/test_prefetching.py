"""Prefetch, live: what is loaded, held back, dropped, and what is counted of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from predis.cache.link import LinkDown
from predis.cache.predictor.budget import Budget
from predis.cache.predictor.gain import HoldBack, Judge, Tally, Watch
from predis.cache.prefetching import Caution, Prefetcher, Rule
from predis.cache.sources.failure import SourceFailed
from predis.cache.sources.source import Source
from predis.clock import ManualClock

USERS = Source.of("users", {"pattern": "user:{id}", "kind": "python", "function": "a:b"})


class After:
    """a:N is followed by b:N."""

    def after(self, key: bytes, source: Source, *, value: bytes | None) -> Iterable[tuple[Rule, bytes]]:
        if key.startswith(b"a:"):
            yield "a->b", b"b:" + key[2:]


class Shelves:
    def __init__(self) -> None:
        self.there: set[bytes] = set()
        self.loaded: list[bytes] = []
        self.room = True
        self.down = False
        self.answer: bytes | SourceFailed | None = b"v"
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    def match(self, key: bytes) -> Source | None:
        return USERS if key[:2] in (b"a:", b"b:") else None

    def has_room(self, source: Source) -> bool:
        return self.room

    async def load(self, keys: Sequence[bytes]) -> Sequence[bytes | SourceFailed | None]:
        self.loaded += keys
        self.asked.set()
        await self.gate.wait()
        self.there |= set(keys)
        return [self.answer for _ in keys]

    async def present(self, keys: Sequence[bytes]) -> Sequence[bool]:
        if self.down:
            raise LinkDown("down")
        return [key in self.there for key in keys]


def _prefetcher(shelves: Shelves, **given: Any) -> Prefetcher:
    clock = given.pop("clock", None) or ManualClock()
    return Prefetcher(After(), shelves, clock=clock, caution=Caution(**{"hold_back": HoldBack(0.0), **given}))


def test_what_follows_is_loaded_and_counted_as_used() -> None:
    async def run() -> None:
        shelves, pushed = Shelves(), []
        prefetcher = _prefetcher(shelves)
        assert not prefetcher.read(b"a:1", USERS, hit=True, pushed=pushed.append)
        await prefetcher.settled()
        assert shelves.loaded == [b"b:1"]
        assert pushed == [b"b:1"]
        assert prefetcher.read(b"b:1", USERS, hit=True)
        assert not prefetcher.read(b"b:1", USERS, hit=True), "the second read is no merit of the prefetch"
        assert prefetcher.judge.tallies["a->b"] == Tally(given=1, used=1)

    asyncio.run(run())


def test_a_read_while_it_is_under_way_is_late() -> None:
    async def run() -> None:
        shelves = Shelves()
        shelves.gate.clear()
        prefetcher = _prefetcher(shelves)
        prefetcher.read(b"a:1", USERS, hit=True)
        await shelves.asked.wait()
        assert not prefetcher.read(b"b:1", USERS, hit=False)
        assert prefetcher.judge.tallies["a->b"] == Tally(given=1, late=1)
        shelves.gate.set()
        await prefetcher.settled()

    asyncio.run(run())


def test_what_is_there_already_is_not_loaded_nor_counted() -> None:
    async def run() -> None:
        shelves = Shelves()
        shelves.there.add(b"b:1")
        prefetcher = _prefetcher(shelves)
        prefetcher.read(b"a:1", USERS, hit=True)
        await prefetcher.settled()
        assert shelves.loaded == []
        assert prefetcher.judge.tallies == {}
        assert len(prefetcher.watch) == 0

    asyncio.run(run())


def test_the_held_back_are_watched_and_not_loaded() -> None:
    async def run() -> None:
        clock, shelves = ManualClock(), Shelves()
        prefetcher = _prefetcher(shelves, clock=clock, hold_back=HoldBack(1.0), watch=Watch(horizon_s=10.0))
        prefetcher.read(b"a:1", USERS, hit=True)
        prefetcher.read(b"a:2", USERS, hit=True)
        await prefetcher.settled()
        assert shelves.loaded == []
        prefetcher.read(b"b:1", USERS, hit=False)
        clock.advance(11.0)
        prefetcher.sweep()
        assert prefetcher.judge.tallies["a->b"] == Tally(held=2, missed=1)

    asyncio.run(run())


@pytest.mark.parametrize("why", ["source busy", "budget", "valkey"])
def test_what_cannot_be_done_for_nothing_is_dropped_and_counted(why: str) -> None:
    async def run() -> None:
        shelves = Shelves()
        shelves.room = why != "source busy"
        shelves.down = why == "valkey"
        budget = Budget(share=0.0, most=0.0 if why == "budget" else 10.0)
        prefetcher = _prefetcher(shelves, budget=lambda: budget)
        prefetcher.read(b"a:1", USERS, hit=True)
        await prefetcher.settled()
        assert shelves.loaded == []
        assert prefetcher.dropped == {why: 1}
        assert len(prefetcher.watch) == 0

    asyncio.run(run())


def test_a_source_that_fails_is_neither_used_nor_wasted() -> None:
    async def run() -> None:
        shelves = Shelves()
        shelves.answer = SourceFailed("ERR source users: no")
        prefetcher = _prefetcher(shelves)
        prefetcher.read(b"a:1", USERS, hit=True)
        await prefetcher.settled()
        assert prefetcher.dropped == {"failed": 1}
        prefetcher.read(b"b:1", USERS, hit=False)
        assert prefetcher.judge.tallies == {}

    asyncio.run(run())


def test_an_adversary_wastes_no_more_than_the_budget_and_then_it_is_off() -> None:
    async def run() -> None:
        clock, shelves = ManualClock(), Shelves()
        prefetcher = _prefetcher(
            shelves, clock=clock, watch=Watch(horizon_s=1.0), judge=Judge(least=50, rest_s=3_600.0)
        )
        for i in range(3_000):  # b:N is never read
            prefetcher.read(b"a:%d" % i, USERS, hit=False)
            await prefetcher.settled()
            clock.advance(0.1)
            prefetcher.sweep()
        assert len(shelves.loaded) < 100
        assert not prefetcher.judge.is_on("a->b", clock.monotonic_s())

    asyncio.run(run())


def test_the_queue_is_bounded() -> None:
    async def run() -> None:
        shelves = Shelves()
        prefetcher = _prefetcher(shelves, budget=lambda: Budget(most=10_000.0))
        for i in range(5_000):
            prefetcher.read(b"a:%d" % i, USERS, hit=True)
        await prefetcher.settled()
        assert prefetcher.dropped["queue"] > 0
        assert len(shelves.loaded) + prefetcher.dropped["queue"] == 5_000

    asyncio.run(run())


def test_closing_ends_what_is_under_way() -> None:
    async def run() -> None:
        shelves = Shelves()
        shelves.gate.clear()
        prefetcher = _prefetcher(shelves)
        prefetcher.read(b"a:1", USERS, hit=True)
        await shelves.asked.wait()
        await prefetcher.close()
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    asyncio.run(run())
