"""How much traffic a bandit gives the candidate."""

from __future__ import annotations

import math

import numpy as np

from predis.errors import InvalidInput
from predis.stats.moments import Moments

_POINTS = 512  # of the posterior over which the other's is averaged


def thompson_share(baseline: Moments, candidate: Moments, *, floor: float) -> float:
    """Probability that the candidate's mean reward is the higher one, within [floor, 1 - floor].

    To give it that share is Thompson sampling without the lottery (Thompson 1933; Chapelle and Li 2011): each request
    draws its version by the routing hash, and the long-run split is the same. Rewards of 0 and 1 have a Beta posterior under
    a uniform prior, others a normal one, with two values at the common mean and of the common variance as
    prior. floor: 0 <= floor <= 1/2, what both sides always keep, so that it can be noticed if the world changes. Raises
    `InvalidInput` for another floor.

    >>> share = thompson_share(Moments.of([0] * 90 + [1] * 10), Moments.of([0] * 80 + [1] * 20), floor=0.02)
    >>> round(share, 3)
    0.975
    """
    if not 0.0 <= floor <= 0.5:
        raise InvalidInput(f"floor must lie in [0, 0.5], got {floor}")
    if _of_zeros_and_ones(baseline) and _of_zeros_and_ones(candidate):
        share = _beta_above(baseline, candidate)
    else:
        share = _normal_above(baseline, candidate)
    return min(max(share, floor), 1.0 - floor)


def _of_zeros_and_ones(side: Moments) -> bool:
    """x^2 <= x within [0, 1], with equality for 0 and 1 alone: then, and only then, is the variance as large as it can be."""
    most = side.n * side.mean * (1.0 - side.mean)
    return 0.0 <= side.mean <= 1.0 and math.isclose(side.m2, most, rel_tol=1e-9, abs_tol=1e-9)


def _beta_above(baseline: Moments, candidate: Moments) -> float:
    from scipy.special import betainc, betaincinv

    a, b = ((1.0 + side.n * side.mean, 1.0 + side.n * (1.0 - side.mean)) for side in (baseline, candidate))
    at = betaincinv(*b, (np.arange(_POINTS) + 0.5) / _POINTS)
    return float(betainc(*a, at).mean())


def _normal_above(baseline: Moments, candidate: Moments) -> float:
    both = baseline + candidate
    if both.m2 == 0.0:
        return 0.5
    prior = 2.0
    means, squares = [], []
    for side in (baseline, candidate):
        n = side.n + prior
        means.append((side.n * side.mean + prior * both.mean) / n)
        squares.append((side.m2 + prior * both.m2 / both.n) / n / n)
    return 0.5 * math.erfc((means[0] - means[1]) / math.sqrt(2.0 * sum(squares)))
