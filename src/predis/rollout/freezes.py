"""Freeze windows: times in which rollouts do not go forward. They still turn back, and people may still stop them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from predis.access.audit import Audit
from predis.clock import NANOSECONDS, Clock, iso
from predis.errors import InvalidInput, NotFound
from predis.rollout.store import FreezeStore
from predis.state import Database

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEKLY = re.compile(r"(\w{3}) (\d\d):(\d\d) *- *(\w{3}) (\d\d):(\d\d)", re.ASCII)
_DAY_MINUTES = 24 * 60
_WEEK_MINUTES = 7 * _DAY_MINUTES
_MINUTE_NS = 60 * NANOSECONDS


@dataclass(frozen=True)
class Window:
    """When nothing is to go forward, of one endpoint or, where none is named, of all. Moments are nanoseconds."""

    endpoint: str = ""
    starts_at: int | None = None
    ends_at: int | None = None
    weekly: str = ""
    zone: str = "UTC"
    reason: str = ""

    def check(self, now: int) -> None:
        """
        Raises:
            InvalidInput: neither an end nor a weekly window is given, or one cannot be used.
        """
        zone_of(self.zone)
        if self.weekly:
            parse_weekly(self.weekly)
        if bool(self.weekly) == (self.starts_at is not None or self.ends_at is not None):
            raise InvalidInput(
                "a freeze has either moments (from, to) or a weekly window such as 'fri 16:00-mon 06:00'"
            )
        if self.ends_at is not None and self.ends_at <= max(now, self.starts_at or 0):
            raise InvalidInput(
                f"a freeze ends after it starts, and not in the past; got an end at {iso(self.ends_at)}"
            )


@dataclass(frozen=True)
class Freeze:
    """One window: from ``starts_at`` to ``ends_at`` (nanoseconds; None: open), or every week as ``weekly`` says in ``zone``."""

    id: int
    tenant: str
    endpoint: str
    starts_at: int | None
    ends_at: int | None
    weekly: str
    zone: str
    reason: str
    created_at: int
    created_by: str

    def until(self, now: int) -> int | None:
        """When the window that is open at a moment closes; None where none is open. An end that nobody named is the end of time.

        >>> weekend = Freeze(1, "default", "", None, None, "fri 16:00-mon 06:00", "UTC", "", 0, "ops")
        >>> saturday = 1_700_308_800 * NANOSECONDS
        >>> iso(saturday), iso(weekend.until(saturday))
        ('2023-11-18T12:00:00Z', '2023-11-20T06:00:00Z')
        """
        if not self.weekly:
            opened = (self.starts_at or 0) <= now and (self.ends_at is None or now < self.ends_at)
            return (self.ends_at or 2**63 - 1) if opened else None
        start, stop = parse_weekly(self.weekly)
        local = datetime.fromtimestamp(now // NANOSECONDS, zone_of(self.zone))
        minute = local.weekday() * _DAY_MINUTES + local.hour * 60 + local.minute
        if (minute - start) % _WEEK_MINUTES >= (stop - start) % _WEEK_MINUTES:
            return None
        return now // _MINUTE_NS * _MINUTE_NS + (stop - minute) % _WEEK_MINUTES * _MINUTE_NS

    def to_dict(self, now: int) -> dict[str, Any]:
        until = self.until(now)
        shown = {name: value for name, value in vars(self).items() if name != "tenant"}
        moments = {name: iso(getattr(self, name)) for name in ("starts_at", "ends_at", "created_at")}
        return {
            **shown,
            **moments,
            "open": until is not None,
            "until": iso(until) if _is_date(until) else None,
        }


class Freezes:
    """The freeze windows of all tenants."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._store = FreezeStore(database)
        self._audit = Audit(database, clock)
        self._clock = clock

    def add(self, tenant: str, window: Window, *, actor: str) -> dict[str, Any]:
        """A new window.

        Raises:
            InvalidInput: neither an end nor a weekly window is given, or one cannot be used.
        """
        now = self._clock.time_ns()
        window.check(now)
        row = {"tenant": tenant, **vars(window), "created_at": now, "created_by": actor}
        with self._database.write() as connection:
            number = self._store.add(connection, row)
            target = window.endpoint or "all endpoints"
            self._audit.add(
                connection,
                tenant,
                actor=actor,
                action="freeze.add",
                target=target,
                detail={"freeze": number, **vars(window)},
            )
        return Freeze(id=number, **row).to_dict(now)

    def remove(self, tenant: str, freeze: int, *, actor: str) -> None:
        """
        Raises:
            NotFound
        """
        with self._database.write() as connection:
            if not self._store.remove(connection, tenant, freeze=freeze):
                raise NotFound(f"there is no freeze {freeze}; `predis freeze list` shows them")
            self._audit.add(connection, tenant, actor=actor, action="freeze.remove", target=str(freeze))

    def listed(self, tenant: str) -> list[dict[str, Any]]:
        now = self._clock.time_ns()
        return [freeze.to_dict(now) for freeze in self._of(tenant)]

    def reason(self, tenant: str, endpoint: str, *, now: int) -> str:
        """Why nothing of an endpoint goes forward now, or nothing."""
        return why_frozen(self._of(tenant), endpoint, now=now)

    def _of(self, tenant: str) -> list[Freeze]:
        return [Freeze(**row) for row in self._store.freezes(tenant)]


def why_frozen(freezes: Sequence[Freeze], endpoint: str, *, now: int) -> str:
    """Why nothing of an endpoint goes forward at a moment, or nothing; of several windows the one that closes last."""
    found = [
        (until, f) for f in freezes if f.endpoint in ("", endpoint) and (until := f.until(now)) is not None
    ]
    if not found:
        return ""
    until, freeze = max(found, key=lambda each: each[0])
    what = f": {freeze.reason}" if freeze.reason else ""
    return f"frozen until {iso(until) if _is_date(until) else 'the freeze is removed'}{what} (freeze {freeze.id})"


def parse_weekly(text: str) -> tuple[int, int]:
    """Start and end of a weekly window, as minutes since Monday, 0:00.

    Raises:
        InvalidInput: it is no such window.
    """
    found = _WEEKLY.fullmatch(text.lower())
    if found is None:
        raise InvalidInput(f"a weekly freeze is written as 'fri 16:00-mon 06:00', got {text!r:.80}")
    moments = []
    for day, hour, minute in (found.groups()[:3], found.groups()[3:]):
        if day not in _DAYS or int(hour) > 23 or int(minute) > 59:
            raise InvalidInput(f"{day} {hour}:{minute} is no time of a week; days are {', '.join(_DAYS)}")
        moments.append(_DAYS.index(day) * _DAY_MINUTES + int(hour) * 60 + int(minute))
    if moments[0] == moments[1]:
        raise InvalidInput(
            "a weekly freeze that starts and ends at the same time would be all week or never; say which"
        )
    return moments[0], moments[1]


def zone_of(name: str) -> tzinfo:
    """
    Raises:
        InvalidInput: there is no such time zone here.
    """
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput(
            f"there is no time zone {name!r:.80} on this machine; use UTC, or install tzdata"
        ) from None


def _is_date(moment: int | None) -> bool:
    return moment is not None and moment < 2**63 - 1
