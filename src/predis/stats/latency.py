"""Latencies as counts in fixed buckets: 10 us to 100 s, each bucket 4.9 % wide.

Quantiles cannot be averaged over workers or windows; counts can be added, and any quantile read from the
sum is within one bucket (4.9 %) of the exact one. 338 buckets, the first for what is faster than 10 us, the
last for 100 s and slower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from predis.errors import InvalidInput
from predis.stats._arrays import Floats, Ints, tallies, vector

_PER_DECADE = 48
_DECADES = 7


def _edges() -> Floats:
    edges: Floats = 10.0 ** (np.arange(_PER_DECADE * _DECADES + 1) / _PER_DECADE - 5.0)
    edges.setflags(write=False)
    return edges


EDGES: Final[Floats] = _edges()
"""float64[337], seconds, ascending; bucket i holds EDGES[i-1] <= latency < EDGES[i]."""

BUCKETS: Final[int] = EDGES.size + 1


def count(values_s: ArrayLike) -> Ints:
    """How many of `values_s` float64[n] (seconds) fall in each bucket: int64[BUCKETS], adding up to n.

    Raises `InvalidInput` if a value is NaN or the shape is not [n].
    """
    values = vector(values_s, "values_s")
    if np.isnan(values).any():
        raise InvalidInput("values_s contains NaN; a request without a latency must not be counted")
    return np.bincount(EDGES.searchsorted(values, side="right"), minlength=BUCKETS)


def quantile(counts: ArrayLike, q: float) -> float:
    """The q-quantile in seconds, 0 <= q <= 1, of counts [BUCKETS]; NaN if nothing was counted.

    It lies in the same bucket as the ceil(q n)-th smallest latency, so it is off by at most 4.9 % between
    10 us and 100 s; outside of that it is 10 us or 100 s. Raises `InvalidInput` for another shape or q.
    """
    sizes = tallies(counts, "counts")
    if sizes.size != BUCKETS:
        raise InvalidInput(f"counts must have {BUCKETS} buckets, got {sizes.size}")
    if not 0.0 <= q <= 1.0:
        raise InvalidInput(f"q must lie in [0, 1], got {q}")
    cumulated = np.cumsum(sizes)
    total = float(cumulated[-1])
    if total == 0.0:
        return math.nan
    rank = max(math.ceil(q * total * (1.0 - 1e-12)), 1)
    bucket = int(np.searchsorted(cumulated, rank))
    if bucket == 0 or bucket == BUCKETS - 1:
        return float(EDGES[0] if bucket == 0 else EDGES[-1])
    within = (rank - 0.5 - float(cumulated[bucket - 1])) / float(sizes[bucket])
    return float(EDGES[bucket - 1] * (EDGES[bucket] / EDGES[bucket - 1]) ** within)


@dataclass(frozen=True, eq=False)
class LatencyHistogram:
    """Counts of latencies with their arithmetic.

    counts: int64[BUCKETS]. Histograms add up; none is ever changed.

    >>> histogram = LatencyHistogram.of([0.004, 0.005, 0.006]) + LatencyHistogram.of([0.200])
    >>> histogram.total, f"{histogram.quantile(0.5) * 1000:.1f} ms", histogram.share_above(0.1)
    (4, '5.0 ms', 0.25)
    """

    counts: Ints

    def __post_init__(self) -> None:
        if np.shape(self.counts) != (BUCKETS,):
            raise InvalidInput(f"counts must have shape ({BUCKETS},), got {np.shape(self.counts)}")

    @classmethod
    def of(cls, values_s: ArrayLike) -> LatencyHistogram:
        """The histogram of `values_s` float64[n], in seconds."""
        return cls(count(values_s))

    def __add__(self, other: LatencyHistogram) -> LatencyHistogram:
        return LatencyHistogram(self.counts + other.counts)

    @property
    def total(self) -> int:
        """Latencies counted."""
        return int(self.counts.sum())

    def quantile(self, q: float) -> float:
        """The q-quantile in seconds; see `quantile`."""
        return quantile(self.counts, q)

    def share_above(self, seconds: float) -> float:
        """Share of latencies in buckets that lie wholly at or above `seconds`; NaN if nothing was counted."""
        if self.total == 0:
            return math.nan
        first = int(EDGES.searchsorted(seconds, side="left")) + 1
        return float(self.counts[first:].sum()) / self.total
