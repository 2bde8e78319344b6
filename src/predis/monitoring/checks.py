"""Checks: from evidence to findings. Pure functions of rows; ``Monitor`` reads the rows and reports what they find.

What keeps them honest: an alarm about quality needs effect AND significance AND persistence: more than a margin, more
than chance, and more than one window. Drift of inputs is ``drift``'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from predis.clock import NANOSECONDS
from predis.monitoring.alerting.burn import Burning, Objective
from predis.monitoring.alerts import Finding, Severity
from predis.monitoring.store import unpack_counts
from predis.monitoring.tally import SLOT_S
from predis.stats import Profile, latency

_Z95 = 1.959964
_Z95_ONE_SIDED = 1.644854
_LEAST_REQUESTS = 50
_CLOSING = 0.8  # share of a limit down to which an open alert stays open
TRAFFIC_S = 60.0


@dataclass(frozen=True)
class Rules:
    """The limits the checks work with; from the settings."""

    decay_margin: float = 0.01
    decay_share: float = 0.1
    decay_windows: int = 2
    drift_alpha: float = 0.001
    drift_floor: float = 0.02
    error_rate_limit: float = 0.02
    latency_limit_ms: float = 250.0


@dataclass(frozen=True)
class Watched:
    """One version of an endpoint, as a check sees it."""

    tenant: str
    endpoint: str
    version: int
    model: str
    reference: Mapping[str, Any]
    profile: Profile | None
    task: str | None = None


@dataclass(frozen=True)
class _Judged:
    """The measure that a kind of model is judged by. ``relative``: less is better, and a loss is a share of the reference."""

    name: str
    word: str
    relative: bool = False

    def loss(self, scores: Mapping[str, Any], reference: Mapping[str, Any]) -> tuple[float, float] | None:
        """What was lost against the reference, and the lower end of its one-sided 95 % interval; None where one of the two is unknown."""
        value, known = scores.get(self.name), reference.get(self.name)
        if value is None or known is None or (self.relative and known <= 0):
            return None
        errors = [self._error(scores), self._error(reference)]
        lost, reach = (
            (value - known if self.relative else known - value),
            _Z95_ONE_SIDED * math.hypot(*errors),
        )
        scale = known if self.relative else 1.0
        return lost / scale, (lost - reach) / scale

    def _error(self, scores: Mapping[str, Any]) -> float:
        low, high = scores.get(f"{self.name}_low"), scores.get(f"{self.name}_high")
        return math.inf if low is None or high is None else float(high - low) / (2 * _Z95)


_JUDGED = {
    "binary": _Judged("auc", "AUC"),
    "multiclass": _Judged("accuracy", "accuracy"),
    "regression": _Judged("mae", "mean absolute error", relative=True),
}


def check_performance(
    watched: Watched, windows: Sequence[Mapping[str, Any]], *, rules: Rules
) -> Finding | None:
    """Decay: in each of the newest ``decay_windows`` windows the measure that the version is judged by is worse than the reference by more
    than the margin, and by more than chance (one-sided 95 %, with the uncertainty of both).

    Judged by: of two classes the AUC, of more the accuracy (margin ``decay_margin``), of numbers the mean absolute error (margin
    ``decay_share`` of the reference's). ``windows`` newest first.
    """
    newest = windows[: rules.decay_windows]
    if len(newest) < rules.decay_windows:
        return None
    judged = _JUDGED[newest[0]["task"]]
    margin = rules.decay_share if judged.relative else rules.decay_margin
    losses = [judged.loss(window["scores"], watched.reference) for window in newest]
    if any(loss is None or loss[1] <= margin for loss in losses):
        return None
    name, scores, reference = judged.name, newest[0]["scores"], watched.reference[judged.name]
    return Finding(
        tenant=watched.tenant,
        endpoint=watched.endpoint,
        version=watched.version,
        kind="performance",
        severity=Severity.CRITICAL,
        message=(
            f"{judged.word} of version {watched.version} {'rose' if judged.relative else 'fell'} to {scores[name]:.3f} "
            f"({scores[f'{name}_low']:.3f} to {scores[f'{name}_high']:.3f}) on the newest {newest[0]['rows']} labels; "
            f"its reference is {reference:.3f}"
        ),
        command=f"predis monitor {watched.endpoint} --why",
        event_at=newest[0]["last_event"],
        evidence={
            f"reference_{name}": reference,
            name: scores[name],
            "loss": losses[0][0] if losses[0] else None,
            "windows": [w["number"] for w in newest],
        },
    )


def check_traffic(
    tenant: str, endpoint: str, *, slots: Sequence[Mapping[str, Any]], rules: Rules
) -> list[Finding]:
    """Errors and latency over the newest minute of traffic. Fewer than 50 requests prove nothing and raise nothing.

    What is a little below its limit again keeps an alert open, and opens none.
    """
    requests = sum(slot["requests"] for slot in slots)
    if requests < _LEAST_REQUESTS:
        return []
    failed = sum(slot["failed"] for slot in slots)
    p99_ms = latency.quantile(sum(unpack_counts(slot["latency"]) for slot in slots), 0.99) * 1000
    common: dict[str, Any] = {
        "tenant": tenant, "endpoint": endpoint, "severity": Severity.CRITICAL, "command": f"predis monitor {endpoint}",
        "event_at": max(slot["start"] for slot in slots),
    }  # fmt: skip
    findings = []
    if failed / requests > _CLOSING * rules.error_rate_limit:
        findings.append(
            Finding(
                kind="errors",
                message=f"{failed} of {requests} predictions failed in the last minute ({failed / requests:.1%})",
                evidence={"failed": failed, "requests": requests},
                holds=failed / requests <= rules.error_rate_limit,
                **common,
            )
        )
    if p99_ms > _CLOSING * rules.latency_limit_ms:
        findings.append(
            Finding(
                kind="latency",
                message=f"p99 latency was {p99_ms:.0f} ms in the last minute; the limit is {rules.latency_limit_ms:.0f} ms",
                evidence={"p99_ms": p99_ms, "requests": requests},
                holds=p99_ms <= rules.latency_limit_ms,
                **common,
            )
        )
    return findings


def check_levels(
    tenant: str, endpoint: str, *, burning: Sequence[tuple[Objective, Burning]], now: int
) -> list[Finding]:
    """Error budgets that burn too fast: critical where they would be gone within days, a warning where within weeks."""
    return [
        Finding(
            tenant=tenant,
            endpoint=endpoint,
            kind=objective.kind,
            severity=burns.pair.severity,
            message=(
                f"the error budget of {objective.name} ({objective.text}) burns {burns.long:.1f} times as fast as it may over "
                f"{_span(burns.pair.long_s)}, {burns.short:.1f} times over {_span(burns.pair.short_s)}; the limit is {burns.factor:.3g}"
            ),
            command=f"predis slo {endpoint}",
            event_at=now,
            evidence={
                "objective": objective.name, "long_s": burns.pair.long_s, "short_s": burns.pair.short_s, "burn_long": burns.long,
                "burn_short": burns.short, "factor": burns.factor, "bad": burns.bad,
            },
            holds=burns.holds,
        )
        for objective, burns in burning
    ]  # fmt: skip


def _span(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600)):
        if seconds >= length:
            return f"{seconds / length:g} {unit}"
    return f"{seconds / 60:g} min"


def check_down(tenant: str, endpoint: str, *, silent_s: float, limit_s: float, now: int) -> Finding | None:
    """No worker has been heard of for ``limit_s``."""
    if silent_s < limit_s:
        return None
    return Finding(
        tenant=tenant, endpoint=endpoint, kind="endpoint_down", severity=Severity.EMERGENCY, event_at=now,
        message=f"no worker serves {endpoint}: none has been heard of for {silent_s:.0f} s",
        command="predis doctor", evidence={"silent_s": silent_s},
    )  # fmt: skip


def traffic_since(now: int) -> int:
    """Start of the newest minute of traffic, in whole slots."""
    return now - round((TRAFFIC_S + SLOT_S) * NANOSECONDS)
