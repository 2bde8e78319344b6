"""What happened: frozen dataclasses, the only way news travels upward.

Lower parts publish; ``app.py`` subscribes the upper parts. A handler that fails is logged and cannot break the work that
published the event: events tell, they do not ask.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to one tenant's things, at ``at_ns`` (nanoseconds since the epoch)."""

    tenant: str
    at_ns: int


@dataclass(frozen=True, kw_only=True)
class VersionRegistered(Event):
    """A version of a model is complete and can be deployed."""

    model: str
    version: int


@dataclass(frozen=True, kw_only=True)
class RouteChanged(Event):
    """An endpoint has a new Route; workers follow it on their own."""

    endpoint: str
    route: int


@dataclass(frozen=True, kw_only=True)
class AlertRaised(Event):
    """A monitor opened an alert, or raised its severity."""

    alert: int
    endpoint: str
    version: int | None
    kind: str
    severity: str


@dataclass(frozen=True, kw_only=True)
class AlertResolved(Event):
    """What an alert complained of is over."""

    alert: int
    endpoint: str


@dataclass(frozen=True, kw_only=True)
class RolloutEnded(Event):
    """A rollout reached a final state."""

    rollout: int
    endpoint: str
    candidate: int
    state: str


@dataclass(frozen=True, kw_only=True)
class RetrainingEnded(Event):
    """A retraining run reached a final state."""

    run: str
    endpoint: str
    outcome: str


Handler = Callable[[Any], None]


class Bus:
    """Delivers each event to the handlers subscribed to its class, in the publisher's thread.

    >>> bus = Bus()
    >>> seen = []
    >>> bus.subscribe(RouteChanged, seen.append)
    >>> bus.publish(RouteChanged(tenant="default", at_ns=0, endpoint="e", route=2))
    >>> seen[0].route
    2
    """

    def __init__(self) -> None:
        self._handlers: dict[type[Event], list[Handler]] = defaultdict(list)

    def subscribe(self, kind: type[Event], handler: Handler) -> None:
        self._handlers[kind].append(handler)

    def publish(self, event: Event) -> None:
        for handler in self._handlers[type(event)]:
            try:
                handler(event)
            except Exception:
                log.exception("a handler of %s failed", type(event).__name__)


def all_events() -> tuple[type[Event], ...]:
    """Every kind of event, in the order they are defined here."""
    return tuple(Event.__subclasses__())
