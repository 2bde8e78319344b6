"""A courier takes batches to one exporter, in a thread of its own, and keeps trying while the backend is away.

What waits is bounded, in batches and in samples. Where there is no room the oldest batch is dropped and counted: numbers may be lost.
What became of alerts may not, and takes another road (``telling``).
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from typing import Any

from predis.errors import PredisError, Unavailable
from predis.metrics import NOTHING, Counter, Metrics
from predis.monitoring.exporters.batch import Batch, Exporter

log = logging.getLogger(__name__)

ROOM = 240  # batches: an hour at the usual interval
ROOM_SAMPLES = 200_000  # in them: 100 MB at worst
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0


class Courier:
    """Carries batches. The thread begins with the first one.

    Args:
        room: most batches that wait.
        first_wait_s: how long to wait after a first failure; it doubles up to ``longest_wait_s``, less a random part of up to a half, so
            that many installations do not come back at once.
    """

    def __init__(
        self,
        exporter: Exporter[Any],
        *,
        metrics: Metrics = NOTHING,
        room: int = ROOM,
        first_wait_s: float = FIRST_WAIT_S,
        longest_wait_s: float = LONGEST_WAIT_S,
    ) -> None:
        self._exporter = exporter
        self._room = room
        self._waits = first_wait_s, longest_wait_s
        self._queue: deque[Batch] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._failures = 0  # in a row
        self._thread: threading.Thread | None = None
        name = exporter.name
        self._sent = metrics.counter("predis_export_batches_total", exporter=name)
        self._dropped = metrics.counter("predis_export_dropped_total", exporter=name)
        self._failed = metrics.counter("predis_export_failures_total", exporter=name)
        self._waiting = metrics.gauge("predis_export_waiting", exporter=name)

    def put(self, batch: Batch) -> None:
        """Take a batch on its way. Never waits for the backend and never raises."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name=f"export-{self._exporter.name}", daemon=True
                )
                self._thread.start()
            self._make_room(len(batch.samples))
            self._queue.append(batch)
            self._waiting.set(len(self._queue))
            self._changed.notify()

    def end(self) -> None:
        """Send what waits as far as the backend takes it at once, and drop the rest. Does not wait for that: ``close`` does."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    def close(self, timeout_s: float = 2.0) -> None:
        """End, and wait for it."""
        self.end()
        if self._thread is not None:
            self._thread.join(timeout_s)
            if not self._thread.is_alive():
                self._exporter.close()

    def _make_room(self, samples: int) -> None:
        held = sum(len(waiting.samples) for waiting in self._queue)
        while self._queue and (len(self._queue) >= self._room or held + samples > ROOM_SAMPLES):
            victim = self._queue.popleft()
            self._dropped.add()
            held -= len(victim.samples)

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            try:
                self._exporter.send(batch)
            except Unavailable as error:
                self._tell_failure(error)
                if not self._pause():
                    self._drop_all()
                    return
                continue
            except PredisError as error:
                self._failed.add()
                self._done(batch, self._dropped)
                log.warning("%s refused part of what it was sent: %s", self._exporter.name, error)
                continue
            except Exception:
                self._failed.add()
                self._done(batch, self._dropped)
                log.exception("%s failed on a batch, which is dropped", self._exporter.name)
                continue
            self._done(batch, self._sent)
            if self._failures:
                log.info("%s takes metrics again", self._exporter.name)
                self._failures = 0

    def _next(self) -> Batch | None:
        """The oldest batch, which stays in the queue until it is done; ``None`` when it is time to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._ending)
            return self._queue[0] if self._queue else None

    def _done(self, batch: Batch, outcome: Counter) -> None:
        with self._changed:
            if self._queue and self._queue[0] is batch:  # else it was dropped, and counted, meanwhile
                self._queue.popleft()
                outcome.add()
            self._waiting.set(len(self._queue))

    def _pause(self) -> bool:
        """Wait before the next try; whether there is to be one."""
        first, longest = self._waits
        wait = min(longest, first * 2 ** min(self._failures - 1, 30)) * (1 - random.random() / 2)
        with self._changed:
            return not self._changed.wait_for(lambda: self._ending, wait)

    def _drop_all(self) -> None:
        with self._changed:
            self._dropped.add(len(self._queue))
            self._queue.clear()
            self._waiting.set(0)

    def _tell_failure(self, error: Unavailable) -> None:
        self._failures += 1
        self._failed.add()
        if self._failures == 1:
            log.warning("%s takes no metrics: %s; they wait until it does", self._exporter.name, error)
