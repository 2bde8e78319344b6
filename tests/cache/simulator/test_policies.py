"""The contract of every policy, and its misses on a generated stream, to the last one."""

from __future__ import annotations

import pickle
import random

import pytest

from predis.cache.simulator import registry
from predis.cache.simulator.policies.base import Policy
from predis.cache.simulator.setup import Key
from predis.errors import InvalidInput
from tests.cache.simulator.streams import mixed

OURS = [name for name in registry.POLICIES if name != "predis"]
STREAM = mixed(20_000)

# Misses on STREAM with 100 objects. libcachesim 0.3.5 counts the same, but where said in test_libcachesim.py.
GOLDEN = {
    "fifo": 17466, "lru": 17159, "lfu": 15780, "clock": 16940, "slru": 15437, "sieve": 15789, "s3-fifo": 15377, "twoq": 15788, "arc": 15621, "lirs": 15749, "w-tinylfu": 15135, "random": 17411,
}  # fmt: skip


def misses(policy: Policy, keys: list[int]) -> int:
    missed = 0
    for key in keys:
        if not policy.request(key):
            missed += 1
            policy.admit(key)
    return missed


@pytest.mark.parametrize("name", OURS)
def test_misses_are_those_of_the_paper(name: str) -> None:
    assert misses(registry.policy(name, 100), STREAM) == GOLDEN[name]


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("capacity", [1, 2, 7, 100])
def test_what_it_says_it_keeps_is_what_it_keeps(name: str, capacity: int) -> None:
    policy = registry.policy(name, capacity)
    kept: set[Key] = set()
    chance = random.Random(3)
    for key in mixed(3_000, keys=200, seed=capacity):
        assert (key in policy) is (key in kept)
        assert policy.request(key) is (key in kept)
        if key in kept:
            continue
        if chance.random() < 0.3:
            evicted = policy.admit_prefetched(key)
        else:
            evicted = policy.admit(key)
        kept.add(key)
        assert len(set(evicted)) == len(evicted)
        assert kept >= set(evicted)
        kept -= set(evicted)
        assert len(policy) == policy.used == len(kept) <= capacity
    assert all(key in policy for key in kept)


@pytest.mark.parametrize("name", OURS)
def test_sizes(name: str) -> None:
    policy = registry.policy(name, 500)
    kept: dict[Key, int] = {}
    for key in mixed(5_000, keys=500):
        size = 1 + key % 60
        if policy.request(key):
            assert key in kept
            continue
        kept[key] = size
        for gone in policy.admit(key, size):
            del kept[gone]
        assert key in policy or policy.used + size > policy.capacity or name == "w-tinylfu"
        if key not in policy:
            kept.pop(key, None)
        assert policy.used == sum(kept.values()) <= 500
        assert len(policy) == len(kept)


@pytest.mark.parametrize("name", OURS)
def test_what_is_larger_than_the_cache_is_not_kept(name: str) -> None:
    policy = registry.policy(name, 10)
    policy.request("small")
    policy.admit("small", 4)
    policy.request("huge")
    assert not policy.admit("huge", 11)
    assert "huge" not in policy
    assert "small" in policy
    assert policy.used == 4


@pytest.mark.parametrize("name", OURS)
def test_memory_is_bounded_by_the_capacity_not_by_the_keys(name: str) -> None:
    policy = registry.policy(name, 50)
    for key in range(20_000):
        policy.request(key)
        policy.admit(key)
    assert len(policy) == 50
    assert len(pickle.dumps(policy)) < 50 * 400


@pytest.mark.parametrize("name", OURS)
def test_strings_are_keys_too(name: str) -> None:
    by_number = misses(registry.policy(name, 60), STREAM[:4_000])
    policy, missed = registry.policy(name, 60), 0
    for key in STREAM[:4_000]:
        if not policy.request(f"user:{key}"):
            missed += 1
            policy.admit(f"user:{key}")
    assert missed == by_number


def test_a_cache_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one object"):
        registry.policy("lru", 0)


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(InvalidInput, match=r"no policy 'mru'; there are fifo, lru"):
        registry.policy("mru", 5)
