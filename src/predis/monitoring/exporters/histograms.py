"""Histograms for backends that do not take buckets: as values that could have been observed, or as quantiles."""

from __future__ import annotations

from collections.abc import Sequence


def spread(bounds: Sequence[float], cells: Sequence[float]) -> list[tuple[float, int]]:
    """One value for each bucket that holds something, and how often: the middle of the bucket, off by half its width at most.

    What lies above the last bound stands for what the sum leaves for it, so that the sum of all comes out right where it can.

    >>> spread((1.0, 2.0), (4, 0, 2, 12.0))
    [(0.5, 4), (5.0, 2)]
    """
    *counts, beyond, total = cells
    lows = (0.0, *bounds)
    found = [
        ((low + high) / 2, round(count))
        for low, high, count in zip(lows, bounds, counts, strict=False)
        if count > 0
    ]
    if beyond > 0:
        left = total - sum(value * count for value, count in found)
        found.append((max(bounds[-1], left / beyond), round(beyond)))
    return found


def quantile(bounds: Sequence[float], cells: Sequence[float], *, q: float) -> float | None:
    """The value that a share ``q`` of the observations does not exceed, as Prometheus reckons it: evenly within a bucket.

    ``None`` where nothing was observed; the last bound where it lies beyond.

    >>> quantile((1.0, 2.0), (4, 4, 0, 8.0), q=0.75)
    1.5
    """
    *counts, _total = cells
    rank = q * sum(counts)
    if rank <= 0:
        return None
    low = 0.0
    for high, count in zip(bounds, counts, strict=False):
        if count and rank <= count:
            return low + (high - low) * rank / count
        rank -= count
        low = high
    return bounds[-1]
