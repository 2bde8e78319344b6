"""An independent judge: replays a trace and the events of a cache, knowing no policy, and checks every rule of the docs.

It shares no code with the simulator on purpose. Whoever breaks a rule gets an AssertionError that says where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


@dataclass
class Verdict:
    requests: int = 0
    misses: int = 0
    late: int = 0
    loads: int = 0
    asked: int = 0
    used: int = 0
    wasted: int = 0


class Cache:
    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.resident: set[Any] = set()
        self.flights: dict[Any, int] = {}  # key: request at which it was asked for
        self.fresh: set[Any] = set()  # prefetched, arrived, not asked for yet
        self.verdict = Verdict()

    def arrive(self, due: Sequence[Any], before: int) -> None:
        for key in due:
            assert key not in self.resident, f"before {before}: {key} arrives and is there already"
            del self.flights[key]
            self.resident.add(key)
            self.fresh.add(key)
        assert len(self.resident) <= self.capacity, f"before {before}: {len(self.resident)} residents"

    def request(self, i: int, key: Any) -> bool:
        verdict = self.verdict
        verdict.requests += 1
        if key in self.resident:
            verdict.used += key in self.fresh
            self.fresh.discard(key)
            return True
        verdict.misses += 1
        if key in self.flights:
            verdict.late += 1
            del self.flights[key]
        else:
            verdict.loads += 1
        return False

    def apply(self, i: int, op: str, *, key: Any, requested: Any, hit: bool) -> None:
        if op == "load":
            assert key == requested, f"{i}: load of {key}, which was not requested"
            assert not hit, f"{i}: load of {key} without a miss"
            assert key not in self.resident, f"{i}: {key} is loaded twice"
            self.resident.add(key)
        elif op == "prefetch":
            assert key not in self.resident, f"{i}: prefetch of what is there: {key}"
            assert key not in self.flights, f"{i}: {key} is prefetched twice"
            self.flights[key] = i
            self.verdict.asked += 1
            self.verdict.loads += 1
        elif key in self.flights:  # it arrives after this request and leaves before the next
            del self.flights[key]
            self.verdict.wasted += 1
        else:
            assert key in self.resident, f"{i}: evict of {key}, which is not there"
            self.resident.discard(key)
            self.verdict.wasted += key in self.fresh
            self.fresh.discard(key)
        assert len(self.resident) <= self.capacity, f"{i}: {len(self.resident)} residents"


def judge(
    keys: Sequence[Any],
    events: Path,
    *,
    capacity: int,
    delay: int = 0,
    seconds: float = 0.0,
    ts: Sequence[float] = (),
) -> Verdict:
    table = pq.read_table(events).to_pydict()
    assert table["i"] == sorted(table["i"]), "events are not in order"
    rows = list(zip(table["i"], table["op"], table["key"], strict=True))
    cache, at = Cache(capacity), 0
    for i, key in enumerate(keys):
        if seconds:
            due = [k for k, asked in cache.flights.items() if ts[asked] + seconds <= ts[i] + 1e-9]
        else:
            due = [k for k, asked in cache.flights.items() if asked + delay < i]
        cache.arrive(due, i)
        hit = cache.request(i, key)
        while at < len(rows) and rows[at][0] == i:
            _, op, what = rows[at]
            cache.apply(i, op, key=what, requested=key, hit=hit)
            at += 1
    assert at == len(rows), "events after the last request"
    return cache.verdict
