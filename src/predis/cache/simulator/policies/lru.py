"""Least recently used."""

from __future__ import annotations

from predis.cache.simulator.policies.evicting import OneQueue
from predis.cache.simulator.setup import Key


class LRU(OneQueue):
    """Lets go what was not asked for the longest: the yardstick of every other."""

    def request(self, key: Key) -> bool:
        if key not in self._queue:
            return False
        self._queue.move_to_end(key)
        return True
