"""Demand policies as mere sets of keys, small enough to run several beside each other.

The simulator's policies count bytes and tell who left for whom; these know keys alone and can be *resized* at any moment, which the
reserve for prefetched keys needs (`duel`). What they let go stands in ``gone`` until somebody clears it. S3-FIFO: Yang et al., SOSP
2023. 2Q: Johnson and Shasha, VLDB 1994. ARC: Megiddo and Modha, FAST 2003.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict

from predis.cache.simulator.setup import Key

SMALL_SHARE = 0.1  # of S3-FIFO's residents, in the queue on trial; more: newcomers prove themselves longer
GHOST_SHARE = 0.9  # of the capacity, keys S3-FIFO remembers after they left its small queue
IN_SHARE = 0.25  # of 2Q's residents, in its queue of newcomers
OUT_SHARE = 0.5  # of the capacity, keys 2Q remembers


class Shadow(ABC):
    """What a cache of ``capacity`` keys would hold.

    Attributes:
        capacity: may be set at any time; ``trim`` then lets go what is too much.
        gone: keys that left, the oldest first.
    """

    name = ""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.gone: list[Key] = []

    @abstractmethod
    def __contains__(self, key: object) -> bool: ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def request(self, key: Key) -> bool:
        """One request; a key that is missed is kept. True where it was there."""

    @abstractmethod
    def trim(self) -> None:
        """Let go until no more than ``capacity`` are there."""


class LRU(Shadow):
    name = "lru"

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._queue: OrderedDict[Key, None] = OrderedDict()

    def __contains__(self, key: object) -> bool:
        return key in self._queue

    def __len__(self) -> int:
        return len(self._queue)

    def request(self, key: Key) -> bool:
        queue = self._queue
        if key in queue:
            queue.move_to_end(key)
            return True
        queue[key] = None
        if len(queue) > self.capacity:
            self.trim()
        return False

    def trim(self) -> None:
        while len(self._queue) > self.capacity:
            self.gone.append(self._queue.popitem(last=False)[0])


class TwoQ(Shadow):
    name = "twoq"

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._new: OrderedDict[Key, None] = OrderedDict()
        self._main: OrderedDict[Key, None] = OrderedDict()
        self._ghosts: OrderedDict[Key, None] = OrderedDict()
        self._remembered = max(1, int(capacity * OUT_SHARE))

    def __contains__(self, key: object) -> bool:
        return key in self._main or key in self._new

    def __len__(self) -> int:
        return len(self._main) + len(self._new)

    def request(self, key: Key) -> bool:
        if key in self._main:
            self._main.move_to_end(key)
            return True
        if key in self._new:
            return True
        if key in self._ghosts:
            del self._ghosts[key]
            self._main[key] = None
        else:
            self._new[key] = None
        if len(self._main) + len(self._new) > self.capacity:
            self.trim()
        return False

    def trim(self) -> None:
        new, main = self._new, self._main
        while len(new) + len(main) > self.capacity:
            if len(new) > self.capacity * IN_SHARE or not main:
                key = new.popitem(last=False)[0]
                self._ghosts[key] = None
                if len(self._ghosts) > self._remembered:
                    self._ghosts.popitem(last=False)
            else:
                key = main.popitem(last=False)[0]
            self.gone.append(key)


class S3FIFO(Shadow):
    name = "s3-fifo"

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._small: OrderedDict[Key, int] = OrderedDict()  # key: hits since it came
        self._main: OrderedDict[Key, int] = OrderedDict()
        self._ghosts: OrderedDict[Key, None] = OrderedDict()
        self._remembered = max(1, int(capacity * GHOST_SHARE))

    def __contains__(self, key: object) -> bool:
        return key in self._main or key in self._small

    def __len__(self) -> int:
        return len(self._main) + len(self._small)

    def request(self, key: Key) -> bool:
        main = self._main
        if key in main:
            if main[key] < 3:
                main[key] += 1
            return True
        if key in self._small:
            self._small[key] += 1
            return True
        if key in self._ghosts:
            del self._ghosts[key]
            main[key] = 0
        else:
            self._small[key] = 0
        if len(self._small) + len(main) > self.capacity:
            self.trim()
        return False

    def trim(self) -> None:
        small, main = self._small, self._main
        while len(small) + len(main) > self.capacity:
            if len(small) > self.capacity * SMALL_SHARE or not main:
                self._leave_small(*small.popitem(last=False))
                continue
            key, hits = main.popitem(last=False)
            if hits:
                main[key] = hits - 1
            else:
                self.gone.append(key)

    def _leave_small(self, key: Key, hits: int) -> None:
        if hits >= 2:
            self._main[key] = 0
            return
        self._ghosts[key] = None
        if len(self._ghosts) > self._remembered:
            self._ghosts.popitem(last=False)
        self.gone.append(key)


class ARC(Shadow):
    name = "arc"

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._target = 0.0  # wanted length of `_once`, the paper's p
        self._once: OrderedDict[Key, None] = OrderedDict()
        self._often: OrderedDict[Key, None] = OrderedDict()
        self._once_ghosts: OrderedDict[Key, None] = OrderedDict()
        self._often_ghosts: OrderedDict[Key, None] = OrderedDict()

    def __contains__(self, key: object) -> bool:
        return key in self._often or key in self._once

    def __len__(self) -> int:
        return len(self._often) + len(self._once)

    def request(self, key: Key) -> bool:
        if key in self._often:
            self._often.move_to_end(key)
            return True
        if key in self._once:
            del self._once[key]
            self._often[key] = None
            return True
        b1, b2 = self._once_ghosts, self._often_ghosts
        if key in b1:
            self._target = min(self.capacity, self._target + max(1.0, len(b2) / len(b1)))
            del b1[key]
            self._make_room(1)
            self._often[key] = None
        elif key in b2:
            self._target = max(0.0, self._target - max(1.0, len(b1) / len(b2)))
            del b2[key]
            self._make_room(1, again=True)
            self._often[key] = None
        else:
            self._make_room(1)
            self._once[key] = None
            self._forget()
        return False

    def trim(self) -> None:
        self._make_room(0)

    def _forget(self) -> None:
        b1, b2, capacity = self._once_ghosts, self._often_ghosts, self.capacity
        while b1 and len(self._once) + len(b1) > capacity:
            b1.popitem(last=False)
        while b2 and len(self) + len(b1) + len(b2) > 2 * capacity:
            b2.popitem(last=False)

    def _make_room(self, room: int, *, again: bool = False) -> None:
        once, often = self._once, self._often
        while once or often:
            if len(once) + len(often) + room <= self.capacity:
                return
            n = len(once)
            if n and (n > self._target or (again and n == int(self._target)) or not often):
                key = once.popitem(last=False)[0]
                self._once_ghosts[key] = None
            else:
                key = often.popitem(last=False)[0]
                self._often_ghosts[key] = None
            self.gone.append(key)
