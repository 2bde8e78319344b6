"""How likely a candidate for prefetching is worth it: gradient-boosted trees over the 64 features, calibrated on later time.

Trees rank well and boast: what they call 0.9 need not come true nine times in ten, least of all on the days after those they learned
from. A decision by cost and benefit needs true probabilities. So the trees learn from the older part of the past only; the newer part
goes to an isotonic regression (pool adjacent violators), which maps what the trees say to how often that came true.

References:
    G. Ke et al.: LightGBM: a highly efficient gradient boosting decision tree. NeurIPS 2017.
    B. Zadrozny, C. Elkan: Transforming classifier scores into accurate multiclass probability estimates. KDD 2002.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from predis.errors import InvalidInput, MissingExtra

_LEAST = 500  # candidates to learn from, and to calibrate with
_TREES = 150
_PARAMETERS = {
    "objective": "binary", "learning_rate": 0.06, "num_leaves": 31, "min_data_in_leaf": 40, "feature_fraction": 0.7,
    "bagging_fraction": 0.8, "bagging_freq": 1, "deterministic": True, "force_row_wise": True, "verbosity": -1,
}  # fmt: skip

Rows = NDArray[np.float32]
Labels = NDArray[np.bool_]


@dataclass(frozen=True)
class Isotonic:
    """A step-free, never falling map from scores to probabilities: linear between the points."""

    scores: NDArray[np.float64]
    chances: NDArray[np.float64]

    @classmethod
    def fit(cls, scores: NDArray[np.float64], labels: Labels) -> Isotonic:
        """Of scores and what came true. Each chance is drawn a little towards one half: nothing is certain after finitely many trials.

        Raises:
            InvalidInput: there is none.
        """
        if not len(scores):
            raise InvalidInput("there is no candidate to calibrate with; wait for more reads")
        order = np.argsort(scores, kind="stable")
        fitted = isotonic_regression(labels[order].astype(np.float64))
        starts = fitted.blocks[:-1]
        sizes = np.diff(fitted.blocks)
        middles = np.add.reduceat(scores[order], starts) / sizes
        chances = (fitted.x[starts] * sizes + 0.5) / (sizes + 1.0)
        return cls(middles, np.maximum.accumulate(chances))

    def __call__(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.interp(scores, self.scores, self.chances), np.float64)


class Confidence:
    """The trained judge. Make one with ``fit``.

    Attributes:
        columns: names of the inputs, in order.
    """

    def __init__(self, booster: Any, columns: Sequence[str], *, calibration: Isotonic) -> None:
        self._booster = booster
        self.columns = tuple(columns)
        self._calibration = calibration

    @classmethod
    def fit(
        cls, rows: Rows, worth: Labels, *, columns: Sequence[str], later: float = 0.3, seed: int = 1
    ) -> Confidence:
        """Learn from candidates in the order of time.

        Args:
            rows: shape (candidates, columns); NaN where something is not known.
            worth: what became of them, see ``proposals.outcomes``.
            later: share of the candidates, the latest, that calibrate and are not learned from.

        Raises:
            InvalidInput: too few candidates, or all came to the same end.
        """
        lightgbm = _lightgbm()
        cut = round(len(rows) * (1.0 - later))
        for part in (worth[:cut], worth[cut:]):
            if len(part) < _LEAST or part.all() or not part.any():
                raise InvalidInput(
                    f"{len(rows)} candidates, {int(worth.sum())} of them worth a prefetch, are too few to learn from; wait for more reads"
                )
        names = [f"c{at}" for at in range(len(columns))]
        data = lightgbm.Dataset(rows[:cut], worth[:cut].astype(np.int8), feature_name=names)
        booster = lightgbm.train({**_PARAMETERS, "seed": seed, "num_threads": 1}, data, _TREES)
        scores = np.asarray(booster.predict(rows[cut:], raw_score=True), np.float64)
        return cls(booster, columns, calibration=Isotonic.fit(scores, worth[cut:]))

    def chances(self, rows: Rows) -> NDArray[np.float64]:
        """The calibrated probability that each candidate is worth its prefetch."""
        if not len(rows):
            return np.empty(0)
        scores = self._booster.predict(rows, raw_score=True, num_threads=1)
        return self._calibration(np.asarray(scores, np.float64))

    def importance(self) -> dict[str, float]:
        """Share of the whole gain that each column brought, the greatest first."""
        gain = self._booster.feature_importance("gain")
        total = gain.sum() or 1.0
        found = {name: float(part / total) for name, part in zip(self.columns, gain, strict=True)}
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def worth_it(chances: NDArray[np.float64], *, price: float) -> Labels:
    """Where a prefetch pays: the miss it spares, times its chance, against a wasted load at ``price`` misses."""
    return np.asarray(chances - price * (1.0 - chances) > 0.0)


def reliability(
    chances: NDArray[np.float64], worth: Labels, *, bins: int = 10
) -> tuple[list[dict[str, float]], float]:
    """Said and come true, by tenths of what was said, and the mean distance of the two (expected calibration error)."""
    which = np.minimum((chances * bins).astype(int), bins - 1)
    rows = [
        {"said": float(chances[of].mean()), "true": float(worth[of].mean()), "candidates": int(of.sum())}
        for at in range(bins)
        if (of := which == at).any()
    ]
    error = sum(row["candidates"] * abs(row["said"] - row["true"]) for row in rows) / max(len(chances), 1)
    return rows, error


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError as error:
        raise MissingExtra.of("lightgbm", extra="lightgbm") from error
    return lightgbm
