"""What prefetching may cost: the price of a wasted load.

Two limits. Loads: each miss that a plain LRU cache would have had grants so many loads of the backend, a little more than one; each real
load takes one. Savings are limited, so a burst of wrong guesses wastes no more than they are, however long all went well; when they are
gone nothing is asked for. Precision: when too few prefetches are requested the price rises until only the surer ones are left. Where
hardly any is, it is off, whatever the odds say, until that is forgotten (some 60,000 requests): odds count all guesses, and somebody may
see to it that just those fail that were acted on.
"""

from __future__ import annotations

from predis.cache.predictor.tuning import Tuning

_STEP = 1.04  # by which the price changes at each review
_HOPELESS = 0.2  # share of the wanted precision below which it is off
_AGAIN = 0.9  # share from which it is tried again
_HIGHEST = 20.0
_RATE = 0.004  # of the moving precision
_MARGIN = 0.03  # above the wanted precision, before the price falls again
_FORGET = 0.03  # of the precision's distance from where it would be content, at each review: who asks for nothing is tried again
_LOW = 0.25  # of the credit, below which falling savings raise the price


class Purse:
    """Savings and price.

    Attributes:
        price: of a wasted load, in misses spared.
        savings: loads that may be spent.
        off: nothing is to be asked for, so few prefetches are requested.
    """

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning
        self.price = tuning.price
        self.savings = tuning.credit / 2
        self.off = False
        self._before = self.savings
        self._precision = tuning.precision + _MARGIN

    def granted(self) -> None:
        """LRU would have missed."""
        self.savings = min(self._tuning.credit, self.savings + self._tuning.grant)

    def spent(self) -> None:
        """A load of the backend."""
        self.savings -= 1.0

    def requested(self) -> None:
        """A prefetched key was requested."""
        self._precision += (1.0 - self._precision) * _RATE

    def wasted(self) -> None:
        self._precision -= self._precision * _RATE
        if self._precision < (self._tuning.precision + _MARGIN) * _HOPELESS:
            self.off = True

    def review(self) -> None:
        tuning = self._tuning
        content = tuning.precision + _MARGIN
        self._precision += (content + _MARGIN - self._precision) * _FORGET
        poor = self.savings < tuning.credit * _LOW and self.savings <= self._before
        self._before = self.savings
        if self._precision >= content * _AGAIN:
            self.off = False
        if self._precision < content or poor:
            self.price = min(_HIGHEST, self.price * _STEP)
        else:
            self.price = max(tuning.price, self.price / _STEP)
