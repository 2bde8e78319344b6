"""The slow side of a gateway worker, put together: what its sessions read through and write to."""

from __future__ import annotations

import asyncio

from predis.cache.link import Link
from predis.cache.reading import Reader
from predis.cache.sources.declarations import Declarations
from predis.cache.sources.flights import Flights
from predis.cache.sources.loading import Loader
from predis.cache.sources.queue import Queue
from predis.cache.sources.shelf import Shelf
from predis.cache.sources.source import Source
from predis.cache.store import WriteStore
from predis.cache.writing import Writer
from predis.clock import Clock
from predis.metrics import NOTHING, Metrics
from predis.state.engine import Database
from predis.tracing import Tracer


class Supply:
    """``reader`` and ``writer`` for the sessions of one event loop. ``start`` before use, ``close`` at the end.

    Args:
        link: to the Valkey behind the gateway, with all rights; it is closed here.
        tracer: what traces the calls of sources.
    """

    def __init__(
        self,
        database: Database,
        declarations: Declarations,
        *,
        link: Link,
        clock: Clock,
        metrics: Metrics = NOTHING,
        tracer: Tracer | None = None,
    ) -> None:
        self._link = link
        self._shelf = Shelf(declarations, clock=clock, metrics=metrics, tracer=tracer)
        self._queue = Queue(WriteStore(database), clock=clock, feeds=self._shelf.feeds)
        self._loader = Loader(Flights(link), pending=self._queue.pending)
        self._tasks: list[asyncio.Task[None]] = []
        self.reader = Reader(self._shelf, self._loader, clock=clock)
        self.writer = Writer(self._shelf, self._queue, loader=self._loader, link=link)

    async def start(self) -> None:
        """Take on what is declared, and follow it.

        Raises:
            InvalidSetting: the file declares what is no source.
        """
        await self._shelf.begin()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._shelf.run()), loop.create_task(self._queue.run())]

    async def look(self) -> bool:
        """Take on what is declared now, at once; whether that was a change."""
        return await self._shelf.look()

    def has_room(self, source: Source) -> bool:
        """Whether a load of this source that can wait, a prefetch, would make nobody wait now."""
        feed = self._shelf.feed(source)
        return feed is not None and feed.has_room

    def match(self, key: bytes) -> Source | None:
        """The source of a key."""
        return self._shelf.match(key)

    def load_s(self, source: Source) -> float:
        """How long a call of this source takes here, smoothed; 0 while nobody knows."""
        feed = self._shelf.feed(source)
        return 0.0 if feed is None else feed.load_s

    async def close(self) -> None:
        """End loads; whoever waits for one is told. Writes that were taken in are durable."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._queue.close()
        self._shelf.close()
        await self._loader.close()
        await self._link.close()
