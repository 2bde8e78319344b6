"""Reads that Valkey had no value for: what the gateway asks of sources.

The gateway's session calls ``match`` for every key it reads or writes; where that gives a source, it looks at Valkey's reply, and
where the reply says that there is nothing, it calls ``load``. Everything else about sources is behind this file and ``writing``.
Sources are of keys in database 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from predis.cache.sources import flights
from predis.cache.sources.failure import SourceFailed
from predis.cache.sources.loading import Loaded, Loader
from predis.cache.sources.refreshing import Rates, chance, is_due
from predis.cache.sources.shelf import Shelf
from predis.cache.sources.source import Source
from predis.clock import Clock

__all__ = ["Loaded", "Reader", "Source", "SourceFailed"]


class Reader:
    """Matches keys, loads them, and keeps what is read again fresh; in one event loop.

    Attributes:
        due_in_s: how long it is until a key's next read, where that is known; else None.
    """

    def __init__(self, shelf: Shelf, loader: Loader, *, clock: Clock) -> None:
        self._shelf = shelf
        self._loader = loader
        self._clock = clock
        self._rates = Rates()
        self.due_in_s: Callable[[bytes], float | None] = _unknown

    @property
    def active(self) -> bool:
        """Whether there is any source at all."""
        return self._shelf.active

    def match(self, key: bytes) -> Source | None:
        """The source of a key; None for most. Costs a dictionary look-up."""
        return self._shelf.match(key)

    async def load(self, keys: Sequence[bytes]) -> list[bytes | SourceFailed | None]:
        """The values of keys that Valkey was found to have none for, in their order; None where the source has none either.

        Of a source that stores hashes the value is empty bytes. Never raises.
        """
        return [b"" if isinstance(one.value, dict) else one.value for one in await self.bring(keys)]

    async def bring(self, keys: Sequence[bytes]) -> list[Loaded]:
        """As ``load``, told whether Valkey has the value now, so that a command can be sent to it again. Never raises."""
        if len(keys) == 1:
            return [await self._load(keys[0])]
        # A key that is asked for twice is one load anyway.
        return list(await asyncio.gather(*(self._load(key) for key in keys)))

    def ahead_of_write(self, keys: Sequence[bytes]) -> bytes | None:
        """The command, as RESP, to send on the same upstream just before one that writes these keys; its one reply is dropped.

        None where no key has a source. It deletes negative markers and the leases of loads under way, so that none of them
        overwrites what is written. ``acl`` is what its sender has to be allowed.
        """
        watched = [key for key in keys if self._shelf.match(key) is not None]
        return flights.ahead_of_write(watched) if watched else None

    def acl(self, tenant: str) -> list[bytes]:
        """Key patterns of Valkey's ACL (``~...``) that let a tenant's user send ``ahead_of_write``."""
        return flights.patterns_of(tenant)

    def wants_ttl(self, source: Source) -> bool:
        """Whether hits on this source are to be told with their PTTL."""
        return source.stale_s > 0 or source.early > 0

    def seen(self, key: bytes, source: Source, *, ttl_ms: int | None) -> None:
        """A hit: counted, and where ``ttl_ms`` (PTTL's answer) is given, the value may be loaded anew in the background."""
        feed = self._shelf.feed(source)
        if feed is None:
            return
        if ttl_ms is None or ttl_ms < 0:
            feed.counts.reads["hit"].add()
            return
        left_s = ttl_ms / 1_000 - source.stale_s
        feed.counts.reads["stale" if left_s <= 0 and source.stale_s else "hit"].add()
        again = self._again(key, source, left_s=left_s) if source.early else 0.0
        if is_due(left_s, beta=source.early, load_s=feed.load_s, again=again):
            self._loader.refresh(feed, key, left_ms=ttl_ms)

    async def renew(self, key: bytes) -> None:
        """Load a value anew that is still there, unless that is being done. Never raises; where it fails the value stays."""
        source = self._shelf.match(key)
        feed = self._shelf.feed(source) if source is not None else None
        if feed is not None:
            await self._loader.renewed(feed, key)

    def _again(self, key: bytes, source: Source, *, left_s: float) -> float:
        """The chance that a value loaded now, rather than when it expires, is read: by the key's schedule where it has one."""
        gap_s = self._rates.read(key, self._clock.monotonic_s())
        due_s = self.due_in_s(key)
        if due_s is None:
            return chance(source.ttl_s, gap_s)
        return 1.0 if left_s < due_s <= source.ttl_s else 0.0

    async def _load(self, key: bytes) -> Loaded:
        source = self._shelf.match(key)
        feed = self._shelf.feed(source) if source is not None else None
        if feed is None:
            return Loaded(None)  # it is declared no more
        feed.counts.reads["miss"].add()
        return await self._loader.load(feed, key)


def _unknown(_key: bytes) -> float | None:
    return None
