"""Scores as counts in fixed buckets that fit any real score, so that two versions can be compared from counts.

Probabilities are what most models answer, and they differ where they are near 0 or 1: between 0 and 1 the buckets
are even in the logit, from -12 to 12 in steps of 1/4 (at 0.5 a bucket is 0.06 wide, at 0.001 it is 0.0002).
Other scores (margins, amounts, log odds) are counted by sign and magnitude, eight buckets a factor of ten, from
1 to 1e9 above and from 1e-6 to 1e9 below 0. An exact 0 and an exact 1 have a bucket each.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from predis.stats._arrays import Floats, Ints, vector


def _edges() -> Floats:
    logits = np.arange(-48, 49) / 4.0
    inside = 1.0 / (1.0 + np.exp(-logits))
    below = -(10.0 ** (np.arange(8 * 9, 8 * -6 - 1, -1) / 8.0))
    above = 10.0 ** (np.arange(1, 8 * 9 + 1) / 8.0)
    points = [0.0, np.nextafter(0.0, 1.0)], [1.0, np.nextafter(1.0, 2.0)]
    edges: Floats = np.concatenate([below, points[0], inside, points[1], above])
    edges.setflags(write=False)
    return edges


EDGES: Final[Floats] = _edges()
"""float64[294], ascending; bucket i holds EDGES[i-1] <= score < EDGES[i]."""

BUCKETS: Final[int] = EDGES.size + 1


def count(scores: ArrayLike) -> Ints:
    """How many of `scores` float64[n] fall in each bucket: int64[BUCKETS]. NaN is no score and is not counted.

    Infinite scores are in the outermost buckets. Raises `InvalidInput` if the shape is not [n].

    >>> counts = count([0.5, 0.5, 0.0, -3.0, float("nan")])
    >>> int(counts.sum()), int(counts.max())
    (4, 2)
    """
    values = vector(scores, "scores")
    values = values[~np.isnan(values)]
    return np.bincount(EDGES.searchsorted(values, side="right"), minlength=BUCKETS)
