"""When a version of the predictor is trained: there is none, something asks for it, or the one in use is old."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from predis.cache.predictor.export import exported
from predis.cache.predictor.recorded import LEAST_ROWS, rows
from predis.clock import NANOSECONDS

_COOL_S = 3_600.0


class Triggers:
    """Says why.

    Args:
        recorded: where the learner writes reads. Without some that are newer than the last training, nothing is due.
        retrain_s: after which a version is trained anew; 0: never for its age.
        cool_s: least time from one training to the next.
    """

    def __init__(self, recorded: Path, *, retrain_s: float, cool_s: float = _COOL_S) -> None:
        self._recorded = recorded
        self._retrain_s = retrain_s
        self._cool_s = cool_s

    def due(self, now_ns: int, last_ns: int | None, *, champion: int, wish: str) -> str:
        """``first``, ``time``, the wish, or nothing.

        Args:
            last_ns: when the last training began.
            champion: the version in use; 0 for none.
            wish: what asks for a training: ``drift`` of clients' habits, or lost ``gain``; empty where nothing does.
        """
        since_s = float("inf") if last_ns is None else (now_ns - last_ns) / NANOSECONDS
        if since_s < self._cool_s or not self._has_reads(last_ns or 0):
            return ""
        if last_ns is None:
            return "first"
        if wish:
            return wish
        return "time" if not champion or (self._retrain_s and since_s >= self._retrain_s) else ""

    def _has_reads(self, since_ns: int) -> bool:
        """Whether enough is recorded to learn from, and some of it since then."""
        try:
            files = exported(self._recorded)
            if not files or files[-1].stat().st_mtime_ns <= since_ns:
                return False
            return rows(self._recorded) >= 2 * LEAST_ROWS
        except (OSError, pa.ArrowException):  # a file is deleted, or written, just now
            return False
