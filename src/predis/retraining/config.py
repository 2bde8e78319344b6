"""How an endpoint's model is renewed: the ``retraining`` part of an endpoint's configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from predis.errors import InvalidInput
from predis.rollout.plan import Plan

TRIGGERS: Mapping[str, str] = {
    "performance": "quality on matured labels fell below the reference",
    "loss": "the loss of the newest labels rose at once",
    "drift": "inputs moved and stayed away from the reference",
    "manual": "somebody asked for it",
}
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class RetrainingConfig:
    """What to run, on which triggers, and what the challenger must show.

    ``train`` is ``module:function``; ``label`` the name of the label column; ``holdout_share`` the newest part of the labelled log
    that is kept out of training and decides; ``margin`` by how much the challenger must at least be better (its lower 95 % bound): AUC of
    two classes, accuracy of more, share of the champion's mean absolute error of numbers; ``plan`` overrides values of the rollout's plan.
    """

    train: str
    label: str
    on: tuple[str, ...] = ("performance",)
    holdout_share: float = 0.15
    least_rows: int = 500
    margin: float = 0.0
    strategy: str = "canary"
    plan: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any], endpoint: str) -> RetrainingConfig:
        """The configuration of an endpoint.

        Raises:
            InvalidInput: there is none, or it cannot be used; the message says how to mend it.
        """
        found = config.get("retraining")
        if not isinstance(found, Mapping):
            raise InvalidInput(
                f"endpoint {endpoint!r} has no retraining configured; name a train function with: "
                f"predis endpoint create NAME --model MODEL --train module:function --label COLUMN"
            )
        where = f"endpoint {endpoint!r}: retraining"
        unknown = set(found) - set(cls.__dataclass_fields__)
        if unknown:
            raise InvalidInput(f"{where} has no {min(unknown)!r}")
        if not isinstance(found.get("label"), str) or not found["label"]:
            raise InvalidInput(f"{where} needs 'label', the name of the label column")
        on = found.get("on", cls.on)
        if not isinstance(on, list | tuple) or not all(trigger in tuple(TRIGGERS) for trigger in on):
            raise InvalidInput(f"{where}'s on may hold {', '.join(TRIGGERS)}, got {on!r:.80}")
        made = cls(**{"train": None, **found, "on": tuple(on)})
        made._check(where)
        return made

    def _check(self, where: str) -> None:
        if not isinstance(self.train, str) or not _FUNCTION.fullmatch(self.train):
            raise InvalidInput(f"{where}'s train must be module:function, got {self.train!r:.80}")
        if type(self.holdout_share) not in (int, float) or not 0.01 <= self.holdout_share <= 0.5:
            raise InvalidInput(
                f"{where}'s holdout_share is between 0.01 and 0.5, got {self.holdout_share!r:.80}"
            )
        if type(self.least_rows) is not int or self.least_rows < 1:
            raise InvalidInput(
                f"{where}'s least_rows is a number of rows from 1, got {self.least_rows!r:.80}"
            )
        if type(self.margin) not in (int, float) or not -1 < self.margin < 1:
            raise InvalidInput(f"{where}'s margin is an AUC between -1 and 1, got {self.margin!r:.80}")
        if not isinstance(self.plan, Mapping):
            raise InvalidInput(
                f"{where}'s plan is an object with values of a rollout's plan, got {self.plan!r:.80}"
            )
        Plan.from_dict({**self.plan, "strategy": self.strategy})


def check_retraining(config: Mapping[str, Any], endpoint: str) -> None:
    """Let an endpoint's configuration pass if its retraining, where it has one, can be used.

    Raises:
        InvalidInput
    """
    if "retraining" in config:
        RetrainingConfig.of(config, endpoint)
