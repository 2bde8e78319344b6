"""How an endpoint is to move to a candidate: the plan of a rollout, as people write it and as its row keeps it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from predis.errors import InvalidInput
from predis.expressions import compile_expression

STRATEGIES: Mapping[str, str] = {
    "direct": "all traffic at once, as soon as every worker has the candidate in memory; no gates",
    "blue-green": "all traffic at once; the baseline stays in memory for `keep_s`, for an instant return",
    "canary": "growing shares (`steps`), each for `bake_s`, with gates",
    "ab": "a fixed, sticky split (`share`) until the metric's verdict is in, or `max_s` has passed",
    "shadow": "copies of the traffic (`shadow_share`) beside the answers; outputs and labels are compared, nobody meets it",
    "bandit": "shares follow what the candidate earns (Thompson sampling on `reward`), until the verdict is in",
}
# The candidate's share of traffic is drawn by chance, so that both sides can be compared.
COMPARING = frozenset(("canary", "ab", "bandit"))
APPROVALS = ("start", "steps", "promote")
REWARD_NAMES = ("label", "score", "value")
_SHARES = ("share", "shadow_share", "floor", "burst_share", "alpha")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How an endpoint is to move to the candidate. Shares are 0 to 1, durations seconds; the how-to about rollouts explains each value."""

    strategy: str = "canary"
    where: str = ""
    steps: tuple[float, ...] = (0.1, 0.5)
    share: float = 0.5
    shadow_share: float = 1.0
    floor: float = 0.1
    bake_s: float = 2.0
    keep_s: float = 300.0
    max_s: float = 14 * 86_400.0
    min_requests: int = 200
    min_labels: int = 200
    alpha: float = 0.05
    error_ratio: float = 1.2
    error_floor: float = 0.001
    error_margin: float = 0.02
    slow_s: float = 0.05
    slow_ratio: float = 1.5
    slow_margin: float = 0.05
    score_gate: bool = True
    score_margin: float = 0.3
    auc_gate: bool = True
    auc_abort: float = 0.01
    auc_margin: float = 0.05
    reward: str = ""
    reward_abort: float = 0.0
    reward_margin: float = 0.0
    split_gate: bool = True
    burst_s: float = 2.0
    burst_share: float = 0.5
    burst_requests: int = 20
    sla_s: float = 0.0
    max_crashes: int = 2
    approve: tuple[str, ...] = ()
    four_eyes: bool = False
    warm_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise InvalidInput(f"strategy is one of {', '.join(STRATEGIES)}, got {self.strategy!r}")
        if any(not 0 < share < 1 for share in self.steps) or list(self.steps) != sorted(set(self.steps)):
            raise InvalidInput(f"steps are growing shares between 0 and 1, got {list(self.steps)}")
        if self.strategy == "canary" and not self.steps:
            raise InvalidInput("a canary needs at least one step")
        for name in _SHARES:
            if not 0 < getattr(self, name) < 1 and not (name == "shadow_share" and self.shadow_share == 1):
                raise InvalidInput(f"{name} is between 0 and 1, got {getattr(self, name)}")
        if self.floor > 0.5:
            raise InvalidInput(f"floor is the least share of each side and at most 0.5, got {self.floor}")
        if min(self.error_ratio, self.slow_ratio) < 1:
            raise InvalidInput("error_ratio and slow_ratio are at least 1: no worse than the baseline")
        for name, value in vars(self).items():
            if isinstance(value, int | float) and value < 0:
                raise InvalidInput(f"{name} must not be negative, got {value}")
        if self.strategy == "shadow" and self.where:
            raise InvalidInput(
                "a shadow gets copies of all requests alike (shadow_share), so it takes no where; compare a segment with canary or ab"
            )
        if strange := set(self.approve) - set(APPROVALS):
            raise InvalidInput(f"approve names {', '.join(APPROVALS)}, got {', '.join(sorted(strange))}")
        self._check_expressions()

    def _check_expressions(self) -> None:
        if self.reward:
            compile_expression(self.reward, names=REWARD_NAMES)
        elif self.strategy == "bandit":
            object.__setattr__(self, "reward", "label")

    @property
    def metric(self) -> str:
        """What an A/B test or a bandit is decided by."""
        return "reward" if self.reward else "auc"

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "steps": list(self.steps), "approve": list(self.approve)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Plan:
        """A plan from its JSON form; what is absent keeps its default.

        Raises:
            InvalidInput: an unknown name, or a value of the wrong type or range.
        """
        known = {f.name: type(f.default) for f in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in document.items():
            if name not in known:
                raise InvalidInput(f"a plan has no {name!r}; it has {', '.join(known)}")
            values[name] = _typed(name, value, wanted=known[name])
        return cls(**values)


def _typed(name: str, value: Any, *, wanted: type) -> Any:
    if name == "approve":
        return _names(name, value)
    if wanted is tuple:
        if not isinstance(value, list | tuple) or not all(type(share) in (int, float) for share in value):
            raise InvalidInput(f"{name} must be a list of shares, got {value!r:.80}")
        return tuple(_finite(name, share) for share in value)
    if wanted is float and type(value) in (int, float):
        return _finite(name, value)
    if type(value) is not wanted:
        raise InvalidInput(f"{name} must be of type {wanted.__name__}, got {value!r:.80}")
    return value


def _names(name: str, value: Any) -> tuple[str, ...]:
    found = value.split(",") if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(each, str) for each in found):
        raise InvalidInput(f"{name} must be a list of {', '.join(APPROVALS)}, got {value!r:.80}")
    return tuple(each.strip() for each in found if each.strip())


def _finite(name: str, value: float) -> float:
    try:
        found = float(value)
    except OverflowError:  # JSON's whole numbers have no limit
        found = math.inf
    if not math.isfinite(found):
        raise InvalidInput(f"{name} must be a finite number, got {found}")
    return found
