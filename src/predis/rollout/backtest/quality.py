"""How well both sides did, on the replayed rows whose label has come.

Of two classes by the paired difference of their AUCs (DeLong), of numbers and of more classes by the paired difference of their losses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.state.records import Matrix
from predis.stats import Task, binary_scores, compare_auc, compare_losses, performance, row_losses
from predis.stats.paired import MEASURES as MEASURES_OF_LOSS

LEVEL = 0.95
MEASURES = ("auc", "ks", "gini", "log_loss", "brier")
_MEASURES_OF: Mapping[Task, tuple[str, ...]] = {
    "regression": ("mae", "rmse", "mape", "r2", "bias", "quantile_loss"),
    "multiclass": ("accuracy", "macro_f1", "log_loss", "ovr_auc", "calibration_error"),
}


def quality(
    baseline: Matrix, candidate: Matrix, *, labels: Matrix, ages_s: Matrix, task: Task = "binary"
) -> dict[str, Any]:
    """Measures of both sides, and the paired difference (candidate - baseline) of the one that decides, ``difference["measure"]``.

    All float64[n]; ``labels`` are NaN where not known, ``ages_s`` the seconds from prediction to label. Measures are None where the labels
    of a binary classifier are of one class, or its scores are no probabilities.
    """
    known = np.isfinite(labels)
    found: dict[str, Any] = {
        "rows": len(labels),
        "labels": int(known.sum()),
        "coverage": float(known.mean()),
        "task": task,
        "positives": int(labels[known].sum()) if task == "binary" else 0,
    }
    if not known.any():
        return {**found, "problem": "none of the replayed rows has a label yet"}
    ages = np.quantile(ages_s[known], (0.5, 0.9))
    found["age_s"] = {"median": float(ages[0]), "p90": float(ages[1])}
    sides = {"baseline": baseline[known], "candidate": candidate[known]}
    if task != "binary":
        return {**found, **_by_loss(task, sides, labels=labels[known])}
    for name, scores in sides.items():
        measured = binary_scores(scores, labels[known])
        found[name] = {measure: _finite(getattr(measured, measure)) for measure in MEASURES}
    if found["positives"] in (0, found["labels"]):
        only = "positive" if found["positives"] else "negative"
        return {**found, "problem": f"every label is {only}; an AUC needs both"}
    return {**found, "difference": _compared(sides["baseline"], sides["candidate"], labels=labels[known])}


def _compared(
    baseline: NDArray[np.float64], candidate: NDArray[np.float64], *, labels: NDArray[np.float64]
) -> dict[str, Any]:
    # Each bound is one-sided; of two such an interval of LEVEL is made.
    paired = compare_auc(baseline, candidate, label=labels, level=(1 + LEVEL) / 2)
    return {
        "measure": "auc",
        "auc": paired.difference,
        "low": _finite(paired.low),
        "high": _finite(paired.high),
        "p_value": _finite(paired.p_value),
        "level": LEVEL,
    }


def _by_loss(task: Task, sides: Mapping[str, Matrix], *, labels: Matrix) -> dict[str, Any]:
    """Every measure of a kind of model, and the paired difference of the one that decides."""
    measured = {name: performance(task, scores, label=labels) for name, scores in sides.items()}
    found: dict[str, Any] = {
        name: {each: _finite(values[each]) for each in _MEASURES_OF[task]}
        for name, values in measured.items()
    }
    losses = {name: row_losses(task, scores, label=labels) for name, scores in sides.items()}
    paired = compare_losses(losses["baseline"], losses["candidate"], level=(1 + LEVEL) / 2)
    measure = MEASURES_OF_LOSS[task]
    sign = -1 if task == "regression" else 1  # a gain is a smaller error, or a larger accuracy
    ends = sorted((sign * paired.low, sign * paired.high))
    found["difference"] = {
        "measure": measure, measure: sign * paired.gain, "low": _finite(ends[0]), "high": _finite(ends[1]),
        "p_value": _finite(paired.p_value), "level": LEVEL,
    }  # fmt: skip
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
