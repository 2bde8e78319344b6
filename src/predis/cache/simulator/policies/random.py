"""Random replacement."""

from __future__ import annotations

import random

from predis.cache.simulator.policies.evicting import Evicting
from predis.cache.simulator.setup import Key

_SEED = 7


class Random(Evicting):
    """Lets any key go, with equal chances and a fixed seed: what a policy must beat to be worth its name."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._places: dict[Key, int] = {}
        self._entries: list[tuple[Key, int]] = []
        self._chance = random.Random(_SEED)
        self._used = 0

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def used(self) -> int:
        return self._used

    def request(self, key: Key) -> bool:
        return key in self._places

    def _insert(self, key: Key, size: int, *, again: bool) -> None:
        self._places[key] = len(self._entries)
        self._entries.append((key, size))
        self._used += size

    def _evict(self) -> Key:
        place = int(self._chance.random() * len(self._entries))
        last = self._entries.pop()
        if place == len(self._entries):
            key, size = last
        else:
            key, size = self._entries[place]
            self._entries[place] = last
            self._places[last[0]] = place
        del self._places[key]
        self._used -= size
        return key
