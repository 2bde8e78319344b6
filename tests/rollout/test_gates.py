"""The gates under continuous looking: they err no more often than they say, and find what is there."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predis.monitoring.evidence import Side
from predis.rollout.decision import Evidence, Step, decide
from predis.rollout.gates import GATES, Ledger, hard_failure, superiority, verdicts
from predis.rollout.plan import Plan
from predis.rollout.states import FINAL, State
from predis.stats import Moments, score_buckets
from tests.rollout.given import evidence, latencies, recent, side, sides, status
from tests.toys import SECOND


@dataclass
class Stream:
    """A version's traffic, growing. ``level`` moves the rates of an hour, of both versions alike."""

    rng: np.random.Generator
    failed: float = 0.02
    slow: float = 0.05
    auc: float = 0.75
    reward: float = 0.5
    side: Side = field(default_factory=Side)

    def more(self, requests: int, level: float = 1.0) -> Side:
        bad = int(self.rng.binomial(requests, min(1.0, self.failed * level)))
        late = int(self.rng.binomial(requests - bad, min(1.0, self.slow * level)))
        pairs = requests // 4
        won = float(self.rng.binomial(pairs, self.auc))
        rewards = self.rng.binomial(1, min(1.0, self.reward * level), requests).astype(float)
        before = self.side
        self.side = Side(
            requests=before.requests + requests, failed=before.failed + bad,
            latency=before.latency + latencies(requests - bad - late, late),
            scores=before.scores + score_buckets.count(self.rng.beta(2, 5, requests - bad)), labels=before.labels + 2 * pairs,
            wins=before.wins + won, pairs=before.pairs + pairs,
            rewards=before.rewards + Moments.of(rewards) if requests else before.rewards,
        )  # fmt: skip
        return self.side

    def again(self) -> None:
        """Count from zero."""
        self.side = Side()


def simulate(
    rng: np.random.Generator, plan: Plan, *, looks: int, each: int = 40, wave: float = 0.0, **candidate: float
) -> Step:
    """Run a whole rollout, looking after every ``each`` requests; its last step. ``wave``: how much the level moves over the day."""
    base, other, ledger = Stream(rng), Stream(rng, **candidate), Ledger(plan)
    place, at, step = 0, 0, Step("", 0, 0.0, "")
    for look in range(looks):
        share, level = plan.steps[place], 1.0 + wave * math.sin(look / 40)
        both = (base.more(round(each * (1 - share)), level), other.more(max(1, round(each * share)), level))
        ledger.advance(both, plan=plan, share=None)
        known = Evidence(applied=True, sides=both, ledger=ledger)
        now = look * SECOND
        step = decide(plan, status(step=place, share=share, step_at=at), evidence=known, now=now)
        if step.state in FINAL:
            return step
        if step.moved:
            ledger.close(both)
            base.again()
            other.again()
            place, at = step.step, now
    return step


# The worst case of what may still be called "no worse": exactly as bad as it may be, and never promoted, so that it is looked at to the end.
STRICT = Plan(
    steps=(0.5,), error_ratio=1.0, error_floor=0.0, slow_ratio=1.0, auc_abort=0.0, min_requests=10**9
)


class TestPeeking:
    @pytest.mark.parametrize("wave", [0.0, 0.9])
    def test_equal_versions_are_turned_back_no_more_often_than_alpha(self, wave: float) -> None:
        rng = np.random.default_rng(20)
        runs = [simulate(rng, STRICT, looks=100, wave=wave).state for _ in range(200)]
        assert runs.count(State.ABORTED) <= 0.05 * len(runs)
        assert runs.count(State.PROMOTED) == 0

    def test_nor_where_shares_change_with_the_level(self) -> None:
        """Cumulated over both steps the candidate's rate would be twice the baseline's, for it met the worse hours."""
        plan = replace(STRICT, steps=(0.05, 0.5), auc_gate=False, score_gate=False, reward="label")
        rng = np.random.default_rng(24)
        wrong = 0
        for _run in range(100):
            base, other, ledger = Stream(rng), Stream(rng), Ledger(plan)
            for share, level in ((0.05, 2.0), (0.5, 0.5)):
                both = (Side(), Side())
                for _look in range(40):
                    both = (base.more(round(100 * (1 - share)), level), other.more(round(100 * share), level))
                    ledger.advance(both, plan=plan, share=None)
                    wrong += any(v.verdict == "fail" for v in verdicts(plan, both, ledger=ledger))
                ledger.close(both)
                base.again()
                other.again()
        assert wrong == 0

    def test_a_test_made_for_one_look_would_have_turned_many_back(self) -> None:
        """What the same looks do to a p-value: the simulation can tell a bad rule from a good one."""
        rng = np.random.default_rng(20)
        wrong = 0
        for _run in range(200):
            base, other = Stream(rng), Stream(rng)
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
        runs = [simulate(rng, Plan(), looks=400, each=400).state for _ in range(20)]
        assert runs.count(State.PROMOTED) >= 19

    @pytest.mark.parametrize(
        ("candidate", "gate"),
        [({"auc": 0.55}, "AUC"), ({"failed": 0.06}, "error rate"), ({"slow": 0.2}, "share slower")],
    )
    def test_a_bad_version_is_caught(self, candidate: dict[str, float], gate: str) -> None:
        rng = np.random.default_rng(22)
        for _run in range(15):
            step = simulate(rng, Plan(), looks=1_500, **candidate)
            assert step.state == State.ABORTED
            assert gate in step.reason

    def test_one_stall_of_one_batch_decides_nothing(self) -> None:
        """Requests predicted together are late together; that is one event, not sixty-four."""
        plan, ledger = Plan(), Ledger(Plan())
        base, other = side(2_000, slow=0.01), side(2_000, slow=0.01)
        for look in range(20):
            part = (look + 1) / 20
            ledger.advance((scaled(base, part), scaled(other, part)), plan=plan, share=None)
        stalled = replace(other, requests=other.requests + 64, latency=other.latency + latencies(0, 64))
        ledger.advance((base, stalled), plan=plan, share=None)
        assert verdicts(plan, (base, stalled), ledger=ledger)[1].verdict == "hold"


def scaled(whole: Side, share: float) -> Side:
    return replace(
        whole, requests=int(whole.requests * share), latency=(whole.latency * share).astype(np.int64)
    )


class TestVerdicts:
    def test_they_say_what_they_know(self) -> None:
        plan = Plan(reward="label")
        equal = side(30_000, failed=0.01, slow=0.01, auc=0.8, reward=0.5)
        known = evidence(plan, equal, equal)
        assert known.ledger is not None
        found = verdicts(plan, known.sides, ledger=known.ledger)
        assert [v.gate for v in found] == list(GATES)
        assert {v.gate: v.verdict for v in found} == {
            **dict.fromkeys(GATES, "pass"),
            "reward": "hold",
        }  # a margin of nothing
        assert all(v.unit and v.message for v in found)
        nothing = verdicts(plan, (Side(), Side()), ledger=Ledger(plan))
        assert {v.verdict for v in nothing} == {"hold", "pass"}
        assert [v.gate for v in nothing if v.verdict == "pass"] == ["split"]

    @pytest.mark.parametrize("strategy", ["direct", "blue-green"])
    def test_what_compares_nothing_has_none(self, strategy: str) -> None:
        plan = Plan(strategy=strategy)
        assert verdicts(plan, (side(100), side(100)), ledger=Ledger(plan)) == ()

    def test_requests_that_are_lost_hold(self) -> None:
        plan, ledger = Plan(), Ledger(Plan())
        for look in range(1, 60):
            ledger.advance((side(900 * look), side(60 * look)), plan=plan, share=0.1)
        split = verdicts(plan, (side(53_100), side(3_540)), ledger=ledger)[-1]
        assert (split.gate, split.verdict) == ("split", "hold")
        assert "shares they should" in split.message

    def test_a_rare_error_is_no_reason(self) -> None:
        """Twenty failures against one, in a million requests: surely more often, and still next to never."""
        plan = Plan()
        known = evidence(plan, side(1_000_000, failed=1e-6), side(1_000_000, failed=2e-5))
        assert known.ledger is not None
        assert verdicts(plan, known.sides, ledger=known.ledger)[0].verdict == "pass"

    @given(sides(), sides())
    @settings(max_examples=50)
    def test_anything_gets_an_answer(self, base: Side, candidate: Side) -> None:
        plan = Plan(reward="value")
        known = evidence(plan, base, candidate, looks=3)
        assert known.ledger is not None
        for verdict in verdicts(plan, (base, candidate), ledger=known.ledger):
            assert verdict.verdict in ("pass", "hold", "fail")
            json.dumps(vars(verdict), allow_nan=False)
        assert superiority(plan, (base, candidate), ledger=known.ledger)[0] in ("", "better", "worse")


class TestLedger:
    @given(st.lists(st.tuples(sides(), sides(), st.sampled_from([None, 0.1, 0.5])), max_size=5))
    @settings(max_examples=30)
    def test_it_survives_being_stored(self, looks: list[tuple[Side, Side, float | None]]) -> None:
        plan = Plan()
        kept, stored = Ledger(plan), Ledger(plan)
        for place, (base, candidate, share) in enumerate(looks):
            for ledger in (kept, stored):
                ledger.advance((base, candidate), plan=plan, share=share)
                if place % 2:
                    ledger.close((base, candidate))
            stored = Ledger.from_dict(plan, json.loads(json.dumps(stored.to_dict())))
        assert kept.to_dict() == stored.to_dict()

    def test_nothing_new_is_nothing_new(self) -> None:
        plan, ledger = Plan(), Ledger(Plan())
        assert ledger.advance((side(10), side(10)), plan=plan, share=0.5)
        before = ledger.to_dict()
        assert not ledger.advance((side(10), side(10)), plan=plan, share=0.5)
        assert ledger.to_dict() == before


class TestHardFailures:
    @pytest.mark.parametrize(
        ("base", "candidate", "words"),
        [
            (recent(100), recent(100, failed=51), "51% of its requests"),
            (recent(0), recent(20, failed=20), "100% of its requests"),
            (recent(100), recent(19, failed=19), ""),  # too few to be a burst
            (recent(100, failed=60), recent(100, failed=60), ""),  # not its fault alone
            (recent(100), recent(100, failed=50), ""),
            (recent(100), recent(100, slow=60), "SLA"),
            (recent(100, slow=60), recent(100, slow=60), ""),
        ],
    )
    def test_bursts(self, base: object, candidate: object, words: str) -> None:
        found = hard_failure(Plan(sla_s=0.1), (base, candidate), crashes=0)  # type: ignore[arg-type]
        assert (words in found) if words else not found

    def test_crashes(self) -> None:
        quiet = (recent(0), recent(0))
        assert "3 workers died" in hard_failure(Plan(), quiet, crashes=3)
        assert not hard_failure(Plan(), quiet, crashes=1)
        assert not hard_failure(Plan(max_crashes=0), quiet, crashes=9)
