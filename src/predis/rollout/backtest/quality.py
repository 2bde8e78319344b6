"""How well both sides tell the labels apart, on the replayed rows whose label has come."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.state.records import Matrix
from predis.stats import binary_scores, compare_auc

LEVEL = 0.95
MEASURES = ("auc", "ks", "gini", "log_loss", "brier")


def quality(baseline: Matrix, candidate: Matrix, *, labels: Matrix, ages_s: Matrix) -> dict[str, Any]:
    """Measures of both sides and the paired difference of their AUCs (DeLong) with its interval.

    All float64[n]; ``labels`` are 0, 1 or NaN (not known), ``ages_s`` the seconds from prediction to label. Measures are None where the
    labels are of one class, or scores are no probabilities.
    """
    known = np.isfinite(labels)
    found: dict[str, Any] = {
        "rows": len(labels),
        "labels": int(known.sum()),
        "coverage": float(known.mean()),
        "positives": int(labels[known].sum()),
    }
    if not known.any():
        return {**found, "problem": "none of the replayed rows has a label yet"}
    ages = np.quantile(ages_s[known], (0.5, 0.9))
    found["age_s"] = {"median": float(ages[0]), "p90": float(ages[1])}
    sides = {"baseline": baseline[known], "candidate": candidate[known]}
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
        "auc": paired.difference,
        "low": _finite(paired.low),
        "high": _finite(paired.high),
        "p_value": _finite(paired.p_value),
        "level": LEVEL,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
