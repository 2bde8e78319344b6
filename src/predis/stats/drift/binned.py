"""Detectors of one feature, on counts in bins fixed on the reference: effect, significance and persistence.

The rates of false alarms hold for rows that are independent. For time-ordered tables there is `Ensemble`, which learns from the
reference how much its own windows differ.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from predis.errors import InvalidInput
from predis.stats._arrays import Floats, at_least_zero, fraction, tallies
from predis.stats._special import chi2_quantile, chi2_tail
from predis.stats.drift import distances
from predis.stats.drift.psi import Verdict, pair, pooled_shares, psi_test


class Tested(NamedTuple):
    """A distance, how likely one as large is without drift, and the distance that has probability alpha."""

    effect: float
    p_value: float
    threshold: float


class BinDetector(ABC):
    """Alarm when `needed` of the last `of` windows drifted.

    reference_counts: int64[B], the reference over fixed bins. alpha: rate of false verdicts per window; lower is quieter
    and later. floor: distance below which no change matters, however certain; None takes the detector's own. min_rows: rows that both
    samples need before anything is called drift. needed: raising it makes alarms rarer and later. of: raising it forgets more
    slowly. If windows were independent, the chance that the last three hold two false ones is about 3 alpha^2. A window
    with too few rows says nothing and is not remembered.

    Memory: the reference and `of` booleans. Cost of an update: some microseconds, whatever the number of rows.
    """

    default_floor: float

    def __init__(
        self,
        reference_counts: ArrayLike,
        *,
        alpha: float = 0.01,
        floor: float | None = None,
        min_rows: int = 200,
        needed: int = 2,
        of: int = 3,
    ) -> None:
        self.reference_counts = tallies(reference_counts, "reference_counts").copy()
        self.alpha = fraction(alpha, "alpha")
        self.floor = at_least_zero(self.default_floor if floor is None else floor, "floor")
        self.min_rows = min_rows
        if not 1 <= needed <= of:
            raise InvalidInput(f"needed must be between 1 and of, got needed={needed}, of={of}")
        self.needed = needed
        self.of = of
        self.reset()

    def reset(self) -> None:
        """Forget all windows."""
        self._verdict: Verdict | None = None
        self._recent: deque[bool] = deque(maxlen=self.of)

    def update(self, counts: ArrayLike) -> None:
        """Add one window, counts int64[B]. Raises `InvalidInput` and changes nothing if bins do not fit."""
        reference, current = pair(self.reference_counts, counts)
        self._verdict = self._judge(reference, current)
        if self._verdict.enough:
            self._recent.append(self._verdict.drifted)

    @property
    def verdict(self) -> Verdict | None:
        """The test of the last window, alone; None before the first."""
        return self._verdict

    @property
    def drift_detected(self) -> bool:
        """`needed` of the last `of` windows drifted."""
        return sum(self._recent) >= self.needed

    def _judge(self, reference: Floats, current: Floats) -> Verdict:
        sizes = float(reference.sum()), float(current.sum())
        enough = min(sizes) >= self.min_rows
        if min(sizes) == 0.0:
            return Verdict(
                math.nan, math.inf, self.floor, math.nan, int(sizes[1]), drifted=False, enough=False
            )
        tested = self._test(reference, current)
        drifted = enough and tested.p_value < self.alpha and tested.effect > self.floor
        return Verdict(
            tested.effect, tested.threshold, self.floor, tested.p_value, int(sizes[1]), drifted, enough
        )

    @abstractmethod
    def _test(self, reference: Floats, current: Floats) -> Tested:
        """Compare counts of two samples that have rows."""


class PsiDetector(BinDetector):
    """Population stability index with the threshold that fits the sample (Yurdakul 2018), see `psi_test`.

    >>> import numpy as np
    >>> from predis.stats.drift import PsiDetector
    >>> detector = PsiDetector([2500, 2500, 2500, 2500])
    >>> rng = np.random.default_rng(7)
    >>> for window in range(40):
    ...     shares = [.25, .25, .25, .25] if window < 20 else [.15, .25, .25, .35]
    ...     detector.update(rng.multinomial(1000, shares))
    ...     if detector.drift_detected:
    ...         print("drift in window", window)
    ...         break
    drift in window 21
    """

    default_floor = 0.02

    def _test(self, reference: Floats, current: Floats) -> Tested:
        found = psi_test(reference, current, alpha=self.alpha, floor=self.floor, min_rows=self.min_rows)
        return Tested(found.effect, found.p_value, found.threshold)


class KsDetector(BinDetector):
    """Kolmogorov-Smirnov at the cuts between bins; its distribution is Kolmogorov's (1933), on bins a bound of it (Noether 1963).

    With millions of rows every p-value is small; the floor asks for a gap of .05 that somebody may care about.

    >>> detector = KsDetector([2500, 2500, 2500, 2500], needed=1)
    >>> detector.update([150, 250, 250, 350])
    >>> detector.drift_detected, round(detector.verdict.effect, 3)
    (True, 0.1)
    """

    default_floor = 0.05

    def _test(self, reference: Floats, current: Floats) -> Tested:
        from scipy.special import kolmogi, kolmogorov

        effect = float(distances.kolmogorov_smirnov(distances.shares(reference), distances.shares(current)))
        root = math.sqrt(_harmonic(reference, current))
        return Tested(effect, float(kolmogorov(root * effect)), float(kolmogi(self.alpha)) / root)


class ChiSquareDetector(BinDetector):
    """Pearson's chi-square of two samples (1900), with Cohen's w (1988) as effect: for categories, and any bins.

    >>> detector = ChiSquareDetector([5000, 3000, 2000], needed=1)
    >>> detector.update([400, 300, 300])
    >>> detector.drift_detected, round(detector.verdict.effect, 3)
    (True, 0.265)
    """

    default_floor = 0.15

    def _test(self, reference: Floats, current: Floats) -> Tested:
        p, q = pooled_shares(reference, current)
        effect = float(distances.cohen_w(p, q))
        freedom, scale = p.size - 1, 1.0 / _harmonic(reference, current)
        if not freedom:
            return Tested(effect, 1.0, 0.0)
        found = float(distances.homogeneity(p * reference.sum(), q * current.sum()))
        threshold = math.sqrt(scale * chi2_quantile(1.0 - self.alpha, freedom))
        return Tested(effect, chi2_tail(found, freedom), threshold)


class JensenShannonDetector(BinDetector):
    """Jensen-Shannon distance (Lin 1991), bounded by 1 whatever happens; for equal distributions 8 ln 2 times its square is like PSI.

    >>> detector = JensenShannonDetector([5000, 3000, 2000], needed=1)
    >>> detector.update([400, 300, 300])
    >>> detector.drift_detected, round(detector.verdict.effect, 3)
    (True, 0.106)
    """

    default_floor = 0.05

    def _test(self, reference: Floats, current: Floats) -> Tested:
        p, q = pooled_shares(reference, current)
        effect = float(distances.jensen_shannon(p, q))
        freedom, size = p.size - 1, 8.0 * math.log(2.0) * _harmonic(reference, current)
        if not freedom:
            return Tested(effect, 1.0, 0.0)
        threshold = math.sqrt(chi2_quantile(1.0 - self.alpha, freedom) / size)
        return Tested(effect, chi2_tail(size * effect * effect, freedom), threshold)


class WassersteinDetector(BinDetector):
    """Earth mover's distance in ranks of the reference: sensitive to how far rows moved, not only to how many.

    Without drift the root of NM / (N + M) times the distance is at most the integral of a Brownian bridge's absolute value
    (Shepp 1982), whose tail at x is at most 1.5 erfc(sqrt(6) x) for x >= .3 (checked by simulation).

    >>> detector = WassersteinDetector([2500, 2500, 2500, 2500], needed=1)
    >>> detector.update([150, 250, 250, 350])
    >>> detector.drift_detected, round(detector.verdict.effect, 3)
    (True, 0.075)
    """

    default_floor = 0.025

    def _test(self, reference: Floats, current: Floats) -> Tested:
        from scipy.special import erfcinv

        effect = float(distances.wasserstein(distances.shares(reference), distances.shares(current)))
        root = math.sqrt(6.0 * _harmonic(reference, current))
        p_value = min(1.0, 1.5 * math.erfc(root * effect))
        return Tested(effect, p_value, float(erfcinv(min(self.alpha / 1.5, 1.0))) / root)


def _harmonic(reference: Floats, current: Floats) -> float:
    """NM / (N + M)."""
    n, m = float(np.sum(reference)), float(np.sum(current))
    return n * m / (n + m)
