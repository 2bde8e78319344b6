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
    "drift": "inputs moved and stayed away from the reference",
    "manual": "somebody asked for it",
}
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class RetrainingConfig:
    """What to run, on which triggers, and what the challenger must show.

    ``train`` is ``module:function``; ``label`` the name of the label column; ``holdout_share`` the newest part of the labelled log
    that is kept out of training and decides; ``margin`` the AUC by which the challenger must at least be better (its lower 95 % bound);
    ``plan`` overrides values of the rollout's plan.
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
        unknown = set(found) - set(cls.__dataclass_fields__)
        if unknown:
            raise InvalidInput(f"endpoint {endpoint!r}: retraining has no {sorted(unknown)[0]!r}")
        if not isinstance(found.get("label"), str) or not found["label"]:
            raise InvalidInput(
                f"endpoint {endpoint!r}: retraining needs 'label', the name of the label column"
            )
        made = cls(**{**found, "on": tuple(found.get("on", cls.on))})
        made._check(endpoint)
        return made

    def _check(self, endpoint: str) -> None:
        if not isinstance(self.train, str) or not _FUNCTION.fullmatch(self.train):
            raise InvalidInput(
                f"endpoint {endpoint!r}: retraining's train must be module:function, got {self.train!r}"
            )
        if not set(self.on) <= set(TRIGGERS):
            raise InvalidInput(
                f"endpoint {endpoint!r}: retraining's on may hold {', '.join(TRIGGERS)}, got {list(self.on)}"
            )
        if not isinstance(self.holdout_share, float) or not 0.01 <= self.holdout_share <= 0.5:
            raise InvalidInput(
                f"endpoint {endpoint!r}: holdout_share is between 0.01 and 0.5, got {self.holdout_share!r}"
            )
        Plan.from_dict({**self.plan, "strategy": self.strategy})
