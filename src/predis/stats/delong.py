"""Is the challenger's AUC better than the champion's, or at least not worse, on the same rows?

DeLong, DeLong and Clarke-Pearson (1988) estimate the covariance of correlated AUCs from placements: for a
positive row the share of negatives it outranks, for a negative row the share of positives that outrank it.
Sun and Xu (2014) read the placements off midranks, so that the cost is one sort per model instead of
positives x negatives comparisons.

The variance assumes rows that are independent of each other. Rows of the same customer or the same day are
not; thin them out, or take one block each, before comparing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from predis.errors import InvalidInput
from predis.stats._arrays import Floats, at_least_zero, fraction, ordered, positives
from predis.stats._ranks import row_placements
from predis.stats._special import normal_quantile, normal_two_sided


@dataclass(frozen=True)
class AucComparison:
    """A paired comparison of two AUCs.

    difference: challenger - champion. z, p_value: two-sided test of "no difference". low, high: each is a
    ONE-sided confidence bound at `level`: the true difference lies above `low` with that confidence, and
    below `high` with that confidence; together they are a two-sided interval of 2 level - 1. So `better`
    and `non_inferior` are one-sided tests with error rate 1 - level. If a class has fewer than two rows the
    bounds are NaN and no claim holds.
    """

    rows: int
    positives: int
    champion_auc: float
    challenger_auc: float
    difference: float
    standard_error: float
    z: float
    p_value: float
    low: float
    high: float
    level: float

    @property
    def better(self) -> bool:
        """The challenger's AUC is surely higher."""
        return self.low > 0.0

    def non_inferior(self, margin: float) -> bool:
        """The challenger's AUC is surely above the champion's minus `margin` (>= 0, in AUC units)."""
        return self.low > -at_least_zero(margin, "margin")


def delong_covariance(scores: ArrayLike, label: ArrayLike) -> tuple[Floats, Floats]:
    """AUCs and their covariance for k models scored on the same rows.

    scores: float64[k, n], no NaN; label: 0/1 [n]. Returns (aucs float64[k], covariance float64[k, k]); all
    NaN if a class is absent, covariance NaN if a class has fewer than two rows. Raises `InvalidInput`.
    Cost: k sorts.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] == 0:
        raise InvalidInput(f"scores must have shape (models, rows), got {table.shape}")
    positive = positives(label, table.shape[1])
    m = int(np.count_nonzero(positive))
    n = table.shape[1] - m
    models = table.shape[0]
    unknown = np.full((models, models), np.nan)
    if m == 0 or n == 0:
        return np.full(models, np.nan), unknown
    pairs = [row_placements(ordered(row, "scores"), positive) for row in table]
    v01 = np.stack([pair[0] for pair in pairs])
    v10 = np.stack([pair[1] for pair in pairs])
    aucs = v01.mean(axis=1)
    if m < 2 or n < 2:
        return aucs, unknown
    return aucs, _covariance(v01) / m + _covariance(v10) / n


def compare_auc(
    champion: ArrayLike, challenger: ArrayLike, *, label: ArrayLike, level: float = 0.95
) -> AucComparison:
    """DeLong's paired test of two models scored on the same rows.

    champion, challenger: float64[n], no NaN; label: 0/1 [n]; level: confidence of each bound, 0.5 < level <
    1. Models that order every pair of rows alike have difference 0, standard error 0 and p_value 1. Raises
    `InvalidInput` for other shapes, NaN scores or labels other than 0 and 1.

    >>> champion, challenger = [0.2, 0.7, 0.3, 0.6, 0.4, 0.9], [0.1, 0.3, 0.2, 0.7, 0.4, 0.9]
    >>> result = compare_auc(champion, challenger, label=[0, 0, 0, 1, 1, 1])
    >>> round(result.difference, 3), round(result.standard_error, 3), result.better
    (0.222, 0.248, False)
    """
    if fraction(level, "level") <= 0.5:
        raise InvalidInput(f"level must lie above 0.5, got {level}: each bound is one-sided")
    old, new = ordered(champion, "champion"), ordered(challenger, "challenger")
    positive = positives(label, old.size)
    if new.shape != old.shape:
        raise InvalidInput(f"challenger has {new.size} rows, champion {old.size}; score the same rows")
    m = int(np.count_nonzero(positive))
    n = old.size - m
    old_area = new_area = error = math.nan
    if m > 0 and n > 0:
        (old_v01, old_v10), (new_v01, new_v10) = row_placements(old, positive), row_placements(new, positive)
        old_area, new_area = float(old_v01.mean()), float(new_v01.mean())
        if m > 1 and n > 1:
            # of the differences, not C11 + C22 - 2 C12: exactly zero for models that order rows alike
            error = math.sqrt((new_v01 - old_v01).var(ddof=1) / m + (new_v10 - old_v10).var(ddof=1) / n)
    difference = new_area - old_area
    z, p_value, reach = _test(difference, error, pairs=min(m, n), level=level)
    return AucComparison(
        rows=int(old.size),
        positives=m,
        champion_auc=old_area,
        challenger_auc=new_area,
        difference=difference,
        standard_error=error,
        z=z,
        p_value=p_value,
        low=difference - reach,
        high=difference + reach,
        level=level,
    )


def _test(difference: float, error: float, *, pairs: int, level: float) -> tuple[float, float, float]:
    """z, two-sided p, and the reach of each one-sided bound."""
    if math.isnan(error):
        return math.nan, math.nan, math.nan
    if error > 0.0:
        z = difference / error
        return z, normal_two_sided(z), normal_quantile(level) * error
    if difference == 0.0:
        return 0.0, 1.0, 0.0
    # All rows agree on a difference: only in tiny samples, where a variance of zero is no certainty.
    # Hoeffding's bound for the mean of `pairs` independent pairs (a positive and a negative row), each in
    # [-1, 1], holds there too.
    p_value = min(1.0, 2.0 * math.exp(-pairs * difference * difference / 2.0))
    return math.copysign(math.inf, difference), p_value, math.sqrt(-2.0 * math.log(1.0 - level) / pairs)


def _covariance(values: Floats) -> Floats:
    """Sample covariance float64[k, k] of the rows of values float64[k, n], n >= 2."""
    centred = values - values.mean(axis=1, keepdims=True)
    product: Floats = centred @ centred.T / (values.shape[1] - 1)
    return product
