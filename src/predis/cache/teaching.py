"""The learner's lessons: what it hears of reads becomes tables, and tables that say something new are published.

Rules are looked at every few seconds and published when they are other ones; which single keys follow which every half a minute, and
published when a share of them has changed; all of it after a while, because figures have moved. These tables are added to those of the
version in use, whose number stands with them: they keep it up to date until the next is trained. How long a load takes, which decides
what comes in time, is what the gateway's workers measured.

Beside this it watches whether clients still ask as they did when that version was trained (``predictor.habits``).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from predis.cache.foretelling import FOLDER
from predis.cache.predictor import habits, published, standing
from predis.cache.predictor.habits import Habits
from predis.cache.predictor.learning import Peek, TableLearner
from predis.cache.predictor.tables import NOTHING, Tables
from predis.cache.scheduling import Timetable
from predis.cache.sources.pattern import Matcher
from predis.cache.sources.source import Source
from predis.errors import PredisError

log = logging.getLogger(__name__)

_COMPILE_S = 5.0
_FOLLOW_S = 30.0
_CHANGED = 0.02
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
        self._learner = TableLearner(self._match, peek=peek)
        self._timetable = Timetable(self._folder, self._match, clock=clock)
        self._compiled_at = self._followed_at = clock()
        self._published_at = -_REFRESH_S
        self._tables = self._published = NOTHING
        self._habits = Habits(now_s=self._compiled_at)
        self._version = 0
        self._number = int((published.current(self._folder) or {}).get("number", 0))
        self._look()

    def hear(self, worker: str, events: np.ndarray[Any, Any]) -> None:
        """A batch of one worker's events: what ``Learner`` calls its listeners with."""
        self._learner.take(worker, events)
        self._timetable.hear(worker, events)
        now = self._clock()
        if now - self._compiled_at >= _COMPILE_S:
            self._compiled_at = now
            self._look()
            self._watch(now)
            self._teach(now)

    def _match(self, key: bytes) -> Source | None:
        return self._matcher.match(key)

    def _look(self) -> None:
        """Sources as they are now, how long they take, and which version is in use."""
        in_use = standing.read(self._folder)
        self._version = in_use.champion
        self._habits.refer(in_use.champion, in_use.reference)
        try:
            sources = self._sources()
        except PredisError as error:
            log.warning("sources stay as they are: %s", error)
            return
        self._matcher = Matcher([(source.matched, source) for source in sources])
        measured = self._load_s()
        if measured is not None:
            self._learner.take_delay(max(measured, _LEAST_DELAY_S))

    def _watch(self, now: float) -> None:
        """Compare what is read with what the version in use was trained on."""
        told = self._habits.take(self._learner.kinds, now_s=now)
        self._learner.kinds.clear()
        if told is not None:
            contents = json.dumps({**told, "at": time.time()}).encode()
            self._write(lambda: published.write(self._folder / habits.FILE, contents))

    def _teach(self, now: float) -> None:
        if now - self._followed_at >= _FOLLOW_S:
            self._followed_at = now
            self._tables = self._learner.compile()
        else:
            self._tables = replace(self._tables, rules=self._learner.rules_learned())
        tables, before = self._tables, self._published
        due = now - self._published_at >= _REFRESH_S and bool(tables.names or before.names)
        if (due or _differ(tables, before)) and self._write(lambda: self._publish(tables)):
            self._published, self._published_at = tables, now

    def _publish(self, tables: Tables) -> None:
        self._number += 1
        about = {
            "version": self._version,
            "reads": self._learner.reads,
            "rules": len(tables.rules),
            "followed": len(tables.followers),
            "made_at": time.time(),
        }
        published.publish(self._folder, tables, number=self._number, about=about)

    def _write(self, work: Callable[[], object]) -> bool:
        try:
            work()
        except OSError as error:
            log.warning("the predictor's tables were not written (%s); those in use stay", error.strerror)
            return False
        return True


def _differ(tables: Tables, before: Tables) -> bool:
    """Whether the rules are other ones, or a share of the followers."""
    if tables.names != before.names:
        return True
    now, then = tables.followers, before.followers
    changed = sum(then.get(key) != keys for key, keys in now.items()) + sum(key not in now for key in then)
    return changed > _CHANGED * len(then)
