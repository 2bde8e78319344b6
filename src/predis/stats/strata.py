"""Two means compared over times in which the sides were dealt different shares.

Where a rollout moves from 10 % to 50 % while the level of what is measured moves too, means cumulated over both steps
compare different mixes of hours (Simpson's paradox). Within a stratum, a time of one share, both sides met the same
hours. So differences are taken within each and joined, weighted by their information.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from predis.errors import InvalidInput
from predis.stats._arrays import fraction
from predis.stats.moments import LEAST, Moments, mixture_width, shared_variances

Stratum = tuple[Moments, Moments]


def stratified_difference(
    strata: Sequence[Stratum], *, alpha: float, tuned_at: float
) -> tuple[float, float, float]:
    """(estimate, low, high) of candidate mean - baseline mean, valid at all times at once with probability about 1 - alpha.

    strata: (baseline, candidate) of each; those with fewer than 50 values of a side, or values all alike, say nothing. Estimates of a
    stratum are weighted by V = 1 / (s_b^2/n_b + s_c^2/n_c); in information time, the sum of the V, their sum is a Brownian motion with
    drift, and so has the boundary of `difference_interval`. (NaN, -inf, inf) while no stratum says anything. Raises `InvalidInput`
    for an impossible alpha or `tuned_at`.

    >>> night = Moments(900, 0.2, 900 * 0.16), Moments(100, 0.1, 100 * 0.09)
    >>> day = Moments(500, 0.8, 500 * 0.16), Moments(500, 0.7, 500 * 0.21)
    >>> estimate, low, high = stratified_difference([night, day], alpha=0.05, tuned_at=500)
    >>> round(estimate, 2), low < -0.1 < high
    (-0.1, True)
    """
    fraction(alpha, "alpha")
    if not (tuned_at > 0 and math.isfinite(tuned_at)):
        raise InvalidInput(f"tuned_at must be a finite number of values above 0, got {tuned_at}")
    time = drift = 0.0
    variances: list[float] = []
    for baseline, candidate in strata:
        if min(baseline.n, candidate.n) < LEAST:
            continue
        own = shared_variances(baseline, candidate)
        spread = own[0] / baseline.n + own[1] / candidate.n
        if spread == 0.0:
            continue
        time += 1.0 / spread
        drift += (candidate.mean - baseline.mean) / spread
        variances.append(sum(own))
    if not variances:
        return math.nan, -math.inf, math.inf
    unit = sum(variances) / len(variances)
    width = mixture_width(time, tuned_at / unit, alpha=alpha)
    estimate = drift / time
    return estimate, estimate - width, estimate + width
