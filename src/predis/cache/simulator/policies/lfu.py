"""Least frequently used."""

from __future__ import annotations

from predis.cache.simulator.policies.evicting import Evicting, Queue
from predis.cache.simulator.setup import Key


class LFU(Evicting):
    """Lets go what was asked for least often since it was loaded, and of those what was not asked for the longest.

    Counts never age: what was popular once stays. It is here as a warning.

    References:
        K. Shah, A. Mitra, D. Matani: An O(1) algorithm for implementing the LFU cache eviction scheme. 2010.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._counts: dict[Key, int] = {}
        self._of_count: dict[int, Queue] = {}
        self._least = 1
        self._used = 0

    def __contains__(self, key: object) -> bool:
        return key in self._counts

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def used(self) -> int:
        return self._used

    def request(self, key: Key) -> bool:
        count = self._counts.get(key)
        if count is None:
            return False
        queue = self._of_count[count]
        size = queue.take(key)
        if not queue:
            del self._of_count[count]
            if self._least == count:
                self._least += 1
        self._add(key, count + 1, size=size)
        return True

    def _add(self, key: Key, count: int, *, size: int) -> None:
        self._counts[key] = count
        queue = self._of_count.get(count)
        if queue is None:
            queue = self._of_count[count] = Queue()
        queue.push(key, size)

    def _insert(self, key: Key, size: int, *, again: bool) -> None:
        self._add(key, 1, size=size)
        self._least = 1
        self._used += size

    def _evict(self) -> Key:
        if self._least not in self._of_count:  # the last of that count left
            self._least = min(self._of_count)
        queue = self._of_count[self._least]
        key, size = queue.oldest()
        if not queue:
            del self._of_count[self._least]
        del self._counts[key]
        self._used -= size
        return key
