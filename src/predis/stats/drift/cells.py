"""Cells: the bins of many features reduced to one rectangular table of few, so that all features are judged in one go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from predis.stats._arrays import Floats, Ints
from predis.stats.bins import Bins

WIDTH = 24  # cells of a feature; the last is that of everything rare
_LEAST_SHARE = 0.005  # of a bin that has a cell of its own: five rows in a window of 1,000


class Cells:
    """Maps the concatenated bin counts of F features to cells, float64[F, WIDTH].

    bins, counts: of the reference. Bins that hold at least half a per cent of the reference have a cell each, in their order, up
    to 23 of them; everything else is "rare". What lies below or above the bins of a continuous feature counts to the first or
    last of them: the reference has nothing outside its own range, every other sample of the same source has a little.
    """

    def __init__(self, bins: Sequence[Bins], counts: Sequence[Ints]) -> None:
        self.features = len(bins)
        places = [
            _places(each, np.asarray(own, dtype=np.float64)) for each, own in zip(bins, counts, strict=True)
        ]
        self._places = np.concatenate(
            [place + WIDTH * f for f, place in enumerate(places)] or [np.empty(0, int)]
        )
        self.size = self._places.size

    def __call__(self, counts: Ints) -> Floats:
        """float64[F, WIDTH] of concatenated counts int64[size]."""
        flat = np.bincount(self._places, weights=counts, minlength=self.features * WIDTH)
        return np.asarray(flat.reshape(self.features, WIDTH), dtype=np.float64)


def _places(bins: Bins, counts: Floats) -> Ints:
    source = np.arange(bins.size)
    if continuous(bins):
        source[0], source[-2] = 1, bins.size - 3
    held = np.bincount(source, weights=counts, minlength=bins.size)
    frequent = np.flatnonzero(held >= max(_LEAST_SHARE * held.sum(), 1.0))
    own = np.sort(frequent[np.argsort(-held[frequent], kind="stable")][: WIDTH - 1])
    cell = np.full(bins.size, WIDTH - 1)
    cell[own] = np.arange(own.size)
    return np.asarray(cell[source], dtype=np.int64)


def continuous(bins: Bins) -> bool:
    """Whether the bins are those of a numeric feature with many values."""
    return bins.kind == "numeric" and not bins.levels and len(bins.edges) > 2
