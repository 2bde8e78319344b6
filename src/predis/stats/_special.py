"""Quantiles and tails of the normal and chi-square distributions.

`scipy.stats` costs more than a second to import and `scipy.special` a tenth of one, so nothing of scipy is
loaded before the first chi-square is asked for.
"""

from __future__ import annotations

import math
from functools import lru_cache


@lru_cache(maxsize=256)
def normal_quantile(probability: float) -> float:
    """z with P(Z <= z) = probability."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)


def normal_two_sided(z: float) -> float:
    """P(|Z| >= |z|)."""
    return math.erfc(abs(z) / math.sqrt(2.0))


@lru_cache(maxsize=1024)
def chi2_quantile(probability: float, freedom: int) -> float:
    """x with P(X <= x) = probability for `freedom` >= 1 degrees of freedom."""
    from scipy.special import gammaincinv

    return 2.0 * float(gammaincinv(freedom / 2.0, probability))


def chi2_tail(x: float, freedom: int) -> float:
    """P(X >= x)."""
    from scipy.special import gammaincc

    return float(gammaincc(freedom / 2.0, x / 2.0))
