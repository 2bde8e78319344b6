"""How the candidate's scores differ from the baseline's on the same rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.state.records import Matrix
from predis.stats import numeric_bins, psi

FAR = 0.05
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_BARS = 30
_MOMENTS = 40


def score_shift(baseline: Matrix, candidate: Matrix) -> dict[str, Any]:
    """Both distributions, their distances, and the differences row by row. Both float64[n], finite, n >= 1."""
    bins = numeric_bins("score", baseline)
    difference = candidate - baseline
    return {
        "baseline": _summary(baseline),
        "candidate": _summary(candidate),
        "difference": _summary(difference),
        "psi": _known(psi(bins.count(baseline), bins.count(candidate))),
        "ks": ks_distance(baseline, candidate),
        "correlation": _correlation(baseline, candidate),
        "rank_correlation": _correlation(_ranks(baseline), _ranks(candidate)),
        "far": FAR,
        "share_far": float((np.abs(difference) > FAR).mean()),
        "scores": _histogram(baseline, candidate),
        "differences": _histogram(difference),
    }


def flips(baseline: Matrix, candidate: Matrix, *, threshold: float) -> dict[str, Any]:
    """How many rows change sides of the threshold, and which way."""
    before, after = baseline >= threshold, candidate >= threshold
    up, down = int((~before & after).sum()), int((before & ~after).sum())
    return {
        "threshold": threshold,
        "rows": len(before),
        "flips": up + down,
        "up": up,
        "down": down,
        "rate": (up + down) / len(before),
        "baseline_share": float(before.mean()),
        "candidate_share": float(after.mean()),
    }


def over_time(
    received_at: NDArray[np.int64], baseline: Matrix, *, candidate: Matrix, threshold: float
) -> list[dict[str, Any]]:
    """Means and flips in equal stretches of the window, those without rows left out. ``at`` is nanoseconds."""
    first, last = int(received_at.min()), int(received_at.max()) + 1
    width = max((last - first) // _MOMENTS, 1)
    places = np.minimum((received_at - first) // width, _MOMENTS - 1)
    flipped = (baseline >= threshold) != (candidate >= threshold)
    rows = np.bincount(places)
    sums = [np.bincount(places, weights=each) for each in (baseline, candidate, flipped)]
    return [
        {
            "at": first + int(place) * width,
            "rows": int(rows[place]),
            "baseline": float(sums[0][place] / rows[place]),
            "candidate": float(sums[1][place] / rows[place]),
            "flip_rate": float(sums[2][place] / rows[place]),
        }
        for place in np.flatnonzero(rows)
    ]


def ks_distance(first: Matrix, second: Matrix) -> float:
    """Largest distance between the two empirical distribution functions, 0 to 1.

    >>> ks_distance(np.array([0.1, 0.2, 0.3]), np.array([0.25, 0.3, 0.4]))
    0.6666666666666666
    """
    every = np.concatenate([first, second])
    below = [np.searchsorted(np.sort(side), every, side="right") / len(side) for side in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


def _summary(values: Matrix) -> dict[str, Any]:
    found = np.quantile(values, QUANTILES)
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "quantiles": dict(zip(map(str, QUANTILES), map(float, found), strict=True)),
    }


def _correlation(first: Matrix, second: Matrix) -> float | None:
    """Pearson's; nothing where one side is constant."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return _known(float(np.corrcoef(first, second)[0, 1]))


def _ranks(values: Matrix) -> Matrix:
    """Midranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    found: Matrix = (ends - (counts - 1) / 2.0)[inverse]
    return found


def _histogram(*sides: Matrix) -> dict[str, Any]:
    """Shares of rows in the same equal bars."""
    every = np.concatenate(sides)
    low, high = float(every.min()), float(every.max())
    edges = np.linspace(low, high if high > low else low + 1.0, _BARS + 1)
    shares = [(np.histogram(side, edges)[0] / len(side)).tolist() for side in sides]
    return {"edges": edges.tolist(), "shares": shares}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
