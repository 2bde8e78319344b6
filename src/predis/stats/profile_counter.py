"""The profile of a data set that comes in batches."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from predis.errors import InvalidInput
from predis.stats import _arrays
from predis.stats._arrays import Floats
from predis.stats.bins import Bins
from predis.stats.profile import Profile, block_slices, most_blocks


class ProfileCounter:
    """Counts the batches of a data set, in the order of its rows, in bins that are fixed; in constant memory.

    Args:
        bins: of the k feature columns.
        score_bins: of the model's output.
        rows: of the whole data set: they say where its blocks lie.

    >>> from predis.stats import numeric_bins
    >>> counter = ProfileCounter((numeric_bins("age", [20, 60]),), numeric_bins("score", [0, 1]), rows=3)
    >>> counter.add([[20], [60]], scores=[0, 1], labels=None)
    >>> counter.add([[99]], scores=[1], labels=None)
    >>> counter.profile().counts[0].tolist()
    [0, 1, 1, 1, 0]
    """

    def __init__(self, bins: tuple[Bins, ...], score_bins: Bins, *, rows: int) -> None:
        nothing = [np.zeros(each.size, dtype=np.int64) for each in (*bins, score_bins)]
        self._counted = Profile(bins, tuple(nothing[:-1]), score_bins, nothing[-1], 0, 0, 0)
        self._rows = rows
        self._slices = block_slices(rows, most=most_blocks(bins))
        self._blocks = np.zeros((len(self._slices), sum(each.size for each in bins)), dtype=np.int64)

    def add(self, matrix: ArrayLike, *, scores: ArrayLike, labels: ArrayLike | None) -> None:
        """Count the next rows: `matrix` float64[n, k], `scores` float64[n], `labels` float64[n] with NaN for "not known", or None.

        Raises `InvalidInput` for other shapes.
        """
        before = self._counted
        table = _arrays.matrix(matrix, "matrix", columns=len(before.bins))
        outputs = _arrays.vector(scores, "scores")
        known = np.empty(0) if labels is None else _arrays.vector(labels, "labels")
        if outputs.size != len(table) or (labels is not None and known.size != len(table)):
            raise InvalidInput(f"{len(table)} rows, {outputs.size} scores, {known.size} labels: one per row")
        self._add_to_blocks(table)
        batch = Profile(
            bins=before.bins,
            counts=before.count(table),
            score_bins=before.score_bins,
            score_counts=before.count_scores(outputs),
            rows=len(table),
            labelled=int(np.count_nonzero(~np.isnan(known))),
            positives=int(np.count_nonzero(known == 1.0)),
        )
        self._counted = before.merge(batch)

    def profile(self) -> Profile:
        """What was counted. Raises `InvalidInput` if it was not the whole data set."""
        found = self._counted
        if found.rows != self._rows:
            raise InvalidInput(f"{found.rows} rows were counted of {self._rows}")
        return Profile(
            found.bins, found.counts, found.score_bins, found.score_counts, found.rows, found.labelled, found.positives,
            self._blocks,
        )  # fmt: skip

    def _add_to_blocks(self, table: Floats) -> None:
        at = self._counted.rows
        for block, part in zip(self._blocks, self._slices, strict=True):
            rows = table[max(part.start - at, 0) : max(part.stop - at, 0)]
            if len(rows):
                block += np.concatenate(self._counted.count(rows))
