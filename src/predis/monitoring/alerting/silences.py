"""Silences: alerts that match are told to nobody for a while. They are still opened, listed and acted upon by machines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from predis.access.audit import Audit
from predis.clock import NANOSECONDS, Clock, iso
from predis.errors import InvalidInput, NotFound
from predis.monitoring.alerting.severity import Severity
from predis.monitoring.alerting.store import AlertingStore, Row
from predis.state.engine import Database

LONGEST_DAYS = 400


@dataclass(frozen=True, kw_only=True)
class Silence:
    """Which alerts, and until when. Patterns are shell patterns (``churn-*``); an empty one matches all. Moments are nanoseconds.

    ``severity``: the most severe that is silenced; empty: every severity but emergency, which has to be named.
    """

    endpoint: str = ""
    kind: str = ""
    severity: str = ""
    version: int | None = None
    reason: str
    starts_at: int
    ends_at: int

    def check(self, now: int) -> None:
        """
        Raises:
            InvalidInput
        """
        if self.severity:
            Severity.of(self.severity)
        if not self.reason.strip():
            raise InvalidInput("a silence says why; those who wonder about it later will want to know")
        if not max(now, self.starts_at) < self.ends_at <= now + LONGEST_DAYS * 86_400 * NANOSECONDS:
            raise InvalidInput(
                f"a silence ends after it starts, in the future, and within {LONGEST_DAYS} days; got an end at {iso(self.ends_at)}"
            )


def silenced(alert: Mapping[str, Any], silences: Iterable[Row], *, now: int) -> bool:
    """Whether one of the silences covers an alert at a moment."""
    return any(_covers(silence, alert, now=now) for silence in silences)


def _covers(silence: Row, alert: Mapping[str, Any], *, now: int) -> bool:
    most = Severity.of(silence["severity"]) if silence["severity"] else Severity.CRITICAL
    return (
        silence["starts_at"] <= now < silence["ends_at"]
        and (not silence["endpoint"] or fnmatchcase(alert["endpoint"], silence["endpoint"]))
        and (not silence["kind"] or fnmatchcase(alert["kind"], silence["kind"]))
        and (silence["version"] is None or silence["version"] == alert["version"])
        and Severity.of(alert["severity"]) <= most
    )


class Silences:
    """The silences of all tenants."""

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._store = AlertingStore(database)
        self._audit = Audit(database, clock)
        self._clock = clock

    def now(self) -> int:
        """The moment by the clock that ends silences."""
        return self._clock.time_ns()

    def add(self, tenant: str, silence: Silence, *, actor: str) -> dict[str, Any]:
        """
        Raises:
            InvalidInput: it says no reason, or ends in the past.
        """
        silence.check(self._clock.time_ns())
        row = {"tenant": tenant, **vars(silence), "created_by": actor}
        with self._database.write() as connection:
            number = self._store.add_silence(connection, row)
            target = f"{silence.endpoint or 'all endpoints'}"
            self._audit.add(
                connection,
                tenant,
                actor=actor,
                action="silence.add",
                target=target,
                detail={"silence": number, **vars(silence)},
            )
        return self._shown({"id": number, **row})

    def end(self, tenant: str, silence: int, *, actor: str) -> None:
        """End a silence now; alerts that it hid and that last are told.

        Raises:
            NotFound: there is none that lasts.
        """
        with self._database.write() as connection:
            if not self._store.end_silence(connection, tenant, silence=silence, at=self._clock.time_ns()):
                raise NotFound(f"there is no silence {silence} to end; `predis alerts silences` shows them")
            self._audit.add(connection, tenant, actor=actor, action="silence.end", target=str(silence))

    def listed(self, tenant: str, *, ended: bool = False) -> list[dict[str, Any]]:
        """Those that last or will come, newest first; with ``ended``, all."""
        now = self._clock.time_ns()
        rows = self._store.silences(tenant, until=0 if ended else now)
        return [self._shown(row) for row in reversed(rows)]

    def _shown(self, row: Row) -> dict[str, Any]:
        now = self._clock.time_ns()
        shown = {name: value for name, value in row.items() if name != "tenant"}
        return {
            **shown,
            "active": row["starts_at"] <= now < row["ends_at"],
            "starts_at": iso(row["starts_at"]),
            "ends_at": iso(row["ends_at"]),
        }
