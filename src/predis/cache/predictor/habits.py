"""Whether clients still ask as they did when the version in use was trained: which kinds of keys are read, and how often each.

The learner counts reads by kind (the template of the source's pattern; what training did not know is one kind) over some minutes and
compares the shares with those of the training reads, by the population stability index (``stats.drift``). Reads are no independent
draws, so certainty alone means little: an alarm asks for an index that is called a shift everywhere (0.2), in three windows of the last
four. It says that the predictor should be trained anew, which control does (``steward``), and wakes nobody: what is foretold wrongly is
found and switched off by the hold-back, rule by rule, long before.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from predis.stats.drift import PsiDetector

FILE = "habits.json"
WINDOW_S = 300.0
_FLOOR = 0.2
_LEAST_READS = 500
_NEEDED, _OF = 3, 4
_OTHER = "(other)"
_TOLD = 3


class Habits:
    """Counts reads by kind, window by window, and compares them with those of training.

    >>> habits = Habits(window_s=10.0)
    >>> habits.refer(7, {"user:{}": 6_000, "cart:{}": 4_000})
    >>> for window in range(3):
    ...     told = habits.take({"user:{}": 100, "cart:{}": 900}, now_s=11.0 * (window + 1))
    >>> told["drifted"], told["version"], told["moved"][0]
    (True, 7, {'kind': 'user:{}', 'share': 0.1, 'before': 0.6})
    """

    def __init__(self, *, window_s: float = WINDOW_S, now_s: float = 0.0) -> None:
        self._window_s = window_s
        self._began_s = now_s
        self._version = 0
        self._reference: Mapping[str, int] = {}
        self._detector: PsiDetector | None = None
        self._counts: Counter[str] = Counter()

    def refer(self, version: int, reference: Mapping[str, int]) -> None:
        """Compare with another version's training from now on; the same changes nothing.

        Args:
            reference: reads of each kind; without any there is nothing to compare with.
        """
        if (version, reference) == (self._version, self._reference):
            return
        self._version, self._reference = version, dict(reference)
        bins = [*self._reference.values(), 0]
        self._detector = None
        if sum(bins):
            self._detector = PsiDetector(bins, floor=_FLOOR, min_rows=_LEAST_READS, needed=_NEEDED, of=_OF)
        self._counts.clear()

    def take(self, counts: Mapping[str, int], *, now_s: float) -> dict[str, Any] | None:
        """Add reads, by kind. What is to be told when a window is full; None before."""
        for kind, reads in counts.items():
            self._counts[kind if kind in self._reference else _OTHER] += reads
        if now_s - self._began_s < self._window_s or self._counts.total() < _LEAST_READS:
            return None
        self._began_s, window = now_s, self._counts
        self._counts = Counter()
        detector = self._detector
        if detector is None:
            return None
        detector.update([*(window[kind] for kind in self._reference), window[_OTHER]])
        verdict = detector.verdict
        assert verdict is not None
        return {
            "version": self._version,
            "reads": window.total(),
            "psi": None if math.isnan(verdict.effect) else round(verdict.effect, 4),
            "floor": _FLOOR,
            "shifted": verdict.drifted,
            "drifted": detector.drift_detected,
            "moved": self._moved(window),
        }

    def _moved(self, window: Counter[str]) -> list[dict[str, Any]]:
        """The kinds whose share changed most."""
        before, reads = sum(self._reference.values()), window.total()
        shares = [
            (kind, window[kind] / reads, self._reference.get(kind, 0) / before)
            for kind in (*self._reference, _OTHER)
        ]
        shares.sort(key=lambda one: -abs(one[1] - one[2]))
        return [
            {"kind": kind, "share": round(now, 4), "before": round(then, 4)}
            for kind, now, then in shares[:_TOLD]
            if now != then
        ]
