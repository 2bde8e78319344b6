"""An input that changes its type live never becomes a row: most requests are refused, and the alert says why in serving's words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from predis.clock import ManualClock
from predis.monitoring.alerts import Finding, Severity
from predis.state import Database
from predis.state.records import BlockEncoder, More, Status, reason
from tests.toys import ENDPOINT, TENANT, Installation, installed, table

WHY = "input 'x' must be numbers, got a text"


@pytest.fixture
def toy(database: Database, home: Path, clock: ManualClock) -> Iterator[Installation]:
    with installed(database, home, clock) as found:
        found.register("x")
        found.create_endpoint()
        found.deploy(1)
        yield found


def refuse(toy: Installation, count: int, *, why: str = WHY) -> None:
    encoder = BlockEncoder(TENANT, ENDPOINT, version=1)
    for place in range(count):
        at = toy.clock.time_ns()
        toy.journal.append(
            encoder.refused(
                f"r{place}{why}",
                Status.REJECTED,
                received_at=at,
                event_at=at,
                latency_us=10,
                more=More(extra=reason(why)),
            )
        )
    while toy.platform.ingest.look():
        pass


def broken(toy: Installation) -> list[Finding]:
    found: Any = toy.platform.monitor.findings(TENANT, ENDPOINT)
    return [each for each in found if each.kind == "data_break"]


def test_named_as_what_it_is(toy: Installation) -> None:
    toy.send(table(20), version=1)
    refuse(toy, 80)
    (finding,) = broken(toy)
    assert finding.severity == Severity.CRITICAL
    assert WHY in finding.message
    assert finding.evidence["rejected"] == 80


def test_some_bad_clients_are_no_break(toy: Installation) -> None:
    toy.send(table(80), version=1)
    refuse(toy, 20)
    assert broken(toy) == []


def test_few_requests_prove_nothing(toy: Installation) -> None:
    refuse(toy, 30)
    assert broken(toy) == []


def test_it_passes_with_the_minute(toy: Installation) -> None:
    refuse(toy, 80)
    assert broken(toy)
    toy.clock.advance(120)
    assert broken(toy) == []


def test_without_reasons_it_is_told_all_the_same(toy: Installation) -> None:
    refuse(toy, 80, why="")
    (finding,) = broken(toy)
    assert finding.evidence["reason"] == ""
