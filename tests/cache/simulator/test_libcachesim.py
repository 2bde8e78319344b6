"""The demand policies beside libcachesim, which others wrote: an independent check."""

from __future__ import annotations

import sys

import pytest

from predis.cache.simulator import bounds, registry
from tests.cache.simulator.streams import mixed, trace_of

if sys.platform != "linux" or sys.version_info >= (3, 14):
    pytest.skip("libcachesim has wheels for Linux and Python below 3.14", allow_module_level=True)

import libcachesim

STREAM = mixed(8_000)

# How many misses in a hundred may differ. Zero where both do what the paper says; LIRS and W-TinyLFU leave choices open.
THEIRS = {
    "fifo": ("FIFO", 0.0), "lru": ("LRU", 0.0), "lfu": ("LFU", 0.0), "clock": ("Clock", 0.0), "sieve": ("Sieve", 0.0),
    "slru": ("SLRU", 0.0), "s3-fifo": ("S3FIFO", 0.0), "twoq": ("TwoQ", 0.0), "arc": ("ARC", 0.0),
    "lirs": ("LIRS", 3.0), "w-tinylfu": ("WTinyLFU", 3.0),
}  # fmt: skip


def their_misses(name: str, capacity: int) -> int:
    cache = getattr(libcachesim, name)(cache_size=capacity)
    missed = 0
    for at, key in enumerate(STREAM):
        request = libcachesim.Request()
        request.obj_id, request.obj_size, request.clock_time = key, 1, at
        missed += not cache.get(request)
    return missed


@pytest.mark.parametrize("capacity", [100, 300])
@pytest.mark.parametrize("name", list(THEIRS))
def test_misses(name: str, capacity: int) -> None:
    theirs, tolerance = THEIRS[name]
    policy = registry.policy(name, capacity)
    ours = 0
    for key in STREAM:
        if not policy.request(key):
            ours += 1
            policy.admit(key)
    assert abs(ours - their_misses(theirs, capacity)) <= tolerance / 100 * len(STREAM)


def test_every_policy_but_chance_is_checked() -> None:
    assert set(registry.POLICIES) - {"random", "predis"} == set(THEIRS)


def test_belady_is_below_the_best_of_theirs() -> None:
    assert bounds.belady(trace_of(STREAM), 100) < their_misses("WTinyLFU", 100)
