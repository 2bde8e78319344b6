"""What a load test found: of one load, and of several in a row.

A result knows its own doubts. A generator that was late, or busy all the time, measured itself; then the result says so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from predis.loadtest.histogram import Histogram
from predis.loadtest.load import Load
from predis.loadtest.recorder import Slice

QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
# A step keeps up if it answers this share of what is offered, and fails at most that share.
_KEPT_UP = 0.98
_FAILED = 0.01
_BUSY = 0.9
_CROWDED = 0.1
_LATE_S = 0.002


@dataclass(frozen=True)
class Point:
    """One second of the test: requests answered and failed, and latencies of those answered, in seconds."""

    second: int
    answered: int
    failed: int
    p50: float
    p99: float


@dataclass(frozen=True)
class Usage:
    """What one generator process had of the machine, as shares of the test's time: it ran, or could have run but was given no core."""

    used: float
    waited: float


@dataclass
class Result:
    """One load's outcome. Latencies are of successful answers; ``lateness`` is how late this side handed requests out."""

    load: Load
    answered: int = 0
    waited: int = 0
    latency: Histogram = field(default_factory=Histogram)
    lateness: Histogram = field(default_factory=Histogram)
    errors: Counter[str] = field(default_factory=Counter)
    samples: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    usage: tuple[Usage, ...] = ()
    """Of each generator process."""

    def add(self, slices: Sequence[Slice]) -> Point:
        """Add one second, as every process saw it."""
        latency, failed, answered = Histogram(), 0, 0
        for part in slices:
            latency.merge(part.latency)
            self.lateness.merge(part.lateness)
            self.errors.update(part.errors)
            self.samples = {**part.samples, **self.samples}
            self.waited += part.waited
            answered += part.answered
            failed += part.errors.total()
        self.latency.merge(latency)
        self.answered += answered
        point = Point(slices[0].second, answered, failed, latency.quantile(0.5), latency.quantile(0.99))
        if point.second < self.load.duration_s:  # what comes later are the last answers
            self.points.append(point)
        return point

    @property
    def throughput(self) -> float:
        """Successful answers a second, of those that came within the window."""
        return self.answered / self.load.duration_s

    @property
    def measured(self) -> int:
        """Requests that began within the window and whose end is known."""
        return self.latency.total + self.errors.total()

    @property
    def error_rate(self) -> float:
        """Share of the measured requests that failed; 0 where there were none."""
        return self.errors.total() / self.measured if self.measured else 0.0

    @property
    def keeps_up(self) -> bool:
        """Whether the server did what was offered. In a closed loop: whether it answered at all, nearly without errors."""
        wanted = 0.0 if self.load.rate is None else self.load.rate * _KEPT_UP
        # Poisson arrivals differ from their rate by chance.
        wanted -= 3 * math.sqrt(wanted / self.load.duration_s) if self.load.poisson else 0.0
        return self.answered > 0 and self.throughput >= wanted and self.error_rate <= _FAILED

    def doubts(self) -> list[str]:
        """Why not to believe the figures, in sentences; empty where there is no reason."""
        found = []
        if self.load.rate is not None and (late := self.lateness.quantile(0.99)) > _LATE_S:
            found.append(
                f"The generator itself was late: it handed out 1 % of the requests more than {late * 1e3:.1f} ms after they were due, "
                "which is in their latencies. Give it more processes (--processes), or cores that the server does not use."
            )
        busiest = max(self.usage, key=lambda usage: usage.used + usage.waited, default=Usage(0.0, 0.0))
        if busiest.used + busiest.waited > _BUSY:
            found.append(
                f"A generator process had no rest: it ran {busiest.used:.0%} of the time, and waited {busiest.waited:.0%} for a core. "
                "The server may be able to do more, and faster, than it could ask and see. Give the generator more processes "
                "(--processes), or cores that nobody else uses."
            )
        elif busiest.waited > _CROWDED:
            found.append(
                f"A generator process waited for a core {busiest.waited:.0%} of the time, because others use them too; "
                "that is in the latencies."
            )
        if self.waited and self.load.rate is not None:
            found.append(
                f"{self.waited:,} requests were due while all connections were busy and waited for one, which is in their latencies "
                f"({self.load.connections:,} connections; --connections sets more)."
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; times in milliseconds, None where nothing was measured."""
        return {
            "load": self.load.name,
            "connections": self.load.connections,
            "rate": self.load.rate,
            "duration_s": self.load.duration_s,
            "throughput": round(self.throughput, 1),
            "answered": self.answered,
            "measured": self.measured,
            "errors": dict(self.errors.most_common()),
            "error_rate": self.error_rate,
            "error_samples": self.samples,
            "latency_ms": self._latencies(),
            "generator": {
                "used": [round(usage.used, 3) for usage in self.usage],
                "waited_for_core": [round(usage.waited, 3) for usage in self.usage],
                "late_p99_ms": _ms(self.lateness.quantile(0.99)),
                "late_max_ms": _ms(self.lateness.most if self.lateness.total else math.nan),
                "waited_for_connection": self.waited,
            },
            "keeps_up": self.keeps_up,
            "doubts": self.doubts(),
            "seconds": [
                {"second": p.second, "answered": p.answered, "failed": p.failed, "p50_ms": _ms(p.p50), "p99_ms": _ms(p.p99)}
                for p in self.points
            ],
        }  # fmt: skip

    def _latencies(self) -> dict[str, float | None]:
        seen = self.latency
        named = {f"p{q * 100:g}": _ms(seen.quantile(q)) for q in QUANTILES}
        return {
            "min": _ms(seen.least if seen.total else math.nan),
            "mean": _ms(seen.mean),
            **named,
            "max": _ms(seen.most if seen.total else math.nan),
        }


def knee(results: Iterable[Result]) -> Result | None:
    """The greatest throughput of a load that the server kept up with; None where there is none."""
    able = [result for result in results if result.keeps_up]
    return max(able, key=lambda result: result.throughput, default=None)


def _ms(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(seconds * 1e3, 4)
