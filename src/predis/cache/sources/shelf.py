"""The sources that a gateway worker has now, each at work; it follows what is declared without a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from predis.cache.sources.calling import Caller, Change
from predis.cache.sources.counting import Counts
from predis.cache.sources.declarations import Declarations, Declared
from predis.cache.sources.feed import Feed
from predis.cache.sources.opening import caller_of
from predis.cache.sources.pattern import Arguments, Matcher
from predis.cache.sources.source import Source
from predis.cache.sources.traced import Traced
from predis.clock import Clock
from predis.errors import PredisError, Unavailable
from predis.metrics import NOTHING, Metrics
from predis.tracing import Tracer

log = logging.getLogger(__name__)

_LOOK_S = 0.5


class Shelf:
    """Feeds by source, and the matcher over them. A source that is declared as before keeps its connections and its breaker.

    Args:
        tracer: what traces the calls of sources; None: they are not.
    """

    def __init__(
        self,
        declarations: Declarations,
        *,
        clock: Clock,
        metrics: Metrics = NOTHING,
        tracer: Tracer | None = None,
    ) -> None:
        self._declarations = declarations
        self._clock = clock
        self._metrics = metrics
        self._tracer = tracer
        self._feeds: dict[Source, Feed] = {}
        self._matcher: Matcher[Source] = Matcher(())
        self._silent = False
        self.match = self._matcher.match
        self.active = False

    def feed(self, source: Source) -> Feed | None:
        """The source at work; None where it is declared no more, or otherwise."""
        return self._feeds.get(source)

    def feeds(self) -> Sequence[Feed]:
        return tuple(self._feeds.values())

    async def look(self) -> bool:
        """Take on what is declared now; whether that was a change.

        Raises:
            Unavailable: the database does not answer.
            InvalidSetting: the file declares what is no source.
        """
        return await self._take(await asyncio.to_thread(self._declarations.all))

    async def begin(self) -> None:
        """The first look. Where the database does not answer, what the file declares is all, until it does.

        Raises:
            InvalidSetting: the file declares what is no source.
        """
        try:
            await self.look()
        except Unavailable as error:
            log.warning("%s; until it does, sources are those of predis.toml", error)
            self._silent = True
            await self._take([Declared(source, True) for source in self._declarations.of_file()])

    async def _take(self, declared: Sequence[Declared]) -> bool:
        if {one.source for one in declared} == set(self._feeds):  # equal, not only of the same name
            return False
        feeds: dict[Source, Feed] = {}
        for one in declared:
            kept = self._feeds.get(one.source)
            feeds[one.source] = kept or await self._opened(one)
        before, self._feeds = self._feeds, feeds
        self._matcher = Matcher([(feed.source.matched, feed.source) for feed in feeds.values()])
        self.match, self.active = self._matcher.match, self._matcher.active
        for source, feed in before.items():
            if feeds.get(source) is not feed:
                self._end(feed, gone=(source.tenant, source.name) not in {(s.tenant, s.name) for s in feeds})
        return True

    async def run(self) -> None:
        """Look until cancelled. Whatever goes wrong is logged; what was declared before stays."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self.look()
                self._silent = False
            except PredisError as error:
                if not self._silent:
                    log.warning("sources stay as they are: %s", error)
                self._silent = True
            except Exception:
                log.exception("following sources failed; trying again")

    def close(self) -> None:
        for feed in self._feeds.values():
            feed.close()
        self._feeds = {}

    async def _opened(self, declared: Declared) -> Feed:
        source = declared.source
        caller: Caller
        try:
            caller = await asyncio.to_thread(
                caller_of, source, allow_code=self._declarations.allow_code, by_file=declared.by_file
            )
        except PredisError as error:
            log.error("%s", error)
            caller = _Unusable(error)
        if self._tracer is not None:
            caller = Traced(caller, source, tracer=self._tracer)
        log.info("source %s of %s: keys %s", source.name, source.tenant, source.pattern)
        return Feed(source, caller, counts=Counts(self._metrics, source), clock=self._clock)

    def _end(self, feed: Feed, *, gone: bool) -> None:
        feed.close()
        if gone:
            feed.counts.forget()


class _Unusable:
    """Stands for a source that could not be opened, so that clients are told why."""

    def __init__(self, error: PredisError) -> None:
        self._error = error

    def fetch(self, batch: Sequence[Arguments]) -> list[Any]:
        raise self._error

    def write(self, changes: Sequence[Change]) -> None:
        raise self._error

    def explain(self, arguments: Arguments) -> str:
        return str(self._error)

    def close(self) -> None:
        pass
