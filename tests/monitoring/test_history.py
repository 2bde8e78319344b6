"""History: coarser with age, and not one request lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from predis.clock import ManualClock
from predis.errors import InvalidInput
from predis.monitoring.history import DAY, HOUR, MINUTE, SECOND, Ages, History
from predis.monitoring.store import MonitoringStore, pack_counts, unpack_counts
from predis.state import Database
from predis.stats import latency
from tests.toys import ENDPOINT, TENANT

KEY = {"tenant": TENANT, "endpoint": ENDPOINT}


class World:
    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.database, self.clock = database, clock
        self.store = MonitoringStore(database)
        self.history = History(database, clock, ages=Ages(1, 48, 24 * 60, 24 * 3_650))
        self.sent = 0

    def send(self, count: int, *, version: int = 1, failed: int = 0, at: int | None = None) -> None:
        start = (self.clock.time_ns() if at is None else at) // SECOND * SECOND
        row = {
            **KEY, "version": version, "start": start, "requests": count, "failed": failed, "rejected": 0,
            "latency": pack_counts(latency.count(np.full(count - failed, 0.004))),
        }  # fmt: skip
        with self.database.write() as connection:
            self.store.put_slots(connection, [row])
        self.sent += count

    def bars(self, *, step: int, **other: Any) -> list[dict[str, Any]]:
        return self.history.traffic(
            TENANT, ENDPOINT, since=self.clock.time_ns() - 100 * DAY, step=step, **other
        )

    def widths(self) -> set[int]:
        rows = self.store.traffic_since(TENANT, ENDPOINT, since=0)
        return {row.get("width", SECOND) for row in rows}


@pytest.fixture
def world(database: Database, clock: ManualClock) -> World:
    return World(database, clock)


class TestTraffic:
    def test_coarser_with_age_and_nothing_lost(self, world: World) -> None:
        for hours, width in ((0, SECOND), (2, MINUTE), (60, HOUR), (24 * 70, DAY)):
            world.clock.advance(hours * 3_600)
            world.history.tidy()
            assert world.widths() == ({width} if world.sent else set()) or hours == 0
            if not world.sent:
                for _ in range(300):
                    world.send(3, failed=1)
                    world.clock.advance(7)
        (bar,) = world.bars(step=DAY) if len(world.bars(step=DAY)) == 1 else (None,)
        total = sum(each["requests"] for each in world.bars(step=DAY))
        assert total == world.sent == 900
        assert sum(each["failed"] for each in world.bars(step=DAY)) == 300
        assert bar is None or bar["p50_ms"] == pytest.approx(4, rel=0.1)

    def test_what_comes_late_is_added(self, world: World) -> None:
        """A clock that jumps back, or a journal read days later."""
        begun = world.clock.time_ns()
        world.send(5)
        world.clock.advance(5 * 3_600)
        world.history.tidy()
        world.send(4, at=begun)
        world.history.tidy()
        (bar,) = world.bars(step=DAY)
        assert bar["requests"] == 9
        assert world.widths() == {MINUTE}

    def test_twice_is_once(self, world: World) -> None:
        world.send(5)
        world.clock.advance(5 * 3_600)
        for _ in range(3):
            world.history.tidy()
        assert [bar["requests"] for bar in world.bars(step=DAY)] == [5]

    def test_in_the_end_it_is_gone(self, world: World) -> None:
        world.send(5)
        for days in (1, 10, 100, 3_700):
            world.clock.advance(days * 86_400)
            world.history.tidy()
        assert world.widths() == set()

    def test_versions_apart(self, world: World) -> None:
        world.send(5, version=1)
        world.send(7, version=2)
        world.clock.advance(2 * 3_600)
        world.history.tidy()
        assert [bar["requests"] for bar in world.bars(step=DAY, version=2)] == [7]

    @pytest.mark.parametrize("step", [1, MINUTE + 1, MINUTE])
    def test_steps_that_make_no_sense(self, world: World, step: int) -> None:
        with pytest.raises(InvalidInput):
            world.bars(step=step)


class TestWindows:
    def window(self, number: int, *, event: int) -> dict[str, Any]:
        return {
            **KEY, "version": 1, "number": number, "rows": 10, "first_event": event, "last_event": event + 1,
            "features": pack_counts([number, 1]), "scores": pack_counts([10]), "score_sum": 5.0, "closed": True, "verdicts": {},
        }  # fmt: skip

    def test_old_ones_are_joined_by_the_hour(self, world: World) -> None:
        begun = world.clock.time_ns() // DAY * DAY
        rows = [self.window(number, event=begun + number * 10 * MINUTE) for number in range(1, 41)]
        with world.database.write() as connection:
            world.store.put_windows(connection, rows)
        world.clock.advance(72 * 3_600)
        for _ in range(2):
            world.history.tidy()
            found = world.store.closed_windows({**KEY, "version": 1}, limit=100)
            assert [row["number"] for row in found][:24] == list(range(40, 16, -1))  # checks look at these
            assert [row["number"] for row in found][24:] == [16, 11, 5]
            assert sum(row["rows"] for row in found) == 400
            assert sum(unpack_counts(row["features"])[0] for row in found) == sum(range(1, 41))


class TestPerformance:
    """Windows are kept by when they were closed: who replays the flights of 2013 keeps what they showed."""

    def close_window(self, world: World, *, number: int) -> None:
        row = {
            **KEY, "version": 1, "number": number, "stop": 10, "rows": 10, "task": "binary", "positives": 5, "first_event": 0,
            "last_event": 13 * 365 * DAY, "closed_at": world.clock.time_ns(), "label_age_s": 1.0, "coverage": 1.0, "early_labels": 0,
            "scores": {},
        }  # fmt: skip
        with world.database.write() as connection:
            world.store.add_performance(connection, row)

    def test_old_events_are_kept_as_long_as_new_ones(self, world: World) -> None:
        world.clock.advance(40 * 365 * 86_400)
        self.close_window(world, number=1)
        world.history.tidy()
        assert [row["number"] for row in world.store.performance({**KEY, "version": 1})] == [1]
        world.clock.advance(3_651 * 86_400)
        self.close_window(world, number=2)
        world.history.tidy()
        assert [row["number"] for row in world.store.performance({**KEY, "version": 1})] == [2]
