"""Domain classifier: can a model tell rows of today from rows of the reference?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from predis.errors import InvalidInput
from predis.stats._arrays import Floats, Ints, fraction
from predis.stats._ranks import rank_table
from predis.stats._special import normal_quantile
from predis.stats.bins import Bins

_ROWS = 5_000  # of each side, evenly spread
_STEPS = 12
_RIDGE = 5.0


@dataclass(frozen=True)
class DomainVerdict:
    """How well rows of the two samples are told apart: AUC with its interval (DeLong), and whether the lower end exceeds .5 + floor."""

    auc: float
    low: float
    high: float
    drifted: bool


class DomainClassifier:
    """Logistic regression on bins that tries to tell reference rows from current ones (Lopez-Paz and Oquab 2017).

    It sees all features at once: many that moved a little each add up. Half of the rows teach it, the other half is scored
    and vice versa, so that an AUC of .5 means "the same" whatever the number of features. The AUC's interval takes rows for
    independent.

    bins: of the reference's columns. reference: float64[n, k]. alpha: of the interval. floor: how far above .5 the AUC must be.

    >>> import numpy as np
    >>> from predis.stats import numeric_bins
    >>> rng = np.random.default_rng(2)
    >>> reference = rng.normal(size=(2000, 3))
    >>> detector = DomainClassifier([numeric_bins("abc"[i], reference[:, i]) for i in range(3)], reference)
    >>> detector.update(rng.normal(size=(1000, 3)))
    >>> detector.drift_detected
    False
    >>> detector.update(rng.normal(0.5, size=(1000, 3)))
    >>> detector.drift_detected
    True
    """

    def __init__(
        self, bins: list[Bins], reference: ArrayLike, *, alpha: float = 0.001, floor: float = 0.02
    ) -> None:
        self.alpha = fraction(alpha, "alpha")
        self.floor = floor
        self._bins = bins
        self._reference = self._codes(_spread(np.asarray(reference, dtype=np.float64)))
        self.reset()

    def reset(self) -> None:
        """Forget the last batch."""
        self._verdict: DomainVerdict | None = None

    def update(self, rows: ArrayLike) -> None:
        """Compare a batch float64[m, k]. Raises `InvalidInput` for another number of columns."""
        current = self._codes(_spread(np.asarray(rows, dtype=np.float64)))
        labels = np.repeat([False, True], [len(self._reference), len(current)])
        codes = np.concatenate([self._reference, current])
        # Pairs of neighbours stay together: halves by rows would share what neighbouring rows have in common.
        half = (np.arange(labels.size) // 32) % 2 == 0
        variances, aucs = [], []
        for taught in (half, ~half):
            scores = _fit(codes[taught], labels[taught])[codes[~taught]].sum(axis=1)
            table = rank_table(scores, labels[~taught])
            aucs.append(table.auc())
            variances.append(table.auc_variance())
        auc = float(np.mean(aucs))
        wide = normal_quantile(1.0 - self.alpha / 2.0) * math.sqrt(sum(variances)) / 2.0
        self._verdict = DomainVerdict(auc, auc - wide, auc + wide, drifted=auc - wide > 0.5 + self.floor)

    @property
    def verdict(self) -> DomainVerdict | None:
        """Of the last batch; None before the first."""
        return self._verdict

    @property
    def drift_detected(self) -> bool:
        """Whether the last batch could be told apart."""
        return self._verdict is not None and self._verdict.drifted

    def _codes(self, rows: Floats) -> Ints:
        """int64[n, k]: for each row its columns of the one-hot matrix."""
        if rows.ndim != 2 or rows.shape[1] != len(self._bins):
            raise InvalidInput(f"rows must have shape (n, {len(self._bins)}), got {rows.shape}")
        codes = [each.place(rows[:, at]) for at, each in enumerate(self._bins)]
        starts = np.cumsum([0, *(each.size for each in self._bins)])[:-1]
        return np.stack(codes, axis=1) + starts if codes else np.empty((len(rows), 0), dtype=np.int64)


def _spread(rows: Floats) -> Floats:
    """At most `_ROWS` rows, evenly spread."""
    if len(rows) <= _ROWS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, _ROWS).astype(np.int64)]


def _fit(codes: Ints, labels: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Floats:
    """One weight per bin: logistic regression on the one-hot matrix, one Newton step per bin at a time, damped by the features."""
    size = int(codes.max(initial=-1)) + 2
    weights = np.zeros(size)
    base = math.log(labels.mean() / (1.0 - labels.mean()))
    features = max(codes.shape[1], 1)
    for _step in range(_STEPS):
        chance = 1.0 / (1.0 + np.exp(-(base + weights[codes].sum(axis=1))))
        gradient = np.bincount(codes.ravel(), np.repeat(labels - chance, features), minlength=size)
        curve = np.bincount(codes.ravel(), np.repeat(chance * (1.0 - chance), features), minlength=size)
        weights += (gradient - _RIDGE * weights) / (curve * math.sqrt(features) + _RIDGE * features)
    return weights
