"""Flights: who leads, who waits."""

from __future__ import annotations

from predis.serving.cache.flights import Flights


def test_the_first_leads_and_the_others_wait_in_order() -> None:
    flights: Flights[str] = Flights()
    assert flights.join(b"x", "1")
    assert not flights.join(b"x", "2")
    assert not flights.join(b"x", "3")
    assert flights.join(b"y", "4")
    assert list(flights.land(b"x")) == ["2", "3"]
    assert flights.join(b"x", "5")


def test_landing_alone() -> None:
    flights: Flights[str] = Flights()
    flights.join(b"x", "1")
    assert list(flights.land(b"x")) == []
    assert list(flights.land(b"x")) == []
    assert len(flights) == 0


def test_handing_over_until_nobody_is_left() -> None:
    flights: Flights[str] = Flights()
    for call in ("1", "2", "3"):
        flights.join(b"x", call)
    assert flights.hand_over(b"x") == "2"
    assert not flights.join(b"x", "4")
    assert flights.hand_over(b"x") == "3"
    assert flights.hand_over(b"x") == "4"
    assert flights.hand_over(b"x") is None
    assert len(flights) == 0
    assert flights.hand_over(b"x") is None
