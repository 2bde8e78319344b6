"""How good a score is at telling positives from negatives: AUC, KS, Gini, log loss, Brier.

All functions take `score` float64[n] and `label` bool[n] or numbers 0/1 [n], change neither, and raise
`InvalidInput` for another shape, a NaN score, or a label other than 0 and 1. A measure that has no value
for the data (AUC without both classes, any mean over no rows) is NaN, because a monitoring window may well
hold one class only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from predis.errors import InvalidInput
from predis.stats._arrays import Bools, Floats, fraction, ordered, positives
from predis.stats._ranks import RankTable, rank_table
from predis.stats._special import normal_quantile

_CLIP = float(np.finfo(np.float64).eps)  # a certain and wrong score costs 36 nats, not infinity


@dataclass(frozen=True)
class BinaryScores:
    """All measures of one scored and labelled sample.

    rows, positives: sizes. auc_low, auc_high: confidence interval of the AUC. log_loss (nats) and brier are
    NaN when a score lies outside [0, 1], that is, when scores are not probabilities.
    """

    rows: int
    positives: int
    auc: float
    auc_low: float
    auc_high: float
    ks: float
    gini: float
    log_loss: float
    brier: float


def auc(score: ArrayLike, label: ArrayLike) -> float:
    """Area under the ROC curve, ties by midrank; NaN if one class is absent. Cost: one sort.

    >>> auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """
    return rank_table(*_checked(score, label)).auc()


def ks(score: ArrayLike, label: ArrayLike) -> float:
    """Kolmogorov-Smirnov distance between the scores of the two classes, 0..1; NaN if one class is absent.

    >>> ks([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.5
    """
    return rank_table(*_checked(score, label)).ks()


def gini(score: ArrayLike, label: ArrayLike) -> float:
    """2 AUC - 1 (Somers' D), -1..1; NaN if one class is absent."""
    return 2.0 * auc(score, label) - 1.0


def log_loss(score: ArrayLike, label: ArrayLike) -> float:
    """Mean negative log-likelihood in nats of probabilities `score`; NaN without rows.

    Probabilities are kept 2.2e-16 away from 0 and 1. Raises `InvalidInput` if a score lies outside [0, 1].
    """
    values, positive = _checked(score, label)
    _require_probabilities(values)
    return _log_loss(values, positive)


def brier(score: ArrayLike, label: ArrayLike) -> float:
    """Mean squared error of probabilities `score` (Brier 1950); NaN without rows.

    Raises `InvalidInput` if a score lies outside [0, 1].
    """
    values, positive = _checked(score, label)
    _require_probabilities(values)
    return _brier(values, positive)


def binary_scores(score: ArrayLike, label: ArrayLike, *, level: float = 0.95) -> BinaryScores:
    """Every measure at once, from one sort.

    level: two-sided coverage of [auc_low, auc_high], 0 < level < 1. The interval is DeLong's variance on
    the logit scale, which stays inside (0, 1) and covers better near 1 than the plain one (Pepe 2003,
    section 5.2). At an AUC of exactly 0 or 1 that variance is zero and says nothing; there the bound is the
    one that min(positives, negatives) independent pairs, all ordered alike, allow. With fewer than two rows
    of a class the interval is [0, 1].

    >>> result = binary_scores([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    >>> result.auc, result.ks, round(result.auc_low, 3), round(result.auc_high, 3)
    (0.75, 0.5, 0.069, 0.992)
    """
    values, positive = _checked(score, label)
    table = rank_table(values, positive)
    area = table.auc()
    low, high = _auc_interval(table, area, level=fraction(level, "level"))
    probabilities = _are_probabilities(values)
    return BinaryScores(
        rows=int(values.size),
        positives=int(np.count_nonzero(positive)),
        auc=area,
        auc_low=low,
        auc_high=high,
        ks=table.ks(),
        gini=2.0 * area - 1.0,
        log_loss=_log_loss(values, positive) if probabilities else math.nan,
        brier=_brier(values, positive) if probabilities else math.nan,
    )


def _checked(score: ArrayLike, label: ArrayLike) -> tuple[Floats, Bools]:
    values = ordered(score, "score")
    return values, positives(label, values.size)


def _auc_interval(table: RankTable, area: float, *, level: float) -> tuple[float, float]:
    smaller = min(table.sizes)
    if smaller == 0:
        return math.nan, math.nan
    if smaller < 2:
        return 0.0, 1.0
    if area in (0.0, 1.0):
        bound = ((1.0 - level) / 2.0) ** (1.0 / smaller)
        return (bound, 1.0) if area == 1.0 else (0.0, 1.0 - bound)
    logit = math.log(area / (1.0 - area))
    reach = normal_quantile(0.5 + level / 2.0) * math.sqrt(table.auc_variance()) / (area * (1.0 - area))
    return _logistic(logit - reach), _logistic(logit + reach)


def _logistic(x: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * x))


def _are_probabilities(values: Floats) -> bool:
    return values.size == 0 or bool(values.min() >= 0.0 and values.max() <= 1.0)


def _require_probabilities(values: Floats) -> None:
    if not _are_probabilities(values):
        raise InvalidInput("score must hold probabilities in [0, 1]; use auc, ks or gini for other scores")


def _log_loss(values: Floats, positive: Bools) -> float:
    if values.size == 0:
        return math.nan
    likelihood = np.where(positive, values, 1.0 - values)
    return -float(np.log(np.clip(likelihood, _CLIP, 1.0 - _CLIP)).mean())


def _brier(values: Floats, positive: Bools) -> float:
    if values.size == 0:
        return math.nan
    error = values - positive
    return float(np.dot(error, error)) / values.size
