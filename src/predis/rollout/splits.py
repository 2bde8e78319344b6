"""Who answers at each stage of a rollout: the endpoint's split as it was, with the candidate's share laid over it.

A rollout changes one part of the split: the weights of everybody, or, with ``where``, those of the requests for which that expression
holds. Everything else, segments of earlier rollouts among it, stays as it was when the rollout began.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from predis.rollout.plan import Plan
from predis.rollout.states import FINAL, State
from predis.serving.route import Segment, Split


@dataclass(frozen=True)
class Sides:
    """What a rollout is between. ``baseline`` is None for an endpoint that answers nothing yet."""

    baseline: int | None
    candidate: int


def baseline_of(base: Split, where: str) -> int | None:
    """The version that answers most of what a rollout would move."""
    weights = (
        next((s.weights for s in base.segments if s.when == where), base.weights) if where else base.weights
    )
    return max(weights, key=lambda number: weights[number]) if weights else None


def split_of(plan: Plan, base: Split, *, sides: Sides, state: str, share: float, salt: str) -> Split:
    """The split of a rollout in this state.

    The baseline stands first, so that a growing canary only takes keys over from it. ``salt`` draws anew, for each rollout, who meets the
    candidate: nobody is always among the first.
    """
    if state in FINAL and state != State.PROMOTED:
        return base
    if sides.baseline is None:
        return replace(base, weights={sides.candidate: 1.0})
    if state == State.PROMOTED:
        return _with(base, plan.where, weights={sides.candidate: 1.0})
    weights = {sides.baseline: 1.0 - share, sides.candidate: share}
    found = replace(_with(base, plan.where, weights=weights), salt=salt)
    if plan.strategy == "shadow" and state != State.WARMING:
        return replace(found, shadows={**base.shadows, sides.candidate: plan.shadow_share})
    return found


def _with(base: Split, where: str, *, weights: Mapping[int, float]) -> Split:
    if not where:
        return replace(base, weights=weights)
    if any(segment.when == where for segment in base.segments):
        segments = tuple(Segment(where, weights) if s.when == where else s for s in base.segments)
    else:
        segments = (Segment(where, weights), *base.segments)
    return replace(base, segments=segments)


def without_segment(base: Split, where: str) -> Split:
    """The split without one segment: its requests are answered as all others are."""
    return replace(base, segments=tuple(segment for segment in base.segments if segment.when != where))
