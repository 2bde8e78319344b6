"""The deliverer: carries out what is in the outbox, at least once, in order, until the receiver has it.

A delivery is claimed before it is sent: its ``due_at`` moves ahead by a lease. If this process dies between sending and noting so, the
lease runs out and it is sent again with the same key, from which the receiver knows it. What fails is tried again after a pause that
doubles, with jitter so that many do not come at once, for up to a day and at least twenty times, so that a clock that jumps ahead
ends nothing; what after a jump back seems due in hours is due now. Each route has a thread of its own while it has something to
send: a receiver that is down holds up nobody else. Of one incident a route gets the older notice first, or not the newer.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

from predis.clock import NANOSECONDS, Clock
from predis.errors import PredisError
from predis.metrics import NOTHING, Metrics
from predis.monitoring.alerting.channels import CHANNELS, Channel, Envelope
from predis.monitoring.alerting.channels.wire import NotSent
from predis.monitoring.alerting.secrets import Secrets
from predis.monitoring.alerting.store import FAILED, SENT, AlertingStore, Row
from predis.state.engine import Database
from predis.telemetry import redact

log = logging.getLogger(__name__)

LEASE_S = 60.0
GIVE_UP_S = 24 * 3_600.0
_FEWEST_ATTEMPTS = 20
# Nothing is put off for longer: not by a pause, a lease, or what a receiver asks for.
_FARTHEST_S = 2 * 3_600.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 600.0
_DUE_AT_ONCE = 1_000
_ROUTES_AT_ONCE = 64


def pause_s(attempts: int, *, chance: float) -> float:
    """How long to wait after so many attempts: half of a doubling pause at least, all of it at most. ``chance``: 0 to 1.

    >>> [pause_s(attempts, chance=1.0) for attempts in (1, 2, 3, 20)]
    [1.0, 2.0, 4.0, 600.0]
    """
    longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(attempts - 1, 30))
    return longest * (0.5 + 0.5 * chance)


class Deliverer:
    """Sends what is due. ``look`` starts what has to be done and does not wait for it."""

    def __init__(
        self,
        database: Database,
        secrets: Secrets,
        *,
        clock: Clock,
        metrics: Metrics = NOTHING,
        channels: Mapping[str, Channel] = CHANNELS,
    ) -> None:
        self._database = database
        self._store = AlertingStore(database)
        self._secrets = secrets
        self._channels = channels
        self._clock = clock
        self._metrics = metrics
        self._waiting = metrics.gauge("predis_alert_deliveries_waiting")
        self._lock = threading.Lock()
        self._busy: dict[tuple[str, str], threading.Thread] = {}

    def look(self) -> None:
        """Start to send what is due, each route in its own thread."""
        for (tenant, route), rows in self._due().items():
            with self._lock:
                if (tenant, route) in self._busy or len(self._busy) >= _ROUTES_AT_ONCE:
                    continue
                work = partial(self._serve, tenant, route, rows=rows)
                thread = threading.Thread(target=work, name=f"alerts-{route}", daemon=True)
                self._busy[tenant, route] = thread
            thread.start()

    def finish(self, timeout_s: float = 15.0) -> None:
        """Wait for what was started."""
        with self._lock:
            threads = list(self._busy.values())
        for thread in threads:
            thread.join(timeout_s)

    def measure(self) -> None:
        """Bring the number of what waits up to date."""
        self._waiting.set(self._store.waiting())

    def _due(self) -> dict[tuple[str, str], list[Row]]:
        with self._database.read() as connection:
            now = self._clock.time_ns()
            farthest = now + round(_FARTHEST_S * NANOSECONDS)
            rows = self._store.due(connection, now=now, farthest=farthest, limit=_DUE_AT_ONCE)
        found: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            found.setdefault((row["tenant"], row["route"]), []).append(row)
        return found

    def _serve(self, tenant: str, route: str, *, rows: list[Row]) -> None:
        try:
            with self._database.read() as connection:
                found = self._store.route(connection, tenant, name=route)
            if found is not None:
                for row in rows:
                    self._deliver(found, row)
        except PredisError as error:
            log.warning("route %s: %s", route, error)
        except Exception:
            log.exception("route %s: deliveries stopped; trying again", route)
        finally:
            with self._lock:
                del self._busy[tenant, route]

    def _deliver(self, route: Row, row: Row) -> None:
        """Claim a delivery, send it, note how it went."""
        until = self._clock.time_ns() + round(LEASE_S * NANOSECONDS)
        with self._database.write() as connection:
            if not self._store.claim(connection, row, until=until):
                return
        problem = self.attempt(route, notice=row["notice"], key=row["key"])
        values = self._sent(row, route) if problem is None else self._not_sent(row, route, problem=problem)
        with self._database.write() as connection:
            self._store.end_delivery(connection, row["id"], values=values)

    def attempt(self, route: Row, *, notice: dict[str, Any], key: str) -> NotSent | None:
        """Send a notice once; what went wrong."""
        config = route["config"]

        def secret(field: str) -> str:
            return self._secrets.read(config.get(field, ""), tenant=route["tenant"])

        try:
            self._channels[route["channel"]].send(Envelope(notice, key, config, secret, self._clock))
        except NotSent as error:
            return error
        except PredisError as error:  # of secrets, which may be put right
            return NotSent(error.message)
        except Exception as error:
            log.exception("route %s: its channel failed", route["name"])
            return NotSent(f"{type(error).__name__} in the channel {route['channel']}; the log has it")
        return None

    def _sent(self, row: Row, route: Row) -> Row:
        now = self._clock.time_ns()
        self._count(route, "sent")
        took = self._metrics.histogram("predis_alert_delivery_seconds", channel=route["channel"])
        took.observe([(now - row["created_at"]) / NANOSECONDS])
        return {"state": SENT, "error": "", "ended_at": now}

    def _not_sent(self, row: Row, route: Row, *, problem: NotSent) -> Row:
        now = self._clock.time_ns()
        wait_s = max(pause_s(row["attempts"] + 1, chance=random.random()), problem.retry_after_s)
        due_at = now + round(wait_s * NANOSECONDS)
        error = redact(str(problem))
        late = due_at - row["created_at"] > GIVE_UP_S * NANOSECONDS
        if problem.hopeless or (late and row["attempts"] + 1 >= _FEWEST_ATTEMPTS):
            self._count(route, "failed")
            log.error("route %s: gave up on %r: %s", row["route"], row["notice"]["title"], error)
            return {"state": FAILED, "error": error, "ended_at": now}
        self._count(route, "retried")
        if not row["attempts"]:
            log.warning("route %s: %s; trying again, for up to a day", row["route"], error)
        return {"error": error, "due_at": due_at}

    def _count(self, route: Row, outcome: str) -> None:
        self._metrics.counter(
            "predis_alert_deliveries_total", channel=route["channel"], outcome=outcome
        ).add()
