"""S3-FIFO: three first-in-first-out queues that keep what is asked for twice and let the rest pass through.

Most keys of a skewed workload are asked for once within the time a cache could hold them. So a new entry enters a *small* queue,
a tenth of the space. One that is asked for again (twice) before it reaches the end moves on to *main*, the rest of the space; any
other leaves the cache, and its key alone is remembered for a while in *ghost*. A key that comes back while it is a ghost was let go
too soon: it enters main at once. Main gives an entry at its end one more round for each hit since the last. A hit moves nothing: it
adds one to a counter, which is what makes it cheap.

The paper counts objects; here space is bytes, as sizes differ. All is as in its Algorithm 1 with "size of a queue" read as the sum
of its entries' sizes; with sizes of 1 it is that algorithm to the letter. The ghosts' sizes (of the entries they remember) sum to
at most main's share, which is the paper's "as many ghosts as main has entries".

What always holds between two calls:

1. the entries' sizes sum to at most ``max_bytes``;
2. a key is in one of the three queues at most;
3. the ghosts' remembered sizes sum to at most main's share of ``max_bytes``;
4. after a ``put`` or ``expire`` no entry is there whose time is over, and ``get`` never returns one;
5. after a ``put`` with a time limit, the list of expiries has at most 64 items more than twice the number of entries.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from predis.errors import InvalidInput

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# What CPython takes for an entry beside its key and value: queue, ghost and expiry, with the slack of their tables. Added to
# the size of each, it makes ``max_bytes`` a bound on memory.
OVERHEAD_BYTES = 768

# Two bits, as in the paper: an entry of main that nobody wants any more leaves after three rounds.
_MOST_HITS = 3
_SPARE_EXPIRIES = 64
_NEVER = math.inf


@dataclass(frozen=True, slots=True)
class Stats:
    """What a cache has done since it was made, and what is in it now.

    ``evictions`` left for want of space, ``expirations`` because their time was over; ``bytes`` is the sum of the entries' sizes,
    ``ghosts`` the number of keys remembered without a value.
    """

    hits: int
    misses: int
    evictions: int
    expirations: int
    bytes: int
    entries: int
    ghosts: int


class _Entry(Generic[V]):
    """``hits`` counts up to 3 and is what the queues look at; ``expires_at`` is infinite where there is no time limit."""

    __slots__ = ("expires_at", "hits", "size", "value")

    def __init__(self, value: V, *, size: int, expires_at: float) -> None:
        self.value = value
        self.size = size
        self.expires_at = expires_at
        self.hits = 0


class _Queue(OrderedDict[K, _Entry[V]]):
    """Entries in the order they came, oldest first, and the sum of their sizes. Taking one out of the middle is O(1)."""

    bytes = 0

    def add(self, key: K, entry: _Entry[V]) -> None:
        self[key] = entry
        self.bytes += entry.size

    def take(self, key: K) -> _Entry[V]:
        entry = self.pop(key)
        self.bytes -= entry.size
        return entry


class S3FIFO(Generic[K, V]):
    """A cache with the S3-FIFO policy, bounded in bytes. Not thread-safe, but for ``glance``.

    Args:
        max_bytes: the most that the sizes of all entries may sum to. What a size includes is the caller's choice: 1 for every
            entry, the value's bytes, or all that the process holds for it (``OVERHEAD_BYTES``).
        small: share of the space that new entries pass through. Raising it gives each more time to be asked for again, and leaves
            less room for what has proved itself; 0.1 did well on all of the paper's 6,594 traces.
        promote_after: hits that move an entry from small to main. 1 suits workloads with few one-hit keys; 2 resists scans better.
        clock: seconds on a clock that never goes back; only entries with a time limit look at it.

    Raises:
        InvalidInput: an argument is out of its range.

    >>> cache = S3FIFO(max_bytes=10)
    >>> for key in ("a", "b", "scan 1", "a", "b", "scan 2", "a", "b", *(f"scan {i}" for i in range(3, 1000))):
    ...     if cache.get(key) is None:
    ...         _ = cache.put(key, key.upper(), size=1)
    >>> cache.get("a"), cache.get("b"), cache.get("scan 7")  # a thousand keys went by, the two in use stayed
    ('A', 'B', None)
    >>> cache.stats.entries, cache.stats.bytes, cache.stats.evictions
    (10, 10, 991)

    References:
        J. Yang, Y. Zhang, Z. Qiu, Y. Yue, R. Vinayak: FIFO queues are all you need for cache eviction. SOSP 2023,
        https://doi.org/10.1145/3600006.3613147
    """

    def __init__(
        self,
        max_bytes: int,
        *,
        small: float = 0.1,
        promote_after: int = 2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_bytes < 1:
            raise InvalidInput(f"max_bytes must be at least 1, got {max_bytes}")
        if not 0 < small < 1:
            raise InvalidInput(f"small is a share of the space between 0 and 1, got {small}")
        if not 1 <= promote_after <= _MOST_HITS:
            raise InvalidInput(f"promote_after must be 1, 2 or 3, got {promote_after}")
        self.max_bytes = max_bytes
        self.small = small
        self.promote_after = promote_after
        self.clock = clock
        self._small_share = small * max_bytes
        self._main_share = max_bytes - self._small_share
        self._hits = self._misses = self._evictions = self._expirations = 0
        self._numbers = itertools.count()
        self.clear()

    def clear(self) -> None:
        """Forget every entry and every ghost; the counts of hits, misses and evictions go on."""
        self._small: _Queue[K, V] = _Queue()
        self._main: _Queue[K, V] = _Queue()
        self._ghost: OrderedDict[K, int] = OrderedDict()
        self._ghost_bytes = 0
        # (moment, number, key), a heap: the next to expire first. An item whose entry has left or was replaced is skipped when its
        # moment comes; the number keeps keys from being compared.
        self._expiries: list[tuple[float, int, K]] = []

    def get(self, key: K) -> V | None:
        """The value kept for a key, and None where there is none, or its time is over."""
        entry = self._main.get(key) or self._small.get(key)
        if entry is None:
            self._misses += 1
            return None
        if entry.expires_at != _NEVER and entry.expires_at <= self.clock():
            self._remove(key)
            self._expirations += 1
            self._misses += 1
            return None
        self._hits += 1
        if entry.hits < _MOST_HITS:
            entry.hits += 1
        return entry.value

    def glance(self, key: K, now: float) -> V | None:
        """``get`` at a moment of the caller's, for readers that share the cache with one thread that changes it, without a lock.

        It changes nothing but the entry's counter: what has expired stays for ``put`` or ``expire`` to remove, and no access is
        counted. An entry that moves from one queue to the other in that very moment may be missed; one that has left never is
        found. (A lookup in a dict is one step to other threads; the counter may lose a hit, which the policy does not mind.)
        """
        entry = self._main.get(key) or self._small.get(key)
        if entry is None or entry.expires_at <= now:
            return None
        if entry.hits < _MOST_HITS:
            entry.hits += 1
        return entry.value

    def peek(self, key: K) -> V | None:
        """``get`` that counts as no access."""
        entry = self._main.get(key) or self._small.get(key)
        return (
            entry.value
            if entry is not None and (entry.expires_at == _NEVER or entry.expires_at > self.clock())
            else None
        )

    def put(self, key: K, value: V, *, size: int, ttl_s: float = _NEVER) -> bool:
        """Keep a value, if it fits at all; tells whether it did. What makes room for it leaves, and so does what has expired.

        A value that replaces another has its queue and its hits, and is again the youngest there. One that does not fit removes
        the other all the same: what is kept is never older than the last ``put``.

        Args:
            size: bytes, at least 1.
            ttl_s: seconds from now after which it is never returned.

        Raises:
            InvalidInput: the size is below 1, or the value None, which ``get`` could not tell from a miss.
        """
        if size < 1 or value is None:
            raise InvalidInput(f"an entry has a value and a size of at least 1, got {value!r:.40} and {size}")
        now = self.clock() if ttl_s != _NEVER or self._expiries else 0.0
        self._expire(now)
        queue, replaced = self._remove(key)
        if size > self.max_bytes or not ttl_s > 0:
            return False
        entry = _Entry(value, size=size, expires_at=now + ttl_s)
        self._make_room(size)
        if replaced is not None:
            entry.hits = replaced.hits
        if key in self._ghost:
            self._ghost_bytes -= self._ghost.pop(key)
            queue = self._main
        queue.add(key, entry)
        if entry.expires_at != _NEVER:
            self._remember_expiry(key, entry.expires_at)
        return True

    def delete(self, key: K) -> bool:
        """Forget a key's value; tells whether there was one."""
        return self._remove(key)[1] is not None

    def expire(self) -> int:
        """Remove every entry whose time is over, and tell how many. ``put`` does it too; call this where puts may cease."""
        before = self._expirations
        if self._expiries:
            self._expire(self.clock())
        return self._expirations - before

    def __contains__(self, key: object) -> bool:
        """Whether ``get`` would find something; counts as no access."""
        return self.peek(key) is not None  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    @property
    def bytes(self) -> int:
        """Sum of the entries' sizes."""
        return self._small.bytes + self._main.bytes

    @property
    def stats(self) -> Stats:
        return Stats(
            self._hits, self._misses, self._evictions, self._expirations, self.bytes, len(self), len(self._ghost)
        )  # fmt: skip

    # Algorithm 1 of the paper.

    def _make_room(self, size: int) -> None:
        while self.bytes + size > self.max_bytes:
            if self._small and (self._small.bytes >= self._small_share or not self._main):
                self._evict_small()
            else:
                self._evict_main()

    def _evict_small(self) -> None:
        """Let the oldest of small go that was not asked for again; those before it that were move on to main."""
        while self._small:
            key = next(iter(self._small))
            entry = self._small.take(key)
            if entry.hits < self.promote_after:
                self._evictions += 1
                self._haunt(key, entry.size)
                return
            entry.hits = 0
            self._main.add(key, entry)
            if self._main.bytes > self._main_share:
                self._evict_main()

    def _evict_main(self) -> None:
        """Let the oldest of main go that was not asked for since its last round; those before it have one hit less and go round."""
        while self._main:
            key, entry = next(iter(self._main.items()))
            if entry.hits == 0:
                self._main.take(key)
                self._evictions += 1
                return
            entry.hits -= 1
            self._main.move_to_end(key)

    def _haunt(self, key: K, size: int) -> None:
        self._ghost[key] = size
        self._ghost_bytes += size
        while self._ghost_bytes > self._main_share:
            self._ghost_bytes -= self._ghost.popitem(last=False)[1]

    # What the paper has no need of: removal and time.

    def _remove(self, key: K) -> tuple[_Queue[K, V], _Entry[V] | None]:
        """The queue a key was in, small where it was in none, and its entry."""
        for queue in (self._main, self._small):
            if key in queue:
                return queue, queue.take(key)
        return self._small, None

    def _remember_expiry(self, key: K, moment: float) -> None:
        if len(self._expiries) < 2 * len(self) + _SPARE_EXPIRIES:
            heapq.heappush(self._expiries, (moment, next(self._numbers), key))
            return
        # Half or more are of entries that left before their time.
        self._expiries = [
            (entry.expires_at, next(self._numbers), kept)
            for queue in (self._small, self._main)
            for kept, entry in queue.items()
            if entry.expires_at != _NEVER
        ]
        heapq.heapify(self._expiries)

    def _expire(self, now: float) -> None:
        while self._expiries and self._expiries[0][0] <= now:
            key = heapq.heappop(self._expiries)[2]
            entry = self._main.get(key) or self._small.get(key)
            if entry is not None and entry.expires_at <= now:
                self._remove(key)
                self._expirations += 1
