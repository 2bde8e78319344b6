"""S3-FIFO."""

from __future__ import annotations

from predis.cache.simulator.policies.evicting import Queue, Queues
from predis.cache.simulator.setup import Key

_SMALL, _GHOSTS = 0.1, 0.9  # of the space
_PROMOTE_AFTER = 2  # hits in the small queue
_MOST_HITS = 3


class S3FIFO(Queues):
    """Three FIFO queues: a small one for new keys, a main one for those asked for again, and ghosts of those that were not.

    References:
        J. Yang, Y. Zhang, Z. Qiu, Y. Yue, R. Vinayak: FIFO queues are all you need for cache eviction. SOSP 2023.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._small, self._main = Queue(), Queue()
        self._queues = (self._small, self._main)
        self._small_share = max(1, int(capacity * _SMALL))
        self._main_share = capacity - self._small_share
        self._ghost_share = max(1, int(capacity * _GHOSTS))
        self._hits: dict[Key, int] = {}  # of every resident
        self._full = False

    def __contains__(self, key: object) -> bool:
        return key in self._hits

    def __len__(self) -> int:
        return len(self._hits)

    @property
    def used(self) -> int:
        return self._small.total + self._main.total

    def request(self, key: Key) -> bool:
        hits = self._hits.get(key)
        if hits is None:
            return False
        if hits < _MOST_HITS:
            self._hits[key] = hits + 1
        return True

    def _insert(self, key: Key, size: int, *, again: bool) -> None:
        # Until the cache is full, what overflows in small has the space of main.
        early = not self._full and self._small.total >= self._small_share
        (self._main if again or early else self._small).push(key, size)
        self._hits[key] = 0

    def _evict(self) -> Key:
        self._full = True
        key = self._evict_small() if self._main.total <= self._main_share else None
        return self._evict_main() if key is None else key

    def _evict_small(self) -> Key | None:
        """Lets the oldest of small go that was not asked for again; those before it that were move on to main."""
        while self._small:
            key, size = self._small.oldest()
            if self._hits[key] < _PROMOTE_AFTER:
                self._ghosts.push(key, size)
                self._ghosts.trim(self._ghost_share)
                del self._hits[key]
                return key
            self._hits[key] = 0
            self._main.push(key, size)
        return None

    def _evict_main(self) -> Key:
        """Lets the oldest of main go that was not asked for since its last round; those before it have a hit less and go round."""
        while True:
            key, size = self._main.oldest()
            hits = self._hits[key]
            if hits == 0:
                del self._hits[key]
                return key
            self._hits[key] = hits - 1
            self._main.push(key, size)
