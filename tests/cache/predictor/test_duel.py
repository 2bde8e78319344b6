"""The demand policy that chooses itself: as good as the best, never above its capacity."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from predis.cache.predictor.duel import Duel
from predis.cache.predictor.shadows import ARC, LRU, S3FIFO, TwoQ
from predis.cache.simulator import registry
from predis.cache.simulator.policies.base import Policy
from predis.cache.simulator.replay import replay
from predis.cache.simulator.trace import Trace
from tests.cache.predictor.streams import Keys, popular

NAMES = ("lru", "s3-fifo", "twoq", "arc")


def scans(requests: int) -> Keys:
    """Popular keys, and now and then a long scan: what LRU cannot stand."""
    chance = random.Random(7)
    found: Keys = []
    while len(found) < requests:
        found += popular(200, keys=400, seed=len(found))
        found += [chance.randrange(10**9) for _ in range(150)]
    return found[:requests]


def recent(requests: int) -> Keys:
    """What was asked for lately is asked for again, then never more: what LRU is made for."""
    chance = random.Random(8)
    found: Keys = [0] * 50
    while len(found) < requests:
        found.append(found[-chance.randint(1, 45)] if chance.random() < 0.7 else len(found) * 31)
    return found


def misses(keys: Keys, policy: Policy) -> int:
    return replay(Trace(pa.array(keys), name="generated"), policy).misses


@pytest.mark.parametrize(
    "keys", [popular(12_000), scans(12_000), recent(12_000)], ids=["popular", "scans", "recent"]
)
def test_it_misses_hardly_more_than_the_best(keys: Keys) -> None:
    best = min(misses(keys, registry.policy(name, 60)) for name in NAMES)
    assert misses(keys, Duel(60)) <= 1.02 * best


@pytest.mark.parametrize("kind", [LRU, TwoQ, S3FIFO, ARC])
def test_a_shadow_misses_what_the_policy_misses(kind: type[LRU]) -> None:
    keys = scans(10_000)
    shadow = kind(60)
    found = sum(not shadow.request(key) for key in keys)
    assert found == pytest.approx(misses(keys, registry.policy(kind.name, 60)), rel=0.01)


@pytest.mark.parametrize("kind", [LRU, TwoQ, S3FIFO, ARC])
def test_a_shadow_can_be_resized_at_any_time(kind: type[LRU]) -> None:
    chance = random.Random(9)
    shadow = kind(40)
    resident: set[int] = set()
    for key in popular(5_000, keys=300):
        shadow.capacity = chance.choice([0, 1, 5, 40])
        shadow.trim()
        resident -= set(shadow.gone)  # type: ignore[arg-type]
        shadow.gone.clear()
        shadow.request(key)
        resident.add(key)
        resident -= set(shadow.gone)  # type: ignore[arg-type]
        shadow.gone.clear()
        assert len(shadow) == len(resident) <= max(1, shadow.capacity)
        assert all(key in shadow for key in resident)


@pytest.mark.parametrize("capacity", [1, 2, 7, 50])
def test_residents_never_exceed_the_capacity(capacity: int) -> None:
    chance = random.Random(10)
    duel = Duel(capacity)
    resident: set[int] = set()
    for key in popular(5_000, keys=300):
        if chance.random() < 0.3:
            ahead = chance.randrange(300)
            if ahead not in resident:
                resident.add(ahead)
                resident -= set(duel.admit_prefetched(ahead))  # type: ignore[arg-type]
                if ahead not in duel:
                    resident.discard(ahead)
        hit = duel.request(key)
        assert hit == (key in resident)
        if not hit:
            resident -= set(duel.admit(key))  # type: ignore[arg-type]
            resident |= {key} if key in duel else set()
        if chance.random() < 0.1 and duel.reserve:
            duel.release(next(iter(duel.reserve)))
        assert len(duel) == len(resident) <= capacity
        assert len(duel.reserve) <= duel.room
        assert all(one in duel for one in resident)


def test_a_prefetched_key_in_use_becomes_a_demand_key() -> None:
    duel = Duel(10)
    duel.admit_prefetched(5)
    assert 5 in duel.reserve
    assert duel.request(5)
    assert duel.needed  # without the prefetch it would have been a miss
    assert 5 in duel.demand
    assert not duel.reserve


def test_the_reserve_pushes_out_no_demand_key_beyond_its_share() -> None:
    duel = Duel(10, share=0.2)
    for key in range(10):
        duel.request(key)
        duel.admit(key)
    for key in range(100, 120):
        duel.admit_prefetched(key)
    assert len(duel.demand) == 8
