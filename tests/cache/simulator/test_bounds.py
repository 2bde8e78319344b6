"""MIN is the least there is, and the cache without a limit misses each key once."""

from __future__ import annotations

import itertools
import random
from functools import cache

import numpy as np
import pyarrow as pa
import pytest

from predis.cache.simulator import bounds, registry
from predis.cache.simulator.replay import replay
from predis.cache.simulator.trace import BLOCK, Trace
from tests.cache.simulator.streams import mixed, trace_of


def least_misses(keys: list[int], capacity: int) -> int:
    """By trying everything."""

    @cache
    def from_here(at: int, kept: frozenset[int]) -> int:
        if at == len(keys):
            return 0
        if keys[at] in kept:
            return from_here(at + 1, kept)
        if len(kept) < capacity:
            return 1 + from_here(at + 1, kept | {keys[at]})
        return 1 + min(from_here(at + 1, (kept - {gone}) | {keys[at]}) for gone in kept)

    return from_here(0, frozenset())


@pytest.mark.parametrize("seed", range(20))
def test_belady_is_the_optimum(seed: int) -> None:
    chance = random.Random(seed)
    keys = [chance.randrange(6) for _ in range(14)]
    assert bounds.belady(trace_of(keys), 3) == least_misses(keys, 3)


def test_no_policy_is_below() -> None:
    trace = trace_of(mixed(8_000))
    least = bounds.belady(trace, 100)
    assert least >= bounds.unlimited(trace)
    for name in registry.POLICIES:
        assert replay(trace, registry.policy(name, 100)).misses >= least


def test_unlimited() -> None:
    assert bounds.unlimited(trace_of([1, 2, 1, 3])) == 3
    trace = trace_of(mixed(3_000))
    assert bounds.belady(trace, 10**6) == bounds.unlimited(trace)


def test_a_long_trace_of_hits_keeps_the_heap_small() -> None:
    keys = list(itertools.islice(itertools.cycle(range(50)), 6 * BLOCK))
    told: list[int] = []
    assert bounds.belady(trace_of(keys), 60, progress=told.append) == 50
    assert sum(told) == len(keys)


def test_sizes() -> None:
    trace = Trace(pa.array([1, 2, 3, 1, 2, 9]), sizes=np.array([4, 4, 4, 4, 4, 99]))
    assert bounds.belady(trace, 8, sizes=True) == 5
