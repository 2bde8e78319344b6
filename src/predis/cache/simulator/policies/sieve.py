"""SIEVE."""

from __future__ import annotations

from predis.cache.simulator.policies.evicting import Evicting
from predis.cache.simulator.setup import Key


class _Node:
    __slots__ = ("key", "newer", "older", "size", "visited")

    def __init__(self, key: Key, size: int) -> None:
        self.key = key
        self.size = size
        self.visited = False
        self.newer: _Node | None = None
        self.older: _Node | None = None


class SIEVE(Evicting):
    """FIFO with a hand that goes from old to new, clears the marks of what was asked for, and lets the first unmarked key go.

    Unlike Clock's, a spared key stays in its place, so that new keys are sifted quickly.

    References:
        Y. Zhang, J. Yang, Y. Yue, Y. Vigfusson, K. V. Rashmi: SIEVE is simpler than LRU. NSDI 2024.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._nodes: dict[Key, _Node] = {}
        self._newest: _Node | None = None
        self._oldest: _Node | None = None
        self._hand: _Node | None = None
        self._used = 0

    def __contains__(self, key: object) -> bool:
        return key in self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def used(self) -> int:
        return self._used

    def request(self, key: Key) -> bool:
        node = self._nodes.get(key)
        if node is None:
            return False
        node.visited = True
        return True

    def _insert(self, key: Key, size: int, *, again: bool) -> None:
        node = self._nodes[key] = _Node(key, size)
        node.older = self._newest
        if self._newest is None:
            self._oldest = node
        else:
            self._newest.newer = node
        self._newest = node
        self._used += size

    def _evict(self) -> Key:
        node = self._hand or self._oldest
        assert node is not None
        while node.visited:
            node.visited = False
            node = node.newer or self._oldest
            assert node is not None
        self._hand = node.newer
        self._unlink(node)
        return node.key

    def _unlink(self, node: _Node) -> None:
        if node.older is None:
            self._oldest = node.newer
        else:
            node.older.newer = node.newer
        if node.newer is None:
            self._newest = node.older
        else:
            node.newer.older = node.older
        node.newer = node.older = None  # a chain of dead nodes must not live on
        del self._nodes[node.key]
        self._used -= node.size
