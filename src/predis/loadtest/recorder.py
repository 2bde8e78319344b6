"""What one generator process saw, second by second.

A request is measured if it began in the window: in a closed loop that is when it was sent, in an open loop when it was due. Throughput
counts the answers that came within the window, whenever they were asked for; otherwise a server that answers late would be credited with
what it answered after the test.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from predis.loadtest.histogram import Histogram

_SAMPLE_LETTERS = 300


@dataclass(slots=True)
class Slice:
    """One second of one process. Latencies are of successful answers to measured requests, lateness of sending is the generator's own."""

    second: int
    answered: int = 0
    latency: Histogram = field(default_factory=Histogram)
    lateness: Histogram = field(default_factory=Histogram)
    errors: Counter[str] = field(default_factory=Counter)
    samples: dict[str, str] = field(default_factory=dict)
    waited: int = 0
    """Requests that were due while every connection was busy."""


class Recorder:
    """Takes down what happens; ``cut`` hands out what came since the last cut. Moments are ``time.perf_counter``'s.

    ``begin`` is the window's first moment, ``end`` the first after it; until ``window`` is called nothing is measured.
    """

    def __init__(self) -> None:
        self.begin = self.end = math.inf
        self._latencies: list[float] = []
        self._lateness: list[float] = []
        self._slice = Slice(0)

    def window(self, begin: float, end: float) -> None:
        """Say when to measure."""
        self.begin, self.end = begin, end

    def answered(self, started: float, now: float) -> None:
        """A successful answer."""
        begin, end = self.begin, self.end
        if begin <= now < end:
            self._slice.answered += 1
        if begin <= started < end:
            self._latencies.append(now - started)

    def failed(self, started: float, kind: str, *, sample: str = "") -> None:
        """A request that got no answer, or one that is an error; ``sample`` is the server's own word on it."""
        if self.begin <= started < self.end:
            self._slice.errors[kind] += 1
            if sample:
                self._slice.samples.setdefault(kind, sample[:_SAMPLE_LETTERS])

    def due(self, moment: float, now: float) -> None:
        """A request of an open loop was due at ``moment`` and is handed out ``now``."""
        if self.begin <= moment < self.end:
            self._lateness.append(now - moment)

    def waited(self, count: int, now: float) -> None:
        """So many requests that are due now found every connection busy."""
        if self.begin <= now < self.end:
            self._slice.waited += count

    def cut(self, second: int) -> Slice:
        """What came since the last cut; the next slice is that of ``second``."""
        found = self._slice
        found.latency.add(self._latencies)
        found.lateness.add(self._lateness)
        self._latencies, self._lateness, self._slice = [], [], Slice(second)
        return found
