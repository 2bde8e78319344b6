"""Routes that predis.toml declares."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from predis.access.audit import Audit
from predis.errors import AlreadyExists, InvalidInput, InvalidSetting
from predis.monitoring.alerting.book import AlertRoute
from predis.monitoring.alerting.declared import declared_routes
from predis.monitoring.alerting.desk import Desk
from predis.settings import ALERTS, load, section
from tests.monitoring.alerting.receivers import Receiver
from tests.monitoring.alerting.worlds import World, finding
from tests.toys import TENANT

SOURCE = "predis.toml: alerts"
HOOK = """
[alerts.routes.hook]
channel = "webhook"
url = "%s"
secret = "file:hook"
"""
PAGE = """
[alerts.routes.page]
channel = "pagerduty"
routing_key = "env:PREDIS_ALERT_PAGER"
severity = "critical"
kinds = ["slo_*", "endpoint_down"]
endpoint = "churn-*"
after_s = 900
per_hour = 5
tenant = "risk"
"""


def parsed(text: str) -> list[tuple[str, AlertRoute]]:
    return declared_routes(tomllib.loads(text)["alerts"], source=SOURCE)


def start(world: World, text: str) -> None:
    """Control starts with this file."""
    world.restart()
    declared = {"predis.toml": parsed(text) if text else []}
    world.desk = Desk(world.database, world.folder, clock=world.clock, declared=declared)
    world.desk.look()


def test_what_the_file_says() -> None:
    (hook, page) = parsed(HOOK % "https://hooks.example.org" + PAGE)
    assert hook[0] == TENANT
    assert hook[1].config == {"url": "https://hooks.example.org", "secret": "file:hook"}
    assert page == (
        "risk",
        AlertRoute(
            name="page", channel="pagerduty", config={"routing_key": "env:PREDIS_ALERT_PAGER"}, severity="critical",
            kinds=("slo_*", "endpoint_down"), endpoint="churn-*", after_s=900, per_hour=5,
        ),
    )  # fmt: skip


def test_it_stands_beside_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "predis.toml"
    file.write_text("workers = 3\n" + PAGE)
    assert load(environ={}, config=file).workers == 3
    where, found = section(ALERTS, environ={}, config=file)
    assert where == f"{file}: alerts"
    assert [route.name for _tenant, route in declared_routes(found, source=where)] == ["page"]
    file.write_text("")
    assert section(ALERTS, environ={}, config=file)[1] == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[alerts]\nroute = 1", r"alerts holds routes and nothing else, as in \[alerts.routes.NAME\]"),
        ("[alerts.routes]\nops = 1", "alerts.routes.ops must be a table with a channel"),
        ("[alerts.routes.ops]\nurl = 'https://a'", "alerts.routes.ops must be a table with a channel"),
        ("[alerts.routes.ops]\nchannel = 'pigeon'", "alerts.routes.ops: a route's channel is webhook, email"),
        ("[alerts.routes.Ops]\nchannel = 'slack'\nurl = 'file:x'", "a route's name is of a-z"),
        ("[alerts.routes.ops]\nchannel = 'slack'", "needs url"),
        ("[alerts.routes.ops]\nchannel = 'slack'\nurl = 'https://hooks/T0'", "url is a secret: name where it is found"),
        ("[alerts.routes.ops]\nchannel = 'slack'\nurl = 'file:x'\nlevel = 1", "not 'level'"),
        ("[alerts.routes.ops]\nchannel = 'slack'\nurl = 'file:x'\nseverity = 'loud'", "a severity is info, warning"),
        ("[alerts.routes.ops]\nchannel = 'slack'\nurl = 'file:x'\nkinds = 'drift'", "kinds must be a list of texts"),
        ("[alerts.routes.ops]\nchannel = 'slack'\nurl = 'file:x'\nafter_s = '15m'", "after_s must be a number"),
        ("[alerts.routes.ops]\nchannel = 'slack'\nurl = 'file:x'\nafter_s = nan", "after_s is 0 to"),
        ("[alerts.routes.ops]\nchannel = 'slack'\nurl = 'file:x'\nper_hour = true", "per_hour must be a number"),
    ],
)  # fmt: skip
def test_what_cannot_be_declared(text: str, told: str) -> None:
    with pytest.raises(InvalidSetting, match=told) as error:
        parsed(text)
    assert SOURCE in error.value.message
    assert "hooks/T0" not in error.value.message  # it may be the secret itself


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
class TestBook:
    def test_the_book_says_what_the_file_says(self, world: World, receiver: Receiver) -> None:
        start(world, HOOK % receiver.url)
        world.look(finding())
        world.pump()
        assert [request.json["event"] for request in receiver.requests] == ["raised"]
        (route,) = world.desk.book.listed(TENANT)
        assert (route["name"], route["origin"], route["created_by"]) == ("hook", "predis.toml", "predis.toml")
        start(world, HOOK % receiver.url + 'severity = "info"\n')
        assert world.desk.book.listed(TENANT)[0]["severity"] == "info"
        world.pump()
        assert len(receiver.requests) == 1  # it knows of the incident already
        start(world, "")
        assert world.desk.book.listed(TENANT) == []
        assert world.rows() == []
        entries = Audit(world.database, world.clock).entries(TENANT, limit=10)
        assert [entry["action"] for entry in entries if entry["actor"] == "predis.toml"] == [
            "alert_route.remove",
            "alert_route.add",
            "alert_route.add",
        ]

    def test_what_is_unchanged_goes_on(self, world: World) -> None:
        start(world, HOOK % "http://127.0.0.1:9")
        world.look(finding())
        before = world.rows(), world.desk.book.listed(TENANT)
        start(world, HOOK % "http://127.0.0.1:9")
        world.desk.deliverer.finish()
        assert [row["key"] for row in world.rows()] == [row["key"] for row in before[0]]
        assert world.desk.book.listed(TENANT)[0]["created_at"] == before[1][0]["created_at"]

    def test_people_do_not_change_it_and_it_not_theirs(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.route("page", url="http://127.0.0.1:9/mine")
        start(world, HOOK % "http://127.0.0.1:9" + PAGE.replace('tenant = "risk"\n', ""))
        assert "route page of predis.toml is not used" in caplog.text
        listed = {row["name"]: row["origin"] for row in world.desk.book.listed(TENANT)}
        assert listed == {"hook": "predis.toml", "page": ""}
        with pytest.raises(InvalidInput, match=r"is declared by predis\.toml: change"):
            world.desk.book.remove(TENANT, "hook", actor="ada")
        with pytest.raises(AlreadyExists):
            world.route("hook")
        start(world, "")
        assert [row["name"] for row in world.desk.book.listed(TENANT)] == ["page"]
