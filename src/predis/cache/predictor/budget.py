"""How much of a source's capacity prefetching may take: a share of its demand loads, saved up to a limit.

A token bucket that demand fills: each demand load earns ``share`` of a prefetch, up to ``most`` saved. So prefetching never adds more
than that share to what the source has to do anyway (its loads stay within 1 + ``share`` of what they would be were every prefetch
wasted), whatever the predictor thinks; and a source that nobody asks is not asked for nothing. A prefetch that is used gives its token
back: it took the place of a demand load and cost nothing.
"""

from __future__ import annotations


class Budget:
    """Tokens of one source.

    Args:
        share: prefetches earned by one demand load.
        most: how many are saved at most; also what there is to begin with, so that a new predictor can show what it is worth.

    >>> budget = Budget(share=0.5, most=1.0)
    >>> budget.take(), budget.take()
    (True, False)
    >>> budget.demand(); budget.demand(); budget.take()
    True
    """

    def __init__(self, *, share: float = 0.1, most: float = 64.0) -> None:
        self.share = share
        self.most = most
        self._tokens = most

    def demand(self, loads: int = 1) -> None:
        """So many keys were loaded because somebody asked."""
        self._tokens = min(self.most, self._tokens + self.share * loads)

    def give_back(self) -> None:
        """A prefetched key was used."""
        self._tokens = min(self.most, self._tokens + 1.0)

    def take(self) -> bool:
        """Take what one prefetch costs; False where there is too little."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
