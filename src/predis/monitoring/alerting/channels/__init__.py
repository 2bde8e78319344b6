"""The channels: one file for each kind of receiver. Each turns a notice into what the receiver's own API demands.

A channel is a row of ``CHANNELS``: the fields of its configuration and the function that sends. It raises ``NotSent`` where the
receiver did not take it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from predis.errors import InvalidInput
from predis.monitoring.alerting.channels import chat, email, opsgenie, pagerduty, webhook
from predis.monitoring.alerting.channels.wire import Envelope, Field, check_fields

__all__ = ["CHANNELS", "Channel", "Envelope", "channel_of"]


@dataclass(frozen=True)
class Channel:
    """``send(envelope)`` returns once the receiver has taken the notice."""

    help: str
    fields: Mapping[str, Field]
    send: Callable[[Envelope], None]

    def check(self, config: Mapping[str, Any], where: str) -> None:
        """
        Raises:
            InvalidInput: a field is missing, unknown, or cannot be used.
        """
        check_fields(config, self.fields, where=where)


CHANNELS: Mapping[str, Channel] = {
    "webhook": Channel("JSON by POST, signed with HMAC-SHA256", webhook.FIELDS, webhook.send),
    "email": Channel("a mail by SMTP", email.FIELDS, email.send),
    "slack": Channel(
        "an incoming webhook of Slack, or of what understands the same", chat.FIELDS, chat.send_slack
    ),
    "teams": Channel("an adaptive card to a workflow of Microsoft Teams", chat.FIELDS, chat.send_teams),
    "pagerduty": Channel("PagerDuty Events API v2", pagerduty.FIELDS, pagerduty.send),
    "opsgenie": Channel("Opsgenie Alert API", opsgenie.FIELDS, opsgenie.send),
}


def channel_of(name: str) -> Channel:
    """
    Raises:
        InvalidInput: there is no such channel.
    """
    if name not in CHANNELS:
        raise InvalidInput(f"a route's channel is {', '.join(CHANNELS)}, got {name!r:.80}")
    return CHANNELS[name]
