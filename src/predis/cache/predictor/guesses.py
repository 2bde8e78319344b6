"""Guesses that wait for their outcome, acted on or not, and what the outcome teaches.

A guess says: this key will be needed, late enough for a prefetch and soon enough to be kept that long. Those the ensemble did not dare
act on are watched as well, so a rule's chance is known before it costs anything, and one that was switched off can come back. A key
guessed again while it waits keeps the earlier guess underneath (``before``): each gets its own outcome.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from predis.cache.predictor.odds import Calibration, LastCalibration, Mixture
from predis.cache.predictor.patience import Patience
from predis.cache.simulator.setup import Key

_LIKELY = 0.4  # chance above which a guess's age counts for the patience


class Guess:
    """One guess: when, by which rules, and how sure.

    Attributes:
        acted: a prefetch was asked for.
        covered: a nearer rule said the same later, and still in time.
    """

    __slots__ = ("acted", "at", "before", "covered", "opinion", "when")

    def __init__(self, at: int, when: float, *, before: Guess | None, opinion: Opinion) -> None:
        self.at, self.when, self.before, self.opinion = at, when, before, opinion
        self.acted = self.covered = False
        if before is not None and before.before is not None:
            before.before.before = None  # three guesses of one key wait at a time

    def cover(self) -> None:
        guess: Guess | None = self
        while guess is not None:
            guess.covered = True
            guess = guess.before


class Opinion(NamedTuple):
    """What the rules together say of a key.

    Attributes:
        calibrations: of the rules that spoke.
        last: the mixture's calibration.
        chance: that the key will be needed in time.
        gain: misses spared if it is asked for now, at the least, less what a wasted load and the slot cost.
        patience: of the surest rule.
        far: only the far table spoke.
    """

    mixture: Mixture
    inputs: Sequence[float]
    calibrations: Sequence[Calibration]
    last: LastCalibration
    chance: float
    gain: float
    patience: Patience
    far: bool


class Guesses:
    """All that wait, bounded by the horizon times the candidates of a request.

    Args:
        wait: how long a prefetch is under way, in the unit of ``when``.
        horizon: requests after which a guess has failed.
        rate, evidence: as in `Tuning`.
    """

    def __init__(self, *, wait: float, horizon: int, rate: float, evidence: float) -> None:
        self.wait, self.horizon, self.rate, self.evidence = wait, horizon, rate, evidence
        self.waiting: dict[Key, Guess] = {}
        self._order: deque[tuple[int, Key]] = deque()

    def add(self, key: Key, guess: Guess) -> None:
        self.waiting[key] = guess
        self._order.append((guess.at, key))

    def requested(self, key: Key, at: int, *, when: float, needed: bool) -> bool:
        """A key is requested now; True where it had been guessed."""
        guess = self.waiting.pop(key, None)
        if guess is None:
            return False
        while guess is not None:
            age = at - guess.at
            right = needed and when - guess.when >= self.wait
            opinion = guess.opinion
            if right and opinion.chance >= _LIKELY:
                opinion.patience.needed(age)
            in_time = age <= opinion.patience.requests
            self._outcome(guess, right and in_time, requested=in_time)
            guess = guess.before
        return True

    def wasted(self, key: Key) -> None:
        """A prefetched key had to leave unused: the guess has failed whatever comes."""
        guess = self.waiting.get(key)
        if guess is None or not guess.acted:
            return
        del self.waiting[key]
        while guess is not None:
            self._outcome(guess, False, requested=False)
            guess = guess.before

    def expire(self, at: int) -> None:
        """Those older than the horizon have failed."""
        order, oldest = self._order, at - self.horizon
        while order and order[0][0] < oldest:
            asked, key = order.popleft()
            guess = self.waiting.get(key)
            if guess is None or guess.at != asked:
                continue
            del self.waiting[key]
            while guess is not None:
                if guess.opinion.chance >= _LIKELY:
                    guess.opinion.patience.never()
                self._outcome(guess, False, requested=False)
                guess = guess.before

    def _outcome(self, guess: Guess, came_true: bool, *, requested: bool) -> None:
        opinion, evidence = guess.opinion, self.evidence
        for calibration in opinion.calibrations:
            calibration.outcome(came_true, evidence)
        opinion.mixture.outcome(opinion.inputs, came_true, rate=self.rate)
        worth = came_true and not (guess.covered and opinion.far)
        opinion.last.settle(worth, requested=requested, most=evidence)
