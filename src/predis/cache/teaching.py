"""The learner's lessons: what it hears of reads becomes tables, and tables that say something new are published.

Tables are compiled every few seconds, and published when the rules are other ones, or after a while because their figures have moved. How
long a load takes, which decides what comes in time, is what the gateway's workers measured.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from predis.cache.foretelling import FOLDER
from predis.cache.predictor import published
from predis.cache.predictor.learning import Peek, RuleLearner
from predis.cache.predictor.tables import Tables
from predis.cache.sources.pattern import Matcher
from predis.cache.sources.source import Source
from predis.errors import PredisError

log = logging.getLogger(__name__)

_COMPILE_S = 5.0
_REFRESH_S = 300.0
_LEAST_DELAY_S = 0.002


class Teaching:
    """Hears events, publishes tables.

    Args:
        folder: the cache's folder in the home.
        sources: those that are declared now.
        peek: the values of keys in Valkey.
        load_s: how long a load takes, in seconds; None while nobody knows.
        clock: seconds of any beginning.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sources: Callable[[], Sequence[Source]],
        peek: Peek | None = None,
        load_s: Callable[[], float | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder / FOLDER
        self._sources = sources
        self._load_s = load_s
        self._clock = clock
        self._matcher: Matcher[Source] = Matcher(())
        self._learner = RuleLearner(self._match, peek=peek)
        self._compiled_at = clock()
        self._published_at = -_REFRESH_S
        self._names: frozenset[str] = frozenset()
        self._number = int((published.current(self._folder) or {}).get("number", 0))
        self._look()

    def hear(self, worker: str, events: np.ndarray[Any, Any]) -> None:
        """A batch of one worker's events: what ``Learner`` calls its listeners with."""
        self._learner.take(worker, events)
        now = self._clock()
        if now - self._compiled_at >= _COMPILE_S:
            self._compiled_at = now
            self._look()
            self._teach(now)

    def _match(self, key: bytes) -> Source | None:
        return self._matcher.match(key)

    def _look(self) -> None:
        """Sources as they are now, and how long they take."""
        try:
            sources = self._sources()
        except PredisError as error:
            log.warning("sources stay as they are: %s", error)
            return
        self._matcher = Matcher([(source.matched, source) for source in sources])
        measured = self._load_s()
        if measured is not None:
            self._learner.rules.delay = round(max(measured, _LEAST_DELAY_S) * 1e6)

    def _teach(self, now: float) -> None:
        tables = self._learner.compile()
        names = tables.names
        if names == self._names and now - self._published_at < _REFRESH_S:
            return
        if not tables.rules and not self._names:
            return  # nothing known, and nothing to take back
        try:
            self._publish(tables)
        except OSError as error:
            log.warning("the predictor's tables were not written (%s); those in use stay", error.strerror)
            return
        self._names, self._published_at = names, now

    def _publish(self, tables: Tables) -> None:
        self._number += 1
        about = {"reads": self._learner.reads, "rules": len(tables.rules), "made_at": time.time()}
        published.publish(self._folder, tables, number=self._number, about=about)
