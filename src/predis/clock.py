"""Time. Everything that needs it takes a ``Clock``, so that tests pass their own and never sleep.

Moments are stored as integer nanoseconds since 1970-01-01 UTC (``time_ns``): exact, sortable, and the same in the journal,
in SQL and in Parquet. Durations are seconds as float and say so in their names (``_s``, ``_ms``).
"""

from __future__ import annotations

import re
import reprlib
import time
from datetime import UTC, datetime
from typing import Protocol

from predis.errors import InvalidInput

NANOSECONDS = 1_000_000_000
_LATEST_NS = 2**63 - 1
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"(\d{1,6})([smhdw])")


class Clock(Protocol):
    """What the rest of Predis knows of time."""

    def time_ns(self) -> int:
        """The moment, in nanoseconds since the epoch. May jump, as wall clocks do."""

    def monotonic_s(self) -> float:
        """Seconds on a clock that never goes back. For durations only."""


class SystemClock:
    """The machine's clocks."""

    def time_ns(self) -> int:
        return time.time_ns()

    def monotonic_s(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that moves when told.

    >>> clock = ManualClock(start_ns=0)
    >>> clock.advance(1.5)
    >>> clock.time_ns(), clock.monotonic_s()
    (1500000000, 1.5)
    """

    def __init__(self, start_ns: int = 1_700_000_000 * NANOSECONDS) -> None:
        self._now_ns = start_ns
        self._start_ns = start_ns

    def time_ns(self) -> int:
        return self._now_ns

    def monotonic_s(self) -> float:
        return (self._now_ns - self._start_ns) / NANOSECONDS

    def advance(self, seconds: float) -> None:
        self._now_ns += round(seconds * NANOSECONDS)


def iso(moment_ns: int | None) -> str | None:
    """RFC 3339 text of a moment, in UTC, to the second.

    >>> iso(1_700_000_000_000_000_000)
    '2023-11-14T22:13:20Z'
    """
    if moment_ns is None:
        return None
    return datetime.fromtimestamp(moment_ns // NANOSECONDS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_moment(value: str | float, *, where: str) -> int:
    """A moment from RFC 3339 text, or seconds since the epoch, as nanoseconds.

    A text without an offset is taken as UTC.

    Raises:
        InvalidInput: it is neither, or out of range.

    >>> parse_moment("2013-04-01T05:00:00Z", where="event_time")
    1364792400000000000
    """
    try:
        if isinstance(value, str):
            parsed = datetime.fromisoformat(value)
            parsed = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
            moment_ns = int(parsed.timestamp() // 1) * NANOSECONDS + parsed.microsecond * 1000
        elif isinstance(value, int | float) and not isinstance(value, bool):
            moment_ns = round(value * NANOSECONDS)
        else:  # From JSON it may be anything, and a list times a billion would be a long one.
            moment_ns = -1
    except (ValueError, OverflowError):
        moment_ns = -1
    if not 0 <= moment_ns <= _LATEST_NS:
        raise InvalidInput(f"{where} must be RFC 3339 text or seconds since 1970, got {reprlib.repr(value)}")
    return moment_ns


def parse_since(text: str, *, now: int) -> int:
    """When something begins, in nanoseconds: ``7d``, ``12h``, ``30m`` ago, or a moment (RFC 3339).

    Raises:
        InvalidInput: it is neither.

    >>> parse_since("2m", now=200_000_000_000)
    80000000000
    """
    span = _SPAN.fullmatch(text.strip())
    if span:
        return max(0, now - int(span[1]) * _UNITS[span[2]] * NANOSECONDS)
    try:
        return parse_moment(text, where="since")
    except InvalidInput:
        raise InvalidInput(
            f"since is a span such as 30m, 12h or 7d, or a moment such as 2026-03-01T00:00Z, got {text!r:.80}"
        ) from None
