"""2Q."""

from __future__ import annotations

from predis.cache.simulator.policies.evicting import Queue, Queues
from predis.cache.simulator.setup import Key

_IN, _OUT = 0.25, 0.5  # of the space


class TwoQ(Queues):
    """A FIFO queue for new keys, its ghosts, and an LRU queue for keys that were asked for again while they were ghosts.

    References:
        T. Johnson, D. Shasha: 2Q: a low overhead high performance buffer management replacement algorithm. VLDB 1994.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._in, self._main = Queue(), Queue()
        self._queues = (self._in, self._main)
        self._in_share = max(1, int(capacity * _IN))
        self._ghost_share = max(1, int(capacity * _OUT))

    def __contains__(self, key: object) -> bool:
        return key in self._main or key in self._in

    @property
    def used(self) -> int:
        return self._in.total + self._main.total

    def request(self, key: Key) -> bool:
        if key in self._main:
            self._main.move_to_end(key)
            return True
        return key in self._in

    def _insert(self, key: Key, size: int, *, again: bool) -> None:
        (self._main if again else self._in).push(key, size)

    def _evict(self) -> Key:
        if self._in.total > self._in_share or not self._main:
            key, size = self._in.oldest()
            self._ghosts.push(key, size)
            self._ghosts.trim(self._ghost_share)
            return key
        return self._main.oldest()[0]
