"""LIRS."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from predis.cache.simulator.policies.base import Policy
from predis.cache.simulator.policies.evicting import Queue
from predis.cache.simulator.setup import Key

_COLD = 0.01  # of the space
_GHOSTS = 2  # times the capacity, of keys that left and are still on the stack


class LIRS(Policy):
    """Keeps what has a short time between its last two requests (LIR), and gives a small queue to the rest (HIR).

    S is the paper's stack, the most recent last; its first key is always a LIR one. Q is the queue of resident HIR keys, who leave
    first. The stack remembers keys that left, at most twice as many bytes or objects as the cache holds.

    References:
        S. Jiang, X. Zhang: LIRS: an efficient low inter-reference recency set replacement policy. SIGMETRICS 2002.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._stack: OrderedDict[Key, None] = OrderedDict()
        self._lir, self._hir, self._ghosts = Queue(), Queue(), Queue()
        self._lir_share = capacity - max(1, int(capacity * _COLD))

    def __contains__(self, key: object) -> bool:
        return key in self._lir or key in self._hir

    def __len__(self) -> int:
        return len(self._lir) + len(self._hir)

    @property
    def used(self) -> int:
        return self._lir.total + self._hir.total

    def request(self, key: Key) -> bool:
        stack = self._stack
        if key in self._lir:
            stack.move_to_end(key)
            self._prune()
            return True
        if key not in self._hir:
            return False
        if key in stack:
            self._promote(key, self._hir.take(key))
        else:
            stack[key] = None
            self._hir.move_to_end(key)
        return True

    def admit(self, key: Key, size: int = 1) -> Sequence[Key]:
        if size > self.capacity:
            return ()
        evicted: list[Key] = []
        again = key in self._ghosts
        if again:
            self._ghosts.take(key)
        while self.used + size > self.capacity:
            evicted.append(self._evict())
        if self._lir.total + size <= self._lir_share and not self._hir:  # the cache fills
            self._lir.push(key, size)
            self._stack[key] = None
        elif again and key in self._stack:
            self._promote(key, size)
        else:
            self._stack[key] = None
            self._hir.push(key, size)
        return evicted

    def _promote(self, key: Key, size: int) -> None:
        """A HIR key with a short distance becomes LIR; the oldest LIR keys become HIR for it."""
        self._stack[key] = None
        self._stack.move_to_end(key)
        self._lir.push(key, size)
        while self._lir.total > self._lir_share and len(self._lir) > 1:
            self._prune()
            last = next(iter(self._stack))
            del self._stack[last]
            self._hir.push(last, self._lir.take(last))
        self._prune()

    def _prune(self) -> None:
        """Keys below the oldest LIR key tell nothing any more."""
        stack, lir = self._stack, self._lir
        while stack:
            last = next(iter(stack))
            if last in lir:
                return
            del stack[last]
            if last in self._ghosts:
                self._ghosts.take(last)

    def _evict(self) -> Key:
        if not self._hir:
            last = next(iter(self._stack))
            del self._stack[last]
            self._lir.take(last)
            self._prune()
            return last
        key, size = self._hir.oldest()
        if key in self._stack:
            self._ghosts.push(key, size)
            while self._ghosts.total > _GHOSTS * self.capacity:
                del self._stack[self._ghosts.oldest()[0]]
        return key
