"""When the requests of an open loop are due: moments that depend on nothing but the rate.

That is the point of an open loop. Users do not wait for each other; where a server stalls for a second, a second's worth of requests
falls due meanwhile, and each of them has waited. A generator that sends the next request only after an answer leaves them out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np


def constant(rate: float, *, offset: float = 0.0) -> Iterator[float]:
    """Moments in seconds from the start, evenly spaced; ``offset`` in [0, 1) is the first one's place in its interval."""
    return ((number + offset) / rate for number in itertools.count())


def poisson(rate: float, *, seed: int) -> Iterator[float]:
    """Moments in seconds from the start with exponential gaps: what many users who know nothing of each other make."""
    rng = np.random.default_rng(seed)
    last = 0.0
    while True:
        moments = last + np.cumsum(rng.exponential(1 / rate, 1_024))
        last = float(moments[-1])
        yield from moments.tolist()
