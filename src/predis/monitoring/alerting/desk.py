"""The desk: everything about telling people of alerts, put together."""

from __future__ import annotations

from pathlib import Path

from predis.clock import NANOSECONDS, Clock
from predis.metrics import NOTHING, Metrics
from predis.monitoring.alerting.book import RouteBook
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
    """

    def __init__(
        self, database: Database, secrets: Path, *, clock: Clock, metrics: Metrics = NOTHING
    ) -> None:
        self._database = database
        self._store = AlertingStore(database)
        self._clock = clock
        self._looked = float("-inf")
        self.outbox = Outbox(database, clock=clock)
        self.deliverer = Deliverer(database, Secrets(secrets), clock=clock, metrics=metrics)
        self.book = RouteBook(database, self.deliverer, clock=clock)
        self.silences = Silences(database, clock=clock)

    def look(self) -> None:
        """Write what time made due, which may wait a second; start to send what waits, which may not."""
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
