"""Decisions: whatever is known, asked for or lost, a rollout only ever makes legal moves, and silence decides nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from predis.monitoring.evidence import Compared
from predis.rollout import states
from predis.rollout.decision import Evidence, Status, Step, decide
from predis.rollout.plan import Plan
from predis.rollout.splits import Sides, split_of
from predis.rollout.states import FINAL, WISHES, State
from predis.serving.route import Segment, Split
from predis.stats import Moments
from tests.rollout.given import PLANS, WISH, anything, evidence, recent, side, sides, status
from tests.toys import SECOND

BASELINE, CANDIDATE, OTHER = 1, 2, 7
WHERE = "parameter.tier == 'gold'"
LATER = 3_600 * SECOND
YEARS = 100 * 365 * 86_400 * SECOND


class Walk(RuleBasedStateMachine):
    """A rollout's row, moved by ``decide`` alone, through anything that may happen to it."""

    @initialize(plan=PLANS, has_baseline=st.booleans(), where=st.booleans())
    def begin(self, plan: Plan, has_baseline: bool, where: bool) -> None:
        of_segment = where and has_baseline and plan.strategy != "shadow"
        self.plan = replace(plan, where=WHERE) if of_segment else plan
        self.now = 1_000 * SECOND
        self.base = Split(
            {BASELINE: 1.0} if has_baseline else {}, shadows={OTHER: 0.5} if has_baseline else {}
        )
        self.between = Sides(BASELINE if has_baseline else None, CANDIDATE)
        self.status = Status(
            state=State.WARMING, step=0, share=0.0, step_at=self.now, has_baseline=has_baseline
        )
        self.split = self.split_at(State.WARMING, 0.0)

    def split_at(self, state: str, share: float) -> Split:
        return split_of(self.plan, self.base, sides=self.between, state=state, share=share, salt="rollout 1")

    @rule(known=anything(), seconds=st.sampled_from([0.0, 1.0, 100.0]), crash=st.booleans())
    def tick(self, known: Evidence, seconds: float, crash: bool) -> None:
        self.now += round(seconds * SECOND)
        before = self.status
        step = decide(self.plan, before, evidence=known, now=self.now)
        again = decide(Plan.from_dict(self.plan.to_dict()), before, evidence=known, now=self.now)
        assert step == again  # whatever process looks decides the same
        if before.state in FINAL:
            assert not step.moved
        if not step.moved:
            assert (step.state, step.step, step.share) == (before.state, before.step, before.share)
            return
        states.check(before.state, step.state)
        if known.frozen and before.wish != "promote":
            assert step.share <= before.share
        if crash:  # before the transaction is through: nothing has changed
            return
        self.split = self.split_at(step.state, step.share)  # refuses shares that do not sum to 1
        begins = step.share != before.share and step.state in (State.RUNNING, State.HOLDING)
        self.status = replace(
            before, state=step.state, step=step.step, share=step.share, step_at=self.now, wish="",
            began_at=before.began_at or (self.now if begins else 0),
        )  # fmt: skip

    @rule(wish=WISH)
    def ask(self, wish: str) -> None:
        if self.status.state in WISHES[wish]:
            self.status = replace(self.status, wish=wish, wish_by="ada")

    @invariant()
    def the_split_fits_the_state(self) -> None:
        if not hasattr(self, "split"):
            return
        shares = [self.split.weights, *(segment.weights for segment in self.split.segments)]
        assert all(not weights or math.isclose(sum(weights.values()), 1.0) for weights in shares)
        state, moved = self.status.state, self.weights()
        if state in FINAL and state != State.PROMOTED:
            assert self.split == self.base
        elif state == State.PROMOTED:
            assert moved == {CANDIDATE: 1.0}
            assert CANDIDATE not in self.split.shadows
        elif self.between.baseline is not None:
            assert list(moved) == [BASELINE, CANDIDATE]  # a growing canary only takes keys over
            assert moved[CANDIDATE] == pytest.approx(self.status.share)
        if self.plan.where:
            assert self.split.weights == {BASELINE: 1.0}  # nobody outside the segment meets it

    def weights(self) -> dict[int, float]:
        found = [segment.weights for segment in self.split.segments if segment.when == WHERE]
        return dict(found[0] if found else self.split.weights)

    @invariant()
    def a_canary_never_takes_a_share_that_its_plan_does_not_have(self) -> None:
        if hasattr(self, "status") and self.status.state == State.RUNNING and self.plan.strategy == "canary":
            assert self.status.share == self.plan.steps[self.status.step]


Walk.TestCase.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
TestWalk = Walk.TestCase


def good(plan: Plan, **other: Any) -> Evidence:
    """A candidate as good as the baseline, and enough of everything."""
    equal = side(30_000, failed=0.01, slow=0.01, auc=0.8, reward=0.5)
    return evidence(plan, equal, equal, **other)


def bad(plan: Plan, **other: Any) -> Evidence:
    equal = side(30_000, failed=0.01, slow=0.01, auc=0.8, reward=0.5)
    return evidence(plan, equal, side(30_000, failed=0.01, slow=0.01, **{"auc": 0.8, "reward": 0.5, **other}))


class TestWarming:
    def test_waits_for_the_workers_but_not_for_ever(self) -> None:
        nothing = Evidence(applied=False)
        assert not decide(Plan(), status(State.WARMING), evidence=nothing, now=59 * SECOND).moved
        late = decide(Plan(), status(State.WARMING), evidence=nothing, now=61 * SECOND)
        assert (late.state, late.share) == (State.FAILED, 0.0)
        assert "within 60 s" in late.reason

    def test_a_problem_ends_it(self) -> None:
        known = Evidence(applied=True, problem="checksum")
        step = decide(Plan(), status(State.WARMING, wish="promote"), evidence=known, now=0)
        assert step.state == State.FAILED
        assert "checksum" in step.reason

    @pytest.mark.parametrize("applied", [True, False])
    def test_abort(self, *, applied: bool) -> None:
        step = decide(Plan(), status(State.WARMING, wish="abort"), evidence=Evidence(applied=applied), now=0)
        assert step.state == State.ABORTED

    @pytest.mark.parametrize(
        ("strategy", "state", "share"),
        [
            ("direct", State.PROMOTED, 1.0),
            ("blue-green", State.HOLDING, 1.0),
            ("canary", State.RUNNING, 0.1),
            ("ab", State.RUNNING, 0.5),
            ("bandit", State.RUNNING, 0.5),
            ("shadow", State.RUNNING, 0.0),
        ],
    )
    def test_each_strategy_begins(self, strategy: str, state: State, share: float) -> None:
        plan = Plan(strategy=strategy)
        assert not decide(plan, status(State.WARMING), evidence=Evidence(applied=False), now=0).moved
        step = decide(plan, status(State.WARMING), evidence=Evidence(applied=True), now=0)
        assert (step.state, step.share) == (state, share)

    @pytest.mark.parametrize("strategy", ["canary", "shadow", "ab"])
    def test_the_first_version_of_all_is_deployed_at_once(self, strategy: str) -> None:
        plan = Plan(strategy=strategy, approve=("start",))
        step = decide(plan, status(State.WARMING, has_baseline=False), evidence=Evidence(applied=True), now=0)
        assert step.state == State.PROMOTED


class TestPeople:
    def test_a_yes_before_the_first_traffic(self) -> None:
        plan = Plan(approve=("start",))
        step = decide(plan, status(State.WARMING), evidence=Evidence(applied=True), now=0)
        assert (step.state, step.step, step.share) == (State.WAITING, -1, 0.0)
        waiting = status(State.WAITING, -1, share=0.0)
        assert not decide(plan, waiting, evidence=good(plan), now=YEARS).moved
        yes = decide(
            plan, replace(waiting, wish="approve", wish_by="ada"), evidence=Evidence(applied=True), now=0
        )
        assert (yes.state, yes.step, yes.share) == (State.RUNNING, 0, 0.1)
        assert "ada said yes" in yes.reason
        no = decide(plan, replace(waiting, wish="reject"), evidence=Evidence(applied=True), now=0)
        assert no.state == State.ABORTED

    def test_a_yes_before_each_step_and_before_the_end(self) -> None:
        plan = Plan(approve=("steps",))
        step = decide(plan, status(), evidence=good(plan), now=LATER)
        assert (step.state, step.step, step.share) == (State.WAITING, 0, 0.1)
        yes = decide(plan, status(State.WAITING, 0, wish="approve"), evidence=good(plan), now=LATER)
        assert (yes.state, yes.step, yes.share) == (State.RUNNING, 1, 0.5)
        last = decide(plan, status(step=1, share=0.5), evidence=good(plan), now=LATER)
        assert last.state == State.WAITING
        end = decide(
            plan, status(State.WAITING, 1, share=0.5, wish="approve"), evidence=good(plan), now=LATER
        )
        assert end.state == State.PROMOTED

    def test_only_the_end_may_want_it(self) -> None:
        plan = Plan(approve=("promote",))
        assert decide(plan, status(), evidence=good(plan), now=LATER).state == State.RUNNING
        assert decide(plan, status(step=1, share=0.5), evidence=good(plan), now=LATER).state == State.WAITING

    @pytest.mark.parametrize("state", [State.WAITING, State.PAUSED])
    def test_what_stands_still_is_still_turned_back(self, state: State) -> None:
        assert decide(Plan(), status(state), evidence=bad(Plan(), auc=0.6), now=0).state == State.ABORTED
        burst = good(Plan(), recent=(recent(100), recent(100, failed=90)))
        assert decide(Plan(), status(state), evidence=burst, now=0).state == State.ABORTED

    def test_pause_and_resume(self) -> None:
        paused = decide(Plan(), status(wish="pause", wish_by="ada"), evidence=good(Plan()), now=LATER)
        assert (paused.state, paused.share, paused.step) == (State.PAUSED, 0.1, 0)
        assert "ada" in paused.reason
        assert not decide(Plan(), status(State.PAUSED), evidence=good(Plan()), now=YEARS).moved
        again = decide(Plan(), status(State.PAUSED, wish="resume"), evidence=good(Plan()), now=YEARS)
        assert (again.state, again.share, again.step) == (State.RUNNING, 0.1, 0)

    def test_promote_and_abort(self) -> None:
        nothing = Evidence(applied=False)
        for state in (State.RUNNING, State.PAUSED, State.WAITING, State.HOLDING):
            assert (
                decide(Plan(), status(state, wish="abort"), evidence=good(Plan()), now=0).state
                == State.ABORTED
            )
            assert (
                decide(Plan(), status(state, wish="promote"), evidence=nothing, now=0).state == State.PROMOTED
            )

    def test_a_freeze_holds_what_goes_forward_and_nothing_else(self) -> None:
        plan = Plan()
        frozen = good(plan, frozen="frozen until Monday")
        step = decide(plan, status(), evidence=frozen, now=LATER)
        assert (step.moved, step.reason) == (False, "frozen until Monday")
        worse = replace(bad(plan, auc=0.6), frozen="frozen until Monday")
        assert decide(plan, status(), evidence=worse, now=LATER).state == State.ABORTED
        assert decide(plan, status(wish="pause"), evidence=frozen, now=LATER).state == State.PAUSED
        warm = Evidence(applied=True, frozen="frozen until Monday")
        assert not decide(plan, status(State.WARMING), evidence=warm, now=0).moved


class TestCanary:
    def test_step_by_step_to_the_end(self) -> None:
        first = decide(Plan(), status(), evidence=good(Plan()), now=LATER)
        assert (first.state, first.step, first.share, first.moved) == (State.RUNNING, 1, 0.5, True)
        last = decide(Plan(), status(step=1, share=0.5), evidence=good(Plan()), now=LATER)
        assert (last.state, last.share) == (State.PROMOTED, 1.0)

    def test_waits(self) -> None:
        known = good(Plan())
        behind = decide(Plan(), status(), evidence=replace(known, applied=False), now=LATER)
        assert (behind.moved, behind.step) == (False, 0)
        assert "taking the Route" in behind.reason
        few = evidence(Plan(), side(5_000, auc=0.8), side(150, auc=0.8))
        assert "150 of 200 requests" in decide(Plan(), status(), evidence=few, now=LATER).reason
        assert not decide(Plan(), status(), evidence=known, now=1 * SECOND).moved
        assert decide(Plan(), status(), evidence=known, now=2 * SECOND).moved

    def test_a_gate_that_does_not_know_holds_the_last_step_only(self) -> None:
        plan = Plan()
        unsure = evidence(plan, side(3_000), side(3_000))  # no labels
        assert decide(plan, status(), evidence=unsure, now=LATER).step == 1
        last = decide(plan, status(step=1, share=0.5), evidence=unsure, now=LATER)
        assert not last.moved
        assert "AUC is not known well enough" in last.reason
        without = Plan(auc_gate=False)
        enough = evidence(without, side(3_000), side(3_000))
        assert decide(without, status(step=1, share=0.5), evidence=enough, now=LATER).state == State.PROMOTED

    @pytest.mark.parametrize(
        ("gate", "candidate"),
        [
            ("errors", {"failed": 0.1}),
            ("latency", {"slow": 0.3}),
            ("auc", {"auc": 0.6}),
            ("scores", {"scores": (0.8, 0.99)}),
        ],
    )
    def test_each_gate_turns_back(self, gate: str, candidate: dict[str, Any]) -> None:
        plan = Plan()
        equal = {"failed": 0.01, "slow": 0.01, "auc": 0.8}
        known = evidence(plan, side(30_000, **equal), side(30_000, **{**equal, **candidate}))
        for step in (0, 1):
            for wish in ("", "promote", "pause"):
                found = decide(plan, status(step=step, wish=wish), evidence=known, now=0)
                assert (found.state, found.share) == (State.ABORTED, 0.0)
                assert [v.gate for v in found.verdicts if v.verdict == "fail"] == [gate]
                assert "surely" in found.reason

    @pytest.mark.parametrize(
        ("other", "words"),
        [
            ({"recent": (recent(100), recent(100, failed=60))}, "60% of its requests"),
            ({"crashes": 2}, "2 workers died"),
            ({"problem": "no memory"}, "no memory"),
        ],
    )
    def test_what_fails_hard_goes_at_once(self, other: dict[str, Any], words: str) -> None:
        found = decide(Plan(), status(), evidence=Evidence(applied=True, **other), now=0)
        assert found.state == State.ABORTED
        assert words in found.reason


class TestBlueGreen:
    PLAN = Plan(strategy="blue-green", keep_s=60.0, min_requests=10)

    def test_it_holds_and_is_promoted(self) -> None:
        holding = status(State.HOLDING, share=1.0)
        known = Evidence(applied=True, sides=(side(), side(50)))
        assert not decide(self.PLAN, holding, evidence=known, now=59 * SECOND).moved
        assert decide(self.PLAN, holding, evidence=known, now=60 * SECOND).state == State.PROMOTED
        assert not decide(self.PLAN, holding, evidence=Evidence(applied=True), now=YEARS).moved

    def test_instant_return(self) -> None:
        holding = status(State.HOLDING, share=1.0)
        burst = Evidence(applied=True, recent=(recent(0), recent(50, failed=40)))
        assert decide(self.PLAN, holding, evidence=burst, now=0).state == State.ABORTED
        slow = Evidence(applied=True, recent=(recent(0), recent(50, slow=40)))
        assert not decide(self.PLAN, holding, evidence=slow, now=0).moved
        with_sla = replace(self.PLAN, sla_s=0.1)
        found = decide(with_sla, holding, evidence=slow, now=0)
        assert found.state == State.ABORTED
        assert "SLA" in found.reason


class TestExperiments:
    @pytest.mark.parametrize("strategy", ["ab", "bandit"])
    @pytest.mark.parametrize(("reward", "state"), [(0.6, State.PROMOTED), (0.4, State.CONCLUDED)])
    def test_ends_with_its_verdict(self, strategy: str, reward: float, state: State) -> None:
        plan = Plan(strategy=strategy, reward="label", auc_gate=False, reward_abort=0.5)
        found = decide(plan, status(share=0.5), evidence=bad(plan, reward=reward), now=LATER)
        assert found.state == state
        assert ("better" if reward > 0.5 else "worse") in found.reason

    def test_no_difference_ends_with_the_time(self) -> None:
        plan = Plan(strategy="ab", max_s=7_200.0)
        assert not decide(plan, status(share=0.5), evidence=good(plan), now=LATER).moved
        late = decide(plan, status(share=0.5, began_at=1), evidence=good(plan), now=2 * LATER + 1)
        assert late.state == State.CONCLUDED
        assert "no difference" in late.reason

    def test_a_winner_may_want_a_yes(self) -> None:
        plan = Plan(strategy="ab", reward="label", approve=("promote",))
        found = decide(plan, status(share=0.5), evidence=bad(plan, reward=0.6), now=LATER)
        assert found.state == State.WAITING
        yes = decide(plan, status(State.WAITING, share=0.5, wish="approve"), evidence=good(plan), now=LATER)
        assert yes.state == State.PROMOTED

    def test_a_bandit_moves_its_share_with_what_is_earned(self) -> None:
        plan = Plan(strategy="bandit", min_labels=10**6)
        base, other = side(300, reward=0.45), side(300, reward=0.5)
        step = decide(plan, status(share=0.5), evidence=evidence(plan, base, other), now=LATER)
        assert step.state == State.RUNNING
        assert 0.5 < step.share <= 0.9
        back = decide(plan, status(share=0.5), evidence=evidence(plan, other, base), now=LATER)
        assert 0.1 <= back.share < 0.5
        few = evidence(plan, side(40, reward=0.1), side(40, reward=0.9))
        assert not decide(plan, status(share=0.5), evidence=few, now=LATER).moved

    def test_a_shadow_tells_and_nobody_meets_it(self) -> None:
        plan = Plan(strategy="shadow", auc_gate=False)
        known = good(plan, shadow=Compared(20_000, 400, Moments(20_000, 0.01, 3.0), 0.4))
        found = decide(plan, status(share=0.0), evidence=known, now=LATER)
        assert (found.state, found.share) == (State.CONCLUDED, 0.0)
        assert "2.00% answered otherwise" in found.reason
        split = split_of(
            plan,
            Split({BASELINE: 1.0}),
            sides=Sides(BASELINE, CANDIDATE),
            state=State.RUNNING,
            share=0.0,
            salt="s",
        )
        assert (split.shadows, split.answering()) == ({CANDIDATE: 1.0}, (BASELINE,))


class TestSegments:
    def test_a_rollout_in_a_segment_leaves_the_others_alone(self) -> None:
        plan = Plan(where=WHERE)
        base = Split({BASELINE: 1.0}, segments=(Segment("tenant == 'x'", {OTHER: 1.0}),))
        between = Sides(BASELINE, CANDIDATE)
        running = split_of(plan, base, sides=between, state=State.RUNNING, share=0.1, salt="s")
        assert [s.when for s in running.segments] == [WHERE, "tenant == 'x'"]
        assert running.segments[0].weights == {BASELINE: 0.9, CANDIDATE: 0.1}
        promoted = split_of(plan, base, sides=between, state=State.PROMOTED, share=1.0, salt="s")
        assert promoted.segments[0] == Segment(WHERE, {CANDIDATE: 1.0})
        assert promoted.weights == base.weights


class TestNoData:
    """Silence is no evidence, in either direction, however long it lasts."""

    @given(
        plan=PLANS.filter(lambda plan: plan.strategy == "canary" and plan.min_requests > 0), baseline=sides()
    )
    def test_holds_for_ever(self, plan: Plan, baseline: Any) -> None:
        for base in (baseline, side()):
            known = Evidence(applied=True, sides=(base, side()))
            for place in range(len(plan.steps)):
                step = decide(plan, status(step=place), evidence=known, now=YEARS)
                assert (step.state, step.step, step.moved) == (State.RUNNING, place, False)

    @given(candidate=sides())
    def test_nor_does_a_baseline_that_nobody_asks(self, candidate: Any) -> None:
        """Nothing to compare with: it neither turns back nor promotes."""
        known = Evidence(applied=True, sides=(side(), candidate))
        last = decide(Plan(), status(step=1), evidence=known, now=YEARS)
        assert (last.state, last.moved) == (State.RUNNING, False)


@pytest.mark.parametrize("state", sorted(FINAL))
@given(known=anything())
@settings(max_examples=15)
def test_the_end_is_the_end(state: State, known: Evidence) -> None:
    step = decide(Plan(), status(state, 1, wish="abort"), evidence=known, now=LATER)
    assert step == Step(state, 1, 0.1, "it has ended")
