from __future__ import annotations

import json
from collections import OrderedDict

import numpy as np
import pytest

from predis.cache.accesses import ALL
from predis.cache.ring import place_of
from predis.cache.what_if import Shards
from predis.errors import InvalidInput
from tests.cache.told import zipf


def exact(keys: list[bytes], sizes: list[int]) -> list[float]:
    """Hit rates of LRU caches, by running them."""
    rates = []
    for size in sizes:
        cache: OrderedDict[bytes, None] = OrderedDict()
        hits = 0
        for key in keys:
            hits += key in cache
            cache[key] = None
            cache.move_to_end(key)
            if len(cache) > size:
                cache.popitem(last=False)
        rates.append(hits / len(keys))
    return rates


def fed(shards: Shards, keys: list[bytes], *, size: int = 10) -> Shards:
    for key in keys:
        shards.looked += 1
        shards.read(key, place_of(key), size=size)
    return shards


def test_all_keys_give_the_exact_curve() -> None:
    keys = zipf(8_000, 500)
    shards = fed(Shards(1_000, from_empty=True), keys)
    sizes = [1, 8, 32, 128, 256, 512]
    said = shards.hit_rates(np.array(sizes))[0]
    assert said == pytest.approx(exact(keys, sizes), abs=0.012)  # bins are 4% wide
    assert shards.ratio == 1.0
    assert shards.hit_rates(np.array(sizes) * 10, unit="bytes")[0] == pytest.approx(
        exact(keys, sizes), abs=0.012
    )


@pytest.mark.parametrize("alpha", [0.6, 0.9, 1.1])
def test_a_sample_of_few_keys_is_near_and_within_its_spread(alpha: float) -> None:
    keys = zipf(60_000, 20_000, alpha=alpha)
    shards = fed(Shards(1_024, from_empty=True), keys)
    assert (len(shards) <= 1_024, shards.ratio < 0.2) == (True, True)
    sizes = [500, 1_000, 2_000, 4_000, 8_000]
    rows = shards.hit_rates(np.array(sizes))
    truth = exact(keys, sizes)
    assert np.abs(rows[0] - truth).mean() < 0.03
    spread = rows[1:].std(axis=0, ddof=1)
    assert np.all(np.abs(rows[0] - truth) < 3 * spread)


def test_rates_rise_with_the_size_and_stay_shares() -> None:
    shards = fed(Shards(64), zipf(5_000, 3_000))
    rows = shards.hit_rates(np.geomspace(1, 1e6, 50))
    assert np.all(np.diff(rows, axis=1) >= -1e-9)
    assert rows.min() >= 0
    assert rows.max() <= 1
    assert not np.isnan(Shards(64).hit_rates(np.array([10.0]))).any()


def test_what_nobody_looked_at_is_not_a_miss() -> None:
    """A stream looked at every other while: from an empty cache each while begins with misses, which the estimate leaves out."""
    keys = zipf(60_000, 1_000)
    whole = exact(keys, [300])[0]
    shards = Shards(4_096)
    for start in range(0, len(keys), 6_000):
        shards.interrupt()
        fed(shards, keys[start : start + 3_000])
    said = shards.hit_rates(np.array([300.0]))[0][0]
    from_empty = Shards(4_096, from_empty=True)
    for start in range(0, len(keys), 6_000):
        from_empty.interrupt()
        fed(from_empty, keys[start : start + 3_000])
    naive = from_empty.hit_rates(np.array([300.0]))[0][0]
    assert abs(said - whole) < 0.02 < abs(naive - whole)


def test_a_scan_of_new_keys_is_all_misses() -> None:
    shards = fed(Shards(1_024), [b"new:%d" % number for number in range(50_000)])
    assert shards.hit_rates(np.array([1_000.0, 10_000.0]))[0] == pytest.approx([0, 0], abs=0.01)


def test_ten_million_keys_take_bounded_memory() -> None:
    shards = Shards(256)
    places = np.random.default_rng(1).integers(
        0, ALL, 300_000
    )  # as if of 10,000,000: nearly all are above the threshold
    for number, place in enumerate(places.tolist()):
        shards.read(b"%d" % number, place, size=1)
    assert len(shards) <= 256
    assert shards.ratio < 0.005


def test_keys_too_deep_to_matter_go_before_the_threshold_falls() -> None:
    shards = Shards(256)
    shards.depth_keys = 20
    fed(shards, [b"new:%d" % number for number in range(5_000)])
    assert shards.threshold == ALL
    assert len(shards) <= 256


def test_the_threshold_follows_the_writers_and_rises_where_there_is_room() -> None:
    shards = fed(Shards(256), zipf(2_000, 200))
    shards.follow(ALL // 4)
    assert (shards.threshold, len(shards) < 100) == (ALL // 4, True)
    before = shards.hit_rates(np.array([50.0]))[0][0]
    assert shards.wanted() > ALL // 4
    shards.follow(shards.wanted())
    assert len(shards) == 0  # what was read before is not known of the new keys
    assert shards.hit_rates(np.array([50.0]))[0][0] == pytest.approx(before, abs=0.05)
    assert not shards.read(b"x", ALL - 1, size=1)


def test_decay_halves_the_past() -> None:
    shards = fed(Shards(256), zipf(2_000, 200))
    before = shards.hit_rates(np.array([50.0]))[0][0]
    shards.decay(0.5)
    assert shards.reads == pytest.approx(1_000)
    assert shards.hit_rates(np.array([50.0]))[0][0] == pytest.approx(before)
    fed(shards, [b"one"] * 4_000)
    assert shards.hit_rates(np.array([50.0]))[0][0] > 0.85


def test_it_can_be_saved_and_gone_on_with() -> None:
    keys = zipf(6_000, 2_000)
    once = fed(Shards(512), keys)
    half = Shards.from_dict(json.loads(json.dumps(fed(Shards(512), keys[:3_000]).to_dict())))
    twice = fed(half, keys[3_000:])
    sizes = np.array([50.0, 500.0])
    assert twice.hit_rates(sizes) == pytest.approx(once.hit_rates(sizes), abs=1e-9)
    assert list(twice.recent()) == list(once.recent())


def test_a_sample_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidInput, match="16 or more"):
        Shards(3)
