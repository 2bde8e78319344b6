"""Incidents reach the backends of exporters, whatever is down meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from predis.clock import ManualClock
from predis.monitoring.alerting.desk import Desk
from predis.monitoring.exporters.exporting import exporters_of
from predis.monitoring.exporters.telling import CHANNEL, Telling
from predis.settings import Settings
from predis.state import Database
from tests.monitoring.alerting.worlds import World, finding
from tests.monitoring.exporters.given import Receiver
from tests.toys import TENANT

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)

KEYS = {"DD_API_KEY": "k", "NEW_RELIC_LICENSE_KEY": "k"}
Told = Callable[[Receiver], list[str]]


def of_datadog(receiver: Receiver) -> list[str]:
    return [json.loads(body)["alert_type"] for body in receiver.bodies("/api/v1/events")]


def of_collector(receiver: Receiver) -> list[str]:
    requests = map(ExportLogsServiceRequest.FromString, receiver.bodies("/v1/logs"))
    return [r.resource_logs[0].scope_logs[0].log_records[0].severity_text for r in requests]


class Exported(World):
    """A world whose settings name an exporter."""

    def __init__(
        self, database: Database, folder: Path, clock: ManualClock, *, exporter: str, url: str
    ) -> None:
        super().__init__(database, folder, clock)
        named = {"datadog_url": url, "newrelic_url": url, "otel_endpoint": url}
        self.settings = Settings(exporters=exporter, **named)
        self.restart()

    def restart(self) -> None:
        super().restart()
        if not hasattr(self, "settings"):
            return  # the world's own beginning
        telling = Telling(exporters_of(self.settings, environ=KEYS, for_notices=True))
        self.desk = Desk(
            self.database,
            self.folder,
            clock=self.clock,
            declared={"exporters": telling.routes},
            channels={CHANNEL: telling.channel},
        )
        self.desk.look()


@pytest.mark.parametrize(
    ("exporter", "told", "wanted"),
    [
        ("datadog", of_datadog, ["error", "success"]),
        ("newrelic", of_collector, ["CRITICAL", "RESOLVED"]),
        ("otlp", of_collector, ["CRITICAL", "RESOLVED"]),
    ],
)
def test_a_backend_that_was_down_misses_nothing(
    database: Database,
    tmp_path: Path,
    clock: ManualClock,
    *,
    receiver: Receiver,
    exporter: str,
    told: Told,
    wanted: list[str],
) -> None:
    receiver.replies = [(503, b"later")] * 4
    world = Exported(database, tmp_path / "secrets", clock, exporter=exporter, url=receiver.url)
    world.look(finding())
    world.pump()
    world.resolve()
    world.pump()
    assert [row["state"] for row in world.rows()] == ["waiting", "waiting"]
    world.restart()  # nothing hangs on what a process remembers
    while receiver.replies:
        clock.advance(700)
        world.pump()
    for _ in wanted:
        clock.advance(700)
        world.pump()
    assert told(receiver)[-2:] == wanted
    assert {row["state"] for row in world.rows()} == {"sent"}
    assert [row["route"] for row in world.rows()] == [f"exporter:{exporter}"] * 2


def test_datadog_is_told_once_of_each_tenants_incident_with_where_to_look(
    database: Database, tmp_path: Path, clock: ManualClock, *, receiver: Receiver
) -> None:
    world = Exported(database, tmp_path / "secrets", clock, exporter="datadog", url=receiver.url)
    world.look(finding())
    world.look(finding(tenant="other"), tenant="other")
    world.pump()
    world.pump()
    events = [json.loads(body) for body in receiver.bodies("/api/v1/events")]
    assert sorted(tag for event in events for tag in event["tags"] if tag.startswith("tenant:")) == [
        f"tenant:{TENANT}",
        "tenant:other",
    ]
    assert len({event["aggregation_key"] for event in events}) == 2
    assert "Look with: predis monitor" in events[0]["text"]


def test_a_route_of_an_exporter_goes_with_the_setting(
    database: Database, tmp_path: Path, clock: ManualClock, *, receiver: Receiver
) -> None:
    world = Exported(database, tmp_path / "secrets", clock, exporter="datadog", url=receiver.url)
    (route,) = world.desk.book.listed(TENANT)
    assert (route["name"], route["origin"]) == ("exporter:datadog", "exporters")
    assert world.desk.book.listed("other")[0]["name"] == "exporter:datadog"
    assert world.desk.book.test(TENANT, "exporter:datadog", actor="ada") == {
        "route": "exporter:datadog",
        "sent": True,
        "error": "",
    }
    world.settings = Settings(exporters="statsd")  # which takes no notices
    world.restart()
    assert world.desk.book.listed(TENANT) == []


def test_what_the_backend_will_never_take_is_given_up(
    database: Database, tmp_path: Path, clock: ManualClock, *, receiver: Receiver
) -> None:
    receiver.replies = [(403, b"wrong key"), (400, b"no event")]
    world = Exported(database, tmp_path / "secrets", clock, exporter="datadog", url=receiver.url)
    world.look(finding())
    world.pump()
    assert "answered 403" in world.rows()[0]["error"]
    clock.advance(700)
    world.pump()
    (row,) = world.rows()
    assert row["state"] == "failed"
    assert "answered 400" in row["error"]
