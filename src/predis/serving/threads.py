"""Threads for work that may take long, or for ever: a model's code. Unlike an executor's, they do not keep a process from ending."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

log = logging.getLogger(__name__)


class Threads:
    """At most ``count`` threads, started when they are first needed, that do what they are handed in its order."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._handed: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._started = 0
        self._undone = 0

    def submit(self, work: Callable[[], None]) -> None:
        """Have it done by a thread that is idle, or by the first that will be."""
        with self._lock:
            self._undone += 1
            if not self._idle.acquire(blocking=False) and self._started < self._count:
                self._started += 1
                name = f"{self._name}-{self._started}"
                threading.Thread(target=self._run, name=name, daemon=True).start()
        self._handed.put(work)

    def close(self) -> bool:
        """Forget what has not begun. Whether nothing is being done any more: what is cannot be stopped."""
        while True:
            try:
                self._handed.get_nowait()
            except Empty:
                return self._undone == 0
            self._count_done()

    def _run(self) -> None:
        while True:
            work = self._handed.get()
            try:
                work()
            except Exception:
                log.exception("work in a thread failed")
            del work  # a thread that idles keeps nothing alive
            self._count_done()
            self._idle.release()

    def _count_done(self) -> None:
        with self._lock:
            self._undone -= 1
