"""When a condition becomes an alert, and when it stops being one: a pure state machine, one step a look.

A value at its limit must not open and close an alert all day. Two things prevent it: limits for closing that differ from those for
opening (a finding that only ``holds`` keeps what is open open, and opens nothing), and looks in a row that must agree.

    closed --opening looks that find it--> open at a severity --closing looks without it--> closed
    open: worse at once; milder only after closing looks that found nothing as severe
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from predis.monitoring.alerting.severity import Severity


class Change(Enum):
    """What a look did to an alert."""

    NOTHING = "nothing"
    OPENED = "opened"
    WORSENED = "worsened"
    EASED = "eased"
    RESOLVED = "resolved"


@dataclass(frozen=True)
class Patience:
    """Looks in a row that it takes: to open what is found, and to close, or ease, what is found no more."""

    opening: int = 1
    closing: int = 3


@dataclass(frozen=True)
class Standing:
    """Where one condition stands. ``severity`` is None while it is closed.

    ``seen`` counts looks in a row that found it while closed, ``calm`` those in a row that found nothing as severe while open, and
    ``milder`` is the worst of those.
    """

    severity: Severity | None = None
    seen: int = 0
    calm: int = 0
    milder: Severity | None = None


@dataclass(frozen=True)
class Sight:
    """What a look found of the condition. ``holds``: not enough to open an alert, enough to keep it open."""

    severity: Severity
    holds: bool = False


def step(standing: Standing, sight: Sight | None, *, patience: Patience) -> tuple[Standing, Change]:
    """The standing after one more look, and what it changed.

    >>> standing, changes = Standing(), []
    >>> for sight in (Sight(Severity.WARNING), None, None, None):
    ...     standing, change = step(standing, sight, patience=Patience(opening=1, closing=3))
    ...     changes.append(change.value)
    >>> changes
    ['opened', 'nothing', 'nothing', 'resolved']
    """
    if standing.severity is None:
        return _closed(standing, sight, patience=patience)
    if sight is None:
        return _calmer(standing, None, patience=patience)
    if sight.holds:  # it says nothing of how severe it is, only that it is not over
        return replace(standing, calm=0, milder=None), Change.NOTHING
    if sight.severity > standing.severity:
        return Standing(sight.severity), Change.WORSENED
    if sight.severity == standing.severity:
        return Standing(standing.severity), Change.NOTHING
    return _calmer(standing, sight.severity, patience=patience)


def _closed(standing: Standing, sight: Sight | None, *, patience: Patience) -> tuple[Standing, Change]:
    if sight is None or sight.holds:
        return Standing(), Change.NOTHING
    if standing.seen + 1 >= patience.opening:
        return Standing(sight.severity), Change.OPENED
    return Standing(seen=standing.seen + 1), Change.NOTHING


def _calmer(standing: Standing, severity: Severity | None, *, patience: Patience) -> tuple[Standing, Change]:
    """A look that found nothing as severe: nothing at all, or something milder."""
    found = [each for each in (standing.milder, severity) if each is not None]
    milder = max(found, default=None)
    if standing.calm + 1 < patience.closing:
        return replace(standing, calm=standing.calm + 1, milder=milder), Change.NOTHING
    if milder is None:
        return Standing(), Change.RESOLVED
    return Standing(milder), Change.EASED
