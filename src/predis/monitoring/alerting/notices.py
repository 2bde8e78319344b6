"""Notices: what a receiver is told of an incident, as plain JSON. What each channel makes of one is the channel's business."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from predis.clock import iso
from predis.monitoring.alerting.kinds import kind_of
from predis.monitoring.alerting.severity import Severity

Notice = dict[str, Any]
# What a notice may be about. A receiver that keeps incidents opens one at the first two and closes it at ``resolved``.
EVENTS: Mapping[str, str] = {
    "raised": "an incident began, or somebody is told of it for the first time",
    "worsened": "its severity rose",
    "acknowledged": "somebody takes care of it",
    "resolved": "it is over",
    "summary": "more happened than the route may be told one by one",
    "test": "somebody tries the route",
}
_MOST_IN_SUMMARY = 20
_LONGEST = 2_000


def incident_notice(event: str, alerts: Sequence[Mapping[str, Any]], *, at: int, escalated: bool) -> Notice:
    """A notice of an incident.

    ``alerts``: the rows that it is about, at least one: those that are open, or, of one that is over, all.
    """
    worst = max(alerts, key=lambda alert: (Severity.of(alert["severity"]), -alert["id"]))
    kind = kind_of(worst["kind"])
    acknowledged = [alert for alert in alerts if alert["acknowledged_at"] is not None]
    return {
        "event": event,
        "incident": worst["incident"],
        "tenant": worst["tenant"],
        "endpoint": worst["endpoint"],
        "kind": worst["kind"],
        "severity": worst["severity"],
        "title": _title(event, worst, more=len(alerts) - 1),
        "message": worst["message"][:_LONGEST],
        "meaning": kind.meaning,
        "look_at": kind.look_at,
        "command": worst["command"],
        "escalated": escalated,
        "acknowledged_by": acknowledged[-1]["acknowledged_by"] if acknowledged else "",
        "note": acknowledged[-1]["note"] if acknowledged else "",
        "at": iso(at),
        "opened_at": iso(min(alert["opened_at"] for alert in alerts)),
        "alerts": [_member(alert) for alert in alerts],
    }


def summary_notice(folded: Sequence[Mapping[str, Any]], *, tenant: str, key: str, at: int) -> Notice:
    """A notice of many: what a route was not told one by one."""
    notices = [row["notice"] for row in folded]
    worst = max((Severity.of(notice["severity"]) for notice in notices), default=Severity.INFO)
    incidents = {notice["incident"] for notice in notices}
    counts = {word: sum(n["event"] == word for n in notices) for word in EVENTS}
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    lines = [n["title"] for n in notices[:_MOST_IN_SUMMARY]]
    more = len(notices) - len(lines)
    return {
        "event": "summary", "incident": key, "tenant": tenant, "endpoint": "", "kind": "", "severity": worst.word,
        "title": f"[{worst.word.upper()}] {len(notices)} more notices about {len(incidents)} incidents: {told}",
        "message": "\n".join([*lines, *([f"and {more} more"] if more else [])])[:_LONGEST],
        "meaning": EVENTS["summary"], "look_at": "all open alerts", "command": "predis alerts list --open",
        "escalated": False, "acknowledged_by": "", "note": "", "at": iso(at), "opened_at": iso(at), "alerts": [],
    }  # fmt: skip


def test_notice(route: str, *, tenant: str, key: str, at: int) -> Notice:
    """A notice that only shows that a route works."""
    return {
        "event": "test", "incident": key, "tenant": tenant, "endpoint": "", "kind": "", "severity": Severity.INFO.word,
        "title": f"[TEST] Predis can reach the route {route}", "message": "Nothing is wrong: somebody tries this route.",
        "meaning": EVENTS["test"], "look_at": "nothing", "command": "predis alerts route list",
        "escalated": False, "acknowledged_by": "", "note": "", "at": iso(at), "opened_at": iso(at), "alerts": [],
    }  # fmt: skip


def _title(event: str, alert: Mapping[str, Any], *, more: int) -> str:
    version = f" v{alert['version']}" if alert["version"] is not None else ""
    also = f" and {more} more" if more else ""
    word = {"resolved": "RESOLVED", "acknowledged": "ACKNOWLEDGED"}.get(event, alert["severity"].upper())
    return f"[{word}] {alert['endpoint']}{version}: {alert['kind']}{also}"


def _member(alert: Mapping[str, Any]) -> dict[str, Any]:
    shown = ("id", "version", "severity", "state", "message", "command", "evidence")
    moments = ("opened_at", "event_at", "ended_at")
    return {name: alert[name] for name in shown} | {name: iso(alert[name]) for name in moments}
