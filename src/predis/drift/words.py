"""Drift in plain words, for reports and alerts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from predis.stats import Bins


def percent(share: float) -> str:
    return f"{share:.1%}" if 0.0 < share < 0.1 else f"{share:.0%}"


def how_moved(bins: Bins, reference: Sequence[float], *, current: Sequence[float]) -> str:
    """Where rows came from and went to: the bin that changed most, and the direction if there is one. Arguments are counts or shares."""
    p, q = np.asarray(reference, dtype=float), np.asarray(current, dtype=float)
    p, q = p / max(p.sum(), 1e-12), q / max(q.sum(), 1e-12)
    most = int(np.abs(q - p).argmax())
    label = bins.labels[most]
    named = {"missing": "missing values are", "unseen": "categories unknown to the reference are"}
    if label in named:
        return f"{named[label]} {percent(q[most])} of the rows, were {percent(p[most])}"
    direction = ""
    if bins.kind == "numeric" and bins.edges:
        rank = np.cumsum(p[:-1]) - p[:-1] / 2.0
        shift = float((q[:-1] * rank).sum() / max(q[:-1].sum(), 1e-12)) - 0.5 * float(p[:-1].sum())
        if abs(shift) > 0.01:
            direction = "values are higher: " if shift > 0 else "values are lower: "
    return f"{direction}{label} holds {percent(q[most])} of the rows, was {percent(p[most])}"


def how_large(psi: float) -> str:
    """PSI as people use to name it."""
    return "small" if psi < 0.1 else "moderate" if psi < 0.25 else "large"
