"""The desk: everything about telling people of alerts, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from predis.clock import NANOSECONDS, Clock
from predis.metrics import NOTHING, Metrics
from predis.monitoring.alerting.book import Declared, RouteBook
from predis.monitoring.alerting.channels import CHANNELS, Channel
from predis.monitoring.alerting.deliverer import Deliverer
from predis.monitoring.alerting.outbox import Outbox
from predis.monitoring.alerting.secrets import Secrets
from predis.monitoring.alerting.silences import Silences
from predis.monitoring.alerting.store import AlertingStore
from predis.state.engine import Database

KEEP_DAYS = 90
OUTBOX_S = 1.0


class Desk:
    """``look`` is its duty, taken again and again.

    Args:
        secrets: folder of the files that hold secrets of routes.
        declared: routes that nobody added, by what declares them. The first look makes the book say the same.
        channels: channels beside those that people may use.
    """

    def __init__(
        self,
        database: Database,
        secrets: Path,
        *,
        clock: Clock,
        metrics: Metrics = NOTHING,
        declared: Mapping[str, Sequence[Declared]] | None = None,
        channels: Mapping[str, Channel] | None = None,
    ) -> None:
        self._database = database
        self._store = AlertingStore(database)
        self._clock = clock
        self._looked = float("-inf")
        self._declared = dict(declared or {})
        self.outbox = Outbox(database, clock=clock)
        known = {**CHANNELS, **(channels or {})}
        self.deliverer = Deliverer(database, Secrets(secrets), clock=clock, metrics=metrics, channels=known)
        self.book = RouteBook(database, self.deliverer, clock=clock)
        self.silences = Silences(database, clock=clock)

    def look(self) -> None:
        """Write what time made due, which may wait a second; start to send what waits, which may not."""
        for origin in list(self._declared):
            self.book.declare(self._declared[origin], origin=origin)
            del self._declared[origin]
        now = self._clock.monotonic_s()
        if now - self._looked >= OUTBOX_S:
            self._looked = now
            self.outbox.look()
        self.deliverer.look()
        self.deliverer.measure()

    def forget(self) -> None:
        """Drop deliveries that ended long ago."""
        before = self._clock.time_ns() - KEEP_DAYS * 86_400 * NANOSECONDS
        with self._database.write() as connection:
            self._store.forget_deliveries(connection, before=before)

    def close(self) -> None:
        """Wait for what is being sent. What is not sent by then is sent by the next process."""
        self.deliverer.finish(timeout_s=2.0)
