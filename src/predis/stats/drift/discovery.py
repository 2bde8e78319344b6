"""Many tests at once: the false discovery rate of Benjamini and Hochberg."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from predis.errors import InvalidInput
from predis.stats._arrays import Floats, vector


def adjust(p_values: ArrayLike) -> Floats:
    """Adjusted p-values float64[m] of Benjamini and Hochberg (1995).

    Rejecting where the adjusted value is <= alpha keeps the false discovery rate at alpha.

    NaN (a test that could not be made) stays NaN and does not count as a test. Raises `InvalidInput`
    outside [0, 1].

    >>> adjust([0.01, 0.04, 0.03, 0.5]).round(4).tolist()
    [0.04, 0.0533, 0.0533, 0.5]
    """
    values = vector(p_values, "p_values")
    adjusted = values.copy()
    made = np.flatnonzero(~np.isnan(values))
    if ((values[made] < 0.0) | (values[made] > 1.0)).any():
        raise InvalidInput("p_values must lie in [0, 1]")
    descending = made[np.argsort(-values[made], kind="stable")]
    scaled = values[descending] * made.size / np.arange(made.size, 0, -1)
    adjusted[descending] = np.minimum.accumulate(np.minimum(scaled, 1.0))
    return adjusted
