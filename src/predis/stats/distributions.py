"""Quantiles and distributions from bucket counts, under continuous looking."""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
from numpy.typing import ArrayLike

from predis.errors import InvalidInput
from predis.stats import latency
from predis.stats._arrays import Floats, fraction, tallies
from predis.stats.sequential import log_martingale


def quantile_interval(counts: ArrayLike, q: float, *, alpha: float) -> tuple[float, float]:
    """(low, high) in seconds that contain the q-quantile at all times at once with probability >= 1 - alpha.

    counts: latencies per bucket of `latency`, [BUCKETS]; q: 0 < q < 1, fixed beforehand. The bounds are edges of
    buckets, (0, inf) without data. Whether a value is at most the true quantile is a coin of chance q, so the confidence
    sequence of a proportion says which number of them is possible (Howard and Ramdas 2022, "Sequential
    estimation of quantiles"). Raises `InvalidInput` for another shape or impossible numbers.

    >>> counts = latency.count(np.linspace(0.010, 0.110, 10_001))
    >>> [f"{bound * 1000:.0f} ms" for bound in quantile_interval(counts, 0.5, alpha=0.05)]
    ['56 ms', '65 ms']
    """
    fraction(q, "q")
    fraction(alpha, "alpha")
    sizes = tallies(counts, "counts")
    if sizes.size != latency.BUCKETS:
        raise InvalidInput(f"counts must have {latency.BUCKETS} buckets, got {sizes.size}")
    below = np.cumsum(sizes)[:-1].tolist()  # at each edge: values under it
    total = float(sizes.sum())
    middle = bisect_left(below, q * total)  # edges before it have fewer than q of the values under them

    def possible(under: float) -> bool:
        return log_martingale(under, total, p=q) < -math.log(alpha)

    first = bisect_left(range(middle), True, key=lambda edge: possible(below[edge]))
    last = bisect_left(range(middle, len(below)), True, key=lambda edge: not possible(below[edge])) + middle
    low = float(latency.EDGES[first - 1]) if first > 0 else 0.0
    return low, float(latency.EDGES[last]) if last < len(below) else math.inf


def distribution_distance(
    baseline: ArrayLike, candidate: ArrayLike, *, alpha: float
) -> tuple[float, float, float]:
    """(estimate, low, high) of the Kolmogorov distance of two samples counted in the same buckets.

    baseline, candidate: [B]. The distance is the largest gap between the two cumulated shares, over the buckets' edges:
    0 equal, 1 apart. The bounds hold at all times at once with probability >= 1 - alpha: each side has a band around its whole
    distribution (Howard and Ramdas 2022, theorem 2), at alpha / 2. (NaN, 0, 1) while a side is empty. Raises
    `InvalidInput` for shapes that differ.

    >>> distance = distribution_distance([500, 300, 200], [200, 300, 500], alpha=0.05)
    >>> [round(value, 2) for value in distance]
    [0.3, 0.12, 0.48]
    """
    fraction(alpha, "alpha")
    sides = tallies(baseline, "baseline"), tallies(candidate, "candidate")
    if sides[0].size != sides[1].size:
        raise InvalidInput(f"both sides need the same buckets, got {sides[0].size} and {sides[1].size}")
    totals = [float(side.sum()) for side in sides]
    if min(totals) == 0.0:
        return math.nan, 0.0, 1.0
    shares: list[Floats] = [np.cumsum(side) / total for side, total in zip(sides, totals, strict=True)]
    estimate = float(np.abs(shares[0] - shares[1]).max())
    width = sum(_band(total, alpha=alpha / 2.0) for total in totals)
    return estimate, max(estimate - width, 0.0), min(estimate + width, 1.0)


def _band(n: float, *, alpha: float) -> float:
    """Half the width of the band that holds the whole distribution for all n at once."""
    return 0.85 * math.sqrt((math.log(1.0 + math.log(n)) + 0.8 * math.log(1612.0 / alpha)) / n)
