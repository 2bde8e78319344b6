"""What most policies share: room is made first, one victim at a time, then the new key goes in."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence

from predis.cache.simulator.policies.base import Policy
from predis.cache.simulator.setup import Key


class Queue(OrderedDict[Key, int]):
    """Keys and sizes in order, the oldest first, and the sum of the sizes in ``total``."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def push(self, key: Key, size: int) -> None:
        """Add a key that is not in it as the youngest."""
        self[key] = size
        self.total += size

    def take(self, key: Key) -> int:
        """Remove a key; returns its size."""
        size = self.pop(key)
        self.total -= size
        return size

    def oldest(self) -> tuple[Key, int]:
        """Remove the oldest; returns it and its size."""
        key, size = self.popitem(last=False)
        self.total -= size
        return key, size

    def trim(self, total: float) -> None:
        """Forget the oldest while the sum is above ``total``."""
        while self.total > total:
            self.oldest()


class Evicting(Policy):
    """A policy told by where a new key goes and who leaves next."""

    @abstractmethod
    def _insert(self, key: Key, size: int, *, again: bool) -> None:
        """Keep a key; there is room. ``again``: what ``_recall`` said of it."""

    @abstractmethod
    def _evict(self) -> Key:
        """Let one key go; there is at least one."""

    def _recall(self, key: Key) -> bool:
        """Whether a key that was let go is remembered; it is forgotten now. Asked before room is made, which makes new memories."""
        return False

    def admit(self, key: Key, size: int = 1) -> Sequence[Key]:
        if size > self.capacity:
            return ()
        again = self._recall(key)
        evicted = []
        while self.used + size > self.capacity:
            evicted.append(self._evict())
        self._insert(key, size, again=again)
        return evicted


class OneQueue(Evicting):
    """All residents stand in one queue; a new key is its youngest."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._queue = Queue()

    def __contains__(self, key: object) -> bool:
        return key in self._queue

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def used(self) -> int:
        return self._queue.total

    def request(self, key: Key) -> bool:
        return key in self._queue

    def _insert(self, key: Key, size: int, *, again: bool) -> None:
        self._queue.push(key, size)

    def _evict(self) -> Key:
        return self._queue.oldest()[0]


class Queues(Evicting):
    """Residents stand in several queues, what left and is remembered in ``_ghosts``."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._ghosts = Queue()

    _queues: tuple[Queue, ...]

    def __contains__(self, key: object) -> bool:
        return any(key in queue for queue in self._queues)

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    @property
    def used(self) -> int:
        return sum([queue.total for queue in self._queues])

    def _recall(self, key: Key) -> bool:
        if key not in self._ghosts:
            return False
        self._ghosts.take(key)
        return True
