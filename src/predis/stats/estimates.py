"""Performance without labels: what a classifier's scores promise, if they still mean what they meant.

CBPE (confidence-based performance estimation; NannyML): scores are calibrated on labelled reference rows, and a calibrated score IS the
chance that its row is positive. So every row is a positive with that weight and a negative with the rest, and the measures of a confusion
matrix or a ROC curve have expected values. It holds under covariate shift only: where the meaning of inputs changes (concept drift), the
estimate goes on promising what was true once. Show it as an estimate, beside its error so far, and never page on it alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from predis.errors import InvalidInput
from predis.stats._arrays import Floats, ordered, positives
from predis.stats.performance import Values, confusion_measures

_KNOTS = 200
_GROUPS = 20
_Z95 = 1.959964


@dataclass(frozen=True, eq=False)
class Calibration:
    """A curve from scores to the share of positives: linear between `scores` (ascending), constant outside. `rows` made it."""

    scores: Floats
    shares: Floats
    rows: int

    def __call__(self, score: ArrayLike) -> Floats:
        """The chance float64[n] of being positive, of each score."""
        return np.interp(np.asarray(score, dtype=np.float64), self.scores, self.shares)

    def to_dict(self) -> dict[str, Any]:
        return {"scores": self.scores.tolist(), "shares": self.shares.tolist(), "rows": self.rows}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_dict`. Raises `InvalidInput` for anything else."""
        try:
            scores, shares = (np.array(data[name], dtype=np.float64) for name in ("scores", "shares"))
            rows = int(data["rows"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"not a calibration: {error!r}") from error
        if scores.ndim != 1 or scores.shape != shares.shape or not scores.size or (np.diff(scores) < 0).any():
            raise InvalidInput("a calibration has as many shares as scores, and ascending scores")
        return cls(scores, shares, rows)


def calibrate(score: ArrayLike, label: ArrayLike) -> Calibration | None:
    """Isotonic regression of labels 0/1 [n] on scores float64[n] (pool adjacent violators; Ayer 1955), over at most 200 groups of
    neighbouring scores. None unless both classes are there.

    >>> calibrate([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1])([0.15, 0.85]).tolist()
    [0.0, 1.0]
    """
    values = ordered(score, "score")
    positive = positives(label, values.size)
    if not positive.any() or positive.all():
        return None
    order = np.argsort(values, kind="stable")
    cuts = np.unique(np.linspace(0, values.size, min(_KNOTS, values.size) + 1).astype(np.int64))
    weights = np.diff(cuts).astype(np.float64)
    centres = np.add.reduceat(values[order], cuts[:-1]) / weights
    shares = np.add.reduceat(positive[order].astype(np.float64), cuts[:-1]) / weights
    return Calibration(centres, _isotonic(shares, weights), int(values.size))


def _isotonic(values: Floats, weights: Floats) -> Floats:
    """The ascending numbers nearest to `values` in weighted squares."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, members
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        pool = (value, weight, 1)
        while pools and pools[-1][0] >= pool[0]:
            mean, heavy, members = pools.pop()
            total = heavy + pool[1]
            pool = ((mean * heavy + pool[0] * pool[1]) / total, total, members + pool[2])
        pools.append(pool)
    return np.repeat([mean for mean, _, _ in pools], [members for _, _, members in pools])


def expected_binary(score: ArrayLike, calibration: Calibration, *, threshold: float = 0.5) -> Values:
    """What rows of `score` float64[n] promise without their labels: ``NAME``, ``NAME_low``, ``NAME_high`` of auc, accuracy, precision,
    recall, f1, mcc and brier, and ``positive_rate``. The 95 % intervals are about chance, not about the assumption.

    >>> calibration = Calibration(np.array([0.0, 1.0]), np.array([0.0, 1.0]), 100)
    >>> round(expected_binary([0.2, 0.4, 0.6, 0.8], calibration)["accuracy"], 3)
    0.7
    """
    values = ordered(score, "score")
    chances = calibration(values)
    found = _expected(values, chances, threshold=threshold)
    group = np.arange(values.size) * _GROUPS // max(values.size, 1)
    enough = values.size >= 2 * _GROUPS
    parts = [
        _expected(values[group != each], chances[group != each], threshold=threshold)
        for each in range(_GROUPS if enough else 0)
    ]
    result: Values = {}
    for name, value in found.items():
        reach = _Z95 * _jackknife_error([part[name] for part in parts]) if enough else math.inf
        # Rows that are alike in their scores differ in their labels all the same.
        noise = _Z95 * _label_error(name, chances)
        reach = math.hypot(reach, noise)
        result |= {name: value, f"{name}_low": value - reach, f"{name}_high": value + reach}
    return result


def _expected(values: Floats, chances: Floats, *, threshold: float) -> Values:
    said = values >= threshold
    total = float(chances.sum())
    hits = float(chances[said].sum())
    errors = chances * np.square(1 - values) + (1 - chances) * np.square(values)
    return {
        "auc": _expected_auc(values, chances),
        **confusion_measures(hits, float(said.sum()) - hits, misses=total - hits, rows=float(values.size)),
        "brier": float(errors.mean()) if values.size else math.nan,
        "positive_rate": total / values.size if values.size else math.nan,
    }


def _expected_auc(values: Floats, chances: Floats) -> float:
    """Chance that a row drawn as a positive scores higher than one drawn as a negative, ties half."""
    if values.size == 0:
        return math.nan
    order = np.argsort(values, kind="stable")
    ascending, ups = values[order], chances[order]
    starts = np.append(0, np.flatnonzero(ascending[1:] != ascending[:-1]) + 1)
    up, down = np.add.reduceat(ups, starts), np.add.reduceat(1 - ups, starts)
    whole = float(up.sum() * down.sum())
    return float((up * (np.cumsum(down) - 0.5 * down)).sum()) / whole if whole > 0 else math.nan


def _label_error(name: str, chances: Floats) -> float:
    """Standard error that labels drawn by their chances add to a measure that would be realised, as far as there is a simple one."""
    if name not in ("accuracy", "positive_rate") or chances.size == 0:
        return 0.0
    return math.sqrt(float((chances * (1 - chances)).sum())) / chances.size


def _jackknife_error(without: list[float]) -> float:
    values = np.array(without)
    return math.sqrt((len(without) - 1) / len(without) * float(np.square(values - values.mean()).sum()))
