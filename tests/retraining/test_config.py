"""The configuration of a retraining: what is wrong with it is said before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from predis.errors import InvalidInput
from predis.retraining.config import TRIGGERS, RetrainingConfig

GOOD = {"train": "churn.training:fit", "label": "churned"}


def of(**changes: Any) -> RetrainingConfig:
    return RetrainingConfig.of({"retraining": {**GOOD, **changes}, "other": 1}, "churn")


def test_defaults() -> None:
    found = of()
    assert (found.train, found.label, found.on) == ("churn.training:fit", "churned", ("performance",))
    assert (found.holdout_share, found.least_rows, found.margin, found.strategy) == (0.15, 500, 0.0, "canary")
    assert found.plan == {}


def test_everything_given() -> None:
    given = {
        "on": ["drift", "manual"], "holdout_share": 0.3, "least_rows": 10, "margin": 0.01, "strategy": "direct",
        "plan": {"bake_s": 1.0},
    }  # fmt: skip
    found = of(**given)
    assert found.on == ("drift", "manual")
    assert {name: getattr(found, name) for name in given} == {**given, "on": ("drift", "manual")}
    assert of(on=list(TRIGGERS)).on == tuple(TRIGGERS)
    assert of(holdout_share=0.5).holdout_share == 0.5
    assert of(margin=0).margin == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pace": 3}, "retraining has no 'pace'"),
        ({"label": ""}, "needs 'label'"),
        ({"label": None}, "needs 'label'"),
        ({"label": 3}, "needs 'label'"),
        ({"train": None}, "module:function"),
        ({"train": "churn.training"}, "module:function"),
        ({"train": "churn training:fit"}, "module:function"),
        ({"train": "os:system('x')"}, "module:function"),
        ({"train": "../x:fit"}, "module:function"),
        ({"on": ["weather"]}, "on may hold"),
        ({"on": "performance"}, "on may hold"),
        ({"on": 3}, "on may hold"),
        ({"on": [["drift"]]}, "on may hold"),
        ({"holdout_share": 0.0}, "holdout_share is between"),
        ({"holdout_share": 0.9}, "holdout_share is between"),
        ({"holdout_share": "a lot"}, "holdout_share is between"),
        ({"holdout_share": float("nan")}, "holdout_share is between"),
        ({"least_rows": "many"}, "least_rows"),
        ({"least_rows": 0}, "least_rows"),
        ({"least_rows": True}, "least_rows"),
        ({"margin": "none"}, "margin"),
        ({"margin": float("nan")}, "margin"),
        ({"margin": 2}, "margin"),
        ({"strategy": "sideways"}, "strategy"),
        ({"strategy": 3}, "strategy"),
        ({"plan": {"pace": 1}}, "a plan has no 'pace'"),
        ({"plan": {"steps": []}}, "at least one step"),
        ({"plan": [1]}, "plan"),
        ({"plan": "fast"}, "plan"),
    ],
)
def test_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        of(**changes)


@pytest.mark.parametrize("config", [{}, {"retraining": None}, {"retraining": "yes"}, {"retraining": []}])
def test_none_says_how_to_mend_it(config: dict[str, Any]) -> None:
    with pytest.raises(
        InvalidInput, match=r"endpoint 'churn' has no retraining configured.*--train module:function"
    ):
        RetrainingConfig.of(config, "churn")


def test_without_train() -> None:
    with pytest.raises(InvalidInput, match="module:function"):
        RetrainingConfig.of({"retraining": {"label": "churned"}}, "churn")
