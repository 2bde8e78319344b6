"""Service levels: keeps the minutes that error budgets are counted from, finds what burns too fast, tells what is left.

Slots of traffic are kept for an hour; objectives look at weeks. So minutes are rolled up from slots, again and again until a slot that
came late is in as well: counts only grow, so a minute is written anew exactly when the slots know more of it than it does.

An outage answers nothing, so nothing of it is among the requests. Availability's budget must lose it all the same, once: ``missed``
are the requests that would have come, at the rate of the hour before the outage, less those that were answered in it after all (where
only the heartbeat was lost). They are reckoned from the alerts of the kind ``endpoint_down``, each time anew, so a restart or a late
record counts nothing twice. Burn rates, and the alerts on them, leave them out: the outage is an emergency of its own already, and
nobody is to be paged twice for one thing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from predis.clock import NANOSECONDS, Clock
from predis.monitoring.alerting.burn import LONGEST_DAYS, PAIRS, Burning, Objective, Tally, burning
from predis.monitoring.alerting.store import AlertingStore, Row
from predis.monitoring.store import unpack_counts
from predis.state.engine import Database
from predis.stats import latency

MINUTE = 60 * NANOSECONDS
ROLL_S = 2.0
_HOUR = 60 * MINUTE
ObjectivesOf = Callable[[str, str], Sequence[Objective]]


@dataclass(frozen=True)
class Outage:
    """Nobody served an endpoint from ``began`` to ``ended``, in nanoseconds. ``missed``: requests that would have come."""

    began: int
    ended: int
    missed: int


class ServiceLevels:
    """Error budgets of all endpoints.

    Args:
        objectives: (tenant, endpoint) to its objectives.
    """

    def __init__(self, database: Database, *, objectives: ObjectivesOf, clock: Clock) -> None:
        self._store = AlertingStore(database)
        self._database = database
        self._objectives = objectives
        self._clock = clock
        self._rolled: dict[tuple[str, str], float] = {}

    def roll(self, tenant: str, endpoint: str) -> int:
        """Bring an endpoint's minutes up to date, unless that was done a moment ago; minutes written."""
        objectives = self._objectives(tenant, endpoint)
        now = self._clock.monotonic_s()
        if not objectives or now - self._rolled.get((tenant, endpoint), -ROLL_S) < ROLL_S:
            return 0
        self._rolled[tenant, endpoint] = now
        limit_s = next((o.limit_ms / 1000 for o in objectives if o.limit_ms is not None), None)
        key = {"tenant": tenant, "endpoint": endpoint}
        rows = [
            {**key, "start": minute, **_minute(self._store.slots(tenant, endpoint, minute=minute), limit_s)}
            for minute in self._store.behind(tenant, endpoint)
        ]
        if rows:
            self._store.put_minutes(rows)
        return len(rows)

    def burning(self, tenant: str, endpoint: str) -> list[tuple[Objective, Burning]]:
        """Objectives whose budget burns too fast now, each with the severest pair of windows that shows it."""
        objectives = self._objectives(tenant, endpoint)
        if not objectives:
            return []
        windows = sorted({length for pair in PAIRS for length in (pair.long_s, pair.short_s)})
        counts = dict(zip(windows, self._counts(tenant, endpoint, windows=windows), strict=True))
        found = []
        for objective in objectives:
            over = {length: _tally(objective, count) for length, count in counts.items()}
            burns = burning(objective, over.__getitem__)
            if burns is not None:
                found.append((objective, burns))
        return found

    def shown(self, tenant: str, endpoint: str) -> list[dict[str, Any]]:
        """Each objective with what is left of its budget, and how fast it burns in each pair of windows."""
        self.roll(tenant, endpoint)
        return [
            self._show(tenant, endpoint, objective=objective)
            for objective in self._objectives(tenant, endpoint)
        ]

    def outages(self, tenant: str, endpoint: str, *, window_s: float) -> list[Outage]:
        """When no worker served an endpoint in the newest seconds, oldest first."""
        since = self._clock.time_ns() - round(window_s * NANOSECONDS)
        found = []
        for row in self._store.times_of(tenant, endpoint, kind="endpoint_down", since=since):
            silent = round(row["evidence"].get("silent_s", 0.0) * NANOSECONDS)
            began, ended = min(row["opened_at"], row["seen_at"] - silent), row["seen_at"]
            before, oldest = self._store.asked_between(tenant, endpoint, since=began - _HOUR, until=began)
            answered, _ = self._store.asked_between(tenant, endpoint, since=began, until=ended)
            rate = before / max(began - oldest, MINUTE) if oldest is not None else 0.0
            counted = max(began, since)
            missed = max(0, round(rate * (ended - counted)) - answered)
            found.append(Outage(counted, ended, missed))
        return found

    def _show(self, tenant: str, endpoint: str, *, objective: Objective) -> dict[str, Any]:
        lengths = [length for pair in PAIRS for length in (pair.long_s, pair.short_s)]
        counts = self._counts(tenant, endpoint, windows=[objective.window_s, *lengths])
        seen, *parts = [_tally(objective, count) for count in counts]
        outages = self.outages(tenant, endpoint, window_s=objective.window_s)
        missed = sum(outage.missed for outage in outages) if objective.limit_ms is None else 0
        whole = seen + Tally(missed, missed)
        rates = [objective.burn(part) for part in parts]
        return {
            "objective": objective.name,
            "text": objective.text,
            "share": objective.share,
            "window_s": objective.window_s,
            "limit_ms": objective.limit_ms,
            "requests": whole.total,
            "bad": whole.bad,
            "missed": missed,
            "outage_s": sum(outage.ended - outage.began for outage in outages) / NANOSECONDS,
            "achieved": 1 - whole.bad / whole.total if whole.total else None,
            "budget_left": objective.left(whole),
            "burn": [
                {
                    "long_s": pair.long_s, "short_s": pair.short_s, "factor": pair.factor(objective.window_s),
                    "severity": pair.severity.word, "long": rates[2 * at], "short": rates[2 * at + 1],
                }
                for at, pair in enumerate(PAIRS)
            ],
        }  # fmt: skip

    def _counts(self, tenant: str, endpoint: str, *, windows: Sequence[float]) -> list[tuple[int, int, int]]:
        """(requests, failed, slow) of the newest seconds. A minute belongs to a window if it began in it."""
        now = self._clock.time_ns()
        since = [now - round(length * NANOSECONDS) for length in windows]
        return self._store.minutes(tenant, endpoint, since=since)

    def forget(self) -> None:
        """Drop minutes that no objective looks at any more."""
        before = self._clock.time_ns() - (LONGEST_DAYS + 1) * 86_400 * NANOSECONDS
        with self._database.write() as connection:
            self._store.forget_minutes(connection, before=before)


def _tally(objective: Objective, counts: tuple[int, int, int]) -> Tally:
    requests, failed, slow = counts
    if objective.limit_ms is None:
        return Tally(requests, failed)
    return Tally(requests - failed, slow)  # what failed is availability's; it would count twice


def _minute(slots: Sequence[Row], limit_s: float | None) -> Row:
    """Slots of a minute added up. ``slow``: answers in buckets that lie wholly above the limit, whose width is 4.9 %."""
    requests = sum(slot["requests"] - slot["rejected"] for slot in slots)
    failed = sum(slot["failed"] for slot in slots)
    slow = 0
    if limit_s is not None:
        first = int(latency.EDGES.searchsorted(limit_s, side="left")) + 1
        slow = sum(int(unpack_counts(slot["latency"])[first:].sum()) for slot in slots)
    return {"requests": requests, "failed": failed, "slow": slow}
