"""Loading a missing key once, however many ask and wherever they are.

In a worker, all who ask for a key wait for one task. Among workers, that task gets the lease or waits for whoever has it (``flights``).
Whoever waits looks again after a moment that grows with the time it has waited, and gets the lease itself when it was given back or
has run out.

What a caller gets is never older than its question: an answer counts only if it was stored under a lease, or found, for then no write
came between; and only for those who asked before it was stored or looked for. Whoever joined later asks again. After ``_TRIES`` of them,
on a key that is written all the time, the last answer is as good as any.
Where Valkey does not answer or has no room, the source's answer is given all the same, and says that it is not kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from predis.cache.link import LinkDown
from predis.cache.sources.encoding import Payload
from predis.cache.sources.failure import SourceFailed
from predis.cache.sources.feed import Feed
from predis.cache.sources.flights import FOR_EVER_MS, LEASE_MS, RENEW_S, Flights, Lease
from predis.cache.sources.pattern import Arguments
from predis.cache.sources.queue import Pending

log = logging.getLogger(__name__)

Overlay = Callable[[bytes], Awaitable[Pending | None]]

_TRIES = 4
_SOONEST_S, _LATEST_S = 0.001, 0.05


class Loaded(NamedTuple):
    """What a load gave: the value, or None where the source has none either.

    ``kept``: Valkey has it; a hash is then empty bytes here, for nobody reads it from us. ``as_of``: of how many questions it is the
    answer, counted from the first.
    """

    value: Payload | SourceFailed | None
    kept: bool = False
    as_of: float = math.inf


class Loader:
    """Loads keys of all sources, in one event loop.

    Args:
        pending: what waits to be written to the source of a key (write-behind), which is newer than what the source has.
    """

    def __init__(self, flights: Flights, *, pending: Overlay) -> None:
        self._flights = flights
        self._pending = pending
        self._tasks: dict[bytes, asyncio.Task[Loaded]] = {}
        self._refreshing: dict[bytes, asyncio.Task[None]] = {}
        self._leases: dict[str, Lease] = {}
        self._renewer: asyncio.Task[None] | None = None
        self._per_source: dict[Feed, int] = {}
        self._questions = 0

    async def load(self, feed: Feed, key: bytes) -> Loaded:
        """The value of a key. Never raises but when it is cancelled."""
        self._questions += 1
        mine = self._questions
        for _ in range(_TRIES):
            task = self._tasks.get(key) or self._start(feed, key)
            if task is None:
                feed.counts.loads["shed"].add()
                return Loaded(
                    feed.failure(f"{self._per_source[feed]} keys are being loaded already; try again later")
                )
            answer = await asyncio.shield(task)
            if answer.as_of >= mine:
                break
        return answer

    def _start(self, feed: Feed, key: bytes) -> asyncio.Task[Loaded] | None:
        """A task that loads; None where too many do."""
        under_way = self._per_source.get(feed, 0)
        if under_way >= feed.source.waiting + feed.source.concurrency * feed.source.batch:
            return None
        self._per_source[feed] = under_way + 1
        task = self._tasks[key] = asyncio.get_running_loop().create_task(self._load(feed, key))
        task.add_done_callback(lambda _: self._landed(feed, key))
        return task

    def refresh(self, feed: Feed, key: bytes, *, left_ms: int = FOR_EVER_MS) -> None:
        """Load a value anew in the background that was seen with so long to live, unless that is being done or was done since."""
        if key in self._refreshing or key in self._tasks or len(self._refreshing) >= feed.source.waiting:
            return
        feed.counts.refreshes.add()
        task = asyncio.get_running_loop().create_task(self._refresh(feed, key, left_ms=left_ms))
        self._refreshing[key] = task
        task.add_done_callback(lambda _: self._refreshing.pop(key, None))

    async def renewed(self, feed: Feed, key: bytes) -> None:
        """As ``refresh``, and wait for it."""
        self.refresh(feed, key)
        task = self._refreshing.get(key)
        if task is not None:
            await asyncio.wait([task])

    async def close(self) -> None:
        tasks = [
            *self._tasks.values(),
            *self._refreshing.values(),
            *([self._renewer] if self._renewer else []),
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _landed(self, feed: Feed, key: bytes) -> None:
        del self._tasks[key]
        self._per_source[feed] -= 1
        if not self._per_source[feed]:
            del self._per_source[feed]

    async def _load(self, feed: Feed, key: bytes) -> Loaded:
        arguments = feed.source.matched.arguments(key)
        assert arguments is not None  # the matcher has seen it
        try:
            return await self._loaded(feed, key, arguments=arguments)
        except SourceFailed as failed:
            return Loaded(failed)
        except Exception as error:  # a mistake of ours must not leave a client without an answer
            log.exception("loading a key of source %s failed", feed.source.name)
            return Loaded(feed.failure(f"{type(error).__name__}: {error}"))

    async def _loaded(self, feed: Feed, key: bytes, *, arguments: Arguments) -> Loaded:
        answer = Loaded(None)
        for _ in range(_TRIES):
            as_of = self._questions
            try:
                what, found = await self._entered(feed, key)
            except LinkDown:
                what, found = "alone", None
            if what == "lease":
                assert isinstance(found, Lease)
                answer, holds = await self._load_under(feed, found, arguments=arguments)
                if holds:
                    break
            elif what == "alone":
                feed.counts.uncached.add()
                return Loaded(await self._fetch(feed, key, arguments=arguments))
            elif what == "other":
                raise SourceFailed("WRONGTYPE Operation against a key holding the wrong kind of value")
            else:
                assert not isinstance(found, Lease)
                feed.counts.reads["none"].add(what == "none")
                return Loaded(b"" if what == "there" else found, True, as_of)
        return answer

    async def _entered(self, feed: Feed, key: bytes) -> tuple[str, bytes | Lease | None]:
        """What is to be done, once no other worker loads the key.

        Raises:
            SourceFailed: one does, for too long.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            what, found = await self._flights.enter(key, hashed=feed.source.stores == "hash")
            if what != "busy":
                return what, found
            waited = loop.time() - began
            if waited > 2 * feed.source.timeout_s + LEASE_MS / 1_000:
                raise feed.failure(f"another worker has been loading it for {waited:.1f} s")
            await asyncio.sleep(_moment(waited))

    async def _load_under(self, feed: Feed, lease: Lease, *, arguments: Arguments) -> tuple[Loaded, bool]:
        """What the source has, and whether that holds: False where a write came between.

        Raises:
            SourceFailed: it gave nothing. The lease is given back.
        """
        self._keep_alive(lease)
        payload: Payload | None = None
        try:
            payload = await self._fetch(feed, lease.key, arguments=arguments)
            ttl_ms, negative_ms = _lifetimes(feed)
            as_of = self._questions
            done = await self._flights.store(lease, payload, ttl_ms=ttl_ms, negative_ms=negative_ms)
        except LinkDown:
            feed.counts.uncached.add()
            return Loaded(payload), True
        except BaseException:
            await self._give_back(lease)
            raise
        finally:
            self._leases.pop(lease.token, None)
        if done == "full":
            feed.counts.uncached.add()
            return Loaded(payload, False, as_of), True
        return Loaded(b"" if isinstance(payload, dict) else payload, True, as_of), done == "stored"

    async def _refresh(self, feed: Feed, key: bytes, *, left_ms: int) -> None:
        arguments = feed.source.matched.arguments(key)
        assert arguments is not None
        try:
            lease = await self._flights.renewing(key, left_ms=left_ms)
            if lease is not None:
                await self._load_under(feed, lease, arguments=arguments)
        except (LinkDown, SourceFailed) as error:
            log.debug("a value of source %s stays as it is: %s", feed.source.name, error)
        except Exception:
            log.exception("loading a key of source %s anew failed", feed.source.name)

    async def _fetch(self, feed: Feed, key: bytes, *, arguments: Arguments) -> Payload | None:
        if feed.source.writes == "behind":
            pending = await self._pending(key)
            if pending is not None:
                return pending.over(None if pending.whole else await feed.fetch(arguments))
        return await feed.fetch(arguments)

    async def _give_back(self, lease: Lease) -> None:
        with contextlib.suppress(LinkDown, asyncio.CancelledError):  # it runs out
            await self._flights.release(lease)

    def _keep_alive(self, lease: Lease) -> None:
        self._leases[lease.token] = lease
        if self._renewer is None or self._renewer.done():
            self._renewer = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        """Keep leases whose loads take long, while there are any."""
        while True:
            before = set(self._leases)
            if not before:
                return
            await asyncio.sleep(RENEW_S)
            for token in before & set(self._leases):
                try:
                    await self._flights.renew(self._leases[token])
                except (LinkDown, KeyError):
                    break


def _moment(waited_s: float) -> float:
    """How long to wait before looking again: a quarter of the time waited so far, within bounds."""
    return min(max(waited_s / 4, _SOONEST_S), _LATEST_S)


def _lifetimes(feed: Feed) -> tuple[int, int]:
    """Milliseconds that a value is kept, jittered, and that its absence is."""
    source = feed.source
    ttl_s = source.ttl_s * (1 + random.uniform(-source.jitter, source.jitter)) + source.stale_s
    return max(1, round(ttl_s * 1_000)), round(source.negative_ttl_s * 1_000)
