"""Checks: from evidence to findings. Pure functions of rows; ``Monitor`` reads the rows and reports what they find.

Two rules keep them honest. An alarm about quality or drift needs effect AND significance AND persistence: more than a margin, more
than chance, and more than one window. And moved inputs alone never rise above a warning: only what they lead to is critical.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from predis.clock import NANOSECONDS
from predis.monitoring.alerts import Finding, Severity
from predis.monitoring.store import unpack_counts
from predis.monitoring.tally import SLOT_S, split_features
from predis.stats import Profile, PsiDetector, latency

_Z95 = 1.959964
_Z95_ONE_SIDED = 1.644854
_LARGE_PSI = 0.25
_LEAST_REQUESTS = 50
TRAFFIC_S = 60.0


@dataclass(frozen=True)
class Rules:
    """The limits the checks work with; from the settings."""

    decay_margin: float = 0.01
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


def check_performance(
    watched: Watched, windows: Sequence[Mapping[str, Any]], *, rules: Rules
) -> Finding | None:
    """Decay: in each of the newest ``decay_windows`` windows the AUC is below the reference by more than the margin, and by more
    than chance (one-sided 95 %, with the uncertainty of both). ``windows`` newest first."""
    newest = windows[: rules.decay_windows]
    reference = watched.reference.get("auc")
    if reference is None or len(newest) < rules.decay_windows:
        return None
    reference_error = _error(watched.reference)
    losses = [_loss(window["scores"], reference, reference_error=reference_error) for window in newest]
    if any(low is None or low <= rules.decay_margin for _, low in losses):
        return None
    scores = newest[0]["scores"]
    return Finding(
        tenant=watched.tenant,
        endpoint=watched.endpoint,
        version=watched.version,
        kind="performance",
        severity=Severity.CRITICAL,
        message=(
            f"AUC of version {watched.version} fell to {scores['auc']:.3f} ({scores['auc_low']:.3f} to {scores['auc_high']:.3f}) "
            f"on the newest {newest[0]['rows']} labels; its reference is {reference:.3f}"
        ),
        command=f"predis monitor {watched.endpoint}",
        event_at=newest[0]["last_event"],
        evidence={
            "reference_auc": reference,
            "auc": scores["auc"],
            "loss": losses[0][0],
            "windows": [w["number"] for w in newest],
        },
    )


def _loss(
    scores: Mapping[str, Any], reference: float, *, reference_error: float
) -> tuple[float, float | None]:
    """AUC lost against the reference, and the lower end of its one-sided 95 % interval."""
    if scores.get("auc") is None:
        return 0.0, None
    lost = reference - scores["auc"]
    return lost, lost - _Z95_ONE_SIDED * math.hypot(reference_error, _error(scores))


def _error(scores: Mapping[str, Any]) -> float:
    return float(scores["auc_high"] - scores["auc_low"]) / (2 * _Z95)


def drift_of(profile: Profile, windows: Sequence[Mapping[str, Any]], *, rules: Rules) -> list[dict[str, Any]]:
    """Each feature's drift over the closed windows given (newest first), and the score's: largest PSI first."""
    ordered = list(reversed(windows))
    counts = [split_features(profile, window["features"]) for window in ordered]
    scores = [unpack_counts(window["scores"]) for window in ordered]
    captured = [each for each in counts if each and each[0].any()]  # every row has its bin in every feature
    found = []
    for place, (bins, reference) in enumerate(zip(profile.bins, profile.counts, strict=True)):
        mine = [each[place] for each in captured]
        if mine:
            found.append(_drift(bins.name, bins.kind, reference=reference, counts=mine, rules=rules))
    found.append(_drift("(score)", "score", reference=profile.score_counts, counts=scores, rules=rules))
    return sorted(found, key=lambda row: -row["psi"])


def _drift(name: str, kind: str, *, reference: Any, counts: Sequence[Any], rules: Rules) -> dict[str, Any]:
    detector = PsiDetector(reference, alpha=rules.drift_alpha, floor=rules.drift_floor)
    history = []
    for window in counts:
        detector.update(window)
        verdict = detector.verdict
        history.append(verdict.psi if verdict else 0.0)
    verdict = detector.verdict
    assert verdict is not None
    return {
        "feature": name,
        "kind": kind,
        "psi": verdict.psi,
        "threshold": max(verdict.threshold, verdict.floor),
        "drifted": bool(verdict.drifted),
        "persistent": bool(detector.drift_detected),
        "history": history,
    }


def check_drift(watched: Watched, windows: Sequence[Mapping[str, Any]], *, rules: Rules) -> Finding | None:
    """Persistent drift of inputs: information, or a warning where it is large or wide. ``windows`` newest first."""
    if watched.profile is None or len(windows) < 2:
        return None
    drift = [
        row
        for row in drift_of(watched.profile, windows, rules=rules)
        if row["persistent"] and row["drifted"] and row["kind"] != "score"
    ]
    if not drift:
        return None
    wide = len(drift) * 3 >= len(watched.profile.bins) or drift[0]["psi"] >= _LARGE_PSI
    names = ", ".join(f"{row['feature']} (PSI {row['psi']:.2f})" for row in drift[:3])
    more = f" and {len(drift) - 3} more" if len(drift) > 3 else ""
    return Finding(
        tenant=watched.tenant,
        endpoint=watched.endpoint,
        version=watched.version,
        kind="drift",
        severity=Severity.WARNING if wide else Severity.INFO,
        message=f"inputs of version {watched.version} moved from its reference: {names}{more}",
        command=f"predis monitor {watched.endpoint} --drift",
        event_at=windows[0]["last_event"],
        evidence={"features": {row["feature"]: row["psi"] for row in drift}, "window": windows[0]["number"]},
    )


def check_traffic(
    tenant: str, endpoint: str, *, slots: Sequence[Mapping[str, Any]], rules: Rules
) -> list[Finding]:
    """Errors and latency over the newest minute of traffic. Fewer than 50 requests prove nothing and raise nothing."""
    requests = sum(slot["requests"] for slot in slots)
    if requests < _LEAST_REQUESTS:
        return []
    findings = []
    event_at = max(slot["start"] for slot in slots)
    failed = sum(slot["failed"] for slot in slots)
    if failed / requests > rules.error_rate_limit:
        findings.append(
            Finding(
                tenant=tenant,
                endpoint=endpoint,
                kind="errors",
                severity=Severity.CRITICAL,
                event_at=event_at,
                message=f"{failed} of {requests} predictions failed in the last minute ({failed / requests:.1%})",
                command=f"predis monitor {endpoint}",
                evidence={"failed": failed, "requests": requests},
            )
        )
    counts = sum(unpack_counts(slot["latency"]) for slot in slots)
    p99_ms = latency.quantile(counts, 0.99) * 1000
    if p99_ms > rules.latency_limit_ms:
        findings.append(
            Finding(
                tenant=tenant,
                endpoint=endpoint,
                kind="latency",
                severity=Severity.CRITICAL,
                event_at=event_at,
                message=f"p99 latency was {p99_ms:.0f} ms in the last minute; the limit is {rules.latency_limit_ms:.0f} ms",
                command=f"predis monitor {endpoint}",
                evidence={"p99_ms": p99_ms, "requests": requests},
            )
        )
    return findings


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
