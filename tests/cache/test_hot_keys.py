from __future__ import annotations

from collections import Counter

import pytest

from predis.cache.hot_keys import BigKeys, HeavyHitters, Shares
from predis.errors import InvalidInput
from tests.cache.told import zipf


class TestHeavyHitters:
    def test_bounds_hold_and_no_heavy_key_is_missing(self) -> None:
        keys = zipf(50_000, 20_000, alpha=1.0)
        truth = Counter(keys)
        heavy: HeavyHitters[bytes] = HeavyHitters(200)
        for key in keys:
            heavy.add(key)
        found = {one.key: one for one in heavy.top(200)}
        assert len(heavy) == 200
        assert {key for key, count in truth.items() if count > len(keys) / 200} <= found.keys()
        for one in found.values():
            assert one.count - one.error <= truth[one.key] <= one.count
        assert heavy.top(5) == sorted(found.values(), key=lambda one: -one.count)[:5]
        assert [one.key for one in heavy.top(3)] == [key for key, _ in truth.most_common(3)]

    def test_a_flood_of_new_keys_takes_bounded_memory_and_hides_no_hot_one(self) -> None:
        heavy: HeavyHitters[bytes] = HeavyHitters(64)
        for number in range(100_000):
            heavy.add(b"new:%d" % number)
            if number % 10 == 0:
                heavy.add(b"hot")
        assert (len(heavy), len(heavy._heap)) == (64, 64)
        assert heavy.top(1)[0].key == b"hot"

    def test_the_past_counts_less(self) -> None:
        heavy: HeavyHitters[str] = HeavyHitters(8)
        heavy.add("old", 100)
        for _ in range(4):
            heavy.decay(0.5)
        heavy.add("new", 10)
        assert [one.key for one in heavy.top(2)] == ["new", "old"]
        assert heavy.total == pytest.approx(16.25)
        for _ in range(20):
            heavy.decay(0.5)
        assert len(heavy) == 0

    def test_saved_and_gone_on_with(self) -> None:
        heavy: HeavyHitters[bytes] = HeavyHitters(16)
        for key in zipf(2_000, 100):
            heavy.add(key)
        again: HeavyHitters[bytes] = HeavyHitters(16)
        again.restore(heavy.to_list(), total=heavy.total)
        for one in (heavy, again):
            one.add(b"x")
        assert again.top(16) == heavy.top(16)

    def test_no_room(self) -> None:
        with pytest.raises(InvalidInput, match="one or more"):
            HeavyHitters(0)


class TestBigKeys:
    def test_the_largest_are_kept_as_they_were_last(self) -> None:
        big = BigKeys(10)
        for number in range(1_000):
            big.add(b"%d" % number, size=number, us=1)
        big.add(b"999", size=5, us=2)
        assert big.top(3, now_us=3) == [(b"998", 998), (b"997", 997), (b"996", 996)]
        assert len(big.to_list()) < 20

    def test_what_was_not_read_for_long_is_left_out(self) -> None:
        big = BigKeys(10, stale_us=100)
        big.add(b"old", size=9, us=0)
        big.add(b"new", size=3, us=90)
        assert big.top(5, now_us=120) == [(b"new", 3)]
        again = BigKeys(10)
        again.restore(big.to_list())
        assert again.top(5, now_us=120) == [(b"new", 3)]


class TestShares:
    def test_by_the_first_part(self) -> None:
        shares = Shares()
        for number in range(3):
            shares.add(b"a:%d" % number, size=10, hit=True)
        shares.add(b"b:1:2", size=90, hit=False)
        shares.add(b"plain", size=0, hit=True)
        assert [(row["prefix"], row["reads"], row["hit_rate"]) for row in shares.shown()] == [
            ("a", 0.6, 1.0), ("", 0.2, 1.0), ("b", 0.2, 0.0),
        ]  # fmt: skip
        assert shares.shown()[2]["bytes"] == 0.75

    def test_more_parts_than_room_are_together(self) -> None:
        shares = Shares(4)
        for number in range(10_000):
            shares.add(b"p%d:x" % number, size=1, hit=True)
        assert len(shares.shown()) == 5
        assert shares.shown()[0]["prefix"] == Shares.OTHERS
        for _ in range(30):
            shares.decay(0.5)
        assert shares.shown() == []

    def test_saved_and_gone_on_with(self) -> None:
        shares = Shares()
        shares.add(b"\xff:1", size=1, hit=True)
        again = Shares()
        again.restore(shares.to_dict())
        again.add(b"\xff:2", size=1, hit=True)
        assert again.shown() == [{"prefix": "\\xff", "reads": 1.0, "bytes": 1.0, "hit_rate": 1.0}]
