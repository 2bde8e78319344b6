"""When a value that is still there is loaded anew: it is stale, or it is worth doing so early.

Early refresh is XFetch (A. Vattani, F. Chierichetti, K. Lowenstein: Optimal Probabilistic Cache Stampede Prevention, VLDB 2015): a hit
with ``left`` seconds of freshness refreshes when ``-delta * beta * ln(u) >= left``, where ``delta`` is how long a load takes and
``u`` is uniform in (0, 1]. Here ``beta`` is weighted by how likely the key is to be read again while the new value is fresh,
``1 - exp(-ttl / gap)``, from the smoothed gap between its reads: a key that is read once is not loaded for nobody.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

_REMEMBERED = 65_536


class Rates:
    """The gap between reads of each key, in seconds, smoothed; of the keys read lately."""

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        self._seen: dict[bytes, tuple[float, float]] = {}  # when last, and the gap (inf: read once)
        self._remembered = remembered

    def read(self, key: bytes, now: float) -> float:
        """Take in a read; the gap, ``inf`` at the first."""
        last, gap = self._seen.pop(key, (None, math.inf))
        if last is not None:
            gap = now - last if gap == math.inf else 0.7 * gap + 0.3 * (now - last)
        elif len(self._seen) >= self._remembered:
            del self._seen[next(iter(self._seen))]  # the one that was read longest ago
        self._seen[key] = (now, gap)
        return gap


def is_due(
    left_s: float, *, beta: float, load_s: float, again: float, draw: Callable[[], float] = random.random
) -> bool:
    """Whether a hit with so much freshness left refreshes; ``again``: the chance that the key is read again.

    >>> is_due(-0.1, beta=0.0, load_s=0.0, again=0.0)  # it is stale
    True
    >>> is_due(1.0, beta=1.0, load_s=2.0, again=1.0, draw=lambda: 0.5)  # -2 ln 0.5 = 1.39
    True
    >>> is_due(1.0, beta=1.0, load_s=2.0, again=0.5, draw=lambda: 0.5)
    False
    """
    if left_s <= 0:
        return True
    weight = beta * load_s * again
    return weight > 0 and -weight * math.log(1.0 - draw()) >= left_s


def chance(ttl_s: float, gap_s: float) -> float:
    """That a key with this gap between reads is read within ``ttl_s``.

    >>> chance(10.0, math.inf)
    0.0
    """
    return 1.0 if gap_s <= 0 else 1.0 - math.exp(-ttl_s / gap_s)
