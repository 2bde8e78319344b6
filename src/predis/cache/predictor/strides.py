"""Runs of numbers: keys that were never seen, foretold by their distance from one that was.

Where keys are numbers, distances between a needed key and the sources that are just old enough are counted; the most frequent are
tried. Which of them will do depends on how far a run has come: eight blocks in a row may be all, sixteen promise a file. So each
distance has a calibration for each length of the run so far. Where numbers mean nothing no distance ever comes up often enough, and
this costs next to nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from predis.cache.predictor.odds import Calibration

FURTHEST = 4_096  # distance
_REVIEW = 4_096  # distances counted from one choice to the next
_OFTEN = 40  # least count of a distance that is tried
_RUNS = 1_024  # remembered
_EXACT = 32  # run lengths told apart one by one; beyond by powers of two


class Strides:
    """Distances worth trying, and how each has fared.

    Args:
        most: distances tried.
    """

    def __init__(self, most: int = 24) -> None:
        self.most = most
        self.active: tuple[int, ...] = ()
        self.fared: dict[tuple[int, int, bool], Calibration] = {}
        self._counts: dict[int, int] = {}
        self._counted = 0
        self._runs: OrderedDict[int, int] = OrderedDict()  # last number of a run: its length

    def count(self, sources: Sequence[int], number: int) -> None:
        """So far apart were these sources and the number needed in time after them."""
        for source in sources:
            distance = number - source
            if -FURTHEST <= distance <= FURTHEST:
                self._counts[distance] = self._counts.get(distance, 0) + 1
            self._counted += 1
            if self._counted >= _REVIEW:
                self._choose()

    def _choose(self) -> None:
        self._counted = 0
        often = sorted([(-count, distance) for distance, count in self._counts.items() if count > _OFTEN])
        self.active = tuple([distance for _, distance in often[: self.most]])
        self.fared = {at: one for at, one in self.fared.items() if at[0] in self.active}
        self._counts = {distance: count // 2 for distance, count in self._counts.items() if count > 2}

    def run(self, number: int) -> int:
        """The length of the run that this number continues, in classes."""
        runs = self._runs
        length = runs.pop(number - 1, 0) + 1
        runs[number] = length
        if len(runs) > _RUNS:
            runs.popitem(last=False)
        return length if length <= _EXACT else _EXACT + length.bit_length()

    def calibration(self, distance: int, *, run: int, confirmed: bool) -> Calibration:
        at = (distance, run, confirmed)
        found = self.fared.get(at)
        if found is None:
            found = self.fared[at] = Calibration()
        return found
