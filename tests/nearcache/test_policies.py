"""What every eviction policy of the package must do, checked for each that is exported, in each way it can be set up."""

from __future__ import annotations

import inspect
import pickle
import random

import pytest

from predis import nearcache
from predis.clock import ManualClock

SETTINGS = {
    "S3FIFO": [{}, {"promote_after": 1}, {"promote_after": 3}, {"small": 0.5}],
}


def policies() -> list:
    found = [
        value
        for name in nearcache.__all__
        if inspect.isclass(value := getattr(nearcache, name))
        and hasattr(value, "put")
        and hasattr(value, "get")
    ]
    return [
        pytest.param(
            (policy, options, ttl_s), id=f"{policy.__name__}-{number}-{'ttl' if ttl_s else 'no_ttl'}"
        )
        for policy in found
        for number, options in enumerate(SETTINGS[policy.__name__])
        for ttl_s in (None, 5.0)
    ]


@pytest.fixture(params=policies())
def make(request: pytest.FixtureRequest, clock: ManualClock):
    policy, options, ttl_s = request.param

    def made(max_bytes: int):
        cache = policy(max_bytes, clock=clock.monotonic_s, **options)
        limit = {} if ttl_s is None else {"ttl_s": ttl_s}
        return cache, lambda key, value, size=1: cache.put(key, value, size=size, **limit)

    return made


def test_works_before_anything_was_put(make) -> None:
    cache, _ = make(10)
    assert cache.get("a") is None
    assert cache.glance("a", 0.0) is None
    assert cache.peek("a") is None
    assert "a" not in cache
    assert not cache.delete("a")
    assert len(cache) == cache.bytes == 0
    cache.clear()


def test_returns_what_was_put_last_and_nothing_that_was_deleted(make) -> None:
    cache, put = make(1_000)
    draw = random.Random(1)
    last: dict[int, int] = {}
    for number in range(5_000):
        key = draw.randrange(50)
        match draw.randrange(4):
            case 0:
                cache.delete(key)
                last.pop(key, None)
            case 1:
                put(key, number)
                last[key] = number
            case _:
                assert cache.get(key) == cache.peek(key) == last.get(key)


def test_is_bounded_whatever_comes(make) -> None:
    cache, put = make(100)
    draw = random.Random(2)
    for number in range(5_000):
        key = int(draw.paretovariate(0.8))
        if cache.get(key) is None:
            put(key, number, draw.randrange(1, 120))
        assert cache.bytes <= 100


def test_a_value_larger_than_all_the_space_is_refused(make) -> None:
    cache, put = make(10)
    assert not put("a", 1, 11)
    assert cache.bytes == 0


def test_glance_finds_what_get_finds_and_changes_no_entries(make, clock: ManualClock) -> None:
    cache, put = make(1_000)
    for key in range(100):
        put(key, key + 1)
    before = cache.stats
    assert [cache.glance(key, clock.monotonic_s()) for key in range(100)] == list(range(1, 101))
    assert cache.stats == before
    clock.advance(6)
    expired = cache.glance(7, clock.monotonic_s()) is None
    assert len(cache) == 100
    assert expired == (cache.get(7) is None)


def test_glancing_keeps_an_entry_as_getting_does(make, clock: ManualClock) -> None:
    cache, put = make(100)
    for key in range(3_000):
        put(key, key)
        for _ in range(3):
            cache.glance(0, clock.monotonic_s())
            cache.peek(1)
    assert 0 in cache
    assert 1 not in cache


def test_values_are_not_touched(make) -> None:
    cache, put = make(10)
    value = [1, [2]]
    put("a", value)
    assert cache.get("a") is value
    assert value == [1, [2]]


def test_same_requests_same_evictions(make) -> None:
    kept = []
    for _ in range(2):
        cache, put = make(50)
        draw = random.Random(5)
        for _ in range(2_000):
            key = int(draw.paretovariate(0.7))
            if cache.get(key) is None:
                put(key, key)
        kept.append([key for key in range(1, 5_000) if key in cache])
    assert kept[0] == kept[1]


def test_clear_forgets_entries_and_keeps_counts(make) -> None:
    cache, put = make(10)
    put("a", 1)
    cache.get("a")
    cache.clear()
    assert (cache.get("a"), len(cache), cache.bytes, cache.stats.hits) == (None, 0, 0, 1)


def test_stats_can_be_sent_elsewhere(make) -> None:
    cache, put = make(10)
    put("a", 1)
    assert pickle.loads(pickle.dumps(cache.stats)) == cache.stats
