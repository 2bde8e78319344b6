"""S3-FIFO against a slow and obvious model of it, and what must hold whatever is done to it."""

from __future__ import annotations

import math
import random
import sys
import tracemalloc
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from predis.clock import ManualClock
from predis.errors import InvalidInput
from predis.nearcache import OVERHEAD_BYTES, S3FIFO


@dataclass
class Kept:
    key: int
    value: int
    size: int
    hits: int
    expires_at: float


@dataclass
class Model:
    """The paper's Algorithm 1 with plain lists, oldest first; everything is searched for from one end to the other."""

    max_bytes: int
    promote_after: int
    now: float = 0.0
    small: list[Kept] = field(default_factory=list)
    main: list[Kept] = field(default_factory=list)
    ghost: list[tuple[int, int]] = field(default_factory=list)

    def room(self, queue: list[Kept]) -> int:
        return sum(kept.size for kept in queue)

    def drop_expired(self) -> None:
        self.small = [kept for kept in self.small if kept.expires_at > self.now]
        self.main = [kept for kept in self.main if kept.expires_at > self.now]

    def take(self, key: int) -> tuple[list[Kept], Kept | None]:
        for queue in (self.main, self.small):
            for kept in queue:
                if kept.key == key:
                    queue.remove(kept)
                    return queue, kept
        return self.small, None

    def get(self, key: int) -> int | None:
        for kept in self.small + self.main:
            if kept.key == key:
                if kept.expires_at <= self.now:
                    self.take(key)
                    return None
                kept.hits = min(kept.hits + 1, 3)
                return kept.value
        return None

    def put(self, key: int, value: int, *, size: int, ttl_s: float) -> bool:
        self.drop_expired()
        queue, old = self.take(key)
        if size > self.max_bytes:
            return False
        while self.room(self.small) + self.room(self.main) + size > self.max_bytes:
            small_is_full = self.room(self.small) >= 0.1 * self.max_bytes
            if self.small and (small_is_full or not self.main):
                self.evict_small()
            else:
                self.evict_main()
        for ghost in self.ghost:
            if ghost[0] == key:
                self.ghost.remove(ghost)
                queue = self.main
                break
        queue.append(Kept(key, value, size, old.hits if old else 0, self.now + ttl_s))
        return True

    def evict_small(self) -> None:
        while self.small:
            oldest = self.small.pop(0)
            if oldest.hits >= self.promote_after:
                oldest.hits = 0
                self.main.append(oldest)
                if self.room(self.main) > 0.9 * self.max_bytes:
                    self.evict_main()
            else:
                self.ghost.append((oldest.key, oldest.size))
                while sum(size for _, size in self.ghost) > 0.9 * self.max_bytes:
                    self.ghost.pop(0)
                return

    def evict_main(self) -> None:
        while self.main:
            oldest = self.main.pop(0)
            if oldest.hits == 0:
                return
            oldest.hits -= 1
            self.main.append(oldest)


KEYS = st.integers(0, 12)
STEPS = st.one_of(
    st.tuples(st.just("get"), KEYS),
    st.tuples(st.just("get"), KEYS),
    st.tuples(st.just("put"), KEYS, st.integers(1, 60), st.sampled_from([math.inf, 1.0, 3.0])),
    st.tuples(st.just("put"), KEYS, st.just(1), st.just(math.inf)),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 1.0, 2.0])),
    st.tuples(st.just("expire")),
)


def check_invariants(cache: S3FIFO[int, int], max_bytes: int) -> None:
    small, main, ghost = set(cache._small), set(cache._main), set(cache._ghost)
    assert not small & main
    assert not small & ghost
    assert not main & ghost
    for queue in (cache._small, cache._main):
        assert queue.bytes == sum(entry.size for entry in queue.values())
    assert cache.bytes <= max_bytes
    assert cache._ghost_bytes == sum(cache._ghost.values()) <= 0.9 * max_bytes


@hypothesis_settings(max_examples=300)
@given(st.sampled_from([7, 50, 100]), st.integers(1, 3), st.lists(STEPS, max_size=120))
def test_does_what_the_model_does(max_bytes: int, promote_after: int, steps: list[tuple]) -> None:
    clock = ManualClock(start_ns=0)
    cache: S3FIFO[int, int] = S3FIFO(max_bytes, promote_after=promote_after, clock=clock.monotonic_s)
    model = Model(max_bytes, promote_after)
    for number, (what, *rest) in enumerate(steps):
        match what:
            case "get":
                assert cache.get(rest[0]) == model.get(rest[0])
            case "put":
                key, size, ttl_s = rest
                put = cache.put(key, number, size=size, ttl_s=ttl_s)
                assert put == model.put(key, number, size=size, ttl_s=ttl_s)
                assert len(cache._expiries) <= 2 * len(cache) + 64
            case "delete":
                assert cache.delete(rest[0]) == (model.take(rest[0])[1] is not None)
            case "wait":
                clock.advance(rest[0])
                model.now = clock.monotonic_s()
            case "expire":
                before = len(cache)
                removed = cache.expire()
                model.drop_expired()
                assert removed == before - len(cache)
        check_invariants(cache, max_bytes)
        assert list(cache._small) == [kept.key for kept in model.small]
        assert list(cache._main) == [kept.key for kept in model.main]
        assert list(cache._ghost) == [key for key, _ in model.ghost]
        assert [e.hits for e in cache._main.values()] == [kept.hits for kept in model.main]


class TestPolicy:
    def test_a_scan_does_not_wash_out_what_is_in_use(self) -> None:
        cache: S3FIFO[str, int] = S3FIFO(100)
        hot = [f"hot-{i}" for i in range(50)]
        for i in range(5_000):
            for key in (hot[i % 50], hot[i % 50], f"scan-{i}"):
                if cache.get(key) is None:
                    cache.put(key, i, size=1)
        assert all(key in cache for key in hot)

    def test_a_ghost_that_comes_back_enters_main(self) -> None:
        cache: S3FIFO[int, int] = S3FIFO(10)
        for key in range(11):
            cache.put(key, key, size=1)
        assert 0 in cache._ghost
        cache.put(0, 0, size=1)
        assert 0 in cache._main
        assert 0 not in cache._ghost

    def test_is_better_than_lru_on_skewed_keys(self) -> None:
        draw = random.Random(3)
        keys = [int(draw.paretovariate(0.7)) for _ in range(30_000)]
        cache: S3FIFO[int, int] = S3FIFO(100)
        lru: dict[int, int] = {}
        missed = 0
        for key in keys:
            if cache.get(key) is None:
                cache.put(key, key, size=1)
            if lru.pop(key, None) is None:
                missed += 1
            lru[key] = key
            if len(lru) > 100:
                del lru[next(iter(lru))]
        assert cache.stats.misses < missed

    def test_a_large_entry_makes_small_ones_leave(self) -> None:
        cache: S3FIFO[int, int] = S3FIFO(100)
        for key in range(100):
            cache.put(key, key, size=1)
        assert cache.put(1_000, 0, size=95)
        assert cache.bytes <= 100
        assert cache.get(1_000) == 0


class TestTime:
    def test_nothing_is_returned_once_its_time_is_over(self, clock: ManualClock) -> None:
        cache: S3FIFO[str, int] = S3FIFO(100, clock=clock.monotonic_s)
        cache.put("a", 1, size=1, ttl_s=10)
        clock.advance(9.999)
        assert cache.get("a") == 1
        assert "a" in cache
        clock.advance(0.001)
        assert "a" not in cache
        assert cache.get("a") is None
        assert len(cache) == 0
        assert (cache.stats.expirations, cache.stats.evictions) == (1, 0)

    def test_what_has_expired_does_not_pile_up(self, clock: ManualClock) -> None:
        cache: S3FIFO[int, int] = S3FIFO(1_000_000, clock=clock.monotonic_s)
        for key in range(10_000):
            cache.put(key, key, size=1, ttl_s=5)
            clock.advance(0.1)
        assert len(cache) <= 51
        assert len(cache._expiries) <= 51

    def test_expire_is_for_when_puts_cease(self, clock: ManualClock) -> None:
        cache: S3FIFO[int, int] = S3FIFO(100, clock=clock.monotonic_s)
        assert cache.expire() == 0
        for key in range(10):
            cache.put(key, key, size=1, ttl_s=key + 1)
        clock.advance(5)
        assert cache.expire() == 5
        assert sorted(cache._small) == [5, 6, 7, 8, 9]

    def test_a_replaced_entry_has_the_new_time(self, clock: ManualClock) -> None:
        cache: S3FIFO[str, int] = S3FIFO(100, clock=clock.monotonic_s)
        cache.put("longer", 1, size=1, ttl_s=1)
        cache.put("longer", 2, size=1, ttl_s=100)
        cache.put("shorter", 1, size=1, ttl_s=100)
        cache.put("shorter", 2, size=1, ttl_s=1)
        clock.advance(2)
        cache.expire()
        assert cache.get("longer") == 2
        assert cache.get("shorter") is None

    def test_expiries_of_what_has_left_do_not_pile_up(self, clock: ManualClock) -> None:
        cache: S3FIFO[int, int] = S3FIFO(10, clock=clock.monotonic_s)
        for key in range(5_000):
            cache.put(key, key, size=1, ttl_s=3_600)
            cache.put(-1, key, size=1, ttl_s=3_600)
            cache.delete(-1)
        assert len(cache._expiries) <= 2 * 10 + 64

    @pytest.mark.parametrize("ttl_s", [0.0, -1.0, math.nan])
    def test_no_time_at_all_is_not_kept(self, ttl_s: float) -> None:
        cache: S3FIFO[str, int] = S3FIFO(100)
        cache.put("a", 1, size=1)
        assert not cache.put("a", 2, size=1, ttl_s=ttl_s)
        assert cache.get("a") is None


class TestBytes:
    def test_what_does_not_fit_is_refused_and_replaces_nothing_by_something_old(self) -> None:
        cache: S3FIFO[str, int] = S3FIFO(10)
        assert cache.put("a", 1, size=10)
        assert not cache.put("a", 2, size=11)
        assert cache.get("a") is None
        assert cache.bytes == 0

    def test_a_replaced_entry_counts_once(self) -> None:
        cache: S3FIFO[str, int] = S3FIFO(10)
        for size in (4, 9, 2):
            cache.put("a", size, size=size)
        assert (cache.bytes, len(cache), cache.get("a")) == (2, 1, 2)

    def test_python_uses_no_more_than_is_charged(self) -> None:
        """With the overhead put on each size, ghosts and expiries included, the bound is one on memory."""
        tracemalloc.start()
        cache: S3FIFO[bytes, bytes] = S3FIFO(1 << 20)
        before = tracemalloc.get_traced_memory()[0]
        for number in range(20_000):
            key, value = b"%016d" % number, bytes(100)
            size = sys.getsizeof(key) + sys.getsizeof(value) + OVERHEAD_BYTES
            cache.put(key, value, size=size, ttl_s=3_600)
        used = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert cache.stats.evictions > 10_000
        assert used <= 1 << 20


def test_stats_count_what_happened() -> None:
    cache: S3FIFO[int, str] = S3FIFO(3)
    cache.get(1)
    for key in (1, 2, 3, 4):
        cache.put(key, "x", size=1)
    cache.get(4)
    found = cache.stats
    assert (found.hits, found.misses, found.evictions, found.expirations) == (1, 1, 1, 0)
    assert (found.bytes, found.entries, found.ghosts) == (3, 3, 1)
    cache.clear()
    assert (cache.stats.hits, cache.stats.bytes, cache.stats.entries, cache.stats.ghosts) == (1, 0, 0, 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: S3FIFO(0),
        lambda: S3FIFO(1, small=0.0),
        lambda: S3FIFO(1, small=1.0),
        lambda: S3FIFO(1, promote_after=0),
        lambda: S3FIFO(1, promote_after=4),
        lambda: S3FIFO(1).put("a", 1, size=0),
        lambda: S3FIFO(1).put("a", None, size=1),
    ],
)
def test_senseless_arguments_are_refused(make) -> None:
    with pytest.raises(InvalidInput):
        make()
