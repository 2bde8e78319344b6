"""Latencies as counts in buckets 0.1 % wide, from 1 us to 1,000 s.

A load test must tell p99.9 of millions of latencies from several processes. Percentiles cannot be averaged; counts can be added, and a
percentile read from the sum is within 0.05 % of the exact one, however many were counted. The extremes and the mean are exact.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

LOWEST_S: Final = 1e-6
WIDTH: Final = 1.001
BUCKETS: Final = math.ceil(math.log(1e9) / math.log(WIDTH)) + 1
_LOG_WIDTH: Final = math.log(WIDTH)


class Histogram:
    """Counts of latencies; what lies below 1 us or above 1,000 s is counted at that end.

    >>> seen = Histogram([0.001, 0.002, 0.003, 0.1])
    >>> seen.total, f"{seen.quantile(0.5) * 1000:.2f} ms", f"{seen.quantile(1.0) * 1000:.0f} ms"
    (4, '2.00 ms', '100 ms')
    """

    __slots__ = ("counts", "least", "most", "sum", "total")

    def __init__(self, values_s: ArrayLike = ()) -> None:
        self.counts: NDArray[np.int64] = np.zeros(BUCKETS, np.int64)
        self.total = 0
        self.sum = 0.0
        self.least, self.most = math.inf, 0.0
        self.add(values_s)

    def add(self, values_s: ArrayLike) -> None:
        """Count latencies, in seconds."""
        values = np.asarray(values_s, np.float64)
        if not values.size:
            return
        places = np.log(np.maximum(values, LOWEST_S) / LOWEST_S) / _LOG_WIDTH
        self.counts += np.bincount(np.minimum(places.astype(np.int64), BUCKETS - 1), minlength=BUCKETS)
        self.total += values.size
        self.sum += float(values.sum())
        self.least = min(self.least, float(values.min()))
        self.most = max(self.most, float(values.max()))

    def merge(self, other: Histogram) -> None:
        """Add the other's counts to these."""
        self.counts += other.counts
        self.total += other.total
        self.sum += other.sum
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)

    @property
    def mean(self) -> float:
        """Seconds; NaN if nothing was counted."""
        return self.sum / self.total if self.total else math.nan

    def quantile(self, q: float) -> float:
        """The latency in seconds that a share ``q`` of all does not exceed; NaN if nothing was counted."""
        if not self.total:
            return math.nan
        rank = max(math.ceil(q * self.total * (1 - 1e-12)), 1)
        if rank in (1, self.total):
            return self.least if rank == 1 else self.most
        bucket = int(np.searchsorted(np.cumsum(self.counts), rank))
        centre: float = LOWEST_S * WIDTH ** (bucket + 0.5)
        return min(max(centre, self.least), self.most)

    def between(self, low_s: float, high_s: float) -> int:
        """How many latencies lie from ``low_s`` to below ``high_s``, to the width of a bucket."""
        first, last = (_bucket(edge) for edge in (low_s, high_s))
        return int(self.counts[first:last].sum())


def _bucket(edge_s: float) -> int:
    if edge_s <= LOWEST_S or math.isinf(edge_s):
        return BUCKETS if edge_s > LOWEST_S else 0
    return min(round(math.log(edge_s / LOWEST_S) / _LOG_WIDTH), BUCKETS)
