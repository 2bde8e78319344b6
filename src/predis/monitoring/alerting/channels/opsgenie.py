"""Opsgenie's Alert API: create, acknowledge and close, tied together by the alias.

https://docs.opsgenie.com/docs/alert-api
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from predis.monitoring.alerting.channels.wire import Envelope, Field, post

FIELDS = {
    "api_key": Field("secret", "where the key of the API integration is found", required=True),
    "url": Field(
        "url", "the API; https://api.opsgenie.com where not given (Europe: https://api.eu.opsgenie.com)"
    ),
}
_URL = "https://api.opsgenie.com"
_PRIORITIES = {"info": "P5", "warning": "P4", "critical": "P2", "emergency": "P1"}
_MESSAGE, _ENTITY, _DESCRIPTION = 130, 512, 15_000  # characters that Opsgenie takes


def send(envelope: Envelope) -> None:
    """
    Raises:
        NotSent
        Unavailable: the secret is missing.
    """
    notice = envelope.notice
    base = f"{envelope.config.get('url', _URL).rstrip('/')}/v2/alerts"
    one = f"{base}/{quote(envelope.incident, safe='')}"
    note = {"source": "Predis", "user": notice["acknowledged_by"][:100] or "Predis", "note": notice["title"]}
    headers = {"authorization": f"GenieKey {envelope.secret('api_key')}"}
    if notice["event"] == "acknowledged":
        post(f"{one}/acknowledge?identifierType=alias", note, headers=headers)
    elif notice["event"] == "resolved":
        post(f"{one}/close?identifierType=alias", note, headers=headers)
    else:
        post(base, _alert(envelope), headers=headers)


def _alert(envelope: Envelope) -> dict[str, Any]:
    notice = envelope.notice
    text = f"{notice['message']}\n\n{notice['meaning']}.\nLook at: {notice['look_at']}.\n{notice['command']}"
    return {
        "message": notice["title"][:_MESSAGE],
        "alias": envelope.incident,
        "description": text[:_DESCRIPTION],
        "entity": (notice["endpoint"] or "predis")[:_ENTITY],
        "source": "Predis",
        "priority": _PRIORITIES[notice["severity"]],
        "tags": [tag for tag in ("predis", notice["kind"], notice["severity"]) if tag],
        "details": {name: notice[name] for name in ("tenant", "endpoint", "kind", "command", "opened_at")},
    }
