"""The report of a backtest, as the plain JSON that is stored, shown and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.clock import iso
from predis.registry import Version
from predis.registry.signature import Field
from predis.rollout.backtest import estimates, shift
from predis.rollout.backtest.quality import quality
from predis.rollout.backtest.replay import Replay
from predis.rollout.backtest.scorer import Scorer
from predis.rollout.backtest.segments import Segments
from predis.rollout.backtest.store import Counted
from predis.rollout.plan import Plan
from predis.state.records import Matrix
from predis.stats import Task, latency, score_buckets

_SLOW_LEAST_S = 0.01


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be replayed: versions, window (nanoseconds), most rows, and the score from which a row counts as positive.

    ``replay_baseline``: score the baseline again, instead of taking what it answered.
    """

    tenant: str
    endpoint: str
    candidate: Version
    baseline: Version
    replay_baseline: bool
    since: int
    until: int
    rows: int
    threshold: float

    @property
    def inputs(self) -> tuple[Field, ...]:
        """What either version takes, once each; the candidate's first."""
        known = {each.name for each in self.candidate.signature.inputs}
        more = (each for each in self.baseline.signature.inputs if each.name not in known)
        return (*self.candidate.signature.inputs, *more)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What replaying found: rows that both sides scored (float64[n], moments int64[n]), and what was counted on the way."""

    received_at: NDArray[np.int64]
    baseline: Matrix
    candidate: Matrix
    labels: Matrix
    ages_s: Matrix
    versions: Mapping[int, int]
    segments: Segments
    fidelity: Mapping[str, Any]
    speed: list[dict[str, Any]]
    baseline_problem: str
    unanswered: int
    replayed_baseline: bool


def document(
    asked: Asked, found: Found, *, replay: Replay, candidate: Scorer, usual: Counted | None
) -> dict[str, Any]:
    """The report. ``usual`` is what the baseline's requests are known for."""
    old, new = found.baseline, found.candidate
    flips = shift.flips(old, new, threshold=asked.threshold)
    moments = shift.over_time(found.received_at, old, candidate=new, threshold=asked.threshold)
    judged = quality(old, new, labels=found.labels, ages_s=found.ages_s, task=_task(asked, found.labels))
    errors = {**_errors(candidate), "baseline_unscored": found.unanswered}
    gates = _gates(found, judged=judged, error_rate=errors["rate"], usual=usual)
    return {
        "conclusion": estimates.conclude(
            gates, labels_problem=judged.get("problem") or f"{judged['labels']:,} labels"
        ),
        "endpoint": asked.endpoint,
        "model": asked.candidate.model,
        "candidate": asked.candidate.number,
        "baseline": asked.baseline.number,
        "baseline_scores": "replayed" if found.replayed_baseline else "logged",
        "baseline_problem": found.baseline_problem,
        "window": _window(asked, found, replay=replay),
        "left_out": replay.left_out,
        "fidelity": dict(found.fidelity) or None,
        "errors": errors,
        "shift": shift.score_shift(old, new),
        "flips": flips,
        "segments": found.segments.report(rows=flips["rows"], flips=flips["flips"]),
        "over_time": [{**each, "at": iso(each["at"])} for each in moments],
        "speed": found.speed,
        "quality": judged,
        "gates": gates,
    }


def _task(asked: Asked, labels: Matrix) -> Task:
    """What kind of models they are: as the candidate says, or else the labels."""
    known = labels[np.isfinite(labels)]
    binary = bool(np.isin(known, (0.0, 1.0)).all())
    task = asked.candidate.signature.task or ("binary" if binary else "regression")
    return "regression" if task == "binary" and not binary else task


def _errors(candidate: Scorer) -> dict[str, Any]:
    tried = candidate.scored + candidate.failed
    return {
        "tried": tried,
        "failed": candidate.failed,
        "rate": candidate.failed / tried,
        "unscored": candidate.unscored,
        "not_finite": candidate.not_finite,
        "first": candidate.first_error,
    }


def _window(asked: Asked, found: Found, *, replay: Replay) -> dict[str, Any]:
    return {
        "since": iso(asked.since),
        "until": iso(asked.until),
        "first": iso(int(found.received_at.min())),
        "last": iso(int(found.received_at.max())),
        "logged_rows": replay.logged,
        "rows": len(found.received_at),
        "sampled": replay.rows < replay.logged,
        "versions": {str(number): count for number, count in sorted(found.versions.items())},
    }


def _gates(
    found: Found, *, judged: dict[str, Any], error_rate: float, usual: Counted | None
) -> list[dict[str, Any]]:
    """What the gates of the default plan would probably say; a slow request is one slower than the baseline's p99 so far."""
    failing = usual.failed / usual.requests if usual else 0.0
    known_latency = usual.latency if usual is not None and usual.latency.any() else None
    slow_s = _SLOW_LEAST_S if known_latency is None else latency.quantile(known_latency, 0.99)
    one = found.speed[0] if found.speed else {}
    added_ms = one["candidate"]["p50_ms"] - one["baseline"]["p50_ms"] if "baseline" in one else 0.0
    difference = judged.get("difference", {}) if judged["task"] == "binary" else {}
    paired = (difference["low"], difference["high"]) if difference.get("low") is not None else None
    expected = estimates.Expected(
        failed=(failing, min(1.0, failing + error_rate)),
        latency=known_latency,
        added_s=added_ms / 1e3,
        scores=(score_buckets.count(found.baseline), score_buckets.count(found.candidate)),
        labels=judged["coverage"],
        positives=judged["positives"] / max(judged["labels"], 1),
        aucs=(judged["baseline"]["auc"], judged["candidate"]["auc"]) if paired else None,
    )
    plan = Plan(slow_s=max(slow_s, _SLOW_LEAST_S))
    return estimates.estimate(plan, expected, paired=paired)
