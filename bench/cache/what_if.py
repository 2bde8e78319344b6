"""How near the what-if curves come to the exact ones, on recorded traces.

    python bench/cache/what_if.py TRACES_FOLDER --out bench/results/DATE-what-if.json

For each trace the present cache holds 1% of its keys (and 10%). The exact hit rates at 0.25x to 4x of it come from a full replay; the
sampled ones from ``Curves``, with at most 8,192 keys, over the same requests. Printed: the mean and the largest absolute error over the
eight sizes, for LRU by reuse distance and for the other policies, and how often the exact value lies in the stated interval. ``--share``
repeats it with only that share of the clients looked at, each request being of a random one: what happens beyond the budget.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from predis.cache.ring import place_of
from predis.cache.simulator import registry
from predis.cache.what_if import SCALES, Curves, Present, Shards

OTHERS = ("s3-fifo", "twoq", "arc")
VALUE = 100


def exact(keys: list[bytes], cached: int, *, policies: tuple[str, ...]) -> dict[str, list[float]]:
    """Hit rates of caches of whole sizes, in keys."""
    found = {}
    for name in policies:
        found[name] = []
        for scale in SCALES:
            cache = registry.policy(name, max(1, round(scale * cached)))
            hits = 0
            for key in keys:
                if cache.request(key):
                    hits += 1
                else:
                    cache.admit(key)
            found[name].append(hits / len(keys))
    return found


def sampled(keys: list[bytes], cached: int, *, most_keys: int, rest: int = 0) -> dict[str, Any]:
    """What ``Curves`` says of the same requests, and the seconds of CPU it took."""
    curves = Curves(shards=Shards(most_keys, from_empty=not rest))
    curves.tell(Present(memory_bytes=cached * 200, keys=cached))
    started = time.process_time()
    for number, key in enumerate(keys):
        if rest and number // (len(keys) // 20) % rest:
            continue  # the worker rests
        if rest and number % (len(keys) // 20) == 0:
            curves.interrupt()
        curves.shards.looked += 1
        curves.read(key, place_of(key), length=len(key), size=VALUE)
        if number % 10_000 == 0:
            curves.tell(Present(memory_bytes=cached * 200, keys=cached))
    shown = curves.shown()
    return {**shown, "cpu_s": time.process_time() - started, "final_ratio": curves.shards.ratio}


def errors(said: dict[str, Any], truth: dict[str, list[float]]) -> dict[str, Any]:
    found = {}
    for name, rates in truth.items():
        curve = said["policies"][name]
        off = np.abs(np.array(curve["hit_rate"]) - rates)
        found[name] = {
            "mean_abs": round(float(off.mean()), 5),
            "max_abs": round(float(off.max()), 5),
            "within": round(float(np.mean(off <= np.array(curve["half_width"]) + 1e-9)), 3),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("traces", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--requests", type=int, default=300_000)
    parser.add_argument("--most-keys", type=int, default=8192)
    parser.add_argument("--only", nargs="*")
    options = parser.parse_args()
    rows = []
    for path in sorted(options.traces.glob("*.parquet")):
        if options.only and path.stem not in options.only:
            continue
        keys = [
            f"k{key}".encode()
            for key in pq.read_table(path, columns=["key"])["key"].to_pylist()[: options.requests]
        ]
        distinct = len(set(keys))
        for percent in (1, 10):
            cached = max(1, distinct * percent // 100)
            if cached < 50:
                continue
            rows.append(row(path.stem, keys, cached=cached, percent=percent, options=options))
            print(json.dumps(rows[-1]), flush=True)
    summary = {
        name: {
            "mean_abs": round(float(np.mean([r["errors"][name]["mean_abs"] for r in rows])), 5),
            "worst_mean_abs": round(max(r["errors"][name]["mean_abs"] for r in rows), 5),
            "within": round(float(np.mean([r["errors"][name]["within"] for r in rows])), 3),
        }
        for name in ("lru", *OTHERS)
    }
    summary["lru_with_rests"] = {
        "mean_abs": round(float(np.mean([r["errors_with_rests"]["lru"]["mean_abs"] for r in rows])), 5),
        "worst_mean_abs": round(max(r["errors_with_rests"]["lru"]["mean_abs"] for r in rows), 5),
    }
    print(json.dumps(summary, indent=1))
    if options.out:
        setup = {"requests": options.requests, "most_keys": options.most_keys, "scales": SCALES}
        options.out.write_text(
            json.dumps({"setup": setup, "summary": summary, "rows": rows}, indent=1) + "\n"
        )


def row(
    name: str, keys: list[bytes], *, cached: int, percent: int, options: argparse.Namespace
) -> dict[str, Any]:
    truth = exact(keys, cached, policies=("lru", *OTHERS))
    said = sampled(keys, cached, most_keys=options.most_keys)
    part = sampled(keys, cached, most_keys=options.most_keys, rest=4)
    return {
        "trace": name, "requests": len(keys), "keys": len(set(keys)), "cache_percent": percent, "cache_keys": cached,
        "sampled_share": round(said["final_ratio"], 4), "cpu_us_per_request": round(said["cpu_s"] / len(keys) * 1e6, 2),
        "exact_lru": [round(rate, 4) for rate in truth["lru"]], "said_lru": said["policies"]["lru"]["hit_rate"],
        "errors": errors(said, truth), "errors_with_rests": errors(part, truth),
    }  # fmt: skip


if __name__ == "__main__":
    main()
