"""Segmented LRU."""

from __future__ import annotations

from predis.cache.simulator.policies.evicting import Queue, Queues
from predis.cache.simulator.setup import Key

_SEGMENTS = 4


class SLRU(Queues):
    """LRU queues one above the other, each with an equal share of the space: a hit lifts a key by one queue.

    What overflows in one queue goes to the young end of the one below; from the lowest it leaves. A new key starts in the
    lowest queue that has room.

    References:
        R. Karedla, J. S. Love, B. G. Wherry: Caching strategies to improve disk system performance. IEEE Computer 27(3), 1994.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._queues = tuple(Queue() for _ in range(_SEGMENTS))
        self._share = capacity // _SEGMENTS or 1
        self._level: dict[Key, int] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._level

    def __len__(self) -> int:
        return len(self._level)

    def request(self, key: Key) -> bool:
        level = self._level.get(key)
        if level is None:
            return False
        if level == _SEGMENTS - 1:
            self._queues[level].move_to_end(key)
            return True
        self._place(key, level + 1, size=self._queues[level].take(key))
        return True

    def _place(self, key: Key, level: int, *, size: int) -> None:
        self._queues[level].push(key, size)
        self._level[key] = level
        for high in range(level, 0, -1):
            queue = self._queues[high]
            while queue.total > self._share and len(queue) > 1:
                key, size = queue.oldest()
                self._queues[high - 1].push(key, size)
                self._level[key] = high - 1

    def _insert(self, key: Key, size: int, *, again: bool) -> None:
        level = next((n for n, queue in enumerate(self._queues) if queue.total + size <= self._share), 0)
        self._place(key, level, size=size)

    def _evict(self) -> Key:
        queue = next(queue for queue in self._queues if queue)
        key, _ = queue.oldest()
        del self._level[key]
        return key
