"""What a learner would have told after some reads: real curves of a Zipf stream, written where control looks."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from predis.cache.collector import Collector
from predis.cache.learner import INSIGHT, write
from predis.cache.ring import Flag, place_of
from predis.cache.ring_reader import EVENT
from predis.cache.what_if import Present


def events(keys: list[bytes], *, flags: int, sizes: list[int] | None = None, client: int = 1) -> np.ndarray:
    """Events of one client, a microsecond apart, as a ring would give them."""
    made = np.zeros(len(keys), EVENT)
    for row, key in zip(made, keys, strict=True):
        row["key"], row["length"], row["place"] = key[:96], len(key), place_of(key)
    made["size"] = sizes if sizes is not None else 100
    made["flags"], made["client"] = flags, client
    made["us"] = time.time_ns() // 1000 + np.arange(len(keys))
    return made


def zipf(reads: int, keys: int, *, alpha: float = 0.9, seed: int = 1, prefix: str = "user") -> list[bytes]:
    """Keys drawn by Zipf's law."""
    weights = 1.0 / np.arange(1, keys + 1) ** alpha
    drawn = np.random.default_rng(seed).choice(keys, reads, p=weights / weights.sum())
    return [b"%s:%d" % (prefix.encode(), number) for number in drawn]


def tell(home: Path, *, reads: int = 6_000) -> None:
    """Write an insight of that many reads into a home."""
    collector = Collector()
    collector.watch(looking=True, threshold=1 << 32)
    for prefix, seed in (("user", 1), ("page", 2)):
        keys = zipf(reads // 2, 3_000, seed=seed, prefix=prefix)
        sizes = [300 + 40 * (len(key) + place_of(key) % 50) for key in keys]
        collector.take(events(keys, flags=Flag.SPATIAL | Flag.HIT, sizes=sizes), looked=len(keys))
        collector.curves.tell(Present(memory_bytes=64 << 20, keys=400))
    now = time.time()
    figures = {
        "used_memory": 63 << 20, "used_memory_dataset": 61 << 20, "maxmemory": 64 << 20, "keyspace_hits": 91_000, "keyspace_misses": 9_000,
        "evicted_keys": 1_234, "expired_keys": 77, "connected_clients": 12, "keys": 400, "policy": "allkeys-lru", "version": "9.1.2",
    }  # fmt: skip
    series = [{"at": now - 10 * (60 - n), "hits": 900 + 3 * n, "misses": 160 - n} for n in range(60)]
    (home / "cache").mkdir(parents=True, exist_ok=True)
    write(
        home / "cache" / INSIGHT,
        {
            "at": now, "workers": 1, "looking": True, "waiting": 0, "dropped": 0, "valkey": figures, "series": series,
            **collector.shown(int(now * 1e6)),
        },
    )  # fmt: skip
