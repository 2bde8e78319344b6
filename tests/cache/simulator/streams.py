"""Generated traces, the same in every run."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa

from predis.cache.simulator.trace import Trace

Keys = list[int]


def mixed(requests: int, *, keys: int = 2_000, seed: int = 5) -> Keys:
    """Popular keys, runs of consecutive numbers, and chains of keys that follow one another, in turns."""
    chance = random.Random(seed)
    chains = [
        [chance.randrange(10**6, 10**7) for _ in range(chance.randint(3, 9))] for _ in range(keys // 20)
    ]
    found: Keys = []
    while len(found) < requests:
        kind = chance.random()
        if kind < 0.5:
            found.append(int(keys * chance.random() ** 3))
        elif kind < 0.6:
            start = chance.randrange(10**8, 10**8 + keys)
            found += range(start, start + chance.randint(3, 12))
        else:
            found += chains[int(len(chains) * chance.random() ** 2)]
    return found[:requests]


def trace_of(
    keys: list[int] | list[str], *, step_s: float = 0.0, sizes: bool = False, clients: int = 0
) -> Trace:
    """A trace of these keys; with a clock of steps of 0 to 2 ``step_s``, sizes by key, and clients, where asked for."""
    numbers = np.random.default_rng(9)
    return Trace(
        pa.array(keys),
        name="generated",
        ts=np.cumsum(numbers.integers(0, 3, len(keys)) * step_s) if step_s else None,
        sizes=np.array([1 + hash_of(key) % 9 for key in keys]) if sizes else None,
        clients=numbers.integers(0, clients, len(keys)) if clients else None,
    )


def hash_of(key: int | str) -> int:
    return key if isinstance(key, int) else sum(key.encode())
