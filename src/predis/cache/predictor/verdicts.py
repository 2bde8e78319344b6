"""When a new version takes over, and when the one in use has to go: judged by the hold-back alone, with intervals.

**A trial.** Keys are shared out between champion and candidate (``arms``); of both a share is held back. What counts is not how good a
foretold key is but what a share of the keys is spared: gain a key, times keys foretold, over the share (a candidate that foretells little,
and that surely, would else win). Bounds are those of the two gains, each at half the error; that chance also moves how many keys are
foretold is left out, which is little beside them from some hundred keys on.

* promote: it surely spares at least ``1 - tolerance`` of what the champion spares, and surely something at all;
* drop: it surely spares less than the champion, or does not pay for the loads it wastes, or too few of its keys are read at all;
* drop: so many outcomes, or so much time, have not shown the one or the other. Who is in use stays.

**In use.** A champion is judged by its latest outcomes only. It goes when its gain is surely none, or surely less than half of what it was
when it was promoted.

The intervals hold at all times at once, so looking every second costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from predis.cache.predictor.gain import Tally

ALPHA = 0.05


@dataclass(frozen=True)
class Gates:
    """What a version must show.

    Attributes:
        tolerance: share of the champion's worth that a candidate may be short of, for certain.
        precision: least share of the given keys that is read.
        gain: misses spared a key, below which it counts as none.
        cost: what a wasted load costs, in misses spared.
        least, least_held: outcomes, and such of held back keys, before anything is decided.
        most: outcomes of the candidate after which a trial that shows nothing ends; ``patience_s`` the same in time.
        lasting: least share of its gain at promotion that a champion keeps.
    """

    tolerance: float = 0.2
    precision: float = 0.5
    gain: float = 0.05
    cost: float = 0.1
    least: int = 200
    least_held: int = 30
    most: int = 200_000
    patience_s: float = 7 * 86_400.0
    lasting: float = 0.5


class Verdict(NamedTuple):
    """What to do, and why, in words for people."""

    do: Literal["wait", "promote", "drop", "roll back"]
    why: str


class Spared(NamedTuple):
    """Misses spared in a share of the keys, scaled to all keys; ``low`` and ``high`` contain it."""

    low: float
    point: float
    high: float


def spared(tally: Tally, share: float, *, alpha: float = ALPHA) -> Spared:
    """What a version spares.

    Args:
        share: of the keys that are the version's.
    """
    foretold = (tally.given + tally.held) / share if share else 0.0
    low, high = tally.gain_interval(alpha)
    point = 0.0 if math.isnan(tally.gain) else tally.gain
    return Spared(low * foretold, point * foretold, high * foretold)


def of_trial(champion: Tally, candidate: Tally, *, share: float, age_s: float, gates: Gates) -> Verdict:
    """Whether a candidate has shown enough.

    Args:
        champion, candidate: outcomes since the trial began.
        share: of the keys that are the candidate's.
        age_s: since when.
    """
    if not _enough(candidate, gates):
        if age_s > gates.patience_s:
            return Verdict("drop", f"it foretold {candidate.given + candidate.held} keys in {_days(age_s)}")
        return Verdict("wait", "too few keys foretold so far")
    if candidate.precision < gates.precision:
        return Verdict(
            "drop", f"{candidate.precision:.0%} of its keys are read, {gates.precision:.0%} are demanded"
        )
    low, high = candidate.gain_interval(ALPHA)
    if high < max(gates.gain, gates.cost * candidate.waste):
        return Verdict(
            "drop", f"it does not pay: {_gain(candidate)}, {candidate.waste:.0%} of its loads are wasted"
        )
    ours, theirs = spared(candidate, share, alpha=ALPHA / 2), spared(champion, 1.0 - share, alpha=ALPHA / 2)
    if not champion.given + champion.held:
        theirs = Spared(0.0, 0.0, 0.0)
    if ours.high < theirs.low:
        return Verdict("drop", f"it spares less than the version in use: {_compared(ours, theirs)}")
    if low > 0.0 and ours.low >= (1.0 - gates.tolerance) * theirs.high:
        return Verdict("promote", f"{_gain(candidate)}; {_compared(ours, theirs)}")
    if candidate.given + candidate.held >= gates.most or age_s > gates.patience_s:
        return Verdict("drop", f"not shown to be as good as the version in use: {_compared(ours, theirs)}")
    return Verdict("wait", f"not certain yet: {_compared(ours, theirs)}")


def of_champion(recent: Tally, *, before: float | None, gates: Gates) -> Verdict:
    """Whether the version in use still earns its keep.

    Args:
        recent: its latest outcomes.
        before: its gain when it was promoted, where that is known.
    """
    if not _enough(recent, gates):
        return Verdict("wait", "too few keys foretold of late")
    _, high = recent.gain_interval(ALPHA)
    if high < gates.gain:
        return Verdict("roll back", f"its gain is gone: {_gain(recent)}")
    if before is not None and high < gates.lasting * before:
        return Verdict("roll back", f"its gain is gone: {_gain(recent)}, when it was promoted {before:.2f}")
    return Verdict("wait", _gain(recent))


def _enough(tally: Tally, gates: Gates) -> bool:
    return tally.given + tally.held >= gates.least and tally.held >= gates.least_held and tally.given > 0


def _gain(tally: Tally) -> str:
    low, high = tally.gain_interval(ALPHA)
    return f"{tally.gain:.2f} misses spared a key ({low:.2f} to {high:.2f})"


def _compared(ours: Spared, theirs: Spared) -> str:
    return (
        f"it would spare {ours.point:,.0f} misses ({ours.low:,.0f} to {ours.high:,.0f}), "
        f"the version in use {theirs.point:,.0f} ({theirs.low:,.0f} to {theirs.high:,.0f})"
    )


def _days(seconds: float) -> str:
    return f"{seconds / 86_400:.0f} days"
