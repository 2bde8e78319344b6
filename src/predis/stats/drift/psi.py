"""Has a distribution moved? Tests on bin counts that ask for an effect, for significance and for persistence.

The population stability index compares shares p of the reference and q of a batch: sum of (q - p) ln(q /
p). The usual thresholds .1 and .2 ignore the sample: at 100 rows PSI exceeds .1 in almost half of all
batches without any drift, and at thousands of rows it misses real changes. Without drift PSI is distributed
as (1/N + 1/M) chi2(B - 1) for N reference rows, M rows and B bins (Yurdakul 2018), and that gives a
threshold with a known rate of false alarms. With very many rows the tiniest change becomes significant,
hence the floor; a single odd batch is not worth waking anybody, hence `PsiDetector`, which wants several of
the last windows to agree.

The rate of false alarms holds for rows that are independent and a reference of the same season. Real
streams are neither quite: treat drift of inputs as a reason to look, and page on performance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from predis.errors import InvalidInput
from predis.stats._arrays import Floats, at_least_zero, fraction, tallies
from predis.stats._special import chi2_quantile, chi2_tail
from predis.stats.drift.distances import population_stability

_EXPECTED = 5.0  # rows a bin should expect for chi-square to hold (Cochran 1954)
_UNSEEN = 2.0  # rows a bin may well hold in data like the reference although the reference held none


@dataclass(frozen=True)
class Verdict:
    """The outcome of one test of a batch.

    effect: the distance as tested. threshold: the distance that a batch without drift exceeds with probability
    alpha. floor: smallest distance worth an alarm. p_value: of the test's approximation. rows: rows in the
    batch. enough: both samples had `min_rows`. drifted: enough, and the effect above both threshold and
    floor. effect and p_value are NaN if a sample is empty.
    """

    effect: float
    threshold: float
    floor: float
    p_value: float
    rows: int
    drifted: bool
    enough: bool


def psi(reference_counts: ArrayLike, current_counts: ArrayLike) -> float:
    """Population stability index of two count vectors float64[B] over the same bins; NaN if one is all zero.

    Shares below 1e-4 are raised to 1e-4. Raises `InvalidInput` for negative, unequal or empty counts.

    >>> round(psi([50, 30, 20], [40, 30, 30]), 4)
    0.0629
    """
    reference, current = pair(reference_counts, current_counts)
    if reference.sum() == 0 or current.sum() == 0:
        return math.nan
    return float(population_stability(reference / reference.sum(), current / current.sum()))


def psi_test(
    reference_counts: ArrayLike,
    current_counts: ArrayLike,
    *,
    alpha: float = 0.01,
    floor: float = 0.02,
    min_rows: int = 200,
) -> Verdict:
    """Test a batch against the reference, both as counts int64[B] over the same bins.

    alpha: rate of false alarms per test; lower is quieter and later. floor: PSI below which no change
    matters, however certain; higher is quieter. min_rows: rows that both samples need before anything is
    called drift.

    Bins that expect fewer than five rows in the smaller sample are pooled. If the pool expects fewer than
    five too (a value the reference hardly showed), it takes part only when it holds MORE than expected:
    nothing follows from its being empty, while a sudden share of missing or unseen values is what a broken
    upstream looks like.

    Raises `InvalidInput` for negative, unequal or empty counts, or parameters outside their range.

    >>> verdict = psi_test([5000, 3000, 2000], [400, 300, 300])
    >>> verdict.drifted, round(verdict.effect, 4), round(verdict.threshold, 4)
    (True, 0.0629, 0.0101)
    """
    reference, current = pair(reference_counts, current_counts)
    fraction(alpha, "alpha")
    at_least_zero(floor, "floor")
    reference_rows, rows = float(reference.sum()), float(current.sum())
    enough = min(reference_rows, rows) >= min_rows
    if reference_rows == 0.0 or rows == 0.0:
        return Verdict(math.nan, math.inf, floor, math.nan, int(rows), drifted=False, enough=False)
    expected_shares, shares = pooled_shares(reference, current)
    value = float(population_stability(expected_shares, shares))
    scale = 1.0 / reference_rows + 1.0 / rows
    freedom = expected_shares.size - 1
    threshold = scale * chi2_quantile(1.0 - alpha, freedom) if freedom else 0.0
    return Verdict(
        effect=value,
        threshold=threshold,
        floor=floor,
        p_value=chi2_tail(value / scale, freedom) if freedom else 1.0,
        rows=int(rows),
        drifted=enough and value > threshold and value > floor,
        enough=enough,
    )


def pair(reference_counts: ArrayLike, current_counts: ArrayLike) -> tuple[Floats, Floats]:
    """Two count vectors float64[B] over the same bins, checked."""
    reference = tallies(reference_counts, "reference_counts")
    current = tallies(current_counts, "current_counts")
    if reference.size != current.size:
        raise InvalidInput(f"reference has {reference.size} bins, current {current.size}; use the same bins")
    return reference, current


def pooled_shares(reference: Floats, current: Floats) -> tuple[Floats, Floats]:
    """Shares of the bins that expect enough rows, and last of the pool of the others if it holds any row."""
    reference_rows, rows = float(reference.sum()), float(current.sum())
    least_share = _EXPECTED / min(reference_rows, rows)
    shares, observed = reference / reference_rows, current / rows
    sparse = shares < least_share
    pool, pool_observed = float(shares[sparse].sum()), float(observed[sparse].sum())
    if pool == 0.0 and pool_observed == 0.0:
        return shares[~sparse], observed[~sparse]
    if pool < least_share:
        pool = max(pool, _UNSEEN / reference_rows)
        pool_observed = max(pool, pool_observed)
    return np.append(shares[~sparse], pool), np.append(observed[~sparse], pool_observed)
