"""Incidents to the backends that numbers are exported to: events on their time lines, or log records.

Numbers may be lost while a backend is down: they are late at best, and the next ones say more. That something was wrong may not. So
each such exporter is a route of alerting, of the alerts of all tenants: its notices are written with the alert itself and tried again
for a day, like those of every other route, and `predis alerts show` says what became of them. A backend may get one twice.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from predis.clock import parse_moment
from predis.errors import PredisError, Unavailable
from predis.monitoring.alerting.book import AlertRoute, Declared
from predis.monitoring.alerting.channels import Channel, Envelope
from predis.monitoring.alerting.channels.wire import Field, NotSent
from predis.monitoring.alerting.notices import Notice as Told
from predis.monitoring.alerting.severity import Severity
from predis.monitoring.alerting.store import EVERY_TENANT
from predis.monitoring.exporters.batch import Batch, Exporter, Notice

CHANNEL = "exporter"
_MOST_PER_HOUR = 100_000


class Telling:
    """Exporters as routes, and the channel that these go through.

    Args:
        exporters: those that take notices. They are this channel's own: numbers go through others.
    """

    def __init__(self, exporters: Sequence[Exporter[Any]]) -> None:
        self._exporters = {exporter.name: (exporter, threading.Lock()) for exporter in exporters}

    @property
    def routes(self) -> list[Declared]:
        """Names no person can give: theirs have no colon."""
        return [
            (
                EVERY_TENANT,
                AlertRoute(
                    name=f"exporter:{name}", channel=CHANNEL, config={"exporter": name}, severity=Severity.INFO.word,
                    per_hour=_MOST_PER_HOUR,
                ),
            )
            for name in self._exporters
        ]  # fmt: skip

    @property
    def channel(self) -> Channel:
        fields = {"exporter": Field("text", "which exporter", required=True)}
        return Channel("an event of an exporter's backend", fields, self.send)

    def send(self, envelope: Envelope) -> None:
        """
        Raises:
            NotSent: the backend did not take it.
        """
        name = envelope.config["exporter"]
        if name not in self._exporters:
            raise NotSent(f"this control process has no exporter {name}; its settings name others")
        exporter, lock = self._exporters[name]
        notice = _notice(envelope.notice)
        batch = Batch(origin_ns=notice.at_ns, began_ns=notice.at_ns, at_ns=notice.at_ns, notices=(notice,))
        try:
            with lock:  # each tenant's notices come in a thread of their own
                exporter.send(batch)
        except Unavailable as error:
            raise NotSent(error.message) from None
        except PredisError as error:
            raise NotSent(error.message, hopeless=True) from None

    def close(self) -> None:
        for exporter, _lock in self._exporters.values():
            exporter.close()


def _notice(told: Told) -> Notice:
    return Notice(
        at_ns=parse_moment(told["at"], where="at"),
        incident=told["incident"],
        tenant=told["tenant"],
        endpoint=told["endpoint"],
        kind=told["kind"],
        severity=told["severity"],
        title=told["title"],
        text=f"{told['message']} Look at: {told['look_at']}. Look with: {told['command']}",
        resolved=told["event"] == "resolved",
    )
