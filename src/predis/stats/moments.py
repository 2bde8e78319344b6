"""Count, mean and squared deviations of a sample, which add up over replicas and windows; and two means compared.

The interval is an asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024, "Time-uniform
central limit theory and asymptotic confidence sequences"). Values of any size and shape have no exact one: somebody may
always hold back one enormous value for later. What holds is what holds for the ordinary interval of a mean: with enough
values the average is normal; only here for all moments from then on at once.

Information time. The difference D of two means has variance 1/V with V = 1 / (s_b^2/n_b + s_c^2/n_c), and V D moves
like a Brownian motion with drift at time V, whatever the shares of traffic are and however they change (Jennison and
Turnbull 1997). So Robbins' normal mixture gives, for all times at once,

    |D - truth| < sqrt((V + rho) log((V + rho) / (rho alpha^2))) / V
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from predis.errors import InvalidInput
from predis.stats._arrays import fraction, vector

LEAST = 50  # values of each side before the average is taken for normal


@dataclass(frozen=True)
class Moments:
    """n values, their mean, and m2, the sum of squared deviations from it (Welford 1962; Chan, Golub, LeVeque 1983).

    >>> Moments.of([1.0, 2.0]) + Moments.of([3.0])
    Moments(n=3, mean=2.0, m2=2.0)
    """

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def __post_init__(self) -> None:
        if self.n < 0 or not math.isfinite(self.mean) or not (self.m2 >= 0.0 and math.isfinite(self.m2)):
            raise InvalidInput(f"moments need n >= 0, a finite mean and a finite m2 >= 0, got {self}")

    @classmethod
    def of(cls, values: ArrayLike) -> Moments:
        """The moments of `values` float64[n]. Raises `InvalidInput` unless every one is finite."""
        array = vector(values, "values")
        if not np.isfinite(array).all():
            raise InvalidInput("values must be finite; leave out what is not known")
        if array.size == 0:
            return cls()
        mean = float(array.mean())
        return cls(array.size, mean, float(np.square(array - mean).sum()))

    @classmethod
    def from_list(cls, values: Sequence[float]) -> Moments:
        """What `to_list` gave. Raises `InvalidInput` for anything else."""
        try:
            n, mean, m2 = values
            return cls(int(n), float(mean), float(m2))
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"moments are stored as [n, mean, m2], got {values!r:.80}") from error

    def to_list(self) -> list[float]:
        """[n, mean, m2], for JSON."""
        return [self.n, self.mean, self.m2]

    def __add__(self, other: Moments) -> Moments:
        n = self.n + other.n
        if n == 0:
            return self
        gap = other.mean - self.mean
        return Moments(
            n,
            (self.n * self.mean + other.n * other.mean) / n,
            self.m2 + other.m2 + gap * gap * self.n * other.n / n,
        )

    @property
    def variance(self) -> float:
        """Sample variance (divisor n - 1); NaN of fewer than two values."""
        return self.m2 / (self.n - 1) if self.n > 1 else math.nan


def difference_interval(
    baseline: Moments, candidate: Moments, *, alpha: float, tuned_at: float
) -> tuple[float, float]:
    """(low, high) of candidate mean - baseline mean, valid at all times at once with probability about 1 - alpha.

    tuned_at: values of each side at which the interval is to be narrowest, fixed beforehand; it is valid for any, and
    wrong by a factor of ten costs about a tenth of the width. (-inf, inf) below 50 values of a side, and while all values of each are the
    same. Asymptotic: see above. Raises `InvalidInput` for an impossible alpha or `tuned_at`.

    >>> baseline, candidate = Moments(5000, 10.0, 5000 * 4.0), Moments(5000, 10.5, 5000 * 4.0)
    >>> [round(bound, 3) for bound in difference_interval(baseline, candidate, alpha=0.05, tuned_at=5000)]
    [0.379, 0.621]
    """
    fraction(alpha, "alpha")
    if not (tuned_at > 0 and math.isfinite(tuned_at)):
        raise InvalidInput(f"tuned_at must be a finite number of values above 0, got {tuned_at}")
    if min(baseline.n, candidate.n) < LEAST:
        return -math.inf, math.inf
    variances = shared_variances(baseline, candidate)
    spread = variances[0] / baseline.n + variances[1] / candidate.n
    if spread == 0.0:
        return -math.inf, math.inf
    width = mixture_width(1.0 / spread, tuned_at / sum(variances), alpha=alpha)
    difference = candidate.mean - baseline.mean
    return difference - width, difference + width


def shared_variances(baseline: Moments, candidate: Moments) -> tuple[float, float]:
    """The variance of each side, at least that of both together; both with two values or more.

    Of skewed values a small sample usually misses the large ones, and both its mean and its variance are too small
    at once. That the other side saw some is the best that is known. Where the sides are alike it costs nothing.
    """
    both = (baseline.m2 + candidate.m2) / (baseline.n + candidate.n - 2)
    return max(baseline.variance, both), max(candidate.variance, both)


def mixture_width(time: float, tuned_at: float, *, alpha: float) -> float:
    """Half the width of Robbins' normal mixture at an information time; it is narrowest, for its time, at `tuned_at`."""
    rho = tuned_at / _tuning(alpha)
    return math.sqrt((time + rho) * math.log((time + rho) / (rho * alpha * alpha))) / time


def _tuning(alpha: float) -> float:
    """V / rho at which the mixture's boundary is narrowest: the root of x = log(1 + x) - 2 log(alpha)."""
    x = -2.0 * math.log(alpha)
    for _ in range(60):
        x = math.log1p(x) - 2.0 * math.log(alpha)
    return x
