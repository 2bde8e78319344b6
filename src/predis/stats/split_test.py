"""Does traffic split as it should, under continuous looking (sample ratio mismatch)?

A rollout that sends 10 % to the candidate and sees 9 % arrive has lost requests on the way, and it did not lose them by
chance: slow ones time out, bad ones are retried. Nothing else it measures can then be trusted (Fabijan et al. 2019).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from predis.stats._arrays import Floats, fraction
from predis.stats._betting import checked_cap, checked_counts, log_factors, log_mean, stored_state

TILTS = (1.01, 1.03, 1.1, 1.3, 2.0, 5.0)  # of the odds, each way
CAP = 4.0


class SplitTest:
    """Evidence that the candidate does not get the share it should, by bets on tilted odds (Lindon and Malek 2022).

    `log_wealth` >= log(1 / alpha) EVER happens with probability at most alpha if each unit is dealt to the
    candidate with the stated share, independently of the others. Where routing is sticky the unit is the routing key
    and not its requests. cap: the most that one increment may multiply the wealth by.

    >>> test = SplitTest()
    >>> for look in range(40):
    ...     test.update(9_200, 800, share=0.1)
    >>> test.log_wealth > 4
    True
    """

    def __init__(self, cap: float = CAP) -> None:
        self.cap = checked_cap(cap)
        self.reset()

    def reset(self) -> None:
        self._wealth: Floats = np.zeros(2 * len(TILTS))

    def update(self, baseline: float, candidate: float, *, share: float) -> None:
        """Take in one increment: units of each side, and the candidate's share while they were dealt, which may change
        from one increment to the next. Raises `InvalidInput` for impossible numbers.
        """
        fraction(share, "share")
        checked_counts(baseline, candidate)
        tilts = np.array([*TILTS, *(1.0 / tilt for tilt in TILTS)])
        factors = log_factors(tilts, share, hits=candidate, others=baseline, cap=self.cap, clustered=False)
        self._wealth = self._wealth + factors

    @property
    def log_wealth(self) -> float:
        """Natural logarithm of the evidence: 0 at first, log(1 / alpha) decides."""
        return log_mean(self._wealth)

    def to_list(self) -> list[float]:
        """The whole state as numbers, for JSON."""
        return [self.cap, *self._wealth.tolist()]

    @classmethod
    def from_list(cls, values: Sequence[float]) -> SplitTest:
        """The test that gave `values`. Raises `InvalidInput` for anything else."""
        cap, *wealth = stored_state(values, size=1 + 2 * len(TILTS))
        test = cls(cap)
        test._wealth = np.array(wealth)
        return test
