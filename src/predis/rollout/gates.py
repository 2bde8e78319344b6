"""What the gates of a rollout say to the evidence so far.

They look at every tick, hundreds of times a rollout. A test made for one look would find a "significant" difference between two equal
versions in a third of all rollouts (37.5 % were measured for p < 0.05 at 100 looks). So whatever can turn a candidate back is an e-process
or a confidence sequence: the chance that it EVER does so to a candidate that is no worse, over all looks, is at most its alpha, and the
gates that can share the plan's alpha by Bonferroni. What goes wrong hard (``hard_failure``) does not wait for that.

A gate has three answers. Surely worse: fail. Surely not worse by more than the margin: pass. Not known yet: hold, which neither aborts
nor promotes, however long it takes. To fail and to pass are different questions: a candidate may be surely a little worse and still within
the margin, so a plan has a value for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from predis.monitoring.evidence import Recent, Side
from predis.rollout.plan import COMPARING, Plan
from predis.stats import (
    Moments,
    RatioTest,
    SplitTest,
    distribution_distance,
    latency,
    proportion_interval,
    quantile_interval,
    rate_difference_interval,
    stratified_difference,
)

GATES: dict[str, str] = {
    "errors": "share of failed requests against the baseline's over the same time",
    "latency": "share of requests slower than the baseline used to be (`slow_s`), against the baseline's over the same time",
    "scores": "Kolmogorov distance of the scores' distribution from the baseline's over the same time",
    "auc": "AUC on matured labels against the baseline's",
    "reward": "mean of the reward expression on matured labels against the baseline's",
    "split": "requests per side against the shares they should have (sample-ratio mismatch); holds, never fails",
}

# A mismatch must be all but certain: it says that the comparison itself is broken.
_SPLIT_ALPHA = 0.001
_LEAST = 50
_P99 = 0.99
# Labels of each side at which intervals of means are to be narrowest: some thousand are what a rollout has.
_TUNED_AT = 2_000

Sides = tuple[Side, Side]


@dataclass(frozen=True)
class Verdict:
    """One gate's answer: pass, hold or fail, with the always-valid interval of candidate - baseline, in ``unit``."""

    gate: str
    verdict: str
    baseline: float | None
    candidate: float | None
    low: float | None
    high: float | None
    margin: float | None
    unit: str
    message: str


@dataclass(frozen=True)
class Stratum:
    """Evidence of a time in which the shares were the same: of baseline and candidate each the labels, their pairs and their rewards."""

    labels: tuple[int, int]
    pairs: tuple[Moments, Moments]
    rewards: tuple[Moments, Moments]

    @classmethod
    def of(cls, sides: Sides) -> Stratum:
        base, candidate = sides
        return cls(
            (base.labels, candidate.labels),
            (_pair_moments(base), _pair_moments(candidate)),
            (base.rewards, candidate.rewards),
        )


class Ledger:
    """What the gates remember from look to look: the tests that take increments, up to where they have been given, and the strata before
    the present one. Where shares change a new stratum begins, so that hours are never compared with other hours (see ``stats.strata``).
    """

    def __init__(self, plan: Plan) -> None:
        self.errors = RatioTest(plan.error_ratio)
        self.slow = RatioTest(plan.slow_ratio)
        self.split = SplitTest()
        self.strata: list[Stratum] = []
        self.requests = 0
        self._seen: tuple[tuple[int, ...], tuple[int, ...]] = ((0, 0, 0), (0, 0, 0))

    def advance(self, sides: Sides, *, plan: Plan, share: float | None) -> bool:
        """Take in what has come since the last look; whether there was anything.

        Args:
            sides: cumulated since the present stratum began.
            share: what the candidate should get, where it is known to have been so for all that is new; None: not to be tested.
        """
        now = (_figures(sides[0], plan), _figures(sides[1], plan))
        new = [
            [max(0, a - b) for a, b in zip(side, seen, strict=True)]
            for side, seen in zip(now, self._seen, strict=True)
        ]
        if not new[0][0] and not new[1][0]:
            return False
        self._seen = now
        # Sums of both sides, and of failures and latencies, are of moments that may differ by a look.
        bad = [min(failed, requests) for requests, failed, _slow in new]
        self.errors.update((bad[0], new[0][0]), (bad[1], new[1][0]))
        answered = [side[0] - failed for side, failed in zip(new, bad, strict=True)]
        slow = [min(side[2], whole) for side, whole in zip(new, answered, strict=True)]
        self.slow.update((slow[0], answered[0]), (slow[1], answered[1]))
        if share is not None:
            self.split.update(new[0][0], new[1][0], share=share)
        return True

    def close(self, sides: Sides) -> None:
        """End the present stratum: shares change, and evidence is counted from zero again."""
        self.strata.append(Stratum.of(sides))
        self.requests += sides[1].requests
        self._seen = ((0, 0, 0), (0, 0, 0))

    def to_dict(self) -> dict[str, Any]:
        return {
            "errors": self.errors.to_list(), "slow": self.slow.to_list(), "split": self.split.to_list(), "requests": self.requests,
            "seen": [list(side) for side in self._seen],
            "strata": [
                [list(s.labels), [m.to_list() for m in s.pairs], [m.to_list() for m in s.rewards]] for s in self.strata
            ],
        }  # fmt: skip

    @classmethod
    def from_dict(cls, plan: Plan, document: Mapping[str, Any]) -> Ledger:
        found = cls(plan)
        if document:
            found.errors = RatioTest.from_list(document["errors"])
            found.slow = RatioTest.from_list(document["slow"])
            found.split = SplitTest.from_list(document["split"])
            found.requests = document["requests"]
            found._seen = (tuple(document["seen"][0]), tuple(document["seen"][1]))
            found.strata = [
                Stratum((labels[0], labels[1]), _both(pairs), _both(rewards))
                for labels, pairs, rewards in document["strata"]
            ]
        return found


def _both(listed: Sequence[Sequence[float]]) -> tuple[Moments, Moments]:
    return Moments.from_list(listed[0]), Moments.from_list(listed[1])


def _figures(side: Side, plan: Plan) -> tuple[int, int, int]:
    """Requests, failed ones, slow ones."""
    return side.requests, side.failed, slower(side.latency, plan.slow_s)


def slower(counts: Any, seconds: float) -> int:
    """Answers in buckets that lie wholly above a latency."""
    return int(counts[np.searchsorted(latency.EDGES, seconds) + 1 :].sum())


def verdicts(plan: Plan, sides: Sides, *, ledger: Ledger) -> tuple[Verdict, ...]:
    """Every gate's answer to the evidence so far; of strategies that compare nothing, none."""
    if plan.strategy not in COMPARING and plan.strategy != "shadow":
        return ()
    alpha = plan.alpha / (2 + plan.score_gate + plan.auc_gate + bool(plan.reward))
    base, candidate = sides
    found = [
        _errors(plan, base, candidate=candidate, ledger=ledger, alpha=alpha),
        _latency(plan, base, candidate=candidate, ledger=ledger, alpha=alpha),
    ]
    if plan.score_gate:
        found.append(_scores(plan, base, candidate=candidate, alpha=alpha))
    strata = [*ledger.strata, Stratum.of(sides)]
    if plan.auc_gate:
        found.append(_auc(plan, strata, alpha=alpha))
    if plan.reward:
        found.append(_reward(plan, strata, alpha=alpha))
    if plan.split_gate and plan.strategy in COMPARING:
        found.append(_split(base, candidate=candidate, ledger=ledger))
    return tuple(found)


def superiority(plan: Plan, sides: Sides, *, ledger: Ledger) -> tuple[str, str]:
    """What an A/B test or a bandit has found out: "better", "worse" or "" (not known yet), and the figures in words."""
    strata = [*ledger.strata, Stratum.of(sides)]
    base, candidate = (sum(s.labels[side] for s in strata) for side in (0, 1))
    of, values = ("reward", _rewards) if plan.metric == "reward" else ("AUC", _pairs)
    estimate, low, high = stratified_difference(values(strata), alpha=plan.alpha, tuned_at=_TUNED_AT)
    if min(base, candidate) < plan.min_labels or not math.isfinite(low):
        return "", f"{candidate} and {base} labels so far"
    figures = (
        f"its {of} differs by {estimate:+.4g} ({low:+.4g} to {high:+.4g}) on {candidate} and {base} labels"
    )
    return ("better" if low > 0 else "worse" if high < 0 else ""), figures


def hard_failure(plan: Plan, recent: tuple[Recent, Recent], *, crashes: int) -> str:
    """Why a candidate must go at once, without waiting for statistics; nothing where it need not."""
    if crashes >= plan.max_crashes > 0:
        return f"{crashes} workers died while it was served"
    base, candidate = recent
    if candidate.requests < plan.burst_requests:
        return ""
    failing, usual = _share(candidate.failed, candidate.requests), _share(base.failed, base.requests)
    if failing > plan.burst_share and usual < plan.burst_share / 2:
        return f"{failing:.0%} of its requests of the last {plan.burst_s:g} s failed ({candidate.failed} of {candidate.requests})"
    if not plan.sla_s:
        return ""
    answered = candidate.requests - candidate.failed
    late, usual = (
        _share(slower(side.latency, plan.sla_s), side.requests - side.failed) for side in (candidate, base)
    )
    if answered >= plan.burst_requests and late > plan.burst_share and usual < plan.burst_share / 2:
        return f"{late:.0%} of its answers of the last {plan.burst_s:g} s took longer than the SLA's {plan.sla_s * 1000:.3g} ms"
    return ""


def _errors(plan: Plan, base: Side, *, candidate: Side, ledger: Ledger, alpha: float) -> Verdict:
    return _rate_gate(
        ("errors", "error rate"),
        (min(base.failed, base.requests), base.requests),
        candidate=(min(candidate.failed, candidate.requests), candidate.requests),
        test=ledger.errors,
        limits=(plan.error_ratio, plan.error_floor, plan.error_margin),
        alpha=alpha,
    )


def _latency(plan: Plan, base: Side, *, candidate: Side, ledger: Ledger, alpha: float) -> Verdict:
    counts = [
        (min(slower(side.latency, plan.slow_s), answered), answered)
        for side in (base, candidate)
        for answered in [max(0, side.requests - side.failed)]
    ]
    found = _rate_gate(
        ("latency", f"share slower than {plan.slow_s * 1000:.3g} ms"),
        counts[0],
        candidate=counts[1],
        test=ledger.slow,
        limits=(plan.slow_ratio, plan.error_floor, plan.slow_margin),
        alpha=alpha,
    )
    if min(total for _slow, total in counts) < _LEAST:
        return found
    return Verdict(**{**vars(found), "message": f"{found.message}; {_p99s(base, candidate, alpha=alpha)}"})


def _p99s(base: Side, candidate: Side, *, alpha: float) -> str:
    shown = []
    for side in (candidate, base):
        low, high = quantile_interval(side.latency, _P99, alpha=alpha / 2)
        middle = latency.quantile(side.latency, _P99) * 1000
        span = (
            f"{low * 1000:.3g} to {high * 1000:.3g}" if math.isfinite(high) else f"at least {low * 1000:.3g}"
        )
        shown.append(f"{middle:.3g} ms ({span})")
    return f"p99 {shown[0]} against {shown[1]}"


def _rate_gate(
    names: tuple[str, str],
    base: tuple[int, int],
    *,
    candidate: tuple[int, int],
    test: RatioTest,
    limits: tuple[float, float, float],
    alpha: float,
) -> Verdict:
    """A gate on a share of something bad.

    It fails where the candidate's rate is surely above ``ratio`` times the baseline's AND surely above ``floor``: of two sure things the
    chance that either errs is no more than that of one, so neither costs the other anything (an intersection-union test).
    """
    (gate, noun), (ratio, floor, margin) = names, limits
    enough = min(base[1], candidate[1]) >= _LEAST
    low, high = rate_difference_interval(base, candidate, alpha=alpha)
    surely_above = proportion_interval(*candidate, alpha=alpha)[0] > floor
    worse = test.log_wealth >= -math.log(alpha) and surely_above
    verdict = "fail" if worse and enough else "pass" if enough and high < margin else "hold"
    rates = f"{_share(*candidate):.2%} against {_share(*base):.2%}" if enough else "too few requests"
    words = {
        "fail": f"{noun} is surely more than {ratio:g} times the baseline's: {rates}",
        "pass": f"{noun} is not worse: {rates}",
        "hold": f"{noun} is not known well enough yet: {rates}",
    }
    shown = [_share(*side) if side[1] else None for side in (base, candidate)]
    return Verdict(gate, verdict, shown[0], shown[1], low, high, margin, "share", words[verdict])


def _scores(plan: Plan, base: Side, *, candidate: Side, alpha: float) -> Verdict:
    enough = min(base.scores.sum(), candidate.scores.sum()) >= _LEAST
    estimate, low, high = distribution_distance(
        base.scores, candidate.scores, alpha=alpha / max(1, len(plan.steps))
    )
    verdict = (
        "hold"
        if not enough
        else "fail"
        if low > plan.score_margin
        else "pass"
        if high < plan.score_margin
        else "hold"
    )
    figures = f"distance {estimate:.2f} ({low:.2f} to {high:.2f})" if enough else "too few scores"
    words = {
        "fail": f"scores are surely distributed otherwise than the baseline's, by more than {plan.score_margin:g}: {figures}",
        "pass": f"scores are distributed much as the baseline's: {figures}",
        "hold": f"whether scores are distributed as the baseline's is not known well enough yet: {figures}",
    }
    return Verdict(
        "scores",
        verdict,
        None,
        _known(estimate),
        _known(low),
        _known(high),
        plan.score_margin,
        "distance",
        words[verdict],
    )


def _auc(plan: Plan, strata: list[Stratum], *, alpha: float) -> Verdict:
    """Pairs are those of neighbours in time, each label in one pair. A shadow's pairs are of the same rows as the baseline's; that they are
    compared as if they were independent makes its interval wider than it need be, not narrower."""
    return _mean_gate(
        ("auc", "AUC"),
        strata,
        values=_pairs,
        limits=(plan.auc_abort, plan.auc_margin),
        plan=plan,
        alpha=alpha,
    )


def _reward(plan: Plan, strata: list[Stratum], *, alpha: float) -> Verdict:
    limits = plan.reward_abort, plan.reward_margin
    return _mean_gate(
        ("reward", "mean reward"), strata, values=_rewards, limits=limits, plan=plan, alpha=alpha
    )


def _mean_gate(
    names: tuple[str, str],
    strata: list[Stratum],
    *,
    values: Callable[[list[Stratum]], list[tuple[Moments, Moments]]],
    limits: tuple[float, float],
    plan: Plan,
    alpha: float,
) -> Verdict:
    """A gate on a mean of which more is better."""
    (gate, noun), (abort, margin) = names, limits
    parts = values(strata)
    _estimate, low, high = stratified_difference(parts, alpha=alpha, tuned_at=_TUNED_AT)
    base, candidate = (sum((part[side] for part in parts), Moments(0, 0.0, 0.0)) for side in (0, 1))
    labels, candidate_labels = (sum(s.labels[side] for s in strata) for side in (0, 1))
    enough = min(labels, candidate_labels) >= plan.min_labels
    verdict = "fail" if high < -abort else "pass" if enough and low > -margin else "hold"
    figures = f"{candidate.mean:.3f} against {base.mean:.3f} on {candidate_labels} and {labels} labels"
    if not base.n or not candidate.n:
        figures = f"{candidate_labels} and {labels} labels so far"
    words = {
        "fail": f"{noun} is surely more than {abort:g} below the baseline's: {figures}",
        "pass": f"{noun} is not worse by more than {margin:g}: {figures}",
        "hold": f"{noun} is not known well enough yet: {figures}",
    }
    shown = [moments.mean if moments.n else None for moments in (base, candidate)]
    return Verdict(gate, verdict, shown[0], shown[1], _known(low), _known(high), margin, noun, words[verdict])


def _pairs(strata: list[Stratum]) -> list[tuple[Moments, Moments]]:
    return [stratum.pairs for stratum in strata]


def _rewards(strata: list[Stratum]) -> list[tuple[Moments, Moments]]:
    return [stratum.rewards for stratum in strata]


def _split(base: Side, *, candidate: Side, ledger: Ledger) -> Verdict:
    total = base.requests + candidate.requests
    share = candidate.requests / total if total else None
    if ledger.split.log_wealth < -math.log(_SPLIT_ALPHA):
        return Verdict(
            "split", "pass", None, share, None, None, None, "share", "requests come in the shares they should"
        )
    message = (
        f"requests do not come in the shares they should (the candidate got {share or 0:.1%} of {total}): some are lost on one side, or "
        "few callers with many requests each are dealt by their routing keys; the comparison cannot be trusted"
    )
    return Verdict("split", "hold", None, share, None, None, None, "share", message)


def _pair_moments(side: Side) -> Moments:
    if not side.pairs:
        return Moments(0, 0.0, 0.0)
    mean = side.wins / side.pairs
    return Moments(side.pairs, mean, side.pairs * mean * (1.0 - mean))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
