"""What a run is about: keys, the delay of a load, and what a prefetcher may know of both."""

from __future__ import annotations

import re
from dataclasses import dataclass

from predis.errors import InvalidInput

Key = int | str

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_ROUNDING_S = 1e-9  # sums of seconds in binary


@dataclass(frozen=True, slots=True)
class Delay:
    """How long a prefetch is under way: a number of requests, or a time by the trace's clock; one of the two is zero.

    What is asked for at request ``i`` is resident before request ``i + requests + 1``; with a time, before the first later
    request whose clock is at least ``seconds`` ahead.

    >>> Delay.parse("10"), Delay.parse("5ms")
    (Delay(requests=10, seconds=0.0), Delay(requests=0, seconds=0.005))
    """

    requests: int = 0
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Delay:
        """Reads ``10`` (requests), ``5ms``, ``1.5s`` or ``200us``.

        Raises:
            InvalidInput: it is none of these.
        """
        read = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(us|ms|s)?", text.strip())
        if read is None or (read[2] is None and "." in read[1]):
            raise InvalidInput(f"a delay is a number of requests or a time such as 5ms, got {text!r}")
        return (
            cls(requests=int(read[1])) if read[2] is None else cls(seconds=float(read[1]) * _UNITS[read[2]])
        )

    @property
    def wait(self) -> float:
        """How much later a request must come to find what is asked for now: in seconds of the clock, or in requests."""
        return self.seconds - _ROUNDING_S if self.seconds else self.requests + 1.0

    def __str__(self) -> str:
        return f"{self.seconds * 1e3:g}ms" if self.seconds else f"{self.requests}"


@dataclass(frozen=True, slots=True)
class Setup:
    """What a prefetcher is told before the first request; nothing of it comes from the trace's future.

    Attributes:
        capacity: of the cache, in objects, or in bytes where sizes count.
        delay: how long a prefetch is under way. A live cache measures it.
        clients: whether the trace tells clients apart.
        clock: whether the trace has one.
    """

    capacity: int
    delay: Delay = Delay()
    clients: bool = False
    clock: bool = False
