"""How long a prefetched key is kept unused: as long as its chance is worth its slot.

The time from guess to need is counted in classes, also of guesses that were not acted on, and of those given up early: so patience can
grow again. It is the time that makes the most of hits less slots times time, a slot being worth what one more would
yield the demand cache.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque

from predis.cache.simulator.setup import Key

EDGES = (11, 12, 13, 14, 16, 18, 20, 24, 28, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512, 1024)  # requests
_FIRST = 256
_ENOUGH, _MUCH = 20.0, 2_000.0  # outcomes before it decides, and those after which counts are halved
_WITHIN = 0.9  # mean age in a class, as a share of its upper edge


class Patience:
    """Of one rule.

    Attributes:
        requests: how long a key that it guessed is kept.
        slot_requests: how long an acted guess takes a slot, on average, used or not.
        waiting: keys under way or kept, and since when, the oldest first.
    """

    def __init__(self) -> None:
        self.requests = _FIRST
        self.slot_requests = 0.0
        self.waiting: deque[tuple[int, Key]] = deque()
        self._ages = [0.0] * (len(EDGES) + 1)
        self._never = 0.0

    def needed(self, age: int) -> None:
        self._ages[bisect_left(EDGES, age)] += 1.0

    def never(self) -> None:
        self._never += 1.0

    def review(self, slot: float, *, delay: int, horizon: int) -> None:
        """Chooses anew.

        Args:
            slot: hits a request that a slot of the demand cache yields.
            delay: requests until a prefetch arrives and takes a slot.
            horizon: the most.
        """
        total = sum(self._ages) + self._never
        if total < _ENOUGH:
            return
        best, hits, time = 0.0, 0.0, 0.0
        chosen = EDGES[0]
        for edge, count in zip(EDGES, self._ages, strict=False):
            if edge <= delay:
                continue
            hits += count
            time += count * max(0.0, (edge - delay) * _WITHIN)
            taken = time + (total - hits) * (edge - delay)
            gain = hits - slot * taken
            if gain > best * 1.0001:
                best, chosen = gain, edge
                self.slot_requests = taken / total
        self.requests = min(chosen, horizon)
        if total > _MUCH:
            self._ages = [count / 2 for count in self._ages]
            self._never /= 2
