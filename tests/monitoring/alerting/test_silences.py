from __future__ import annotations

from typing import Any

import pytest

from predis.errors import InvalidInput, NotFound
from predis.monitoring.alerting.silences import Silence, silenced
from tests.monitoring.alerting.worlds import World
from tests.toys import SECOND, TENANT

ALERT = {"endpoint": "churn-eu", "kind": "slo_latency", "severity": "critical", "version": 3}


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ({}, True),
        ({"endpoint": "churn-*"}, True),
        ({"endpoint": "churn"}, False),
        ({"kind": "slo_*"}, True),
        ({"kind": "drift"}, False),
        ({"version": 3}, True),
        ({"version": 4}, False),
        ({"severity": "warning"}, False),
        ({"severity": "critical"}, True),
        ({"starts_at": 11}, False),
        ({"ends_at": 10}, False),
    ],
)
def test_what_a_silence_covers(pattern: dict[str, Any], matches: bool) -> None:
    row = {
        "endpoint": "",
        "kind": "",
        "severity": "",
        "version": None,
        "starts_at": 0,
        "ends_at": 20,
        **pattern,
    }
    assert silenced(ALERT, [row], now=10) is matches


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
class TestSilences:
    def test_listed_until_they_are_over(self, world: World) -> None:
        first, second = world.silence(60), world.silence(3_600, kind="drift")
        listed = world.desk.silences.listed(TENANT)
        assert [(s["id"], s["active"], s["created_by"], s["reason"]) for s in listed] == [
            (second, True, "ada", "test"), (first, True, "ada", "test"),
        ]  # fmt: skip
        world.clock.advance(60)
        assert [s["id"] for s in world.desk.silences.listed(TENANT)] == [second]
        assert [s["id"] for s in world.desk.silences.listed(TENANT, ended=True)] == [second, first]
        with pytest.raises(NotFound, match="no silence 1 to end"):
            world.desk.silences.end(TENANT, first, actor="ada")
        with pytest.raises(NotFound):
            world.desk.silences.end("elsewhere", second, actor="eve")

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"reason": " "}, "says why"),
            ({"severity": "loud"}, "a severity is"),
            ({"ends_at": 0}, "ends after it starts"),
            ({"ends_at": 2**62}, "within 400 days"),
        ],
    )
    def test_what_cannot_be_one(self, world: World, changes: dict[str, Any], told: str) -> None:
        now = world.clock.time_ns()
        given = {"reason": "why", "starts_at": now, "ends_at": now + SECOND, **changes}
        with pytest.raises(InvalidInput, match=told):
            world.desk.silences.add(TENANT, Silence(**given), actor="ada")
