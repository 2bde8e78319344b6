"""PagerDuty's Events API v2: trigger, acknowledge and resolve, tied together by ``dedup_key``.

https://developer.pagerduty.com/docs/events-api-v2/trigger-events/
"""

from __future__ import annotations

from typing import Any

from predis.monitoring.alerting.channels.wire import Envelope, Field, post

FIELDS = {
    "routing_key": Field("secret", "where the integration key of the service is found", required=True),
    "url": Field("url", "the API; PagerDuty's own in the United States where not given"),
}
_URL = "https://events.pagerduty.com/v2/enqueue"
_SEVERITIES = {"info": "info", "warning": "warning", "critical": "error", "emergency": "critical"}
_ACTIONS = {"acknowledged": "acknowledge", "resolved": "resolve"}
_SUMMARY = 1_024  # characters that PagerDuty takes


def send(envelope: Envelope) -> None:
    """
    Raises:
        NotSent
        Unavailable: the secret is missing.
    """
    notice = envelope.notice
    action = _ACTIONS.get(notice["event"], "trigger")
    document: dict[str, Any] = {
        "routing_key": envelope.secret("routing_key"),
        "event_action": action,
        "dedup_key": envelope.incident,
    }
    if action == "trigger":
        details = ("message", "meaning", "look_at", "command", "escalated", "alerts")
        document["client"] = "Predis"
        document["payload"] = {
            "summary": f"{notice['title']}: {notice['message']}"[:_SUMMARY],
            "source": notice["endpoint"] or "predis",
            "severity": _SEVERITIES[notice["severity"]],
            "timestamp": notice["at"],
            "component": notice["endpoint"] or "predis",
            "group": notice["tenant"],
            "class": notice["kind"] or notice["event"],
            "custom_details": {name: notice[name] for name in details},
        }
    post(envelope.config.get("url", _URL), document, headers={})
