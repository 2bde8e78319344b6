"""What the gates of a canary would probably say, estimated from the replay before there is one.

The gates themselves are asked, about the evidence that a canary is expected to gather: after n requests each side has the share of
failures, the latencies, the scores and the pairs of labels that the replay found. Chance is left out of it, and so is all that a replay
cannot know (load, features of tomorrow, people who react to other answers): it is an estimate, and is called one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.monitoring.evidence import Side
from predis.rollout.gates import Ledger, Verdict, verdicts
from predis.rollout.plan import Plan
from predis.stats import Moments, latency

MOST_REQUESTS = 1_000_000
_FIRST = 50
_GROWTH = 1.15
_NOUNS = {
    "errors": "errors",
    "latency": "latency",
    "scores": "the scores' distribution",
    "auc": "AUC",
    "reward": "reward",
}
_WORDS = {"pass": "would likely pass", "fail": "would likely fail", "hold": "cannot be told"}

Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What each request of a canary is expected to bring.

    ``latency`` is the baseline's, as counts in the buckets of ``stats.latency``; None where it is not known. The candidate's are longer by
    ``added_s``. ``scores`` are counts in the buckets of ``stats.score_buckets``, of baseline and candidate. ``labels`` is the share of
    requests whose label comes, ``positives`` that of the labels that are 1; ``aucs`` are baseline's and candidate's, None if not known.
    """

    failed: tuple[float, float]
    latency: Counts | None
    added_s: float
    scores: tuple[Counts, Counts]
    labels: float
    positives: float
    aucs: tuple[float, float] | None


def estimate(plan: Plan, expected: Expected, *, paired: tuple[float, float] | None) -> list[dict[str, Any]]:
    """For each gate that can fail: its likely verdict, after how many of the candidate's requests, and what it would say then.

    ``paired`` is the interval of the AUCs' difference on the same rows. Of the AUC it decides instead: on the same rows far fewer labels
    tell more than the gate's own evidence, which is of different rows.
    """
    decided: dict[str, tuple[int, Verdict]] = {}
    ledger = Ledger(plan)
    last: tuple[Verdict, ...] = ()
    share = plan.steps[-1] if plan.steps else 0.5
    for requests in _looks():
        sides = _sides(expected, requests, share=share)
        ledger.advance(sides, plan=plan, share=None)
        last = verdicts(plan, sides, ledger=ledger)
        for verdict in last:
            if verdict.verdict != "hold" and verdict.gate not in decided:
                decided[verdict.gate] = (requests, verdict)
        if len(decided) == len(last):
            break
    found = []
    for verdict in last:
        if verdict.gate != "split":
            requests, spoken = decided.get(verdict.gate, (0, verdict))
            found.append(_shown(spoken, requests or None))
    for gate in found:
        if gate["gate"] == "auc":
            _judge_auc(gate, plan, paired=paired)
        if gate["gate"] == "latency" and expected.latency is None:
            gate |= _told("hold", "no latencies of the baseline are known")
    return found


def conclude(gates: list[dict[str, Any]], *, labels_problem: str) -> dict[str, str]:
    """The whole estimate in one line: ``outcome`` is pass, fail or unknown."""
    failing = [gate for gate in gates if gate["verdict"] == "fail"]
    open_ = [_NOUNS[gate["gate"]] for gate in gates if gate["verdict"] == "hold"]
    if failing:
        nouns = ", ".join(_NOUNS[gate["gate"]] for gate in failing)
        return {"outcome": "fail", "text": f"would likely fail on {nouns}: {failing[0]['message']}"}
    if _NOUNS["auc"] in open_:
        rest = [name for name in open_ if name != _NOUNS["auc"]]
        more = (
            f"; {', '.join(rest)} cannot be told either" if rest else "; every other gate would likely pass"
        )
        return {"outcome": "unknown", "text": f"not enough labels to tell ({labels_problem}){more}"}
    if open_:
        return {
            "outcome": "unknown",
            "text": f"{', '.join(open_)} cannot be told; nothing speaks against the rest",
        }
    return {"outcome": "pass", "text": "would likely pass every gate"}


def _looks() -> list[int]:
    found, at = [], float(_FIRST)
    while at <= MOST_REQUESTS:
        found.append(int(at))
        at *= _GROWTH
    return found


def _sides(expected: Expected, requests: int, *, share: float) -> tuple[Side, Side]:
    """The evidence after so many requests of the candidate; the baseline has had those of its own share."""
    sides = []
    sizes = (round(requests * (1 - share) / share), requests)
    aucs = expected.aucs or (0.0, 0.0)
    for at, size in enumerate(sizes):
        failed = round(size * expected.failed[at])
        latencies = np.zeros(latency.BUCKETS, np.int64) if expected.latency is None else expected.latency
        if at:
            latencies = slowed(latencies, expected.added_s)
        labels = round(size * expected.labels) if expected.aucs else 0
        pairs = int(labels * min(expected.positives, 1 - expected.positives))
        sides.append(
            Side(
                requests=size,
                failed=failed,
                latency=scaled(latencies, size - failed),
                scores=scaled(expected.scores[at], size - failed),
                labels=labels,
                wins=pairs * aucs[at],
                pairs=pairs,
                rewards=Moments(),
            )
        )
    return sides[0], sides[1]


def scaled(counts: Counts, total: int) -> Counts:
    """Counts with the same shares that add up to ``total``; zeros stay zeros where there is nothing to scale.

    >>> scaled(np.array([3, 1]), 8).tolist()
    [6, 2]
    """
    whole = int(counts.sum())
    if whole == 0:
        return np.zeros(len(counts), np.int64)
    upto = np.round(np.cumsum(counts) / whole * total).astype(np.int64)
    return np.diff(upto, prepend=0)


def slowed(counts: Counts, seconds: float) -> Counts:
    """Latencies that are each longer (or shorter) by so many seconds, each bucket at its middle."""
    edges = latency.EDGES
    middles = np.concatenate([edges[:1] / 2, np.sqrt(edges[1:] * edges[:-1]), edges[-1:]])
    places = np.searchsorted(edges, np.maximum(middles + seconds, 0.0), side="right")
    return np.bincount(places, weights=counts, minlength=len(counts)).astype(np.int64)


def _judge_auc(gate: dict[str, Any], plan: Plan, *, paired: tuple[float, float] | None) -> None:
    if paired is None:
        gate |= _told("hold", "no AUC without labels of both kinds")
        return
    low, high = paired
    figures = f"the difference on the same rows is {low:+.3f} to {high:+.3f}"
    if high < -plan.auc_abort:
        gate |= _told("fail", f"it is more than {plan.auc_abort:g} below the baseline's: {figures}")
    elif low > -plan.auc_margin:
        gate |= _told("pass", f"it is not worse by more than {plan.auc_margin:g}: {figures}")
    else:
        gate |= _told("hold", f"too few labels for a margin of {plan.auc_margin:g}: {figures}")


def _told(verdict: str, message: str) -> dict[str, str]:
    return {"verdict": verdict, "estimate": _WORDS[verdict], "message": message}


def _shown(verdict: Verdict, requests: int | None) -> dict[str, Any]:
    return {
        "gate": verdict.gate,
        **_told(verdict.verdict, verdict.message),
        "requests": requests,
        "baseline": verdict.baseline,
        "candidate": verdict.candidate,
    }
