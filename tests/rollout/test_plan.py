"""Plans as documents: what they may say, and what they are refused for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from predis.errors import InvalidInput
from predis.rollout.plan import STRATEGIES, Plan
from tests.rollout.given import PLANS


def test_a_shadow_takes_no_segment() -> None:
    with pytest.raises(InvalidInput, match="copies of all requests alike"):
        Plan(strategy="shadow", where="tenant == 'x'")


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
            ({"strategy": "sideways"}, "is one of direct, blue-green, canary"),
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
            ({"share": 0.0}, "share is between"),
            ({"shadow_share": 1.5}, "shadow_share is between"),
            ({"floor": 0.7}, "at most 0.5"),
            ({"error_ratio": 0.5}, "at least 1"),
            ({"approve": ["lunch"]}, "approve names start, steps, promote"),
            ({"approve": 3}, "must be a list of start, steps, promote"),
            ({"reward": "label +"}, "reward|expression|label"),
            ({"reward": "salary"}, "salary"),
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

    def test_approvals_may_be_written_in_one_word(self) -> None:
        assert Plan.from_dict({"approve": "start, promote"}).approve == ("start", "promote")

    def test_a_bandit_needs_a_reward_and_has_one(self) -> None:
        assert Plan(strategy="bandit").reward == "label"
        assert (Plan(strategy="ab").metric, Plan(strategy="ab", reward="value").metric) == ("auc", "reward")

    def test_every_strategy_is_explained(self) -> None:
        assert all(STRATEGIES.values())
        for strategy in STRATEGIES:
            assert Plan(strategy=strategy).strategy == strategy
