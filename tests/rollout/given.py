"""Plans and evidence for the tests of rollouts: anything that may be, and what is exactly so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from predis.monitoring.evidence import Recent, Side
from predis.rollout.decision import Evidence, Status
from predis.rollout.gates import Ledger
from predis.rollout.plan import APPROVALS, STRATEGIES, Plan
from predis.rollout.states import WISHES, State
from predis.stats import Moments, latency, score_buckets

FAST_S, SLOW_S = 0.001, 1.0


def side(
    requests: int = 0,
    *,
    failed: float = 0.0,
    slow: float = 0.0,
    auc: float | None = None,
    reward: float | None = None,
    scores: tuple[float, float] = (0.2, 0.8),
) -> Side:
    """Counts with exactly these shares; with ``auc`` as many pairs as a third of the requests, with ``reward`` as many rewards of 0 and 1."""
    bad = round(requests * failed)
    late = round((requests - bad) * slow)
    pairs = requests // 3 if auc is not None else 0
    rewarded = requests if reward is not None else 0
    return Side(
        requests=requests, failed=bad, latency=latencies(requests - bad - late, late),
        scores=score_buckets.count(np.linspace(*scores, requests - bad)) if requests > bad else score_buckets.count([]),
        labels=max(3 * pairs, rewarded), wins=round(2 * pairs * (auc or 0)) / 2, pairs=pairs,
        rewards=Moments(rewarded, reward or 0.0, rewarded * (reward or 0.0) * (1 - (reward or 0.0))),
    )  # fmt: skip


def latencies(fast: int, slow: int) -> Any:
    return latency.count([FAST_S]) * fast + latency.count([SLOW_S]) * slow


def recent(requests: int, *, failed: int = 0, slow: int = 0) -> Recent:
    return Recent(requests, failed, latencies(requests - failed - slow, slow))


def evidence(plan: Plan, baseline: Side, candidate: Side, *, looks: int = 40, **other: Any) -> Evidence:
    """Evidence that came evenly over so many looks, as the ledger wants it."""
    ledger = Ledger(plan)
    for look in range(1, looks + 1):
        part = (_part(baseline, look / looks), _part(candidate, look / looks))
        ledger.advance(part, plan=plan, share=None)
    return Evidence(applied=True, sides=(baseline, candidate), ledger=ledger, **other)


def _part(side: Side, share: float) -> Side:
    return replace(
        side, requests=int(side.requests * share), failed=int(side.failed * share),
        latency=(side.latency * share).astype(np.int64),
    )  # fmt: skip


@st.composite
def sides(draw: st.DrawFn) -> Side:
    """Anything that can be counted, even what cannot be: counts are not all of one moment."""
    requests = draw(st.integers(0, 20_000))
    pairs = draw(st.integers(0, 5_000))
    rewards = draw(st.integers(0, 5_000))
    return Side(
        requests=requests,
        failed=draw(st.integers(0, requests)),
        latency=latencies(draw(st.integers(0, requests)), draw(st.integers(0, requests))),
        scores=score_buckets.count([0.3]) * draw(st.integers(0, requests)) + score_buckets.count([0.6]),
        labels=draw(st.integers(2 * pairs, 2 * pairs + 500)),
        wins=draw(st.integers(0, 2 * pairs)) / 2,
        pairs=pairs,
        rewards=Moments(rewards, draw(st.floats(-10, 10)), draw(st.floats(0, 1_000)))
        if rewards
        else Moments(),
    )


@st.composite
def anything(draw: st.DrawFn) -> Evidence:
    """Evidence of any kind, with a ledger that has looked at some of it."""
    found = (draw(sides()), draw(sides()))
    plan = Plan()
    ledger = Ledger(plan)
    for _look in range(draw(st.integers(0, 3))):
        ledger.advance(
            (draw(sides()), draw(sides())), plan=plan, share=draw(st.sampled_from([None, 0.1, 0.5]))
        )
    return Evidence(
        applied=draw(st.booleans()),
        problem=draw(st.sampled_from(["", "", "", "it is broken"])),
        crashes=draw(st.sampled_from([0, 0, 0, 1, 5])),
        frozen=draw(st.sampled_from(["", "", "frozen until Monday"])),
        sides=found,
        recent=(recent(draw(st.integers(0, 100))), recent(draw(st.integers(0, 100)))),
        ledger=ledger,
    )


PLANS = st.builds(
    Plan,
    strategy=st.sampled_from([*STRATEGIES, "canary", "canary"]),
    steps=st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True).map(
        lambda shares: tuple(sorted(share / 100 for share in shares))
    ),
    share=st.sampled_from([0.1, 0.5]),
    bake_s=st.sampled_from([0.0, 2.0]),
    keep_s=st.sampled_from([0.0, 60.0]),
    max_s=st.sampled_from([10.0, 1e6]),
    min_requests=st.sampled_from([0, 10, 200]),
    min_labels=st.sampled_from([0, 200]),
    alpha=st.sampled_from([0.01, 0.05, 0.5]),
    auc_gate=st.booleans(),
    score_gate=st.booleans(),
    reward=st.sampled_from(["", "label", "value"]),
    approve=st.lists(st.sampled_from(APPROVALS), unique=True).map(tuple),
    warm_timeout_s=st.sampled_from([0.0, 60.0]),
)

WISH = st.sampled_from(sorted(WISHES))


def status(state: State = State.RUNNING, step: int = 0, **other: Any) -> Status:
    given = {"share": 0.1, "step_at": 0, "began_at": 0, **other}
    return Status(state=state, step=step, **given)
