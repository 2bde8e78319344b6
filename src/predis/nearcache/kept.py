"""What a near cache keeps, and when it may be served: one store for the threads of a process.

An entry belongs to a key of the server and holds the answers of all reads of it that were kept (``GET``, ``HGET`` of one field,
``HGETALL`` ...), because the server invalidates keys, not answers. Three things decide whether an answer is given:

- the **lease**, a moment up to which it is certain enough that every invalidation has arrived. ``renew`` moves it on; ``close``
  ends it at once and drops everything. It is looked at on each hit, so that a process that was stopped, or whose background
  thread got no processor, serves nothing out of date when it goes on;
- the **time limit** of the entry, the least of what the server and ``local_ttl_s`` allow;
- that nobody **dropped** it.

A read in flight holds a *reservation* of each of its keys. Dropping a key takes its reservations away too, and an answer whose
reservation is gone is not kept. So an answer is kept only if the key was not dropped between the sending of the read and now.

Hits take no lock: each is one lookup in a dict, and a dict lookup is one step. All that changes something holds ``_lock``, for
about a microsecond.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from predis.nearcache.commands import CHANGE_ALL, CHANGE_NOTHING
from predis.nearcache.near import MAX_KEY_BYTES, Near, NearStats
from predis.nearcache.s3fifo import OVERHEAD_BYTES, S3FIFO

# Which read of a key an answer belongs to: the command, with its further arguments where it has some.
Shape = str | tuple[str | bytes, ...]
Answer = Any


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


# No answer is kept. (None is an answer: the key does not exist.)
MISSING: Final = _Missing()

# What a dict of answers takes beside them: its table, and the shape of each.
_ANSWERS_BYTES = 232
_SHAPE_BYTES = 120


class _Answers(dict[Shape, Answer]):
    """The kept answers of one key. ``expires_at`` is the least over them."""

    __slots__ = ("expires_at", "size")

    def __init__(self, key: bytes) -> None:
        self.size = sys.getsizeof(key) + OVERHEAD_BYTES + _ANSWERS_BYTES
        self.expires_at = math.inf


class Reservation:
    """A key of which reads are in flight, and how many."""

    __slots__ = ("readers",)

    def __init__(self) -> None:
        self.readers = 0


def weight(answer: Answer) -> int:
    """Bytes that Python holds for an answer."""
    size = sys.getsizeof(answer)
    if isinstance(answer, dict):
        return size + sum(sys.getsizeof(part) for item in answer.items() for part in item)
    if isinstance(answer, list | set):
        return size + sum(map(sys.getsizeof, answer))
    return size


class Kept:
    """The entries of one near cache.

    Args:
        near: its options.
        clock: seconds on a clock that never goes back.
    """

    def __init__(self, near: Near, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.near = near
        self.clock = clock
        self.hits = self.misses = self.prefetched = self.losses = 0
        # Grows with every drop: equal before and after means that nothing was dropped meanwhile.
        self.drops = 0
        # Commands whose answers somebody else makes, and which are therefore not kept.
        self.ignored: set[str] = set()
        self._invalidations = 0
        self.forget_threads()

    def forget_threads(self) -> None:
        """Start empty and with a lock of one's own, as a forked child must: another thread may have held the parent's."""
        self._lock = threading.Lock()
        self._cache: S3FIFO[bytes, _Answers] = S3FIFO(self.near.max_bytes, clock=self.clock)
        self._glance = self._cache.glance
        self._reserved: dict[bytes, Reservation] = {}
        self._open = False
        self.lease_until = -math.inf

    # Looking up.

    def find(self, key: bytes, shape: Shape) -> Answer:
        """The kept answer, which the caller does not change, or ``MISSING``. Any thread, no lock."""
        now = self.clock()
        if now < self.lease_until:
            answers = self._glance(key, now)
            if answers is not None:
                answer = answers.get(shape, MISSING)
                if answer is not MISSING:
                    self.hits += 1
                    return answer
        return MISSING

    @property
    def coherent(self) -> bool:
        return self.clock() < self.lease_until

    # The lease.

    def open(self) -> None:
        """Tracking is on: what is read from now on may be kept. Served is it once the lease has been renewed."""
        with self._lock:
            self._open = True

    def renew(self, sent_at: float) -> None:
        """A command sent at that moment was answered: every invalidation of before has arrived."""
        with self._lock:
            if self._open:
                self.lease_until = max(self.lease_until, sent_at + self.near.max_stale_s)

    def close(self) -> None:
        """Tracking is lost: nothing kept is served, nothing in flight will be kept."""
        with self._lock:
            self.lease_until = -math.inf
            self.losses += self._open
            self._open = False
            self._clear()

    # Keeping.

    def reserve(self, keys: Iterable[bytes]) -> list[Reservation]:
        """Call it before the read is sent; each reservation goes to ``keep`` or ``release``."""
        with self._lock:
            found = []
            for key in keys:
                reservation = self._reserved.get(key)
                if reservation is None:
                    reservation = self._reserved[key] = Reservation()
                reservation.readers += 1
                found.append(reservation)
            return found

    def release(self, key: bytes, reservation: Reservation) -> None:
        with self._lock:
            self._give_back(key, reservation)

    def keep(
        self, key: bytes, reservation: Reservation, *, shape: Shape, answer: Answer, expires_at: float
    ) -> bool:
        """Keep an answer unless its key was dropped since it was reserved; tells whether it did.

        Args:
            expires_at: by ``clock``, the moment from which it is out of date.
        """
        with self._lock:
            if not self._give_back(key, reservation) or not self._open or shape in self.ignored:
                return False
            now = self.clock()
            # Not ``glance``: keeping is no access.
            answers = self._cache.peek(key)
            size = weight(answer) + _SHAPE_BYTES
            if answers is None:
                answers = _Answers(key)
            elif shape in answers:
                answers.size -= weight(answers[shape]) + _SHAPE_BYTES
            answers.expires_at = min(answers.expires_at, expires_at, now + self.near.local_ttl_s)
            answers.size += size
            answers[shape] = answer
            if answers.size > self.near.max_value_bytes + OVERHEAD_BYTES + _ANSWERS_BYTES:
                self._cache.delete(key)
                return False
            return self._cache.put(key, answers, size=answers.size, ttl_s=answers.expires_at - now)

    def _give_back(self, key: bytes, reservation: Reservation) -> bool:
        """Whether the reservation still holds."""
        reservation.readers -= 1
        if self._reserved.get(key) is not reservation:
            return False
        if reservation.readers == 0:
            del self._reserved[key]
        return True

    # Dropping.

    def drop(self, keys: Iterable[bytes]) -> None:
        """What is kept of these keys is no longer so, and what is being read of them may be of before."""
        with self._lock:
            self.drops += 1
            for key in keys:
                self._reserved.pop(key, None)
                self._invalidations += self._cache.delete(key)

    def clear(self) -> None:
        """``drop`` of every key there is."""
        with self._lock:
            self._invalidations += len(self._cache)
            self._clear()

    def _clear(self) -> None:
        self.drops += 1
        self._reserved.clear()
        self._cache.clear()

    def wrote(self, commands: Iterable[Sequence[Any]]) -> None:
        """Commands of this process that may write were answered, or failed: drop every key that any of them names.

        No table of commands says which arguments are keys: whatever equals a key that is kept or being read is taken for it. A
        value that happens to look like one costs a miss.
        """
        for command in commands:
            name = command[0]
            if isinstance(name, str) and name.upper() in CHANGE_ALL:
                self.clear()
            elif name not in CHANGE_NOTHING and (self._cache or self._reserved):
                self.drop(filter(None, map(_key, command[1:])))

    def ignore(self, command: str) -> None:
        """Keep no answers of this command any more."""
        self.ignored.add(command.upper())
        self.clear()

    def stats(self, *, gateway: bool) -> NearStats:
        with self._lock:
            cache = self._cache.stats
            return NearStats(
                hits=self.hits,
                misses=self.misses,
                invalidations=self._invalidations,
                evictions=cache.evictions,
                expirations=cache.expirations,
                prefetched=self.prefetched,
                losses=self.losses,
                bytes=cache.bytes,
                entries=cache.entries,
                coherent=self.coherent,
                gateway=gateway,
            )


def _key(argument: Any) -> bytes | None:
    """An argument as the server sees it, if it can be a key that is kept."""
    if isinstance(argument, str):
        argument = argument.encode() if len(argument) <= MAX_KEY_BYTES else b""
    elif isinstance(argument, int | float):
        return repr(argument).encode()
    if isinstance(argument, bytearray | memoryview):
        return bytes(argument) if len(argument) <= MAX_KEY_BYTES else None
    return argument if isinstance(argument, bytes) and 0 < len(argument) <= MAX_KEY_BYTES else None
