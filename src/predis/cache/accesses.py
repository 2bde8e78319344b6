"""The access stream: which reads of the gateway are told to the learner, and at what cost.

A session asks ``Observers.for_client`` once and calls what it gets after each read. Most sessions get None and pay for one comparison
a read. Two samples are taken at once, each for its own purpose:

* **Stretches**: every read of one connection for some hundred reads in a row, then of another. Sequences stay whole, which is what one
  needs to learn what follows what.
* **By key**: the reads, on all connections, of keys whose place (32 bits that depend on the key alone) is below a threshold. All reads
  of such a key are there, which is what one needs for reuse distances (SHARDS).

The budget is a share of the worker's core, 0.001 unless told otherwise: 1 ms of each second. To look at a read costs a call and a
CRC-32, some 0.2 us; to write one some 1.9 us. Both are measured when the worker starts, on the machine it runs on. Once a second
(``turn``) what was spent is compared with the budget:

* Half of it is for looking: at 0.2 us, 2,500 reads a second. A busier worker cannot look all the time, and to look at some connections
  only would cut the very sequences that reuse distances are made of. So it looks at all for a while, at least some ten seconds, and
  rests until that is earned: at 10,000 reads a second for 60 s of every 240, at 100,000 for 45 s of every half an hour. The learner
  begins when all workers are ready, so that they look at the same time, and knows that what was read in between is unknown.
* A quarter is for writing the sample by key: what is over lowers the threshold.
* A quarter is for stretches, which begin only when there is enough left for one: some 130 reads a second.

When nobody has listened for five seconds, every session has None.
"""

from __future__ import annotations

import logging
import random
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias
from zlib import crc32

from predis.cache.ring import SUFFIX, Flag, Looking, Producer, place_of
from predis.errors import Conflict

if TYPE_CHECKING:
    from predis.settings import Settings

log = logging.getLogger(__name__)


class Observe(Protocol):
    """Called after a read."""

    def __call__(self, key: bytes, *, hit: bool, size: int) -> None:
        """``hit``: whether the key was there; ``size``: bytes of the value."""


Change: TypeAlias = Callable[[Observe | None], None]

ALL = 1 << 32  # the threshold that every key is below
STRETCH = 512  # reads of one stretch
TURN_S = 1.0  # how often a worker calls turn
_STRETCH_S = 60.0  # a quiet connection is left after this long
_LISTENS_US = 5_000_000
_LEAST_THRESHOLD = ALL >> 20
_WINDOW_S = 60.0  # of looking at all reads, at least, before a rest
_MOST_REST_S = 1_800.0  # and what is earned in it is the most that is saved up
_CALM_TURNS = 60  # of little written before the threshold may rise again
_TRIES = 1_024
_SPATIAL, _WHOLE, _FIRST = int(Flag.SPATIAL), int(Flag.WHOLE), int(Flag.FIRST)  # an enum's | is slow


class Observers:
    """One worker's watchers.

    Args:
        ring: where events go; None: nobody ever listens.
        budget: share of a core that may be spent.
        seed: of the choice of connections.
        costs: seconds that looking at a read takes, and writing one; measured unless given.
        clock: seconds of any beginning.
    """

    def __init__(
        self,
        ring: Producer | None,
        *,
        budget: float = 0.001,
        seed: int | None = None,
        costs: tuple[float, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ring = ring
        self._budget = budget
        self._random = random.Random(seed)
        self._clients: dict[int, _Client] = {}
        self._following: set[_Client] = set()
        self._listening = False
        self._looking = Looking.READY
        self._credit_s = budget / 2 * _MOST_REST_S  # of CPU, for looking: the first time is on credit
        self._spending = 0.0  # share of a core that looking took when it was last done
        self._most = ALL  # what the threshold may be, for the budget of writing
        self._threshold = ALL
        self._tokens = 0.0  # reads that stretches may still write
        self._calm = 0
        self._clock = clock
        self._turned = clock()
        self.looked = 0  # since the last turn
        self.spatial = 0
        self.followed = 0
        self.look_s, self.put_s = costs or (measured_costs() if ring is not None else (1.0, 1.0))

    @classmethod
    def of(cls, settings: Settings, worker: int) -> Observers:
        """Those of worker ``worker`` of an installation. One whose ring cannot be had observes nothing: the cache goes on."""
        if not settings.cache_observe:
            return cls(None)
        path = settings.home / "cache" / "rings" / f"{worker}{SUFFIX}"
        try:
            ring = Producer(path, settings.cache_ring_events)
        except (OSError, Conflict) as error:
            log.warning("reads of this worker are not observed: %s", error)
            return cls(None)
        return cls(ring, budget=settings.cache_observe)

    def for_client(self, client: int, change: Change | None = None) -> Observe | None:
        """What a session calls after each read; None: nothing.

        Args:
            client: a number of its own for each connection of this worker.
            change: called with what the session is to call from then on, whenever that is another. A session that gives none is
                observed as it was at first, or not at all, for good.
        """
        if self._ring is None:
            return None
        watched = _Client(client, change or (lambda _observe: None))
        self._clients[client] = watched
        watched.observe = self._standing(watched)
        return watched.observe

    def gone(self, client: int) -> None:
        """A connection has ended."""
        watched = self._clients.pop(client, None)
        if watched is not None:
            self._following.discard(watched)

    def turn(self) -> None:
        """Compare what was spent with the budget, and choose whom to look at next. Call it about every ``TURN_S``."""
        if self._ring is None:
            return
        now = self._clock()
        passed, self._turned = max(now - self._turned, 1e-3), now
        self._listening = time.time_ns() // 1000 - self._ring.heard_us < _LISTENS_US
        before, self._looking = self._looking, self._next(passed)
        self._fit_threshold(passed)
        self._ring.tell(looked=self.looked, threshold=self._threshold, looking=self._looking)
        earned = self._budget / 4 * passed / self.put_s
        self._tokens = min(self._tokens + earned - self.followed, 16.0 * STRETCH)
        self.looked = self.spatial = self.followed = 0
        for client in [c for c in self._following if c.until < now or not self._listening]:
            self._leave(client)
        if Looking.AT_IT in (before, self._looking) and before != self._looking:
            for client in self._clients.values():
                if client not in self._following:
                    client.call(self._standing(client))
        self._follow_some(now)

    def close(self) -> None:
        """Observe nobody any more."""
        for client in self._clients.values():
            client.call(None)
        self._clients.clear()
        self._following.clear()
        if self._ring is not None:
            self._ring.close()
            self._ring = None

    def _next(self, passed: float) -> Looking:
        """Whether to take the sample by key now, by what it costs and who wants it."""
        assert self._ring is not None
        spent = self.looked * self.look_s
        most = self._budget / 2 * _MOST_REST_S
        self._credit_s = min(self._credit_s + self._budget / 2 * passed - spent, most)
        if self._looking is Looking.AT_IT:
            self._spending = max(spent / passed, 0.9 * self._spending)
        if self._credit_s <= 0:
            return Looking.RESTING
        if self._looking is Looking.RESTING and self._credit_s < min(self._spending * _WINDOW_S, most):
            return Looking.RESTING
        return Looking.AT_IT if self._listening and self._ring.wanted else Looking.READY

    def _fit_threshold(self, passed: float) -> None:
        """Write as many reads of the sample by key as there is budget for."""
        assert self._ring is not None
        writing = self.spatial * self.put_s / passed / (self._budget / 4)
        self._calm = 0 if writing > 0.25 else self._calm + 1
        if writing > 1:
            self._most = max(_LEAST_THRESHOLD, int(self._threshold / writing))
        elif self._calm >= _CALM_TURNS and self._looking is Looking.AT_IT:
            self._most, self._calm = min(ALL, 2 * self._most), 0
        self._threshold = min(self._most, self._ring.wanted or ALL)

    def _standing(self, client: _Client) -> Observe | None:
        """What a session calls that is in no stretch."""
        if self._looking is not Looking.AT_IT:
            return None
        if client.look is None:
            client.look = self._looker(client.number)
        return client.look

    def _looker(self, number: int) -> Observe:
        ring = self._ring
        assert ring is not None
        put = ring.put

        def look(key: bytes, *, hit: bool, size: int) -> None:
            self.looked += 1
            place = crc32(key) * 0x9E3779B1 & 0xFFFFFFFF  # place_of, without the price of a call
            if place < self._threshold:
                self.spatial += 1
                put(key, size, client=number, flags=_SPATIAL | hit, place=place)

        return look

    def _follower(self, client: _Client) -> Observe:
        ring = self._ring
        assert ring is not None
        put = ring.put
        left = STRETCH
        flags = _WHOLE | _FIRST

        def follow(key: bytes, *, hit: bool, size: int) -> None:
            nonlocal left, flags
            place = place_of(key)
            looking = self._looking is Looking.AT_IT
            self.followed += 1
            self.looked += looking
            sampled = looking and place < self._threshold
            put(key, size, client=client.number, flags=flags | hit | sampled * _SPATIAL, place=place)
            flags = _WHOLE
            left -= 1
            if not left:
                self._leave(client)

        return follow

    def _follow_some(self, now: float) -> None:
        """Begin as many stretches as there is budget for."""
        if not self._listening:
            return
        room = int(self._tokens // STRETCH) - len(self._following)
        free = [client for client in self._clients.values() if client not in self._following]
        for client in self._random.sample(free, min(room, len(free))) if room > 0 else ():
            client.until = now + _STRETCH_S
            self._following.add(client)
            client.call(self._follower(client))

    def _leave(self, client: _Client) -> None:
        """End a stretch."""
        self._following.discard(client)
        client.call(self._standing(client))


class _Client:
    """One connection."""

    __slots__ = ("change", "look", "number", "observe", "until")

    def __init__(self, number: int, change: Change) -> None:
        self.number = number
        self.change = change
        self.observe: Observe | None = None
        self.look: Observe | None = None
        self.until = 0.0

    def call(self, observe: Observe | None) -> None:
        if observe is not self.observe:
            self.observe = observe
            self.change(observe)


@lru_cache(maxsize=1)
def measured_costs() -> tuple[float, float]:
    """Seconds that looking at a read takes, and writing one, in this process on this machine: the least of some tries."""
    with tempfile.TemporaryDirectory() as folder:
        ring = Producer(Path(folder) / "costs", 8 * _TRIES)
        observers = Observers(ring, costs=(1.0, 1.0))
        look = observers._looker(0)
        observers._threshold = 0
        looking = min(_timed(look) for _ in range(5))
        observers._threshold = ALL
        writing = min(_timed(look) for _ in range(5))
        observers.close()
    return looking, writing


def _timed(observe: Observe) -> float:
    keys = [b"user:%d" % number for number in range(_TRIES)]
    started = time.thread_time()
    for key in keys:
        observe(key, hit=True, size=100)
    return (time.thread_time() - started) / _TRIES
