"""Is one rate more than `ratio` times another, under continuous looking, whatever both do over time?

An increment is what happened since the last look: n_b requests of the baseline, n_c of the candidate, and bad ones of
each. If the candidate's rate is exactly `ratio` times the baseline's, each bad event is the candidate's with
p0 = ratio n_c / (ratio n_c + n_b), and bets against that (see `_betting`) win nothing in the long run. Rates of
the hour and shares of traffic cancel: a bad night that hits both sides alike, or a step from 10 % to 50 %, is not
taken for a difference. Comparing rates cumulated over such times would be wrong (Simpson's paradox).

No assumption about rare events is needed. With a = theta/Z and g = 1/Z, p0 a + (1 - p0) g = 1; for requests that
fail independently the expected factor is at most exp(n_c r_c (a - 1) + n_b r_b (g - 1)), because 1 + y <= e^y, and the
exponent is <= 0 for every r_c <= ratio r_b (and for every r_c >= ratio r_b where theta < 1, as then a < 1).
For Poisson counts this is the test of Lindon and Malek (2022, "Anytime-valid inference for multinomial count data").
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from predis.errors import InvalidInput
from predis.stats._arrays import Floats
from predis.stats._betting import checked_cap, checked_counts, log_factors, log_mean, stored_state

TILTS = (1.25, 1.5, 2.0, 3.0, 6.0, 16.0)  # how many times `ratio` the bets are on
_ONE_SIDED = 1e-9  # a side with less than this share of the weight has, for all that can be said, no requests
CAP = 4.0  # three increments at least to reach 1/0.05

Count = tuple[float, float]  # (bad ones, of how many)


class RatioTest:
    """Evidence that the candidate's rate is above `ratio` times the baseline's (with `below`: that it is below that).

    `log_wealth` >= log(1 / alpha) EVER happens with probability at most alpha if it is not. ratio: raising it
    tolerates more. cap: the most that one increment may multiply the wealth by; raising it decides sooner on large
    increments and makes one stall count more.

    >>> test = RatioTest(1.0)
    >>> for look in range(12):
    ...     test.update((1, 100), (3, 100))
    >>> round(test.log_wealth, 2)
    4.57
    """

    def __init__(self, ratio: float, cap: float = CAP, *, below: bool = False) -> None:
        if not (ratio > 0 and math.isfinite(ratio)):
            raise InvalidInput(f"ratio must be a finite number above 0, got {ratio}")
        self.ratio = float(ratio)
        self.cap = checked_cap(cap)
        self.below = below
        self.reset()

    def reset(self) -> None:
        self._wealth: Floats = np.zeros(len(TILTS))

    def update(self, baseline: Count, candidate: Count) -> None:
        """Take in one increment: (bad, requests) of each side since the last.

        Where one side had no requests there is nothing to compare, and nothing changes. Raises `InvalidInput` for
        numbers that are negative or not finite.
        """
        (bad_b, n_b), (bad_c, n_c) = baseline, candidate
        checked_counts(bad_b, n_b, bad_c, n_c)
        share = self.ratio * n_c / (self.ratio * n_c + n_b) if n_c else 0.0
        if not _ONE_SIDED < share < 1.0 - _ONE_SIDED:
            return
        self._wealth = self._wealth + log_factors(self.tilts, share, hits=bad_c, others=bad_b, cap=self.cap)

    @property
    def tilts(self) -> Floats:
        """theta of each bet, float64[k]."""
        tilts = np.array(TILTS)
        return 1.0 / tilts if self.below else tilts

    @property
    def log_wealth(self) -> float:
        """Natural logarithm of the evidence: 0 at first, log(1 / alpha) decides."""
        return log_mean(self._wealth)

    def to_list(self) -> list[float]:
        """The whole state as numbers, for JSON."""
        return [self.ratio, self.cap, float(self.below), *self._wealth.tolist()]

    @classmethod
    def from_list(cls, values: Sequence[float]) -> RatioTest:
        """The test that gave `values`. Raises `InvalidInput` for anything else."""
        ratio, cap, below, *wealth = stored_state(values, size=3 + len(TILTS))
        test = cls(ratio, cap, below=bool(below))
        test._wealth = np.array(wealth)
        return test
