"""Threads for work that may take long, or for ever: a model's code. Unlike an executor's, they do not keep a process from ending."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

log = logging.getLogger(__name__)


class Threads:
    """At most ``count`` threads, started when they are first needed, that do what they are handed in its order until they are closed."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._lock = threading.Lock()
        self._undone = 0
        self._begin()

    def _begin(self) -> None:
        self._handed: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._started = 0

    def submit(self, work: Callable[[], None]) -> None:
        """Have it done by a thread that is idle, or by the first that will be."""
        with self._lock:
            self._undone += 1
            if not self._idle.acquire(blocking=False) and self._started < self._count:
                self._started += 1
                name = f"{self._name}-{self._started}"
                threading.Thread(
                    target=self._run, args=(self._handed, self._idle), name=name, daemon=True
                ).start()
            self._handed.put(work)

    def close(self) -> bool:
        """Forget what has not begun, and end the threads as they idle.

        Returns:
            Whether nothing is being done any more: what is cannot be stopped.
        """
        with self._lock:
            handed, started = self._handed, self._started
            self._begin()
            with suppress(Empty):
                while True:
                    handed.get_nowait()
                    self._undone -= 1
            for _ in range(started):
                handed.put(None)
            return self._undone == 0

    def _run(self, handed: SimpleQueue[Callable[[], None] | None], idle: threading.Semaphore) -> None:
        while (work := handed.get()) is not None:
            try:
                work()
            except Exception:
                log.exception("work in a thread failed")
            del work  # a thread that idles keeps nothing alive
            with self._lock:
                self._undone -= 1
            idle.release()
