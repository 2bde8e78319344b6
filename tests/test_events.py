from __future__ import annotations

import dataclasses
import logging

import pytest

from predis import events
from predis.events import AlertResolved, Bus, Event, RouteChanged, all_events

CHANGED = RouteChanged(tenant="default", at_ns=1, endpoint="e", route=2)


def test_handlers_are_called_in_the_order_they_subscribed() -> None:
    bus, seen = Bus(), []
    bus.subscribe(RouteChanged, lambda event: seen.append(("first", event)))
    bus.subscribe(RouteChanged, lambda event: seen.append(("second", event)))
    bus.publish(CHANGED)
    assert seen == [("first", CHANGED), ("second", CHANGED)]


def test_a_handler_hears_its_own_kind_only() -> None:
    bus, seen = Bus(), []
    bus.subscribe(AlertResolved, seen.append)
    bus.subscribe(Event, seen.append)
    bus.publish(CHANGED)
    assert seen == []


def test_a_failing_handler_is_logged_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    bus, seen = Bus(), []

    def fail(event: Event) -> None:
        raise RuntimeError("the reason")

    bus.subscribe(RouteChanged, fail)
    bus.subscribe(RouteChanged, seen.append)
    with caplog.at_level(logging.ERROR, "predis.events"):
        bus.publish(CHANGED)
    assert seen == [CHANGED]
    assert "a handler of RouteChanged failed" in caplog.text
    assert "RuntimeError: the reason" in caplog.text


def test_a_handler_may_publish() -> None:
    bus, seen = Bus(), []
    resolved = AlertResolved(tenant="default", at_ns=2, alert=1, endpoint="e")
    bus.subscribe(RouteChanged, lambda event: bus.publish(resolved))
    bus.subscribe(AlertResolved, seen.append)
    bus.publish(CHANGED)
    assert seen == [resolved]


def test_all_events_are_those_of_the_module() -> None:
    defined = [
        k for k in vars(events).values() if isinstance(k, type) and issubclass(k, Event) and k is not Event
    ]
    assert list(all_events()) == defined


@pytest.mark.parametrize("kind", all_events(), ids=lambda kind: kind.__name__)
def test_events_say_whose_and_when_and_cannot_change(kind: type[Event]) -> None:
    assert [field.name for field in dataclasses.fields(kind)][:2] == ["tenant", "at_ns"]
    with pytest.raises(TypeError):
        kind("default", 1)  # keywords only
    with pytest.raises(dataclasses.FrozenInstanceError):
        CHANGED.route = 3  # type: ignore[misc]
