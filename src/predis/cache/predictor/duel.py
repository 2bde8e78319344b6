"""The demand policy that chooses itself, with a reserve for prefetched keys.

No policy is safe everywhere: S3-FIFO, 2Q and ARC each lose several per cent of hits somewhere. So all of them, and LRU, run as shadows:
sets of keys without values, which see every request. The one that missed least of late *leads*, and the cache imitates it: who leaves the
leader's shadow leaves the cache when room is needed (Subramanian, Smaragdakis and Loh, "Adaptive Caches", MICRO 2006, where it is proven
that imitation misses at most twice as often as the better policy; the measured loss is some hundredths of a per cent). A change of leader
moves nothing at once: keys that the new leader would not hold become *stale* and are the next to leave.

Prefetched keys stand apart in the *reserve*, at most a share of the capacity, and the shadows shrink by as many keys as are in it. So a
prefetch never pushes out what another prefetch was paid for, and a wrong prefetch costs one slot of the demand cache for as long as the
predictor's patience lasts, not a place in its queues. A prefetched key that is used becomes a demand key, as if it had been loaded then.

The shadows see demand alone, prefetched or not. So ``needed`` says whether a request *would have been* a miss without prefetching: what
the predictor learns from, free of what it did itself. ``slot`` is what one slot more would yield the demand cache, in hits a request:
how often a key is asked for that was among the last to leave the leader.
The LRU shadow keeps the whole capacity (unless it leads) and counts what a plain
cache would have asked of the backend, against which the predictor's budget is measured.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from predis.cache.predictor.shadows import ARC, LRU, S3FIFO, Shadow, TwoQ
from predis.cache.simulator.policies.base import Policy
from predis.cache.simulator.setup import Key

_REVIEW = 256  # requests between two looks at who leads
_HUGE = 1e100
_RATE = 0.1  # of the moving worth of a slot


class Duel(Policy):
    """Imitates the best of S3-FIFO, 2Q, ARC and LRU.

    It counts keys, whatever their size: so do the shadows, and the LRU among them against which loads are measured.

    Args:
        share: of the capacity, that prefetched keys may take at most. More: long look-ahead in tiny caches; less: a bad predictor can
            do less harm.
        memory: requests after which a miss counts 1/e in the choice of the leader. More: steadier; less: quicker to follow change.
        margin: a new leader must have missed less by this share. More: fewer changes.
    """

    def __init__(
        self, capacity: int, *, share: float = 0.5, memory: int = 20_000, margin: float = 0.005
    ) -> None:
        super().__init__(capacity)
        self.room = max(1, int(capacity * share))
        self.shadows: Sequence[Shadow] = [kind(capacity) for kind in (S3FIFO, TwoQ, ARC, LRU)]
        self.leader = self.shadows[0]
        self.lru = self.shadows[-1]
        self.reserve: OrderedDict[Key, None] = OrderedDict()
        self.demand: dict[Key, None] = {}  # in an order that does not hang on hashes
        self.needed = False
        self.lru_missed = False
        self.slot = 0.0
        self._victims: OrderedDict[Key, None] = OrderedDict()  # that left the leader last
        self._watched = max(4, capacity // 8)
        self.keep: Callable[[Key], bool] = lambda _: False  # whether a key about to leave is foretold
        self._stale: deque[Key] = deque()
        self._scores = [0.0] * len(self.shadows)
        self._weight, self._growth, self._margin = 1.0, 1.0 + 1.0 / memory, 1.0 - margin
        self._requests = self._regrets = 0

    def __contains__(self, key: object) -> bool:
        return key in self.demand or key in self.reserve

    def __len__(self) -> int:
        return len(self.demand) + len(self.reserve)

    @property
    def used(self) -> int:
        return len(self.demand) + len(self.reserve)

    def request(self, key: Key) -> bool:
        self._weight *= self._growth
        leader, hit = self.leader, False
        self.needed = False
        for at, shadow in enumerate(self.shadows):
            hit = shadow.request(key)
            if hit:
                continue
            self._scores[at] += self._weight
            if shadow is leader:
                self.needed = True
                self._regret(key)
                self._stale.extend(shadow.gone)
                self._victims.update(dict.fromkeys(shadow.gone))
            shadow.gone.clear()
        self.lru_missed = not hit  # LRU is the last of them
        self._requests += 1
        if not self._requests % _REVIEW:
            self._review()
        if key in self.demand:
            return True
        if key in self.reserve:
            del self.reserve[key]
            self._own(key)
            self._resize()
            return True
        return False

    def admit(self, key: Key, size: int = 1) -> Sequence[Key]:
        self._own(key)
        left = self._shrink()
        if key not in self:  # the leader would not keep it
            left.remove(key)
        return left

    def admit_prefetched(self, key: Key, size: int = 1) -> Sequence[Key]:
        if key in self:
            return ()
        left = []
        self.reserve[key] = None
        if len(self.reserve) > self.room:
            left.append(self.reserve.popitem(last=False)[0])
        self._resize()
        return [*left, *self._shrink()]

    def release(self, key: Key) -> None:
        """A key of the reserve is expected no longer: it is the next to leave."""
        if key in self.reserve:
            del self.reserve[key]
            self.demand[key] = None
            self._stale.appendleft(key)
            self._resize()

    def _regret(self, key: Key) -> None:
        """Counts what some more slots would have held."""
        victims = self._victims
        if key in victims:
            del victims[key]
            self._regrets += 1
        while len(victims) > self._watched:
            victims.popitem(last=False)

    def _own(self, key: Key) -> None:
        self.demand[key] = None
        if key not in self.leader:
            self._stale.append(key)

    def _resize(self) -> None:
        capacity = self.capacity - len(self.reserve)
        for shadow in self.shadows:
            if shadow is not self.lru or shadow is self.leader:
                shadow.capacity = capacity
        self._follow()

    def _follow(self) -> None:
        leader = self.leader
        if len(leader) > leader.capacity:
            leader.trim()
            self._stale.extend(leader.gone)
            leader.gone.clear()

    def _shrink(self) -> list[Key]:
        left: list[Key] = []
        demand, stale, leader = self.demand, self._stale, self.leader
        while len(demand) + len(self.reserve) > self.capacity:
            if not stale:
                leader.capacity = len(leader) - 1
                self._follow()
                continue
            key = stale.popleft()
            if key not in demand or key in leader:
                continue
            del demand[key]
            if len(self.reserve) < self.room and self.keep(key):
                self.reserve[key] = None
                self._resize()
            else:
                left.append(key)
        return left

    def _review(self) -> None:
        self.slot += (self._regrets / self._watched / _REVIEW - self.slot) * _RATE
        self._regrets = 0
        if self._weight > _HUGE:
            self._scores = [score / self._weight for score in self._scores]
            self._weight = 1.0
        best = min(range(len(self.shadows)), key=self._scores.__getitem__)
        if self._scores[best] >= self._scores[self.shadows.index(self.leader)] * self._margin:
            return
        if self.leader is self.lru:
            self.lru.capacity = self.capacity
        self.leader = self.shadows[best]
        leader = self.leader
        self._resize()
        self._stale = deque(key for key in self.demand if key not in leader)  # those that came first go first
