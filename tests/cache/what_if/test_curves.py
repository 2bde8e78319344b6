from __future__ import annotations

import json

import numpy as np
import pytest

from predis.cache.accesses import ALL
from predis.cache.ring import place_of
from predis.cache.simulator import registry
from predis.cache.what_if import SCALES, Curves, Present, Shards
from predis.cache.what_if.curves import difference
from tests.cache.told import zipf

CACHED = 400


def fed(curves: Curves, keys: list[bytes], *, cached: int = CACHED, size: int = 100) -> Curves:
    for number, key in enumerate(keys):
        if number % 500 == 0:
            curves.tell(Present(memory_bytes=1 << 20, keys=cached))
        curves.shards.looked += 1
        curves.read(key, place_of(key), length=len(key), size=size)
    return curves


def exact(keys: list[bytes], policy: str) -> list[float]:
    rates = []
    for scale in SCALES:
        cache = registry.policy(policy, round(scale * CACHED))
        hits = 0
        for key in keys:
            if cache.request(key):
                hits += 1
            else:
                cache.admit(key)
        rates.append(hits / len(keys))
    return rates


@pytest.mark.parametrize("policy", ["lru", "s3-fifo", "twoq", "arc"])
def test_policies_from_a_sample_are_near_the_exact_ones(policy: str) -> None:
    keys = zipf(30_000, 6_000)
    shown = fed(Curves(shards=Shards(1_024, from_empty=True)), keys).shown()
    assert shown["sampled_share"] < 0.6
    said = np.array(shown["policies"][policy]["hit_rate"])
    assert np.abs(said - exact(keys, policy)).mean() < 0.03


def test_nothing_is_said_before_anything_was_read_or_is_known_of_the_cache() -> None:
    curves = Curves()
    assert curves.shown()["policies"] == {}
    curves.read(b"a", place_of(b"a"), length=1, size=1)
    assert (curves.shown()["policies"], curves.shown()["present"]) == ({}, None)
    curves.tell(Present(memory_bytes=0, keys=0))
    assert curves.shown()["policies"] == {}


def test_sizes_of_misses_are_those_last_seen() -> None:
    curves = Curves()
    for size in (1_000, 0):
        curves.read(b"a", place_of(b"a"), length=1, size=size)
    curves.read(b"b", place_of(b"b"), length=1, size=0)
    assert dict(curves.shards.recent()) == {b"a": 1_065, b"b": 1_065}


def test_another_cache_or_threshold_begins_the_miniatures_anew_and_keeps_the_curves() -> None:
    curves = fed(Curves(512), zipf(6_000, 1_500))
    before = curves.shown()["policies"]
    curves.tell(Present(memory_bytes=1 << 21, keys=2 * CACHED))
    assert curves.miniatures.capacity == pytest.approx(
        2 * CACHED * curves.shards.mean_size() * curves.shards.ratio
    )
    curves.follow(ALL // 8)
    assert curves.shards.ratio == 1 / 8
    fed(curves, zipf(3_000, 1_500), cached=2 * CACHED)
    curves.interrupt()
    assert set(curves.shown()["policies"]) == set(before)
    curves.decay(0.5)


def test_it_can_be_saved_and_gone_on_with() -> None:
    curves = fed(Curves(), zipf(3_000, 1_000))
    again = Curves.from_dict(json.loads(json.dumps(curves.to_dict())))
    again.tell(Present(memory_bytes=1 << 20, keys=CACHED))
    assert again.shown() == curves.shown()


def test_a_difference_is_more_certain_than_what_it_is_between() -> None:
    shown = fed(Curves(), zipf(20_000, 3_000)).shown()
    lru, arc = shown["policies"]["lru"], shown["policies"]["arc"]
    gain, half = difference(lru, lru, at=2.0)
    assert gain == pytest.approx(lru["hit_rate"][SCALES.index(2.0)] - lru["hit_rate"][SCALES.index(1.0)])
    assert 0 < half < lru["half_width"][SCALES.index(1.0)]
    assert difference(lru, lru, at=1.0) == (0.0, 0.0)
    assert difference(arc, lru, at=0.25, base_at=0.25)[0] > 0
