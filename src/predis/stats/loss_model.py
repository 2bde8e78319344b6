"""Performance of regressors without labels: what errors of rows like these were.

DLE (direct loss estimation; NannyML): on labelled rows, the size of the error is learnt from the inputs; on rows without labels its
prediction is averaged. It sees errors grow because rows moved to where the model was weak before; it is blind to a changed meaning of the
inputs (concept drift). The learner is additive over the bins of a profile: a ridge regression on which bin each input fell into, so that
missing, unseen and out-of-range values have effects of their own.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from predis.errors import InvalidInput
from predis.stats._arrays import Floats, matrix, vector
from predis.stats.bins import Bins

_RIDGE = 20.0  # rows of no effect that each bin is given: rare bins stay near the mean
_FOLDS = 5
_Z95 = 1.959964


class LossModel:
    """Learns losses from features.

    >>> import numpy as np
    >>> from predis.stats import numeric_bins
    >>> x = np.linspace(0, 1, 1_000)
    >>> model = LossModel((numeric_bins("x", x),), x[:, None], loss=x)
    >>> round(model.expect(np.full((500, 1), 0.95))[0], 1)
    0.9
    """

    def __init__(self, bins: tuple[Bins, ...], features: ArrayLike, *, loss: ArrayLike) -> None:
        """features: float64[n, k] as the bins take them; loss: float64[n], finite. Raises `InvalidInput` without rows."""
        self._bins = bins
        table, losses = matrix(features, "features", columns=len(bins)), vector(loss, "loss")
        if losses.size == 0 or losses.size != len(table):
            raise InvalidInput(f"{len(table)} rows and {losses.size} losses: one per row, and at least one")
        design = self._design(table)
        self._mean, self._effects = _fit(design, losses)
        # How far off the mean of unseen rows is, judged on stretches that were left out.
        fold = np.arange(losses.size) * _FOLDS // losses.size
        missed = []
        for each in range(_FOLDS if losses.size >= 2 * _FOLDS else 0):
            mean, effects = _fit(design[fold != each], losses[fold != each])
            held = fold == each
            missed.append(float((losses[held] - mean - design[held] @ effects).mean()))
        self._error = float(np.sqrt(np.square(missed).mean())) if missed else math.inf

    def expect(self, features: ArrayLike) -> tuple[float, float, float]:
        """Mean loss expected of rows float64[n, k], and its 95 % interval; NaN without rows."""
        design = self._design(matrix(features, "features", columns=len(self._bins)))
        if not len(design):
            return math.nan, math.nan, math.nan
        mean = max(0.0, self._mean + float((design @ self._effects).mean()))
        return mean, max(0.0, mean - _Z95 * self._error), mean + _Z95 * self._error

    def _design(self, table: Floats) -> Floats:
        """float64[n, all bins]: 1 where a row's value fell into the bin."""
        design = np.zeros((len(table), sum(bins.size for bins in self._bins)))
        at = 0
        for bins, column in zip(self._bins, table.T, strict=True):
            design[np.arange(len(table)), at + bins.place(column)] = 1.0
            at += bins.size
        return design


def _fit(design: Floats, losses: Floats) -> tuple[float, Floats]:
    mean = float(losses.mean())
    gram = design.T @ design + _RIDGE * np.eye(design.shape[1])
    effects = np.linalg.solve(gram, design.T @ (losses - mean))
    return mean, np.asarray(effects, dtype=np.float64)
