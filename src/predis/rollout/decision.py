"""What a rollout does next, as a pure function: plan, status, evidence and the time in, one step out.

Same arguments, same answer. Whoever looks more often learns the answer sooner, and not another one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from predis.clock import NANOSECONDS
from predis.monitoring.evidence import Compared, Recent, Side
from predis.rollout import gates
from predis.rollout.gates import Ledger, Verdict
from predis.rollout.plan import Plan
from predis.rollout.states import FINAL, State
from predis.stats import Moments, thompson_share

# A bandit's share moves in steps worth a new Route.
_LEAST_MOVE = 0.02
# Rewards of each side between two moves, so that each time of one share can be compared within itself.
_LEAST_REWARDS = 50


@dataclass(frozen=True, kw_only=True)
class Status:
    """Where a rollout stands, as its row says. ``wish`` is what a person asked for, ``step`` -1 before the first."""

    state: str
    step: int
    share: float
    step_at: int
    began_at: int = 0
    wish: str = ""
    wish_by: str = ""
    has_baseline: bool = True


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known now.

    ``applied``: every living worker serves the rollout's current Route; ``problem``: one cannot, and why. ``crashes``: workers that died
    since the candidate came. ``frozen``: why nothing may go forward now, or nothing.
    """

    applied: bool
    problem: str = ""
    crashes: int = 0
    frozen: str = ""
    sides: tuple[Side, Side] = (Side(), Side())
    recent: tuple[Recent, Recent] = (Recent(), Recent())
    shadow: Compared | None = None
    ledger: Ledger | None = None


@dataclass(frozen=True)
class Step:
    """What to do: stay (``moved`` is False), or move to ``state`` with the candidate's ``share``."""

    state: str
    step: int
    share: float
    reason: str
    verdicts: tuple[Verdict, ...] = ()
    moved: bool = False


def decide(plan: Plan, status: Status, *, evidence: Evidence, now: int) -> Step:
    """The next step."""
    if status.state in FINAL:
        return _stay(status, "it has ended")
    if status.state == State.WARMING:
        return _warm(plan, status, evidence=evidence, now=now)
    verdicts = gates.verdicts(plan, evidence.sides, ledger=evidence.ledger or Ledger(plan))
    return replace(_go_on(plan, status, evidence=evidence, verdicts=verdicts, now=now), verdicts=verdicts)


def _stay(status: Status, reason: str) -> Step:
    return Step(status.state, status.step, status.share, reason)


def _warm(plan: Plan, status: Status, *, evidence: Evidence, now: int) -> Step:
    if evidence.problem:
        return Step(
            State.FAILED, 0, 0.0, f"a worker could not load the candidate: {evidence.problem}", moved=True
        )
    if status.wish == "abort":
        return Step(State.ABORTED, 0, 0.0, _asked(status), moved=True)
    if not evidence.applied:
        if _seconds(status.step_at, now) <= plan.warm_timeout_s:
            return _stay(status, "workers are loading the candidate")
        why = f"the workers did not load the candidate within {plan.warm_timeout_s:g} s"
        return Step(State.FAILED, 0, 0.0, why, moved=True)
    if status.wish == "promote":
        return Step(State.PROMOTED, 0, 1.0, _asked(status), moved=True)
    if evidence.frozen:
        return _stay(status, evidence.frozen)
    if "start" in plan.approve and status.has_baseline:
        return Step(
            State.WAITING, -1, 0.0, "every worker has it in memory; its first traffic wants a yes", moved=True
        )
    return _begin(plan, status, why="every worker has it in memory")


def _begin(plan: Plan, status: Status, *, why: str) -> Step:
    """The first step with traffic."""
    if plan.strategy == "direct" or not status.has_baseline:
        return Step(State.PROMOTED, 0, 1.0, why, moved=True)
    if plan.strategy == "blue-green":
        return Step(
            State.HOLDING, 0, 1.0, f"{why}; it takes all traffic, the baseline stays in memory", moved=True
        )
    shares = {"canary": plan.steps[0] if plan.steps else 0.0, "ab": plan.share, "bandit": 0.5, "shadow": 0.0}
    return Step(State.RUNNING, 0, shares[plan.strategy], f"{why}; the first step begins", moved=True)


def _go_on(
    plan: Plan, status: Status, *, evidence: Evidence, verdicts: tuple[Verdict, ...], now: int
) -> Step:
    back = _reason_to_abort(plan, status, evidence=evidence, verdicts=verdicts)
    if back:
        return Step(State.ABORTED, status.step, 0.0, back, moved=True)
    if status.wish == "promote":
        return Step(State.PROMOTED, status.step, 1.0, _asked(status), moved=True)
    if status.wish == "pause" and status.state == State.RUNNING:
        return Step(
            State.PAUSED, status.step, status.share, f"paused by {status.wish_by or 'somebody'}", moved=True
        )
    if status.state == State.PAUSED:
        if status.wish == "resume":
            return Step(
                State.RUNNING,
                status.step,
                status.share,
                f"{status.wish_by or 'somebody'} asked to go on",
                moved=True,
            )
        return _stay(status, "paused; `predis rollout resume` goes on")
    if evidence.frozen:
        return _stay(status, evidence.frozen)
    if status.state == State.WAITING:
        return _wait(plan, status)
    if status.state == State.HOLDING:
        return _hold(plan, status, evidence=evidence, now=now)
    run = {"canary": _canary, "ab": _ab, "shadow": _shadow, "bandit": _bandit}[plan.strategy]
    return run(plan, status, evidence=evidence, verdicts=verdicts, now=now)


def _reason_to_abort(plan: Plan, status: Status, *, evidence: Evidence, verdicts: tuple[Verdict, ...]) -> str:
    """Why the candidate must go, or nothing."""
    if status.wish in ("abort", "reject"):
        return _asked(status)
    if hard := gates.hard_failure(plan, evidence.recent, crashes=evidence.crashes):
        return hard
    failed = [verdict.message for verdict in verdicts if verdict.verdict == "fail"]
    if failed:
        return "; ".join(failed)
    return f"a worker cannot serve it: {evidence.problem}" if evidence.problem else ""


def _wait(plan: Plan, status: Status) -> Step:
    """A person must say yes."""
    if status.wish != "approve":
        return _stay(status, "waiting for a yes: `predis rollout approve`, or `reject`")
    why = f"{status.wish_by or 'somebody'} said yes"
    if status.step < 0:
        return _begin(plan, status, why=why)
    return _next(plan, status, why=why)


def _hold(plan: Plan, status: Status, *, evidence: Evidence, now: int) -> Step:
    waiting = _still(
        plan, status, evidence=evidence, now=now, least_s=plan.keep_s, requests=plan.min_requests
    )
    if waiting:
        return _stay(status, "; ".join(waiting))
    return Step(State.PROMOTED, status.step, 1.0, f"it held for {plan.keep_s:g} s", moved=True)


def _canary(
    plan: Plan, status: Status, *, evidence: Evidence, verdicts: tuple[Verdict, ...], now: int
) -> Step:
    least = plan.min_requests * (status.step + 1)
    waiting = _still(plan, status, evidence=evidence, now=now, least_s=plan.bake_s, requests=least)
    waiting += _open(verdicts, ("split",) if status.step < len(plan.steps) - 1 else ())
    if waiting:
        return _stay(status, "; ".join(waiting))
    if _is_last(plan, status):
        why, gate = "every gate passed at the last step", "promote"
    else:
        why, gate = f"no gate failed at {status.share:.0%}", "steps"
    if gate in plan.approve or (gate == "promote" and "steps" in plan.approve):
        return Step(State.WAITING, status.step, status.share, f"{why}; the next move wants a yes", moved=True)
    return _next(plan, status, why=why)


def _open(verdicts: tuple[Verdict, ...], only: tuple[str, ...]) -> list[str]:
    """What gates that have not passed say; of all, or of those named only."""
    return [v.message for v in verdicts if v.verdict == "hold" and (not only or v.gate in only)]


def _is_last(plan: Plan, status: Status) -> bool:
    return plan.strategy != "canary" or status.step >= len(plan.steps) - 1


def _next(plan: Plan, status: Status, *, why: str) -> Step:
    """The move that follows a step that has ended well."""
    if _is_last(plan, status):
        return Step(State.PROMOTED, status.step, 1.0, why, moved=True)
    share = plan.steps[status.step + 1]
    return Step(State.RUNNING, status.step + 1, share, f"{why}; on to {share:.0%}", moved=True)


def _ab(plan: Plan, status: Status, *, evidence: Evidence, verdicts: tuple[Verdict, ...], now: int) -> Step:
    waiting = _still(
        plan, status, evidence=evidence, now=now, least_s=plan.bake_s, requests=plan.min_requests
    )
    waiting += _open(verdicts, ("split",))
    found, figures = gates.superiority(plan, evidence.sides, ledger=evidence.ledger or Ledger(plan))
    if not waiting and found:
        return _verdict(plan, status, better=found == "better", why=f"the candidate is {found}: {figures}")
    if _over(plan, status, now=now):
        return _verdict(
            plan, status, better=False, why=f"no difference was found in {plan.max_s:g} s: {figures}"
        )
    return _stay(status, "; ".join([*waiting, f"no verdict yet: {figures}"]))


def _verdict(plan: Plan, status: Status, *, better: bool, why: str) -> Step:
    if not better:
        return Step(State.CONCLUDED, status.step, 0.0, f"{why}; the baseline stays", moved=True)
    if "promote" in plan.approve:
        return Step(State.WAITING, status.step, status.share, f"{why}; promoting it wants a yes", moved=True)
    return Step(State.PROMOTED, status.step, 1.0, why, moved=True)


def _shadow(
    plan: Plan, status: Status, *, evidence: Evidence, verdicts: tuple[Verdict, ...], now: int
) -> Step:
    waiting = _still(
        plan, status, evidence=evidence, now=now, least_s=plan.bake_s, requests=plan.min_requests
    )
    waiting += _open(verdicts, ())
    found = _compared(evidence.shadow)
    if not waiting:
        return Step(State.CONCLUDED, status.step, 0.0, f"no gate objects to going live; {found}", moved=True)
    if _over(plan, status, now=now):
        why = f"{plan.max_s:g} s are over, and gates do not know yet; {found}"
        return Step(State.CONCLUDED, status.step, 0.0, why, moved=True)
    return _stay(status, "; ".join([found, *waiting]))


def _compared(shadow: Compared | None) -> str:
    if shadow is None or not shadow.rows:
        return "nothing was copied yet"
    return (
        f"{shadow.rows} rows copied, {shadow.flips / shadow.rows:.2%} answered otherwise at 0.5, "
        f"scores {shadow.difference.mean:+.4f} on average, {shadow.worst:.4f} at most"
    )


def _bandit(
    plan: Plan, status: Status, *, evidence: Evidence, verdicts: tuple[Verdict, ...], now: int
) -> Step:
    ended = _ab(plan, status, evidence=evidence, verdicts=verdicts, now=now)
    if ended.moved or not evidence.applied or _seconds(status.step_at, now) < plan.bake_s:
        return ended
    if min(side.rewards.n for side in evidence.sides) < _LEAST_REWARDS:
        return ended
    strata = [*(evidence.ledger.strata if evidence.ledger else ()), gates.Stratum.of(evidence.sides)]
    base, candidate = (sum((s.rewards[side] for s in strata), Moments(0, 0.0, 0.0)) for side in (0, 1))
    share = round(thompson_share(base, candidate, floor=plan.floor), 2)
    if abs(share - status.share) < _LEAST_MOVE:
        return ended
    figures = f"mean reward {candidate.mean:.4g} against {base.mean:.4g}"
    return Step(
        State.RUNNING, status.step + 1, share, f"{figures}: the share goes to {share:.0%}", moved=True
    )


def _still(
    plan: Plan, status: Status, *, evidence: Evidence, now: int, least_s: float, requests: int
) -> list[str]:
    """What a step still waits for, in words."""
    waiting = []
    if not evidence.applied:
        waiting.append("workers are taking the Route")
    if _seconds(status.step_at, now) < least_s:
        waiting.append(f"baking for {least_s:g} s")
    seen = evidence.sides[1].requests + (evidence.ledger.requests if evidence.ledger else 0)
    if seen < requests:
        waiting.append(f"{seen} of {requests} {'copies' if plan.strategy == 'shadow' else 'requests'}")
    return waiting


def _over(plan: Plan, status: Status, *, now: int) -> bool:
    return _seconds(status.began_at or status.step_at, now) >= plan.max_s


def _asked(status: Status) -> str:
    return f"{status.wish_by or 'somebody'} asked for it"


def _seconds(since: int, now: int) -> float:
    return (now - since) / NANOSECONDS
