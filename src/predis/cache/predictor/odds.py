"""How likely a guess comes true: measured, never believed.

Each rule says how it came to a guess (how often the source was seen, which share of the time this key followed, whether the stream ran
as foretold of late). A *Calibration* counts what became of guesses of the same kind; that is the rule's honest probability. Where
several rules guess the same key, a *Mixture* adds their log-odds, weighted by how much each has been worth beside the others (logistic
mixing, Mahoney's PAQ), and a last calibration takes what the mixture says and replies how often that was right.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from operator import mul

BIAS = 0.3
_NEW = 8.0  # outcomes that a new last calibration starts with
_STEPS = 2.0  # calibrations per unit of log-odds
_ENDS = 4
_FURTHEST = _ENDS / _STEPS


class Calibration:
    """Guesses of a kind that came true, of all."""

    __slots__ = ("all", "true")

    def __init__(self, true: float = 0.6, of: float = 2.0) -> None:
        self.true, self.all = true, of

    def outcome(self, came_true: bool, most: float) -> None:
        self.all += 1.0
        if came_true:
            self.true += 1.0
        if self.all > most:
            self.all *= 0.5
            self.true *= 0.5


class LastCalibration(Calibration):
    """Tells also how many were requested at all, on time or not: a guess that comes late costs nothing but its hope."""

    __slots__ = ("requested",)

    def __init__(self, true: float, of: float) -> None:
        super().__init__(true, of)
        self.requested = true

    def settle(self, came_true: bool, *, requested: bool, most: float) -> None:
        if requested:
            self.requested += 1.0
        if self.all >= most:
            self.requested *= 0.5
        self.outcome(came_true, most)


def logit(chance: float) -> float:
    """Log-odds, within those of 1% and 99%."""
    if chance > 0.99:
        chance = 0.99
    elif chance < 0.01:
        chance = 0.01
    return log(chance / (1.0 - chance))


def chance_of(odds: float) -> float:
    """The chance with these log-odds."""
    return 1.0 / (1.0 + exp(-odds)) if odds > -30.0 else 0.0


class Mixture:
    """Weights of one set of rules that guess the same key, bias first, and the last calibrations."""

    __slots__ = ("last", "weights")

    def __init__(self, rules: int) -> None:
        self.weights = [0.0] + [1.0 if rules == 1 else 1.2 / rules] * rules
        self.last: dict[tuple[int, bool], LastCalibration] = {}

    def odds(self, inputs: Sequence[float]) -> float:
        """Log-odds, before the last calibration; ``inputs`` are those of the rules, after the bias."""
        total: float = sum(map(mul, self.weights, inputs))
        return total

    def calibration(self, odds: float, confirmed: bool) -> LastCalibration:
        step = round(odds * _STEPS) if -_FURTHEST < odds < _FURTHEST else _ENDS if odds > 0.0 else -_ENDS
        found = self.last.get((step, confirmed))
        if found is None:
            found = self.last[step, confirmed] = LastCalibration(chance_of(step / _STEPS) * _NEW, _NEW)
        return found

    def outcome(self, inputs: Sequence[float], came_true: bool, *, rate: float) -> None:
        step = (came_true - chance_of(self.odds(inputs))) * rate
        weights = self.weights
        for at, value in enumerate(inputs):
            weights[at] += step * value
