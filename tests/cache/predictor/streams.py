"""Generated streams, the same in every run."""

from __future__ import annotations

import random

Keys = list[int]


def loop(requests: int, *, length: int = 300) -> Keys:
    """The same keys round and round; their numbers say nothing."""
    keys = random.Random(1).sample(range(10**9), length)
    return [keys[i % length] for i in range(requests)]


def popular(requests: int, *, keys: int = 4_000, seed: int = 2) -> Keys:
    """Independent requests, some keys far more popular than others: nothing to foretell."""
    chance = random.Random(seed)
    return [int(keys * chance.random() ** 4) * 7_919 % 1_000_003 for _ in range(requests)]


def chains(requests: int, *, number: int = 150, length: int = 40) -> Keys:
    """Whole chains of keys that always follow one another, chosen at random."""
    chance = random.Random(3)
    all_chains = [[chance.randrange(10**9) for _ in range(length)] for _ in range(number)]
    found: Keys = []
    while len(found) < requests:
        found += chance.choice(all_chains)
    return found[:requests]


def runs(requests: int, *, length: int = 64) -> Keys:
    """Consecutive numbers, each run new: only the distance is known."""
    chance = random.Random(4)
    found: Keys = []
    while len(found) < requests:
        start = chance.randrange(10**12)
        found += range(start, start + length)
    return found[:requests]


def treacherous(requests: int, *, honest: int, number: int = 50) -> Keys:
    """Chains that can be trusted for ``honest`` requests; after that each is left for new keys after its first three."""
    chance = random.Random(5)
    all_chains = [[chance.randrange(10**9) for _ in range(40)] for _ in range(number)]
    found: Keys = []
    while len(found) < requests:
        chain = chance.choice(all_chains)
        if len(found) < honest:
            found += chain
        else:
            found += [*chain[:3], *(chance.randrange(10**9, 10**10) for _ in range(37))]
    return found[:requests]
