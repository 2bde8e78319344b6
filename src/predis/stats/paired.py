"""Is the challenger's loss smaller than the champion's, on the same rows? For models that no AUC judges.

Of numbers the loss is the absolute error, of classes whether the chosen one was wrong. Losses of the two models are subtracted row by row,
which takes away what is hard for both (Diebold and Mariano 1995). Neighbouring rows resemble each other, so the difference's error comes
from the means of stretches of neighbours (batch means: Conway 1963) and Student's t; it is never below what independent rows would give.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from predis.errors import InvalidInput
from predis.stats._arrays import Floats, fraction, ordered
from predis.stats.performance import Task

STRETCHES = 20
_LEAST_ROWS = 2 * STRETCHES
MEASURES: dict[Task, str] = {"regression": "mae", "multiclass": "accuracy"}


@dataclass(frozen=True)
class LossComparison:
    """A paired comparison of two mean losses.

    gain: champion's mean loss - challenger's, positive where the challenger is better. low, high: each a ONE-sided bound at `level`, as of
    `AucComparison`. With fewer than 40 rows both are NaN and no claim holds. p_value: two-sided.
    """

    rows: int
    champion_loss: float
    challenger_loss: float
    gain: float
    low: float
    high: float
    p_value: float
    level: float


def row_losses(task: Task, score: ArrayLike, *, label: ArrayLike) -> Floats:
    """The loss float64[n] of each row: absolute error, or 1 where the class of `top_scores` is not the label's.

    >>> row_losses("multiclass", [2.7, 0.6], label=[2, 1]).tolist()
    [0.0, 1.0]
    """
    scores, labels = ordered(score, "score"), ordered(label, "label")
    if scores.size != labels.size:
        raise InvalidInput(f"{scores.size} scores and {labels.size} labels: one per row")
    if task == "regression":
        return np.asarray(np.abs(scores - labels), np.float64)
    if task == "multiclass":
        return np.asarray(np.floor(scores) != labels, np.float64)
    raise InvalidInput("models of two classes are compared by their AUC")


def compare_losses(champion: ArrayLike, challenger: ArrayLike, *, level: float = 0.95) -> LossComparison:
    """Compare losses float64[n] of the same rows in their order. Raises `InvalidInput` for another shape, or NaN.

    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> hard = rng.random(400)
    >>> found = compare_losses(hard + 0.1, hard + 0.05 * rng.random(400))
    >>> 0.05 < found.low < found.gain < found.high < 0.1
    True
    """
    own, other = ordered(champion, "champion"), ordered(challenger, "challenger")
    fraction(level, "level")
    if own.size != other.size or not own.size:
        raise InvalidInput(f"{own.size} and {other.size} losses: both of the same rows, one or more")
    apart = own - other
    gain = float(apart.mean())
    if apart.size < _LEAST_ROWS:
        return LossComparison(
            apart.size, float(own.mean()), float(other.mean()), gain, math.nan, math.nan, math.nan, level
        )
    from scipy.special import stdtr, stdtrit

    means = np.array([part.mean() for part in np.array_split(apart, STRETCHES)])
    error = max(
        float(means.std(ddof=1)) / math.sqrt(STRETCHES), float(apart.std(ddof=1)) / math.sqrt(apart.size)
    )
    reach = float(stdtrit(STRETCHES - 1, level)) * error
    surprise = float(2 * stdtr(STRETCHES - 1, -abs(gain) / error)) if error > 0 else float(gain == 0)
    return LossComparison(
        apart.size, float(own.mean()), float(other.mean()), gain, gain - reach, gain + reach, surprise, level
    )
