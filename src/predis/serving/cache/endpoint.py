"""One endpoint's cache: looks for a call's prediction, lets one call of a kind make it, and keeps what was made.

Everything here happens in the event loop, by callbacks: an answer from memory costs no coroutine and no task.

    begin(key, call) ── kept ──────────────────────────────────────────────► asker.cached(call, outputs)
            ├── being made by another ── waits ── it is made ──────────────► asker.cached(call, outputs)
            │                               ├──── the model failed on it ──► asker.failed(call, error)
            │                               └──── the other gave up ──┐
            └── not kept ─────────────────────────────────────────────┴────► asker.uncached(call), which ends in
                                                                             finish(key, outputs) or abandon(key, error)
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from predis.errors import PredisError, Unavailable
from predis.metrics import Metrics
from predis.nearcache import OVERHEAD_BYTES, S3FIFO
from predis.serving.cache import values
from predis.serving.cache.config import CacheConfig
from predis.serving.cache.flights import Flights
from predis.serving.cache.valkey import Valkey
from predis.serving.cache.values import Outputs

_JITTER = 0.1


class Asker(Protocol):
    """Who has calls to answer: the plane. Called in the event loop; ``cached`` and ``uncached`` perhaps before ``begin`` returns."""

    def cached(self, call: Any, outputs: Outputs) -> None:
        """Answer a call with these outputs, which must not be changed."""

    def uncached(self, call: Any) -> None:
        """Predict for a call, and then ``finish`` or ``abandon`` its key."""

    def failed(self, call: Any, error: PredisError) -> None:
        """Answer a call with an error: the model failed on the same rows, asked for by another call."""


class EndpointCache(ABC):
    """The cache of one endpoint.

    Args:
        asker: whose calls these are.
    """

    def __init__(
        self, config: CacheConfig, asker: Asker, *, metrics: Metrics, tenant: str, endpoint: str
    ) -> None:
        self.config = config
        self._asker = asker
        self._flights: Flights[Any] = Flights()
        labels = {"tenant": tenant, "endpoint": endpoint}
        self._hits = metrics.counter("predis_cache_hits_total", **labels)
        self._misses = metrics.counter("predis_cache_misses_total", **labels)
        self._waits = metrics.counter("predis_cache_waits_total", **labels)
        self._errors = metrics.counter("predis_cache_errors_total", reason="damaged")
        self._bytes = metrics.gauge("predis_cache_bytes", **labels)

    @abstractmethod
    def begin(self, key: bytes, call: Any) -> None:
        """Have a call answered: from the cache, by waiting for one that asks the same, or by ``asker.uncached``."""

    def finish(self, key: bytes, outputs: Outputs) -> None:
        """The call that was to predict has done so: keep its outputs, and answer those who waited for them."""
        self._keep(key, outputs)
        for call in self._flights.land(key):
            self._asker.cached(call, outputs)

    def abandon(self, key: bytes, error: PredisError | None = None) -> None:
        """The call that was to predict will not.

        If it was refused, came too late or was given up (``error`` is None or ``Unavailable``), the reason is its own, and the next
        who waits predicts. Any other error is the model's or the rows' and would come again: all who wait get it.
        """
        if error is None or isinstance(error, Unavailable):
            successor = self._flights.hand_over(key)
            if successor is not None:
                # Not at once: it may be abandoned in its turn, and so may hundreds after it.
                asyncio.get_running_loop().call_soon(self._asker.uncached, successor)
            return
        for call in self._flights.land(key):
            self._asker.failed(call, type(error)(error.message))

    @abstractmethod
    def expire(self) -> None:
        """Give back the memory of predictions whose time is over, where nothing new comes and does so."""

    @abstractmethod
    def close(self) -> None:
        """Forget all that is kept in this process."""

    @abstractmethod
    def _keep(self, key: bytes, outputs: Outputs) -> None: ...


class MemoryCache(EndpointCache):
    """Predictions in the memory of this worker, by S3-FIFO."""

    def __init__(
        self,
        config: CacheConfig,
        asker: Asker,
        *,
        metrics: Metrics,
        tenant: str,
        endpoint: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(config, asker, metrics=metrics, tenant=tenant, endpoint=endpoint)
        self._clock = clock
        self._kept = self._empty()
        self._closed = False

    def begin(self, key: bytes, call: Any) -> None:
        outputs = self._kept.get(key)
        if outputs is not None:
            self._hits.add()
            self._asker.cached(call, outputs)
        elif self._flights.join(key, call):
            self._misses.add()
            self._asker.uncached(call)
        else:
            self._waits.add()

    def expire(self) -> None:
        if self._kept.expire():
            self._bytes.set(self._kept.bytes)

    def close(self) -> None:
        # Not cleared: another thread may call this, and the event loop may be at work in it.
        self._kept = self._empty()
        self._closed = True
        self._bytes.set(0)

    def _empty(self) -> S3FIFO[bytes, list[NDArray[Any]]]:
        return S3FIFO(self.config.max_bytes, clock=self._clock)

    def _keep(self, key: bytes, outputs: Outputs) -> None:
        if self._closed:
            return
        kept = [_own(output) for output in outputs]
        size = sys.getsizeof(key) + sys.getsizeof(kept) + sum(map(_bytes_of, kept)) + OVERHEAD_BYTES
        self._kept.put(key, kept, size=size, ttl_s=self.config.ttl_s)
        self._bytes.set(self._kept.bytes)


class ValkeyCache(EndpointCache):
    """Predictions in Valkey, shared by all workers. Its times to live are up to a tenth shorter, so that not all end at once."""

    def __init__(
        self,
        config: CacheConfig,
        asker: Asker,
        *,
        metrics: Metrics,
        tenant: str,
        endpoint: str,
        valkey: Valkey,
    ) -> None:
        super().__init__(config, asker, metrics=metrics, tenant=tenant, endpoint=endpoint)
        self._valkey = valkey

    def begin(self, key: bytes, call: Any) -> None:
        if not self._flights.join(key, call):
            self._waits.add()
        elif not self._valkey.look(key, partial(self._found, key, leader=call)):
            self._misses.add()
            self._asker.uncached(call)

    def expire(self) -> None:
        """Valkey does."""

    def close(self) -> None:
        """What is in Valkey is there for other workers too, and ends by itself."""

    def _found(self, key: bytes, value: bytes | None, *, leader: Any) -> None:
        outputs = None if value is None else values.decode(key, value)
        if outputs is None:
            if value is not None:
                self._errors.add()
            self._misses.add()
            self._asker.uncached(leader)
            return
        self._hits.add()
        self._asker.cached(leader, outputs)
        for call in self._flights.land(key):
            self._asker.cached(call, outputs)

    def _keep(self, key: bytes, outputs: Outputs) -> None:
        value = values.encode(key, outputs)
        if value is not None:
            ttl_s = self.config.ttl_s * (1 - _JITTER * random.random())
            self._valkey.keep(key, value, ttl_ms=max(1, math.floor(ttl_s * 1_000)))


def _own(output: NDArray[Any]) -> NDArray[Any]:
    """A copy that nobody can change and that keeps no other memory alive: outputs are slices of what a whole batch was answered."""
    copy = np.array(output, order="C")
    copy.flags.writeable = False
    return copy


def _bytes_of(output: NDArray[Any]) -> int:
    items = sum(map(sys.getsizeof, output.ravel().tolist())) if output.dtype.hasobject else 0
    return sys.getsizeof(output) + items
