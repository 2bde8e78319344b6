"""What a rollout does next, as a pure function: plan, status and evidence in, one step out.

The gates look at every tick, hundreds of times a rollout. A test made for one look would find a "significant" difference between two
equal versions in a third of all rollouts (37.5 % were measured for p < 0.05 at 100 looks). So each gate is a confidence sequence:
the chance that it is EVER wrong, over all looks, is at most its alpha; the three gates share the plan's alpha by Bonferroni.
A gate has three answers. Surely worse than the margin: abort. Surely not worse: pass. Not known yet: hold, which neither aborts
nor promotes, however long it takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from predis.clock import NANOSECONDS
from predis.errors import InvalidInput
from predis.monitoring.evidence import Side
from predis.rollout.states import State
from predis.stats import compare_auc_streams, compare_rates

GATES: Mapping[str, str] = {
    "errors": "share of failed requests against the baseline's over the same time",
    "latency": "share of slow requests against the baseline's over the same time",
    "auc": "AUC on matured labels against the baseline's over the same time",
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How an endpoint is to move to the candidate. Shares are 0 to 1, durations seconds.

    ``steps`` are the candidate's shares; ``bake_s`` and ``min_requests`` hold for each. ``slow_s`` is what a slow request
    is, fixed before the rollout looks at any. ``alpha`` is the chance that any gate ever aborts a candidate that is no worse.
    """

    strategy: str = "canary"
    steps: tuple[float, ...] = (0.1, 0.5)
    bake_s: float = 2.0
    min_requests: int = 200
    min_labels: int = 200
    alpha: float = 0.05
    error_margin: float = 0.02
    slow_s: float = 0.05
    slow_margin: float = 0.05
    auc_margin: float = 0.08
    auc_gate: bool = True
    warm_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if self.strategy not in ("direct", "canary"):
            raise InvalidInput(f"strategy must be direct or canary, got {self.strategy!r}")
        if any(not 0 < share < 1 for share in self.steps) or list(self.steps) != sorted(set(self.steps)):
            raise InvalidInput(f"steps are growing shares between 0 and 1, got {list(self.steps)}")
        if self.strategy == "canary" and not self.steps:
            raise InvalidInput("a canary needs at least one step")
        if not 0 < self.alpha < 1:
            raise InvalidInput(f"alpha is between 0 and 1, got {self.alpha}")
        for name in (
            "bake_s",
            "min_requests",
            "min_labels",
            "error_margin",
            "slow_s",
            "slow_margin",
            "auc_margin",
            "warm_timeout_s",
        ):
            if getattr(self, name) < 0:
                raise InvalidInput(f"{name} must not be negative, got {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "steps": list(self.steps)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Plan:
        """A plan from its JSON form; what is absent keeps its default.

        Raises:
            InvalidInput: an unknown name, or a value of the wrong type or range.
        """
        known = {f.name: type(f.default) for f in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in document.items():
            if name not in known:
                raise InvalidInput(f"a plan has no {name!r}; it has {', '.join(known)}")
            values[name] = _typed(name, value, wanted=known[name])
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Status:
    """Where a rollout stands, as its row says. ``wish`` is what a person asked for: promote, abort or nothing."""

    state: str
    step: int
    created_at: int
    step_at: int
    wish: str = ""
    has_baseline: bool = True


NOTHING = Side()


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known now. ``applied``: every living worker serves the rollout's current Route; ``problem``: one cannot."""

    applied: bool
    problem: str = ""
    baseline: Side = NOTHING
    candidate: Side = NOTHING


@dataclass(frozen=True)
class Verdict:
    """One gate's answer: pass, hold or fail, with the always-valid interval of candidate - baseline."""

    gate: str
    verdict: str
    baseline: float | None
    candidate: float | None
    low: float
    high: float
    message: str


@dataclass(frozen=True)
class Step:
    """What to do: stay (``state`` is the present one), or move to ``state`` with the candidate's ``share``."""

    state: str
    step: int
    share: float
    reason: str
    verdicts: tuple[Verdict, ...] = ()
    moved: bool = False


def decide(plan: Plan, status: Status, *, evidence: Evidence, now: int) -> Step:
    """The next step. Same arguments, same answer; looking more often changes nothing but how soon it is given."""
    if status.state == State.WARMING:
        return _warm(plan, status, evidence=evidence, now=now)
    if status.state == State.RUNNING:
        return _run(plan, status, evidence=evidence, now=now)
    return Step(status.state, status.step, 1.0 if status.state == State.PROMOTED else 0.0, "it has ended")


def _warm(plan: Plan, status: Status, *, evidence: Evidence, now: int) -> Step:
    if evidence.problem:
        return Step(
            State.FAILED, 0, 0.0, f"a worker could not load the candidate: {evidence.problem}", moved=True
        )
    if status.wish == "abort":
        return Step(State.ABORTED, 0, 0.0, "somebody asked for it", moved=True)
    if not evidence.applied:
        waited_s = (now - status.step_at) / NANOSECONDS
        if waited_s > plan.warm_timeout_s:
            return Step(
                State.FAILED,
                0,
                0.0,
                f"the workers did not load the candidate within {plan.warm_timeout_s:g} s",
                moved=True,
            )
        return Step(State.WARMING, 0, 0.0, "workers are loading the candidate")
    if plan.strategy == "direct" or not status.has_baseline or status.wish == "promote":
        return Step(State.PROMOTED, 0, 1.0, "every worker has it in memory", moved=True)
    return Step(
        State.RUNNING, 0, plan.steps[0], "every worker has it in memory; the first step begins", moved=True
    )


def _run(plan: Plan, status: Status, *, evidence: Evidence, now: int) -> Step:
    verdicts = gates(plan, evidence)

    def step(state: State, place: int, *, share: float, why: str, moved: bool = True) -> Step:
        return Step(state, place, share, why, verdicts, moved)

    back = _reason_to_abort(status, evidence, verdicts=verdicts)
    if back:
        return step(State.ABORTED, status.step, share=0.0, why=back)
    if status.wish == "promote":
        return step(State.PROMOTED, status.step, share=1.0, why="somebody asked for it")
    share, last = plan.steps[status.step], status.step == len(plan.steps) - 1
    waiting = _waiting(plan, status, evidence=evidence, now=now)
    if last:
        waiting += [verdict.message for verdict in verdicts if verdict.verdict == "hold"]
    if waiting:
        return step(State.RUNNING, status.step, share=share, why="; ".join(waiting), moved=False)
    if last:
        return step(State.PROMOTED, status.step, share=1.0, why="every gate passed at the last step")
    following = plan.steps[status.step + 1]
    why = f"no gate failed at {share:.0%}; on to {following:.0%}"
    return step(State.RUNNING, status.step + 1, share=following, why=why)


def _reason_to_abort(status: Status, evidence: Evidence, *, verdicts: tuple[Verdict, ...]) -> str:
    """Why the candidate must go, or nothing."""
    if status.wish == "abort":
        return "somebody asked for it"
    failed = [verdict.message for verdict in verdicts if verdict.verdict == "fail"]
    if failed:
        return "; ".join(failed)
    return f"a worker cannot serve it: {evidence.problem}" if evidence.problem else ""


def _waiting(plan: Plan, status: Status, *, evidence: Evidence, now: int) -> list[str]:
    """What a step still waits for, in words."""
    waiting = []
    if not evidence.applied:
        waiting.append("workers are taking the Route")
    if (now - status.step_at) / NANOSECONDS < plan.bake_s:
        waiting.append(f"baking for {plan.bake_s:g} s")
    least = plan.min_requests * (status.step + 1)
    if evidence.candidate.requests < least:
        waiting.append(f"{evidence.candidate.requests} of {least} requests")
    return waiting


def gates(plan: Plan, evidence: Evidence) -> tuple[Verdict, ...]:
    """Every gate's answer to the evidence so far."""
    alpha = plan.alpha / (3 if plan.auc_gate else 2)
    base, candidate = evidence.baseline, evidence.candidate
    found = [
        _rate_gate(
            "errors",
            plan,
            base=(base.failed, base.requests),
            candidate=(candidate.failed, candidate.requests),
            alpha=alpha,
        ),
        _rate_gate(
            "latency",
            plan,
            base=(base.slow, base.requests - base.failed),
            candidate=(candidate.slow, candidate.requests - candidate.failed),
            alpha=alpha,
        ),
    ]
    if plan.auc_gate:
        found.append(_auc_gate(plan, base, candidate=candidate, alpha=alpha))
    return tuple(found)


def _rate_gate(
    gate: str, plan: Plan, *, base: tuple[int, int], candidate: tuple[int, int], alpha: float
) -> Verdict:
    margin, noun = (
        (plan.error_margin, "error rate")
        if gate == "errors"
        else (plan.slow_margin, f"share slower than {plan.slow_s * 1000:.3g} ms")
    )
    (bad, total), (candidate_bad, candidate_total) = base, candidate
    enough = min(total, candidate_total) >= min(plan.min_requests, 50)
    # Slots of wall time may split a request's record from its count; a share is never above one.
    found = compare_rates(
        (min(bad, total), total),
        (min(candidate_bad, candidate_total), candidate_total),
        alpha=alpha,
        margin=margin,
    )
    verdict = {"worse": "fail", "not_worse": "pass", "undecided": "hold"}[found.verdict] if enough else "hold"
    rates = f"{found.candidate_rate:.2%} against {found.baseline_rate:.2%}" if enough else "too few requests"
    words = {
        "fail": f"{noun} is surely more than {margin:.2%} above the baseline's: {rates}",
        "pass": f"{noun} is not worse: {rates}",
        "hold": f"{noun} is not known well enough yet: {rates}",
    }
    return Verdict(
        gate,
        verdict,
        _known(found.baseline_rate),
        _known(found.candidate_rate),
        found.low,
        found.high,
        words[verdict],
    )


def _auc_gate(plan: Plan, base: Side, *, candidate: Side, alpha: float) -> Verdict:
    found = compare_auc_streams(
        (base.wins, base.pairs), (candidate.wins, candidate.pairs), alpha=alpha, margin=plan.auc_margin
    )
    verdict = {"worse": "fail", "not_worse": "pass", "undecided": "hold"}[found.verdict]
    if verdict == "pass" and min(base.labels, candidate.labels) < plan.min_labels:
        verdict = "hold"
    figures = f"{found.candidate_auc:.3f} against {found.baseline_auc:.3f} on {candidate.labels} and {base.labels} labels"
    if not base.pairs or not candidate.pairs:
        figures = f"{candidate.labels} and {base.labels} labels so far"
    words = {
        "fail": f"AUC is surely more than {plan.auc_margin:g} below the baseline's: {figures}",
        "pass": f"AUC is not worse by more than {plan.auc_margin:g}: {figures}",
        "hold": f"AUC is not known well enough yet: {figures}",
    }
    return Verdict(
        "auc",
        verdict,
        _known(found.baseline_auc),
        _known(found.candidate_auc),
        found.low,
        found.high,
        words[verdict],
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _typed(name: str, value: Any, *, wanted: type) -> Any:
    if wanted is tuple:
        if not isinstance(value, list | tuple) or not all(type(share) in (int, float) for share in value):
            raise InvalidInput(f"{name} must be a list of shares, got {value!r:.80}")
        return tuple(_finite(name, share) for share in value)
    if wanted is float and type(value) in (int, float):
        return _finite(name, value)
    if type(value) is not wanted:
        raise InvalidInput(f"{name} must be of type {wanted.__name__}, got {value!r:.80}")
    return value


def _finite(name: str, value: float) -> float:
    try:
        found = float(value)
    except OverflowError:  # JSON's whole numbers have no limit
        found = math.inf
    if not math.isfinite(found):
        raise InvalidInput(f"{name} must be a finite number, got {found}")
    return found
