"""Time in the simulator, to the letter, and every pair of policy and prefetcher before an independent judge."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from predis.cache.simulator import registry
from predis.cache.simulator.counts import Counts
from predis.cache.simulator.events import Events
from predis.cache.simulator.policies.lru import LRU
from predis.cache.simulator.prefetchers.base import Prefetcher
from predis.cache.simulator.replay import replay
from predis.cache.simulator.setup import Delay, Key, Setup
from predis.cache.simulator.trace import Trace
from predis.errors import InvalidInput
from tests.cache.simulator.judge import judge
from tests.cache.simulator.streams import mixed, trace_of

PREFETCHERS = [name for name in registry.PREFETCHERS if name != "none"]


class Told(Prefetcher):
    """Asks for what it is told to, and remembers every outcome."""

    def __init__(self, setup: Setup, asks: dict[int, list[Key]]) -> None:
        super().__init__(setup)
        self.asks = asks
        self.heard: list[tuple[str, Key]] = []

    def observe(self, i: int, key: Key, *, client: int, hit: bool, ts: float) -> Iterable[Key]:
        return self.asks.get(i, ())

    def asked(self, key: Key) -> None:
        self.heard.append(("asked", key))

    def used(self, key: Key) -> None:
        self.heard.append(("used", key))

    def late(self, key: Key) -> None:
        self.heard.append(("late", key))

    def wasted(self, key: Key) -> None:
        self.heard.append(("wasted", key))


def told(
    keys: list[int], asks: dict[int, list[Key]], *, delay: int = 0, capacity: int = 10
) -> tuple[Counts, Told]:
    prefetcher = Told(Setup(capacity, Delay(delay)), asks)
    return replay(trace_of(keys), LRU(capacity), prefetcher=prefetcher), prefetcher


class TestWhenAPrefetchArrives:
    def test_without_a_delay_it_is_there_at_the_next_request(self) -> None:
        counts, prefetcher = told([1, 2], {0: [2]})
        assert (counts.misses, counts.used, counts.loads) == (1, 1, 2)
        assert prefetcher.heard == [("asked", 2), ("used", 2)]

    @pytest.mark.parametrize("delay", [1, 3, 10])
    def test_it_is_there_before_request_i_plus_delay_plus_one(self, delay: int) -> None:
        asked_at = 2
        keys = list(range(100, 120))
        for at, on_time in ((asked_at + delay, False), (asked_at + delay + 1, True)):
            stream = keys.copy()
            stream[at] = 7
            counts, _ = told(stream, {asked_at: [7]}, delay=delay, capacity=50)
            assert (counts.used, counts.late) == ((1, 0) if on_time else (0, 1)), at

    def test_a_late_miss_loads_nothing_twice_and_cancels_the_prefetch(self) -> None:
        # 7 is asked for at 0 and due before 4; requested at 1, evicted by 8 and 9, requested again at 5: a miss, nothing arrived.
        counts, prefetcher = told([1, 7, 8, 9, 10, 7], {0: [7]}, delay=3, capacity=2)
        assert (counts.misses, counts.late, counts.asked, counts.loads) == (6, 1, 1, 6)
        assert prefetcher.heard == [("asked", 7), ("late", 7)]

    def test_after_a_late_miss_it_can_be_asked_for_again(self) -> None:
        counts, _ = told([1, 7, 8, 9, 5, 6, 7], {0: [7], 3: [7]}, delay=2, capacity=2)
        assert (counts.asked, counts.late, counts.used) == (2, 1, 1)

    def test_what_is_resident_or_under_way_is_not_asked_for(self) -> None:
        counts, _ = told([1, 2, 3, 4], {0: [1, 5, 5], 1: [5, 2], 2: [5]}, delay=9)
        assert counts.asked == 1

    def test_what_leaves_unused_is_wasted(self) -> None:
        counts, prefetcher = told([1, 2, 3, 4, 5, 9], {0: [9]}, capacity=2)
        assert (counts.wasted, counts.used) == (1, 0)
        assert prefetcher.heard == [("asked", 9), ("wasted", 9)]

    def test_used_is_said_once(self) -> None:
        counts, _ = told([1, 9, 9, 9], {0: [9]})
        assert counts.used == 1

    @pytest.mark.parametrize(("seconds", "used"), [(0.004, 1), (0.005, 1), (0.006, 0)])
    def test_by_the_clock(self, seconds: float, used: int) -> None:
        trace = trace_of([1, 2, 3, 7])
        trace.ts = trace_of([1, 2, 3, 7], step_s=1.0).ts
        trace.ts[:] = [0.0, 0.001, 0.002, 0.005]
        prefetcher = Told(Setup(9, Delay(seconds=seconds)), {0: [7]})
        counts = replay(trace, LRU(9), prefetcher=prefetcher)
        assert (counts.used, counts.late) == (used, 1 - used)

    def test_requests_at_the_same_moment_do_not_wait_for_each_other(self) -> None:
        trace = trace_of([1, 7], step_s=1.0)
        assert trace.ts is not None
        trace.ts[:] = [5.0, 5.0]
        counts = replay(trace, LRU(9), prefetcher=Told(Setup(9, Delay(seconds=0.001)), {0: [7]}))
        assert counts.late == 1


def test_a_prefetcher_sees_true_keys_clients_and_times() -> None:
    seen: list[Any] = []

    class Seeing(Prefetcher):
        def observe(self, i: int, key: Key, *, client: int, hit: bool, ts: float) -> Iterable[Key]:
            seen.append((i, key, client, hit, ts))
            return ()

    trace = trace_of([10**12, 7, 10**12], step_s=0.5, clients=3)
    assert trace.ts is not None
    assert trace.clients is not None
    replay(trace, LRU(2), prefetcher=Seeing(Setup(2)))
    clients, ts = trace.clients.tolist(), trace.ts.tolist()
    assert seen == [
        (0, 10**12, clients[0], False, ts[0]),
        (1, 7, clients[1], False, ts[1]),
        (2, 10**12, clients[2], True, ts[2]),
    ]


def test_without_clients_and_clock_it_is_told_so() -> None:
    class Seeing(Prefetcher):
        def observe(self, i: int, key: Key, *, client: int, hit: bool, ts: float) -> Iterable[Key]:
            assert client == 0
            assert ts != ts
            return ()

    replay(trace_of([1, 2]), LRU(2), prefetcher=Seeing(Setup(2)))


def test_the_loop_for_demand_alone_counts_the_same() -> None:
    trace = trace_of(mixed(5_000))
    alone = replay(trace, LRU(80))
    watched = replay(trace, LRU(80), prefetcher=Prefetcher(Setup(80)))
    assert alone == watched


def test_bytes_need_sizes_and_times_need_a_clock() -> None:
    trace = trace_of([1, 2])
    with pytest.raises(InvalidInput, match="no column 'size'"):
        replay(trace, LRU(5), sizes=True)
    with pytest.raises(InvalidInput, match="no clock"):
        replay(trace, LRU(5), prefetcher=Prefetcher(Setup(5, Delay(seconds=1.0))))


def judged(trace: Trace, policy: str, prefetcher: str, *, capacity: int, delay: Delay, path: Path) -> Counts:
    setup = Setup(capacity, delay, clients=trace.clients is not None, clock=trace.ts is not None)
    with Events(path, trace.keys.type) as events:
        counts = replay(
            trace, registry.policy(policy, capacity), prefetcher=registry.prefetcher(prefetcher, setup), events=events
        )  # fmt: skip
    ts = trace.ts.tolist() if trace.ts is not None else []
    found = judge(
        trace.keys.to_pylist(), path, capacity=capacity, delay=delay.requests, seconds=delay.seconds, ts=ts
    )
    assert (found.requests, found.misses, found.late, found.asked) == (
        counts.requests, counts.misses, counts.late, counts.asked,
    )  # fmt: skip
    assert (found.loads, found.used, found.wasted) == (counts.loads, counts.used, counts.wasted)
    return counts


TRACE = trace_of(mixed(2_000, keys=200), step_s=0.001, clients=4)


@pytest.mark.parametrize("policy", list(registry.POLICIES))
@pytest.mark.parametrize("delay", [Delay(0), Delay(10), Delay(seconds=0.005)], ids=str)
def test_the_judge_agrees(policy: str, delay: Delay, tmp_path: Path) -> None:
    asked = {
        name: judged(TRACE, policy, name, capacity=40, delay=delay, path=tmp_path / f"{name}.parquet").asked
        for name in registry.PREFETCHERS
    }
    assert asked.pop("none") == 0
    assert asked["obl"] > 300
    assert asked["markov1"] > 30


@pytest.mark.parametrize("policy", list(registry.POLICIES))
def test_the_judge_agrees_where_there_is_no_room(policy: str, tmp_path: Path) -> None:
    """Arriving prefetches push each other out."""
    for capacity in (1, 2, 5):
        judged(TRACE, policy, "sequence", capacity=capacity, delay=Delay(3), path=tmp_path / "events.parquet")


def test_strings_in_events(tmp_path: Path) -> None:
    trace = trace_of([f"user:{key}" for key in mixed(2_000, keys=300)])
    judged(trace, "lru", "markov1", capacity=30, delay=Delay(2), path=tmp_path / "events.parquet")


class TestTheJudgeItself:
    """A judge that cannot condemn judges nothing."""

    @pytest.mark.parametrize(
        ("events", "fault"),
        [
            ([(0, "load", 1), (1, "load", 2), (2, "load", 3)], "3 residents"),
            ([(0, "load", 1), (1, "load", 2), (2, "evict", 9)], "not there"),
            ([(0, "load", 2)], "not requested"),
            ([(0, "load", 1), (0, "prefetch", 1)], "is there"),
            ([(0, "load", 1), (0, "prefetch", 8), (0, "prefetch", 9)], "3 residents"),
            ([(0, "load", 1), (7, "evict", 1)], "after the last"),
        ],
    )
    def test_it_condemns(self, events: list[tuple[int, str, int]], fault: str, tmp_path: Path) -> None:
        path = tmp_path / "events.parquet"
        trace = trace_of([1, 2, 3])
        with Events(path, trace.keys.type) as written:
            for i, op, key in events:
                getattr(written, op)(i, key)
        with pytest.raises(AssertionError, match=fault):
            judge([1, 2, 3], path, capacity=2)


@pytest.mark.parametrize("prefetcher", PREFETCHERS)
def test_the_future_changes_nothing(prefetcher: str, tmp_path: Path) -> None:
    """What happens up to a request is the same whatever comes after it."""
    keys = mixed(3_000, keys=200)
    seen = []
    for future in (keys[2_000:], list(reversed(keys[2_000:])), keys[:1_000]):
        path = tmp_path / "events.parquet"
        trace = trace_of(keys[:2_000] + future)
        judged(trace, "lru", prefetcher, capacity=40, delay=Delay(3), path=path)
        events = pyarrow.parquet.read_table(path).to_pylist()
        seen.append([event for event in events if event["i"] < 2_000])
    assert seen[0] == seen[1] == seen[2]
