"""Ranks of scores, shared by `scores` and `delong`.

Every measure of ranking (AUC, KS, Gini, their variances) depends on a sample only through one small table:
for each distinct score, in ascending order, how many positives and how many negatives have it. One sort
builds the table; ties need no special case afterwards, because a tie is a row of the table with both counts
above zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from predis.stats._arrays import Bools, Floats, Ints


@dataclass(frozen=True)
class RankTable:
    """Rows grouped by distinct score, ascending.

    positives, negatives: int64[g], the rows of each class in group g.
    """

    positives: Ints
    negatives: Ints

    @property
    def sizes(self) -> tuple[int, int]:
        """(positives, negatives) in all."""
        return int(self.positives.sum()), int(self.negatives.sum())

    def auc(self) -> float:
        """P(score of a positive > score of a negative) + P(tie)/2; NaN if one class is absent."""
        m, n = self.sizes
        if m == 0 or n == 0:
            return float("nan")
        below_twice = 2 * (np.cumsum(self.negatives) - self.negatives) + self.negatives
        return int((self.positives * below_twice).sum()) / (2 * m * n)  # exact up to the division

    def ks(self) -> float:
        """Largest gap between the two cumulative distributions; NaN if one class is absent."""
        m, n = self.sizes
        if m == 0 or n == 0:
            return float("nan")
        return float(np.abs(np.cumsum(self.positives) / m - np.cumsum(self.negatives) / n).max())

    def auc_variance(self) -> float:
        """DeLong's variance of the AUC; NaN unless both classes have two rows."""
        m, n = self.sizes
        if m < 2 or n < 2:
            return float("nan")
        v01, v10 = self.placements()
        return _weighted_variance(v01, self.positives) / m + _weighted_variance(v10, self.negatives) / n

    def placements(self) -> tuple[Floats, Floats]:
        """Per group: shares of negatives below and of positives above it, ties half; float64[g] each."""
        m, n = self.sizes
        below = np.cumsum(self.negatives) - 0.5 * self.negatives
        above = m - np.cumsum(self.positives) + 0.5 * self.positives
        return below / n, above / m


def rank_table(score: Floats, positive: Bools) -> RankTable:
    """The table of `score` float64[n] (no NaN) and `positive` bool[n]: one sort."""
    return _grouped(score, positive)[0]


def row_placements(score: Floats, positive: Bools) -> tuple[Floats, Floats]:
    """DeLong's placements in the order of the rows: float64[m] of positives, float64[n] of negatives."""
    table, order, last = _grouped(score, positive)
    starts = np.zeros(score.size, dtype=np.int64)
    starts[last[:-1] + 1] = 1
    group = np.empty(score.size, dtype=np.int64)
    group[order] = np.cumsum(starts)
    v01, v10 = table.placements()
    return v01[group[positive]], v10[group[~positive]]


def _grouped(score: Floats, positive: Bools) -> tuple[RankTable, Ints, Ints]:
    """The table, the sorting order int64[n], and the last sorted position of each group int64[g]."""
    order = np.argsort(score)
    ascending = score[order]
    ends = np.empty(score.size, dtype=np.bool_)
    ends[-1:] = True
    np.not_equal(ascending[1:], ascending[:-1], out=ends[:-1])
    last = np.flatnonzero(ends)
    positives = np.diff(np.cumsum(positive[order], dtype=np.int64)[last], prepend=0)
    return RankTable(positives, np.diff(last, prepend=-1) - positives), order, last


def _weighted_variance(values: Floats, weights: Ints) -> float:
    """Sample variance (divisor N - 1) of values repeated `weights` times."""
    total = int(weights.sum())
    centred = values - float((weights * values).sum()) / total
    return float((weights * centred * centred).sum()) / (total - 1)
