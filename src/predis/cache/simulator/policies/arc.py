"""Adaptive replacement cache."""

from __future__ import annotations

from collections.abc import Sequence

from predis.cache.simulator.policies.base import Policy
from predis.cache.simulator.policies.evicting import Queue
from predis.cache.simulator.setup import Key


class ARC(Policy):
    """Two LRU queues, for keys asked for once and for more, each with ghosts; a hit on a ghost moves space to its side.

    Variables are the paper's: T1 and T2 hold residents, B1 and B2 ghosts, p is the space that T1 shall have. With sizes, space
    is counted in bytes, and a ghost moves its own size (or more, where the other side has more ghosts).

    References:
        N. Megiddo, D. S. Modha: ARC: a self-tuning, low overhead replacement cache. FAST 2003.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._t1, self._t2, self._b1, self._b2 = Queue(), Queue(), Queue(), Queue()
        self._p = 0.0

    def __contains__(self, key: object) -> bool:
        return key in self._t2 or key in self._t1

    def __len__(self) -> int:
        return len(self._t1) + len(self._t2)

    @property
    def used(self) -> int:
        return self._t1.total + self._t2.total

    def request(self, key: Key) -> bool:
        t2 = self._t2
        if key in t2:
            t2.move_to_end(key)
            return True
        if key not in self._t1:
            return False
        t2.push(key, self._t1.take(key))
        return True

    def admit(self, key: Key, size: int = 1) -> Sequence[Key]:
        if size > self.capacity:
            return ()
        t1, b1, b2 = self._t1, self._b1, self._b2
        evicted: list[Key] = []
        in_b2 = key in b2
        if key in b1:
            self._p = min(self.capacity, self._p + size * max(b2.total / b1.total, 1.0))
            target = self._t2
            b1.take(key)
        elif in_b2:
            self._p = max(0.0, self._p - size * max(b1.total / b2.total, 1.0))
            target = self._t2
            b2.take(key)
        else:
            target = t1
            self._make_history(size, evicted)
        while self.used + size > self.capacity:
            evicted.append(self._replace(in_b2=in_b2))
        target.push(key, size)
        return evicted

    def _make_history(self, size: int, evicted: list[Key]) -> None:
        """Case IV of the paper: ghosts and residents together are at most twice the capacity, T1 and B1 at most once."""
        t1, b1, b2, c = self._t1, self._b1, self._b2, self.capacity
        while t1.total + b1.total + size > c and b1:
            b1.oldest()
        while t1.total + size > c:
            evicted.append(t1.oldest()[0])  # without a ghost
        while self.used + b1.total + b2.total + size > 2 * c and b2:
            b2.oldest()

    def _replace(self, *, in_b2: bool) -> Key:
        """The paper's REPLACE."""
        total = self._t1.total
        if self._t1 and (total > self._p or (in_b2 and total == self._p) or not self._t2):
            key, size = self._t1.oldest()
            self._b1.push(key, size)
        else:
            key, size = self._t2.oldest()
            self._b2.push(key, size)
        return key
