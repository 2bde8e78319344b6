"""Keys that are read on a schedule: from what the learner hears to a load just before they are due."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predis.cache.foretelling import FOLDER
from predis.cache.predictor.gain import HoldBack, Tally
from predis.cache.predictor.schedules import FILE, Schedule, Schedules, write
from predis.cache.predictor.tables import NOTHING
from predis.cache.prefetching import Caution, Prefetcher
from predis.cache.ring import Flag
from predis.cache.ring_reader import EVENT
from predis.cache.scheduling import Scheduling, Share, Timetable, shown
from predis.cache.sources.pattern import Matcher
from predis.cache.sources.source import Source
from predis.cache.teaching import Teaching
from predis.clock import ManualClock

REPORTS = Source.of(
    "reports", {"pattern": "report:{name}", "kind": "python", "function": "a:b", "ttl_s": 30, "jitter": 0}
)
MATCH = Matcher([(REPORTS.matched, REPORTS)]).match
START_S = 1_700_000_000.0
ALONE = Share()
KEY, RULE = b"report:daily", "report:{} every 60 s"


class Shelves:
    """A Valkey and a source, both of the test."""

    def __init__(self) -> None:
        self.there: set[bytes] = set()
        self.loaded: list[bytes] = []

    def match(self, key: bytes) -> Source | None:
        return MATCH(key)

    def has_room(self, source: Source) -> bool:
        return True

    def load_s(self, source: Source) -> float:
        return 0.5

    async def load(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        self.loaded += keys
        self.there |= set(keys)
        return [b"v" for _ in keys]

    async def present(self, keys: Sequence[bytes]) -> Sequence[bool]:
        return [key in self.there for key in keys]


class Worker:
    """A worker's schedules, its prefetcher and its clock."""

    def __init__(self, folder: Path, *, share: Share = ALONE, hold_back: float = 0.0, **given: Any) -> None:
        self.clock = ManualClock(round(START_S * 1e9))
        self.shelves = given.get("shelves") or Shelves()
        self.prefetcher = Prefetcher(
            NOTHING, self.shelves, clock=self.clock, caution=Caution(HoldBack(hold_back))
        )
        self.scheduling = Scheduling(
            folder, self.prefetcher, sources=self.shelves, share=share, clock=self.clock
        )

    async def go_to(self, seconds: float) -> None:
        """As time passes, a quarter of a second at a time."""
        while self.clock.time_ns() < round((START_S + seconds) * 1e9):
            self.clock.advance(0.25)
            self.scheduling.look()
            self.scheduling.ask()
            await self.prefetcher.settled()
            self.scheduling.settle()
            self.prefetcher.sweep()

    async def close(self) -> None:
        await self.prefetcher.close()


def _told(
    folder: Path, *, last: float = 0.0, hit: bool = False, seen: float | None = None, **more: Any
) -> None:
    """The learner tells of a key that is read every minute."""
    given = {"period_s": 60.0, "tolerance_s": 1.0, **more}
    keys = given.pop("keys", [KEY])
    write(
        folder,
        Schedules(
            START_S + (last if seen is None else seen),
            tuple(
                Schedule(key, RULE, anchor_s=START_S + last, last_s=START_S + last, hit=hit, **given)
                for key in keys
            ),
        ),
    )


def _events(at_s: Sequence[float], key: bytes = KEY) -> np.ndarray[Any, Any]:
    events = np.zeros(len(at_s), EVENT)
    events["us"] = [round((START_S + at) * 1e6) for at in at_s]
    events["key"], events["length"], events["flags"] = key, len(key), Flag.SPATIAL
    return events


def test_from_the_reads_to_the_load(tmp_path: Path) -> None:
    """The learner finds the period; the worker loads once, after 57.75 s: a tolerance, twice the load and a look before it is due."""

    async def story() -> None:
        now = [0.0]
        table = Timetable(tmp_path, MATCH, clock=lambda: now[0], wall=lambda: START_S)
        now[0] = 2.0
        table.hear("0", _events([60.0 * i - 480 for i in range(9)]))
        worker = Worker(tmp_path)
        await worker.go_to(57.5)
        assert worker.shelves.loaded == []
        assert worker.scheduling.due_in_s(KEY) == pytest.approx(2.5, abs=0.1)
        await worker.go_to(58.75)
        assert worker.shelves.loaded == [KEY]
        await worker.go_to(60.0)
        assert worker.prefetcher.read(KEY, REPORTS, hit=True)
        assert worker.prefetcher.judge.tallies[RULE] == Tally(given=1, used=1)
        worker.shelves.there.clear()
        await worker.go_to(119.5)
        assert worker.shelves.loaded == [KEY, KEY], "the next one too, though the learner told nothing new"
        await worker.close()

    asyncio.run(story())


def test_the_learner_hears_of_it(tmp_path: Path) -> None:
    now, ago = [0.0], time.time() - START_S - 480
    teaching = Teaching(tmp_path, sources=lambda: [REPORTS], clock=lambda: now[0])
    now[0] = 2.0
    teaching.hear("0", _events([ago + 60.0 * i for i in range(9)]))
    assert [row["key"] for row in shown(tmp_path / FOLDER)] == ["report:daily"]


def test_each_read_moves_what_is_due_and_none_is_asked_for_twice(tmp_path: Path) -> None:
    async def story() -> None:
        worker = Worker(tmp_path)
        for turn in range(4):
            _told(tmp_path, last=turn * 60.4, hit=True)
            await worker.go_to(turn * 60.4 + 60.0)
            worker.prefetcher.read(KEY, REPORTS, hit=True)
            worker.shelves.there.clear()
        assert worker.shelves.loaded == [KEY] * 4
        await worker.close()

    asyncio.run(story())


def test_what_valkey_has_is_not_loaded(tmp_path: Path) -> None:
    async def story() -> None:
        _told(tmp_path)
        worker = Worker(tmp_path)
        worker.shelves.there.add(KEY)
        await worker.go_to(70)
        assert worker.shelves.loaded == []
        assert worker.prefetcher.judge.tallies == {}
        await worker.close()

    asyncio.run(story())


def test_a_share_is_held_back_and_what_is_not_read_is_off(tmp_path: Path) -> None:
    async def story() -> None:
        _told(tmp_path)
        held = Worker(tmp_path, hold_back=1.0)
        await held.go_to(60)
        held.prefetcher.read(KEY, REPORTS, hit=False)
        assert (held.shelves.loaded, held.prefetcher.judge.tallies[RULE]) == ([], Tally(held=1, missed=1))
        await held.close()
        _told(tmp_path, keys=[b"report:%d" % i for i in range(60)])
        nobody = Worker(tmp_path)
        await nobody.go_to(125)
        assert not nobody.prefetcher.judge.is_on(RULE, nobody.clock.monotonic_s())
        before = len(nobody.shelves.loaded)
        nobody.shelves.there.clear()
        await nobody.go_to(175)
        assert len(nobody.shelves.loaded) == before
        await nobody.close()

    asyncio.run(story())


@pytest.mark.parametrize("change", [{"tolerance_s": 16.0}, {"period_s": 1.9, "tolerance_s": 0.7}])
def test_what_would_not_last_or_comes_too_soon_is_not_asked_for(
    tmp_path: Path, change: dict[str, float]
) -> None:
    async def story() -> None:
        _told(tmp_path, **change)
        worker = Worker(tmp_path)
        await worker.go_to(130)
        assert worker.shelves.loaded == []
        await worker.close()

    asyncio.run(story())


def test_of_several_workers_one_loads_and_counts_what_another_reads(tmp_path: Path) -> None:
    async def story() -> None:
        _told(tmp_path)
        shelves = Shelves()
        both = [Worker(tmp_path, share=Share(i, 2), shelves=shelves) for i in range(2)]
        for worker in both:
            await worker.go_to(60)
        assert shelves.loaded == [KEY]
        (owner,) = [worker for worker in both if len(worker.prefetcher.watch)]
        (other,) = [worker for worker in both if worker is not owner]
        other.prefetcher.read(KEY, REPORTS, hit=True)
        _told(tmp_path, last=60.2, hit=True)
        await owner.go_to(61.5)
        assert owner.prefetcher.judge.tallies[RULE] == Tally(given=1, used=1)
        shelves.there.clear()
        await owner.go_to(120)
        await owner.go_to(190)
        assert owner.prefetcher.judge.tallies[RULE] == Tally(given=1, used=1), "nobody looked at reads since"
        for worker in both:
            await worker.close()

    asyncio.run(story())


def test_a_clock_that_jumps_asks_for_nothing_twice_and_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        _told(tmp_path)
        worker = Worker(tmp_path)
        await worker.go_to(59)
        worker.shelves.there.clear()
        worker.clock.advance(1_800)
        await worker.go_to(59 + 1_800 + 0.5)
        assert worker.shelves.loaded == [KEY], "half an hour later by the clock; watched still"
        worker.prefetcher.read(KEY, REPORTS, hit=False)
        worker.clock.advance(-1_800)
        _told(tmp_path, last=60.0)
        await worker.go_to(119.5)
        assert worker.shelves.loaded == [KEY, KEY]
        await worker.close()

    asyncio.run(story())


def test_after_a_jump_nothing_is_loaded_too_early(tmp_path: Path) -> None:
    async def story() -> None:
        _told(tmp_path)
        worker = Worker(tmp_path)
        await worker.go_to(10)
        worker.clock.advance(1_805)
        await worker.go_to(1_857)
        assert worker.shelves.loaded == []
        await worker.go_to(1_859)
        assert worker.shelves.loaded == [KEY]
        await worker.close()

    asyncio.run(story())


def test_a_damaged_file_leaves_schedules_as_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(tmp_path)
    assert not worker.scheduling.look()
    _told(tmp_path)
    assert worker.scheduling.look()
    (tmp_path / FILE).write_text("0\n{}")
    assert not worker.scheduling.look()
    assert "digest" in caplog.text
    assert worker.scheduling.due_in_s(KEY) == 60.0
    assert worker.scheduling.due_in_s(b"report:other") is None


def test_a_full_disk_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    (tmp_path / "predictor").write_text("a file where the folder should be")
    table = Timetable(tmp_path / "predictor", MATCH, clock=lambda: now[0], wall=lambda: START_S)
    now[0] = 2.0
    table.hear("0", _events([60.0 * i - 480 for i in range(9)]))
    assert "not written" in caplog.text
    (tmp_path / "predictor").unlink()
    now[0] = 4.0
    table.hear("0", _events([60.0]))
    assert (tmp_path / "predictor" / FILE).exists()


def test_what_is_shown(tmp_path: Path) -> None:
    now = time.time()
    one = Schedule(KEY, RULE, period_s=60.0, tolerance_s=1.0, anchor_s=now - 30, last_s=now - 30, hit=True)
    ended = Schedule(
        b"report:old", RULE, period_s=60.0, tolerance_s=1.0, anchor_s=now - 9e3, last_s=now - 9e3, hit=True
    )
    write(tmp_path, Schedules(now, (ended, one)))
    (row,) = shown(tmp_path)
    assert (row["key"], row["rule"], row["period_s"]) == ("report:daily", RULE, 60.0)
    assert row["due_s"] == pytest.approx(now + 30)
