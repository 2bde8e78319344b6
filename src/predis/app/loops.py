"""A duty of the control role: work that is done again and again, in a thread of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable

from predis.errors import PredisError

log = logging.getLogger(__name__)

_TELL_AGAIN_S = 30.0
_BACKGROUND_NICENESS = 10


class Loop:
    """One duty, again and again until stopped. What goes wrong in one round is logged; the next round tries again.

    Args:
        background: leave the processor to others where there is not enough for all: what this duty does may wait, answers may not.
    """

    def __init__(
        self, name: str, period_s: float, *, work: Callable[[], object], background: bool = False
    ) -> None:
        self._name = name
        self._period_s = period_s
        self._work = work
        self._background = background
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._told, self._told_at = "", 0.0

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 3.0) -> None:
        self._stop.set()
        self._thread.join(timeout_s)

    def _tell(self, error: PredisError) -> None:
        """Log a problem once, and again now and then while it lasts."""
        now = time.monotonic()
        if str(error) != self._told or now - self._told_at > _TELL_AGAIN_S:
            log.warning("%s: %s; trying again", self._name, error)
            self._told, self._told_at = str(error), now

    def _run(self) -> None:
        if self._background:
            yield_to_others()
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                self._work()
            except PredisError as error:
                self._tell(error)
            except Exception:
                log.exception("%s failed; trying again", self._name)
            self._stop.wait(max(0.0, self._period_s - (time.monotonic() - started)))


def yield_to_others() -> None:
    """Lower the priority of this thread. Linux alone has threads with priorities of their own; elsewhere it would be the process's."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):  # a container may forbid it
            niceness = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, niceness + _BACKGROUND_NICENESS)
