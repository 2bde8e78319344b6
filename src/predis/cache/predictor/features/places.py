"""A table of fixed size from names to rows of numbers, looked up for a whole batch at once; what was used least recently is forgotten.

It is built as the caches of processors are: a name belongs to one set of eight places, and among these the least recently used makes
room. So there is no list to keep in order, a look-up is one comparison of arrays, and ten million keys need no more memory than ten.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_WAYS = 8
_MIX = np.uint64(0x9E3779B97F4A7C15)

Names = NDArray[np.uint64]


class Places:
    """Rows by name.

    Args:
        most: rows, a power of two, at least eight.
        columns: numbers of a row; all zero at first.
    """

    def __init__(self, most: int, columns: int) -> None:
        if most < _WAYS or most & (most - 1):
            raise ValueError(f"a power of two of at least {_WAYS} rows, not {most}")
        self._sets = most // _WAYS
        self._names = np.zeros((self._sets, _WAYS), np.uint64)
        self._used = np.zeros((self._sets, _WAYS), np.int64)
        self._turn = 0
        self.rows = np.zeros((most + 1, columns))  # the last one stays zero: of whom is not known

    def find(
        self, names: Names, first: NDArray[np.int64], *, keep: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Where names stand: their rows' indices, -1 of those without one; and which of them were known before.

        Names that are not known get a place if they are to be kept, in the order of ``first``; where a set is full of others that this
        batch uses, the latest go without.

        Args:
            names: distinct, none of them 0.
        """
        self._turn += 1
        sets = ((names * _MIX) >> np.uint64(20)).astype(np.int64) % self._sets
        same = self._names[sets] == names[:, None]
        way = same.argmax(1)
        known = same[np.arange(len(names)), way]
        self._used[sets[known], way[known]] = self._turn
        found = np.where(known, sets * _WAYS + way, -1)
        new = np.flatnonzero(keep & ~known)
        if len(new):
            self._place(new[np.lexsort((first[new], sets[new]))], names, sets=sets, found=found)
        return found, known

    def _place(
        self, new: NDArray[np.int64], names: Names, *, sets: NDArray[np.int64], found: NDArray[Any]
    ) -> None:
        """Gives the new names, ordered by set, the places used least recently."""
        of = sets[new]
        begins = np.r_[True, of[1:] != of[:-1]]
        rank = np.arange(len(new)) - np.maximum.accumulate(np.where(begins, np.arange(len(new)), 0))
        fits = rank < _WAYS
        new, of, rank = new[fits], of[fits], rank[fits]
        way = np.argsort(self._used[of], axis=1, kind="stable")[np.arange(len(new)), rank]
        free = self._used[of, way] < self._turn
        new, of, way = new[free], of[free], way[free]
        self._names[of, way], self._used[of, way] = names[new], self._turn
        found[new] = of * _WAYS + way
        self.rows[found[new]] = 0.0
