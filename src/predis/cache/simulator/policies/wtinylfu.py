"""W-TinyLFU."""

from __future__ import annotations

from collections.abc import Sequence

from predis.cache.simulator.policies.evicting import Queue, Queues
from predis.cache.simulator.setup import Key

_WINDOW = 0.01  # of the space, one object at least
_PROTECTED = 0.8  # of the main part
_PERIOD = 10  # requests for each resident after which counts are halved
_LEAST_PERIOD = 160


class WTinyLFU(Queues):
    """A small LRU window for new keys; what leaves it enters the main part only if it was asked for more often than the one that
    would leave there. The main part is a segmented LRU of two. Counts are exact, where the paper's are a sketch: that many keys at
    most are counted as requests are in a period.

    References:
        G. Einziger, R. Friedman, B. Manes: TinyLFU: a highly efficient cache admission policy. ACM Trans. Storage 13(4), 2017.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._window, self._probation, self._protected = Queue(), Queue(), Queue()
        self._queues = (self._window, self._probation, self._protected)
        self._window_share = max(1, int(capacity * _WINDOW))
        self._protected_share = int((capacity - self._window_share) * _PROTECTED)
        self._counts: dict[Key, int] = {}
        self._counted = 0  # requests since counts were halved, and half of those before

    def request(self, key: Key) -> bool:
        self._counts[key] = self._counts.get(key, 0) + 1
        self._counted += 1
        if key in self._protected:
            self._protected.move_to_end(key)
            return True
        if key in self._window:
            self._window.move_to_end(key)
            return True
        if key not in self._probation:
            return False
        self._protected.push(key, self._probation.take(key))
        while self._protected.total > self._protected_share and len(self._protected) > 1:
            self._probation.push(*self._protected.oldest())
        return True

    def admit(self, key: Key, size: int = 1) -> Sequence[Key]:
        if size > self.capacity:
            return ()
        evicted: list[Key] = []
        self._insert(key, size, again=False)
        self._age()
        while self._window.total > self._window_share:
            self._leave_window(evicted)
        while self.used > self.capacity:
            evicted.append(self._evict())
        return evicted  # the key itself among them, if larger than the window and not worth more room

    def _insert(self, key: Key, size: int, *, again: bool) -> None:
        self._window.push(key, size)

    def _leave_window(self, evicted: list[Key]) -> None:
        """The oldest of the window enters the main part or leaves."""
        full = self.used > self.capacity
        key, size = self._window.oldest()
        queue = self._probation or self._protected
        if full and (not queue or self._counts.get(key, 0) <= self._counts.get(next(iter(queue)), 0)):
            evicted.append(key)
            return
        while self.used + size > self.capacity:
            evicted.append(self._evict())
        self._probation.push(key, size)

    def _age(self) -> None:
        if self._counted >= max(_PERIOD * len(self), _LEAST_PERIOD):
            self._counts = {key: count // 2 for key, count in self._counts.items() if count > 1}
            self._counted //= 2

    def _evict(self) -> Key:
        queue = self._probation or self._protected or self._window
        return queue.oldest()[0]
