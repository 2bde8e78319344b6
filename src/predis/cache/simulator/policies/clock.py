"""Clock, also called second chance."""

from __future__ import annotations

from predis.cache.simulator.policies.evicting import OneQueue
from predis.cache.simulator.setup import Key


class Clock(OneQueue):
    """FIFO in which a key that was asked for since it was last looked at goes round once more.

    References:
        F. J. Corbató: A paging experiment with the Multics system. MIT Project MAC, 1968.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._referenced: set[Key] = set()

    def request(self, key: Key) -> bool:
        if key not in self._queue:
            return False
        self._referenced.add(key)
        return True

    def _evict(self) -> Key:
        while True:
            key, size = self._queue.oldest()
            if key not in self._referenced:
                return key
            self._referenced.discard(key)
            self._queue.push(key, size)
