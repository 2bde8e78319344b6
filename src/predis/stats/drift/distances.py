"""Distances of distributions over the same bins, along the last axis of arrays of any shape.

`p` and `q` are shares float64[..., B] that add up to 1 along the last axis, `n` and `m` counts; bins are in their order. All
distances are 0 for equal distributions.
"""

from __future__ import annotations

import numpy as np

from predis.stats._arrays import Floats

_SHARE_FLOOR = 1e-4  # an empty bin must not make PSI infinite


def shares(counts: Floats) -> Floats:
    """Counts as shares; all zero where there are no counts."""
    totals = counts.sum(axis=-1, keepdims=True)
    return np.asarray(counts / np.maximum(totals, 1.0), dtype=np.float64)


def population_stability(p: Floats, q: Floats) -> Floats:
    """PSI: sum of (q - p) ln(q / p), shares below 1e-4 raised to that. Below .1 is small, above .25 large by custom."""
    p, q = np.maximum(p, _SHARE_FLOOR), np.maximum(q, _SHARE_FLOOR)
    return np.asarray(((q - p) * np.log(q / p)).sum(axis=-1))


def jensen_shannon(p: Floats, q: Floats) -> Floats:
    """Jensen-Shannon distance (Lin 1991; Endres and Schindelin 2003) to base 2, in [0, 1]."""
    middle = (p + q) / 2.0
    divergence = 0.5 * (_entropy_terms(p, middle) + _entropy_terms(q, middle)) / np.log(2.0)
    return np.asarray(np.sqrt(np.maximum(divergence, 0.0)))


def kolmogorov_smirnov(p: Floats, q: Floats) -> Floats:
    """Largest gap of the two cumulative distributions at the cuts between bins, in [0, 1]."""
    return np.asarray(np.abs(np.cumsum(p - q, axis=-1)).max(axis=-1))


def wasserstein(p: Floats, q: Floats) -> Floats:
    """Earth mover's distance in ranks of the reference `p`, in [0, 1]: by what share of the reference a row has moved on average.

    Ranks make it free of units and of outliers; the mass of a bin counts as spread evenly over the bin's ranks.
    """
    gaps = np.abs(np.cumsum(q - p, axis=-1))
    before = np.concatenate([np.zeros_like(gaps[..., :1]), gaps[..., :-1]], axis=-1)
    return np.asarray((p * (before + gaps) / 2.0).sum(axis=-1))


def total_variation(p: Floats, q: Floats) -> Floats:
    """The share of rows that would have to change their bin, in [0, 1]."""
    return np.asarray(np.abs(p - q).sum(axis=-1) / 2.0)


def cohen_w(p: Floats, q: Floats) -> Floats:
    """Cohen's w (1988): root of the sum of (q - p)^2 / p; shares p below 1e-4 raised to that."""
    return np.asarray(np.sqrt(((q - p) ** 2 / np.maximum(p, _SHARE_FLOOR)).sum(axis=-1)))


def homogeneity(n: Floats, m: Floats) -> Floats:
    """Pearson's chi-square of two samples: about chi2(B - 1) if both have one distribution and rows are independent."""
    rows_n, rows_m = n.sum(axis=-1, keepdims=True), m.sum(axis=-1, keepdims=True)
    least = np.maximum(
        np.minimum(rows_n, rows_m), 1.0
    )  # an empty side has no opinion: the ratio must stay finite
    ratio = np.sqrt(np.maximum(rows_n, least) / np.maximum(rows_m, least))
    terms = (ratio * m - n / ratio) ** 2 / np.maximum(n + m, 1.0)
    return np.asarray(np.where((rows_n > 0) & (rows_m > 0), terms, 0.0).sum(axis=-1))


def _entropy_terms(p: Floats, middle: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0.0, p * np.log(p / middle), 0.0)
    return np.asarray(terms.sum(axis=-1))
