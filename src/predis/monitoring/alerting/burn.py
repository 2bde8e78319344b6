"""Error budgets and how fast they burn.

An objective says which share of requests must be good over a window; the rest is the error budget. A burn rate of 1 uses the budget up
exactly at the window's end. Alerts follow "Alerting on SLOs" in Google's Site Reliability Workbook (2018, chapter 5, approach 6):
each watches a long window, so that a blip does not page, and a short one, so that the alert ends soon after its cause.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from predis.errors import InvalidInput
from predis.monitoring.alerting.severity import Severity

HOUR_S = 3_600.0
DAY_S = 24 * HOUR_S
# Below this a rate rests on chance: one failure at night is no trend.
LEAST_REQUESTS, LEAST_BAD = 50, 5
# An alert stays open down to this share of its limit.
CLOSING = 0.9
LONGEST_DAYS = 90


@dataclass(frozen=True)
class Tally:
    """Requests of some time, and those of them that were bad. Tallies add up."""

    total: int = 0
    bad: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.total + other.total, self.bad + other.bad)


@dataclass(frozen=True)
class Pair:
    """A long and a short window, and the share of the budget whose loss within the long one calls somebody."""

    long_s: float
    short_s: float
    share: float
    severity: Severity

    def factor(self, window_s: float) -> float:
        """The burn rate that loses ``share`` of the budget of a window within the long one; never below 1, which is no loss.

        >>> [round(pair.factor(30 * DAY_S), 3) for pair in PAIRS]
        [14.4, 6.0, 3.0, 1.0]
        """
        return max(1.0, self.share * window_s / self.long_s)


PAIRS = (
    Pair(HOUR_S, HOUR_S / 12, 0.02, Severity.CRITICAL),
    Pair(6 * HOUR_S, HOUR_S / 2, 0.05, Severity.CRITICAL),
    Pair(DAY_S, 2 * HOUR_S, 0.10, Severity.WARNING),
    Pair(3 * DAY_S, 6 * HOUR_S, 0.10, Severity.WARNING),
)


@dataclass(frozen=True)
class Objective:
    """``share`` of requests are good in every ``window_s``. ``name``: availability or latency; ``limit_ms`` is latency's."""

    name: str
    share: float
    window_s: float = 30 * DAY_S
    limit_ms: float | None = None

    @property
    def kind(self) -> str:
        """The kind of its alerts."""
        return f"slo_{self.name}"

    @property
    def text(self) -> str:
        what = "succeed" if self.limit_ms is None else f"are answered within {self.limit_ms:g} ms"
        return f"{self.share:.10g} of requests {what} over {self.window_s / DAY_S:g} days"

    def burn(self, tally: Tally) -> float:
        """How many times as fast as allowed the budget burnt; 0 without requests.

        >>> Objective("availability", 0.999).burn(Tally(10_000, 144))
        14.4
        """
        if not tally.total:
            return 0.0
        return float(f"{tally.bad / tally.total / (1 - self.share):.12g}")

    def left(self, tally: Tally) -> float:
        """Share of the error budget that is left, of the requests in the window; below 0 where it is overspent."""
        return 1 - self.burn(tally)


@dataclass(frozen=True)
class Burning:
    """A pair of windows in which the budget burns too fast. ``holds``: only fast enough to keep an alert open."""

    pair: Pair
    long: float
    short: float
    factor: float
    bad: int
    holds: bool


def burning(objective: Objective, over: Callable[[float], Tally]) -> Burning | None:
    """The severest pair whose windows both burn too fast; ``over(seconds)`` tells the requests of the newest seconds."""
    held = None
    for pair in PAIRS:  # severest first
        factor, tally = pair.factor(objective.window_s), over(pair.long_s)
        if tally.total < LEAST_REQUESTS or tally.bad < LEAST_BAD:
            continue
        long, short = objective.burn(tally), objective.burn(over(pair.short_s))
        if min(long, short) >= factor:
            return Burning(pair, long, short, factor, tally.bad, False)
        if min(long, short) >= CLOSING * factor and held is None:
            held = Burning(pair, long, short, factor, tally.bad, True)
    return held


def objectives_of(config: Mapping[str, Any], endpoint: str) -> tuple[Objective, ...]:
    """The ``objectives`` of an endpoint's configuration; none where it has none.

        {"objectives": {"window_days": 30, "availability": 0.999, "latency": {"ms": 100, "share": 0.99}}}

    Raises:
        InvalidInput: they cannot be used; the message names the part.
    """
    found = config.get("objectives", {})
    where = f"endpoint {endpoint!r}: objectives"
    if not isinstance(found, Mapping) or not set(found) <= {"window_days", "availability", "latency"}:
        raise InvalidInput(f"{where} have window_days, availability and latency, got {reprlib.repr(found)}")
    window_s = DAY_S * _number(
        found.get("window_days", 30), f"{where}: window_days", between=(1, LONGEST_DAYS)
    )
    made = []
    if "availability" in found:
        share = _share(found["availability"], f"{where}: availability")
        made.append(Objective("availability", share, window_s))
    if "latency" in found:
        latency = found["latency"]
        if not isinstance(latency, Mapping) or set(latency) != {"ms", "share"}:
            raise InvalidInput(f"{where}: latency is an object of ms and share, got {reprlib.repr(latency)}")
        limit_ms = _number(latency["ms"], f"{where}: latency.ms", between=(0.01, 100_000))
        share = _share(latency["share"], f"{where}: latency.share")
        made.append(Objective("latency", share, window_s, limit_ms))
    return tuple(made)


def check_objectives(config: Mapping[str, Any], endpoint: str) -> None:
    """Let an endpoint's configuration pass if its objectives, where it has any, can be used.

    Raises:
        InvalidInput
    """
    objectives_of(config, endpoint)


def _share(value: Any, where: str) -> float:
    return _number(value, where, between=(0.5, 0.99999))


def _number(value: Any, where: str, *, between: tuple[float, float]) -> float:
    low, high = between
    if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
        raise InvalidInput(f"{where} is a number from {low:g} to {high:.10g}, got {reprlib.repr(value)}")
    return float(value)
