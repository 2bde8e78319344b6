"""Many small histories in one batch, without a loop over its rows.

A batch has rows of many keys, each key perhaps several times, and each row must see what the rows before it did. Almost everything
worth remembering of a history is of one of two kinds:

* *what was last so*: of the previous row of the same name, or of the table where the batch has none (``last``);
* *a linear recurrence* x' = a x + b: counts that fade, moving means and moments, values that are replaced under a condition (a = 0).
  Two steps (a, b) and (c, d) make one: (ca, cb + d). So all prefixes of all histories come from log2 of the longest one's length
  doublings (a segmented scan, Hillis and Steele 1986), each a few operations on whole arrays.

Rows may merely *ask*: they see the past and leave no trace.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.cache.predictor.features.places import Names, Places

Floats = NDArray[np.float64]


class Grouped:
    """The rows of a batch, ordered by name and within a name by time.

    Args:
        names: of each row.
        learn: which rows are remembered; the others ask.
        places: where the names' histories are kept.
    """

    def __init__(self, names: Names, learn: NDArray[np.bool_], *, places: Places) -> None:
        distinct, first, inverse = np.unique(names, return_index=True, return_inverse=True)
        count = len(names)
        self.order = np.argsort(inverse, kind="stable")
        self.group = inverse[self.order]
        self.learn = learn[self.order]
        starts = np.flatnonzero(np.r_[True, self.group[1:] != self.group[:-1]])
        self._start = starts[self.group]
        self._ends = np.r_[starts[1:], count] - 1
        self.earlier_rows: NDArray[np.int64] = np.arange(count) - self._start  # learnt or asked
        self._taught = np.zeros(len(distinct), bool)
        self._taught[self.group[self.learn]] = True
        self._places = places
        self._rows, _ = places.find(distinct, first.astype(np.int64), keep=self._taught)
        self.stored: Floats = places.rows[self._rows]
        latest = np.maximum.accumulate(np.where(self.learn, np.arange(count), -1))
        self._latest = np.where(
            latest >= self._start, latest, -1
        )  # the last row up to this that is remembered
        before = np.r_[-1, latest[:-1]]
        self._before = np.where(before >= self._start, before, -1)
        learnt: NDArray[np.int64] = np.cumsum(self.learn) - self.learn
        self.earlier: NDArray[np.int64] = (
            learnt - learnt[self._start]
        )  # rows of the name before, in this batch

    def sorted(self, column: NDArray[Any]) -> NDArray[Any]:
        """A column of the batch, in this order."""
        return column[self.order]

    def unsorted(self, column: NDArray[Any]) -> NDArray[Any]:
        """A column of this order, as the batch has it."""
        out = np.empty_like(column)
        out[self.order] = column
        return out

    def last(self, values: Floats, column: int) -> Floats:
        """The value at the previous row of the same name, the stored one at its first."""
        return np.where(self._before >= 0, values[self._before], self.stored[self.group, column])

    def ended(self, values: Floats, column: int) -> Floats:
        """For each name, its value after the batch."""
        latest = self._latest[self._ends]
        return np.where(latest >= 0, values[latest], self.stored[:, column])

    def scan(self, factors: Floats, terms: Floats, *, column: int) -> tuple[Floats, Floats]:
        """The recurrences x' = factor x + term, from the stored values in ``column`` and those after it.

        Returns:
            What each row finds (before its own step), and for each name what is left after the batch.
        """
        width = factors.shape[1]
        asks = ~self.learn[:, None]
        a = np.where(asks, 1.0, factors)
        x = np.where(asks, 0.0, terms)
        stored = self.stored[:, column : column + width]
        firsts = self.earlier_rows == 0
        x[firsts] += a[firsts] * stored[self.group[firsts]]
        step, longest = 1, int(self.earlier_rows.max()) + 1
        while step < longest:
            at = np.flatnonzero(self.earlier_rows >= step)
            earlier = at - step
            x[at] += a[at] * x[earlier]
            a[at] *= a[earlier]
            step *= 2
        found = np.empty_like(x)
        found[1:] = x[:-1]
        found[firsts] = stored[self.group[firsts]]
        return found, x[self._ends]

    def keep(self, columns: list[Floats]) -> None:
        """Store these for each name of which something was learnt."""
        good = self._taught & (self._rows >= 0)
        self._places.rows[self._rows[good]] = np.column_stack(columns)[good]
