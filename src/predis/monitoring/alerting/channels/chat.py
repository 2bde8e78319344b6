"""Chat rooms: Slack's incoming webhooks, and workflows of Microsoft Teams. Their URLs are secrets: who has one may post."""

from __future__ import annotations

from typing import Any

from predis.errors import Unavailable
from predis.monitoring.alerting.channels.wire import Envelope, Field, check_url, post
from predis.monitoring.alerting.notices import Notice

FIELDS = {"url": Field("secret", "where the URL of the incoming webhook is found", required=True)}
_SLACK_HEADER, _SLACK_SECTION = 150, 3_000  # characters that Slack takes


def send_slack(envelope: Envelope) -> None:
    """
    Raises:
        NotSent
        Unavailable: the secret is missing, or no URL.
    """
    notice = envelope.notice
    lines = [_escaped(notice["message"]), *(f"*{title}*: {_escaped(text)}" for title, text in _facts(notice))]
    lines.append(f"`{_escaped(notice['command'])}`")
    document = {
        "text": notice["title"],
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": notice["title"][:_SLACK_HEADER]}},
            {"type": "section", "text": {"type": "mrkdwn", "text": "\n".join(lines)[:_SLACK_SECTION]}},
        ],
    }
    post(_url(envelope), document, headers={})


def send_teams(envelope: Envelope) -> None:
    """
    Raises:
        NotSent
        Unavailable: the secret is missing, or no URL.
    """
    notice = envelope.notice
    facts = [{"title": title, "value": text} for title, text in _facts(notice)]
    body: list[dict[str, Any]] = [
        {"type": "TextBlock", "size": "Medium", "weight": "Bolder", "text": notice["title"], "wrap": True},
        {"type": "TextBlock", "text": notice["message"], "wrap": True},
        {"type": "FactSet", "facts": facts},
        {"type": "TextBlock", "fontType": "Monospace", "text": notice["command"], "wrap": True},
    ]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
    }
    content = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
    post(_url(envelope), {"type": "message", "attachments": [content]}, headers={})


def _url(envelope: Envelope) -> str:
    url = envelope.secret("url")
    try:
        check_url(url, "the secret")
    except ValueError as error:
        raise Unavailable(f"the secret named by the field url cannot be used: {error}") from None
    return url


def _facts(notice: Notice) -> list[tuple[str, str]]:
    found = {
        "look at": notice["look_at"],
        "since": notice["opened_at"],
        "acknowledged by": " ".join(filter(None, (notice["acknowledged_by"], notice["note"]))),
    }
    return [(title, text) for title, text in found.items() if text]


def _escaped(text: str) -> str:
    """As Slack wants it: these three characters are its markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
