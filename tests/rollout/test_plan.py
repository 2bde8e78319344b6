"""The plan: whatever is known, asked for or lost, a rollout only ever makes legal moves, and peeking decides nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from predis.errors import InvalidInput
from predis.monitoring.evidence import Side
from predis.rollout import states
from predis.rollout.controller import _weights
from predis.rollout.plan import GATES, Evidence, Plan, Status, Step, decide, gates
from predis.rollout.states import FINAL, State
from predis.rollout.store import Rollout
from predis.serving.route import Route
from tests.toys import ENDPOINT, MODEL, SECOND, TENANT

BASELINE, CANDIDATE = 1, 2


# -- what is known --------------------------------------------------------------------------------------------------------


@st.composite
def sides(draw: st.DrawFn) -> Side:
    """Anything that can be counted."""
    requests = draw(st.integers(0, 20_000))
    failed = draw(st.integers(0, requests))
    pairs = draw(st.integers(0, 5_000))
    return Side(
        requests=requests,
        failed=failed,
        slow=draw(
            st.integers(0, requests)
        ),  # may be more than were answered: the counts are not of one moment
        labels=draw(st.integers(2 * pairs, 2 * pairs + 500)),
        wins=draw(st.integers(0, 2 * pairs)) / 2,
        pairs=pairs,
    )


ANYTHING = st.builds(
    Evidence,
    applied=st.booleans(),
    problem=st.sampled_from(["", "", "", "it is broken"]),
    baseline=sides(),
    candidate=sides(),
)

PLANS = st.builds(
    Plan,
    strategy=st.sampled_from(["canary", "canary", "direct"]),
    steps=st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True).map(
        lambda shares: tuple(sorted(share / 100 for share in shares))
    ),
    bake_s=st.sampled_from([0.0, 2.0]),
    min_requests=st.sampled_from([0, 10, 200]),
    min_labels=st.sampled_from([0, 200]),
    alpha=st.sampled_from([0.01, 0.05, 0.5]),
    auc_gate=st.booleans(),
    warm_timeout_s=st.sampled_from([0.0, 60.0]),
)


def side(requests: int = 0, *, failed: float = 0.0, slow: float = 0.0, auc: float | None = None) -> Side:
    """Counts with exactly these shares; ``auc`` with as many pairs as a third of the requests."""
    pairs = requests // 3 if auc is not None else 0
    return Side(
        requests=requests, failed=round(requests * failed), slow=round(requests * slow), labels=3 * pairs,
        wins=round(2 * pairs * (auc or 0)) / 2, pairs=pairs,
    )  # fmt: skip


def running(step: int = 0, *, wish: str = "", has_baseline: bool = True) -> Status:
    return Status(
        state=State.RUNNING, step=step, created_at=0, step_at=0, wish=wish, has_baseline=has_baseline
    )


def warming(**other: Any) -> Status:
    return Status(state=State.WARMING, step=0, created_at=0, step_at=0, **other)


LATER = 3_600 * SECOND
GOOD = Evidence(applied=True, baseline=side(50_000, auc=0.8), candidate=side(50_000, auc=0.8))


# -- the random walk ------------------------------------------------------------------------------------------------------


class Walk(RuleBasedStateMachine):
    """A rollout's row, moved by ``decide`` alone, through anything that may happen to it."""

    @initialize(plan=PLANS, has_baseline=st.booleans())
    def begin(self, plan: Plan, has_baseline: bool) -> None:
        self.plan = plan
        self.now = 1_000 * SECOND
        self.moves: list[tuple[str, str]] = []
        self.shares: list[float] = []
        self.row = Rollout(
            id=1, tenant=TENANT, endpoint=ENDPOINT, model=MODEL, baseline=BASELINE if has_baseline else None,
            candidate=CANDIDATE, state=State.WARMING, step=0, plan=plan.to_dict(), marks={}, route=1, verdicts=[], reason="",
            wish="", created_at=self.now, step_at=self.now, ended_at=None, created_by="test",
        )  # fmt: skip
        start = {BASELINE: 1.0, CANDIDATE: 0.0} if has_baseline else {CANDIDATE: 1.0}
        self.route = Route(ENDPOINT, 1, start)

    def look(self, evidence: Evidence) -> Step:
        """What any process that reads the row decides: the plan comes from the row, too."""
        row = self.row
        status = Status(
            state=row.state, step=row.step, created_at=row.created_at, step_at=row.step_at, wish=row.wish,
            has_baseline=row.baseline is not None,
        )  # fmt: skip
        plan = Plan.from_dict(row.plan)
        assert plan == self.plan
        step = decide(plan, status, evidence=evidence, now=self.now)
        assert step == decide(plan, status, evidence=evidence, now=self.now)
        return step

    @rule(evidence=ANYTHING, seconds=st.sampled_from([0.0, 1.0, 100.0]), crash=st.booleans())
    def tick(self, evidence: Evidence, seconds: float, crash: bool) -> None:
        self.now += round(seconds * SECOND)
        before, step = self.row, self.look(evidence)
        if before.state in FINAL:
            assert not step.moved
        if not step.moved:
            assert (step.state, step.step) == (before.state, before.step)
            return
        states.check(before.state, step.state)
        if crash:  # before the transaction is through: nothing has changed
            return
        weights = _weights(before, step)
        self.route = Route(ENDPOINT, self.route.number + 1, weights)  # refuses weights that do not sum to 1
        self.moves.append((before.state, step.state))
        self.shares.append(step.share)
        self.row = replace(
            before, state=step.state, step=step.step, step_at=self.now, reason=step.reason,
            ended_at=self.now if step.state in FINAL else None,
        )  # fmt: skip

    @rule(wish=st.sampled_from(["promote", "abort"]))
    def wish(self, wish: str) -> None:
        if self.row.ended_at is None:
            self.row = replace(self.row, wish=wish)

    @invariant()
    def the_route_fits_the_state(self) -> None:
        if not hasattr(self, "row"):
            return
        weights = dict(self.route.weights)
        assert not weights or math.isclose(sum(weights.values()), 1.0)
        if self.row.state == State.PROMOTED:
            assert weights == {CANDIDATE: 1.0}
        elif self.row.state in FINAL:
            assert weights == ({BASELINE: 1.0} if self.row.baseline else {})
        elif self.row.state == State.RUNNING:
            share = self.plan.steps[self.row.step]
            assert weights == {BASELINE: 1.0 - share, CANDIDATE: share}
            assert list(weights) == [BASELINE, CANDIDATE]  # a growing canary only takes keys over

    @invariant()
    def shares_grow_until_the_end(self) -> None:
        if hasattr(self, "row"):
            on = [
                s for (_, target), s in zip(self.moves, self.shares, strict=True) if target == State.RUNNING
            ]
            assert on == sorted(set(on))
            assert len(self.moves) <= len(self.plan.steps) + 1


Walk.TestCase.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
TestWalk = Walk.TestCase


# -- single decisions -----------------------------------------------------------------------------------------------------


class TestWarming:
    def test_waits_for_the_workers(self) -> None:
        step = decide(Plan(), warming(), evidence=Evidence(applied=False), now=59 * SECOND)
        assert (step.state, step.moved) == (State.WARMING, False)

    def test_not_for_ever(self) -> None:
        step = decide(Plan(), warming(), evidence=Evidence(applied=False), now=61 * SECOND)
        assert (step.state, step.share) == (State.FAILED, 0.0)
        assert "within 60 s" in step.reason

    def test_a_problem_ends_it(self) -> None:
        evidence = Evidence(applied=True, problem="checksum")
        step = decide(Plan(), warming(wish="promote"), evidence=evidence, now=0)
        assert step.state == State.FAILED
        assert "checksum" in step.reason

    @pytest.mark.parametrize("applied", [True, False])
    def test_abort(self, *, applied: bool) -> None:
        step = decide(Plan(), warming(wish="abort"), evidence=Evidence(applied=applied), now=0)
        assert step.state == State.ABORTED

    def test_canary_begins_with_its_first_share(self) -> None:
        step = decide(Plan(), warming(), evidence=Evidence(applied=True), now=0)
        assert (step.state, step.step, step.share) == (State.RUNNING, 0, 0.1)

    @pytest.mark.parametrize(
        ("plan", "status"),
        [
            (Plan(strategy="direct", steps=()), warming()),
            (Plan(), warming(has_baseline=False)),
            (Plan(), warming(wish="promote")),
        ],
    )
    def test_direct(self, plan: Plan, status: Status) -> None:
        assert not decide(plan, status, evidence=Evidence(applied=False), now=0).moved
        step = decide(plan, status, evidence=Evidence(applied=True), now=0)
        assert (step.state, step.share) == (State.PROMOTED, 1.0)


class TestRunning:
    def test_step_by_step_to_the_end(self) -> None:
        first = decide(Plan(), running(0), evidence=GOOD, now=LATER)
        assert (first.state, first.step, first.share, first.moved) == (State.RUNNING, 1, 0.5, True)
        last = decide(Plan(), running(1), evidence=GOOD, now=LATER)
        assert (last.state, last.share) == (State.PROMOTED, 1.0)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"applied": False}, "taking the Route"),
            ({"candidate": side(150, auc=0.8)}, "150 of 200 requests"),
        ],
    )
    def test_waits(self, changes: dict[str, Any], words: str) -> None:
        step = decide(Plan(), running(0), evidence=replace(GOOD, **changes), now=LATER)
        assert (step.state, step.step, step.moved) == (State.RUNNING, 0, False)
        assert words in step.reason

    def test_bakes(self) -> None:
        assert not decide(Plan(), running(0), evidence=GOOD, now=1 * SECOND).moved
        assert decide(Plan(), running(0), evidence=GOOD, now=2 * SECOND).moved

    def test_each_step_wants_requests_of_its_own(self) -> None:
        evidence = replace(GOOD, candidate=side(399, auc=0.8))
        assert "399 of 400 requests" in decide(Plan(), running(1), evidence=evidence, now=LATER).reason

    def test_a_gate_that_does_not_know_holds_the_last_step_only(self) -> None:
        unsure = Evidence(applied=True, baseline=side(1_000), candidate=side(1_000))  # no labels
        assert decide(Plan(), running(0), evidence=unsure, now=LATER).step == 1
        last = decide(Plan(), running(1), evidence=unsure, now=LATER)
        assert not last.moved
        assert "AUC is not known well enough" in last.reason
        assert decide(Plan(auc_gate=False), running(1), evidence=GOOD, now=LATER).state == State.PROMOTED

    def test_too_few_labels_hold_a_gate_that_would_pass(self) -> None:
        plan = Plan(min_labels=10**9)
        assert not decide(plan, running(1), evidence=GOOD, now=LATER).moved
        auc = gates(plan, GOOD)[-1]
        assert (auc.gate, auc.verdict) == ("auc", "hold")

    @pytest.mark.parametrize(
        ("gate", "candidate"),
        [
            ("errors", side(5_000, failed=0.2, auc=0.8)),
            ("latency", side(5_000, slow=0.4, auc=0.8)),
            ("auc", side(5_000, auc=0.3)),
        ],
    )
    def test_each_gate_turns_back(self, gate: str, candidate: Side) -> None:
        evidence = replace(GOOD, candidate=candidate)
        for step in (0, 1):
            for wish in ("", "promote"):
                found = decide(Plan(), running(step, wish=wish), evidence=evidence, now=0)
                assert (found.state, found.share) == (State.ABORTED, 0.0)
                assert [v.gate for v in found.verdicts if v.verdict == "fail"] == [gate]
                assert "surely" in found.reason

    def test_a_worker_that_cannot_serve_it_turns_back(self) -> None:
        found = decide(Plan(), running(0), evidence=replace(GOOD, problem="no memory"), now=0)
        assert found.state == State.ABORTED
        assert "no memory" in found.reason

    def test_wishes(self) -> None:
        nothing = Evidence(applied=False)
        assert decide(Plan(), running(wish="abort"), evidence=GOOD, now=LATER).state == State.ABORTED
        assert decide(Plan(), running(wish="promote"), evidence=nothing, now=0).state == State.PROMOTED

    def test_verdicts_say_what_they_know(self) -> None:
        found = gates(Plan(), GOOD)
        assert [v.gate for v in found] == list(GATES)
        assert {v.verdict for v in found} == {"pass"}
        assert all(v.low <= 0 <= v.high for v in found)
        assert [v.gate for v in gates(Plan(auc_gate=False), GOOD)] == ["errors", "latency"]
        empty = gates(Plan(), Evidence(applied=True))
        assert {(v.verdict, v.baseline, v.candidate) for v in empty} == {("hold", None, None)}

    @pytest.mark.parametrize("state", sorted(FINAL))
    @given(evidence=ANYTHING)
    @settings(max_examples=15)
    def test_the_end_is_the_end(self, state: State, evidence: Evidence) -> None:
        status = Status(state=state, step=1, created_at=0, step_at=0, wish="abort")
        step = decide(Plan(), status, evidence=evidence, now=LATER)
        assert (step.state, step.moved) == (state, False)
        assert step.share == (1.0 if state == State.PROMOTED else 0.0)


class TestNoData:
    """Silence is no evidence, in either direction, however long it lasts."""

    @given(
        plan=PLANS.filter(lambda plan: plan.strategy == "canary" and plan.min_requests > 0),
        years=st.integers(0, 100),
        baseline=sides(),
    )
    def test_holds_for_ever(self, plan: Plan, years: int, baseline: Side) -> None:
        for candidate_side, base_side in ((Side(), baseline), (Side(), Side())):
            evidence = Evidence(applied=True, baseline=base_side, candidate=candidate_side)
            for place in range(len(plan.steps)):
                step = decide(plan, running(place), evidence=evidence, now=years * 365 * 86_400 * SECOND)
                assert (step.state, step.step, step.moved) == (State.RUNNING, place, False)

    @given(candidate=sides(), years=st.integers(0, 100))
    def test_nor_does_a_baseline_that_nobody_asks(self, candidate: Side, years: int) -> None:
        """Nothing to compare with: it neither turns back nor promotes."""
        evidence = Evidence(applied=True, candidate=candidate)
        last = decide(Plan(), running(1), evidence=evidence, now=years * 365 * 86_400 * SECOND)
        assert (last.state, last.moved) == (State.RUNNING, False)
        first = decide(Plan(), running(0), evidence=evidence, now=years * 365 * 86_400 * SECOND)
        assert first.state == State.RUNNING


# -- under continuous looking ---------------------------------------------------------------------------------------------


class Stream:
    """A version's traffic, growing."""

    def __init__(self, rng: np.random.Generator, *, failed: float, slow: float, auc: float) -> None:
        self._rng = rng
        self._rates = (failed, slow, auc)
        self.side = Side()

    def more(self, requests: int) -> Side:
        failed, slow, auc = self._rates
        bad, pairs = int(self._rng.binomial(requests, failed)), requests // 4
        late = int(self._rng.binomial(requests - bad, slow))
        before = self.side
        self.side = Side(
            requests=before.requests + requests, failed=before.failed + bad, slow=before.slow + late,
            labels=before.labels + 2 * pairs, wins=before.wins + float(self._rng.binomial(pairs, auc)),
            pairs=before.pairs + pairs,
        )  # fmt: skip
        return self.side


def simulate(rng: np.random.Generator, *, plan: Plan, looks: int, each: int = 40, **candidate: float) -> Step:
    """Run a whole rollout, looking after every ``each`` requests; its last step."""
    equal = {"failed": 0.02, "slow": 0.05, "auc": 0.75}
    base, other = Stream(rng, **equal), Stream(rng, **{**equal, **candidate})
    place, at, step = 0, 0, Step("", 0, 0.0, "")
    for look in range(looks):
        now = look * SECOND
        share = plan.steps[place]
        evidence = Evidence(
            applied=True,
            baseline=base.more(round(each * (1 - share))),
            candidate=other.more(max(1, round(each * share))),
        )
        status = Status(state=State.RUNNING, step=place, created_at=0, step_at=at)
        step = decide(plan, status, evidence=evidence, now=now)
        if step.state in FINAL:
            return step
        if step.moved:
            place, at = step.step, now
    return step


class TestPeeking:
    STRICT = Plan(
        steps=(0.5,), error_margin=0.0, slow_margin=0.0, auc_margin=0.0, min_requests=10**9, alpha=0.05
    )

    def test_equal_versions_are_turned_back_no_more_often_than_alpha(self) -> None:
        """At margins of zero, where the two versions are exactly as far apart as allowed: the worst case."""
        rng = np.random.default_rng(20)
        runs = [simulate(rng, plan=self.STRICT, looks=100).state for _ in range(200)]
        assert runs.count(State.ABORTED) <= 0.05 * len(runs)
        assert runs.count(State.PROMOTED) == 0

    def test_a_test_made_for_one_look_would_have_turned_many_back(self) -> None:
        """What the same looks do to a p-value: the simulation can tell a bad rule from a good one."""
        rng = np.random.default_rng(20)
        wrong = 0
        for _run in range(200):
            base, other = (Stream(rng, failed=0.02, slow=0.05, auc=0.75) for _ in range(2))
            for _look in range(100):
                a, b = base.more(20), other.more(20)
                pooled = (a.failed + b.failed) / (a.requests + b.requests)
                error = math.sqrt(pooled * (1 - pooled) * (1 / a.requests + 1 / b.requests)) or 1.0
                if (b.failed / b.requests - a.failed / a.requests) / error > 1.645:
                    wrong += 1
                    break
        assert wrong > 0.15 * 200

    def test_equal_versions_are_promoted_in_the_end(self) -> None:
        rng = np.random.default_rng(21)
        runs = [simulate(rng, plan=Plan(), looks=800, each=200).state for _ in range(20)]
        assert runs.count(State.PROMOTED) >= 19

    @pytest.mark.parametrize(
        ("candidate", "gate"),
        [({"auc": 0.25}, "AUC"), ({"failed": 0.3}, "error rate"), ({"slow": 0.5}, "share slower")],
    )
    def test_a_bad_version_is_caught(self, candidate: dict[str, float], gate: str) -> None:
        rng = np.random.default_rng(22)
        for _run in range(20):
            step = simulate(rng, plan=Plan(), looks=600, **candidate)
            assert step.state == State.ABORTED
            assert gate in step.reason

    def test_a_slightly_worse_version_is_not_promoted_by_luck(self) -> None:
        """Worse by a little more than the margin: the chance that the gate ever lets it through is at most alpha."""
        plan = Plan(steps=(0.5,), error_margin=0.02, min_requests=50, min_labels=0, auc_gate=False, bake_s=0)
        rng = np.random.default_rng(23)
        runs = [simulate(rng, plan=plan, looks=80, failed=0.045).state for _ in range(150)]
        assert runs.count(State.PROMOTED) <= 0.05 * len(runs)


# -- plans as documents ---------------------------------------------------------------------------------------------------


class TestDocuments:
    @given(PLANS)
    def test_round_trip(self, plan: Plan) -> None:
        assert Plan.from_dict(plan.to_dict()) == plan

    def test_defaults(self) -> None:
        assert Plan.from_dict({}) == Plan()
        assert Plan.from_dict({"bake_s": 5}).bake_s == 5.0

    @pytest.mark.parametrize(
        ("document", "words"),
        [
            ({"pace": 1}, "a plan has no 'pace'"),
            ({"strategy": "shadow"}, "direct or canary"),
            ({"strategy": 1}, "must be of type str"),
            ({"steps": 0.1}, "list of shares"),
            ({"steps": ["a"]}, "list of shares"),
            ({"steps": [True]}, "list of shares"),
            ({"steps": []}, "at least one step"),
            ({"steps": [0.5, 0.1]}, "growing shares"),
            ({"steps": [0.1, 0.1]}, "growing shares"),
            ({"steps": [0.0]}, "growing shares"),
            ({"steps": [1.0]}, "growing shares"),
            ({"steps": [float("nan")]}, "finite"),
            ({"steps": [10**400]}, "finite"),
            ({"alpha": 0.0}, "alpha is between"),
            ({"alpha": 1}, "alpha is between"),
            ({"alpha": float("nan")}, "finite"),
            ({"bake_s": -1}, "bake_s must not be negative"),
            ({"bake_s": "2"}, "must be of type float"),
            ({"bake_s": True}, "must be of type float"),
            ({"bake_s": float("inf")}, "finite"),
            ({"bake_s": 10**400}, "finite"),
            ({"min_requests": 1.5}, "must be of type int"),
            ({"min_requests": -1}, "must not be negative"),
            ({"auc_gate": 1}, "must be of type bool"),
            ({"slow_s": None}, "must be of type float"),
        ],
    )
    def test_refused(self, document: dict[str, Any], words: str) -> None:
        with pytest.raises(InvalidInput, match=words):
            Plan.from_dict(document)
