"""Bets against "of events so far, the share of side c is p0", which both `RatioTest` and `SplitTest` make.

An alternative tilts the odds of side c by a factor theta. Of d events x are c's; with Z = 1 + p0 (theta - 1) the
likelihood ratio against p0 is

    f = theta^x / Z^d

and its expectation is 1 if p0 is the truth. The product of such factors over increments is a martingale that starts at
1, even though p0 is another one in each increment, and so is the average of the products of several theta. By
Ville's inequality it EVER reaches 1/alpha with probability at most alpha (Lindon and Malek 2022).

Events come in clusters: a stall fails everything that one batch held. So an increment counts for less than f:

- If all its d events were one cluster, which hits c with probability p0, f would have an expectation far above 1.
  f is cut where that expectation is 1 again. A single event is never cut; many count at most 1/p0.
- f is cut at `cap`, so that no increment can decide alone.
- A tenth of the capital is never staked, so that no increment can lose more than nine tenths: one stall of the
  baseline does not hide a bad candidate for good. For ordinary increments that costs one per cent of the growth.

Cutting lowers an expectation, and so does not harm the guarantee.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from predis.errors import InvalidInput
from predis.stats._arrays import Floats

STAKE = 0.9


def log_factors(
    theta: Floats,
    share: Floats | float,
    *,
    hits: Floats | float,
    others: Floats | float,
    cap: float,
    clustered: bool = True,
) -> Floats:
    """Logarithm of what one increment multiplies each bet by.

    theta: float64[k], all above 1 or all below. share: p0, 0 < p0 < 1; hits: x, events of side c; others: d - x. Those
    three may be arrays [...] of many increments. clustered: cut for clusters too. Returns float64[..., k].
    """
    p, x, rest = (np.asarray(value, dtype=np.float64)[..., None] for value in (share, hits, others))
    log_z = np.log1p(p * (theta - 1.0))
    log_f = x * np.log(theta) - (x + rest) * log_z
    if clustered:
        # The cluster that goes against the bet leaves g^d; what goes with it may then count as (1 - (1 - p) g^d) / p.
        against = np.where(theta > 1.0, -log_z, np.log(theta) - log_z)
        with_it = np.where(theta > 1.0, p, 1.0 - p)
        cluster = 1.0 - (1.0 - with_it) / with_it * np.expm1((x + rest) * against)
        log_f = np.minimum(log_f, np.log(cluster))
    log_f = np.minimum(log_f, math.log(cap))
    hedged: Floats = np.logaddexp(math.log(1.0 - STAKE), math.log(STAKE) + log_f)
    return np.where(x + rest > 0, hedged, 0.0)


def log_mean(log_wealth: Floats) -> float:
    """log of the mean of exp(log_wealth) float64[k]: the capital of all bets together, which shared 1 evenly."""
    top = float(log_wealth.max())
    return top + math.log(float(np.exp(log_wealth - top).mean()))


def checked_cap(cap: float) -> float:
    if not (cap > 1 and math.isfinite(cap)):
        raise InvalidInput(f"cap must be a finite number above 1, got {cap}")
    return float(cap)


def checked_counts(*counts: float) -> None:
    if not all(value >= 0 and math.isfinite(value) for value in counts):
        raise InvalidInput(f"counts must be finite and >= 0, got {counts}")


def stored_state(values: Sequence[float], *, size: int) -> list[float]:
    """`values` as `size` finite numbers, or `InvalidInput`."""
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.shape != (size,) or not np.isfinite(found).all():
        raise InvalidInput(f"the state of this test is stored as {size} finite numbers, got {values!r:.80}")
    return [float(value) for value in found]
