"""A flood of keys that are read once and never again: what the learner's memory and files do under it.

    python -m bench.cache.flood --keys 10000000 --out bench/results/NAME.json

Reads come by the ring, as a worker writes them, from a thousand clients in turns, all of keys of one source. The learner is the product's
own, with all that listens: hot keys, what-if curves, rules, followers, schedules. Each line is a tenth of the keys: what the process holds,
and what stands in its folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.cache.processes import resident
from predis.cache.learner import RINGS, Learner
from predis.cache.ring import SUFFIX, Flag, Producer, place_of
from predis.cache.sources.source import Source
from predis.cache.teaching import Teaching

_SLOTS, _BATCH, _CLIENTS, _SIZE = 1 << 17, 50_000, 1_000, 100
_SOURCE = {"pattern": "user:{id}", "kind": "http", "url": "http://127.0.0.1:9/{id}"}
_FLAGS = int(Flag.WHOLE | Flag.SPATIAL)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keys", type=int, default=10_000_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = flood(Path(folder), arguments.keys)
    found |= {
        "command": f"python -m bench.cache.flood {' '.join(sys.argv[1:])}",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


def flood(folder: Path, keys: int) -> dict[str, Any]:
    teaching = Teaching(folder, sources=lambda: [Source.of("users", _SOURCE)], load_s=lambda: 0.005)
    learner = Learner(folder, listeners=(teaching.hear,))
    ring = Producer(folder / RINGS / f"0{SUFFIX}", _SLOTS)
    begun, lines = resident([os.getpid()]), []
    print(f"{'keys':>12} {'memory, MB':>12} {'files, MB':>12} {'us a read':>12}")
    spent = time.process_time()
    for first in range(0, keys, _BATCH):
        for number in range(first, min(first + _BATCH, keys)):
            key = b"user:%d" % number
            ring.put(key, _SIZE, client=number % _CLIENTS, flags=_FLAGS, place=place_of(key))
        learner.look()
        told = first + _BATCH
        if told * 10 // keys > first * 10 // keys:
            now, spent = time.process_time() - spent, time.process_time()
            lines.append(
                {
                    "keys": told,
                    "memory_bytes": resident([os.getpid()]) - begun,
                    "file_bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
                    "us_a_read": round(now / keys * 10 * 1e6, 2),
                }
            )
            shown = lines[-1]
            print(
                f"{told:>12,} {shown['memory_bytes'] / 1e6:>12.1f} {shown['file_bytes'] / 1e6:>12.1f} {shown['us_a_read']:>12}",
                flush=True,
            )
    dropped = ring.dropped
    learner.close()
    ring.close()
    return {"dropped": dropped, "lines": lines}


if __name__ == "__main__":
    main()
