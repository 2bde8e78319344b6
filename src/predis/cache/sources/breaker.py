"""The circuit breaker: a source that fails is left alone for a while, then tried by one call."""

from __future__ import annotations

from typing import Literal

from predis.clock import Clock

State = Literal["closed", "open", "probing"]


class Breaker:
    """Opens after ``failures`` in a row, for ``open_s``; then one probe decides whether it closes or opens again.

    >>> from predis.clock import ManualClock
    >>> clock = ManualClock()
    >>> breaker = Breaker(2, open_s=5.0, clock=clock)
    >>> breaker.failed(); breaker.failed(); breaker.allow()
    False
    >>> clock.advance(5.0)
    >>> breaker.allow(), breaker.allow()  # the probe, and whoever comes meanwhile
    (True, False)
    >>> breaker.succeeded(); breaker.state
    'closed'
    """

    def __init__(self, failures: int, *, open_s: float, clock: Clock) -> None:
        self._limit = failures
        self._open_s = open_s
        self._clock = clock
        self._in_a_row = 0
        self._opened_at = 0.0
        self.state: State = "closed"

    def allow(self) -> bool:
        """Whether a call may be made now. In ``probing`` the answer is no: one is under way."""
        if self.state == "open" and self.retry_in_s <= 0:
            self.state = "probing"
            return True
        return self.state == "closed"

    @property
    def retry_in_s(self) -> float:
        """Seconds until the next probe; 0 or less: now."""
        return self._opened_at + self._open_s - self._clock.monotonic_s()

    def succeeded(self) -> None:
        self._in_a_row = 0
        self.state = "closed"

    def failed(self) -> None:
        self._in_a_row += 1
        if self.state == "probing" or self._in_a_row >= self._limit:
            self.state = "open"
            self._opened_at = self._clock.monotonic_s()
