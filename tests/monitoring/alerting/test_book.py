from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from predis.access.audit import Audit
from predis.errors import AlreadyExists, InvalidInput, NotFound, Unavailable
from predis.monitoring.alerting.book import AlertRoute
from predis.monitoring.alerting.secrets import Secrets
from tests.monitoring.alerting.receivers import Receiver
from tests.monitoring.alerting.worlds import SECRET, World, finding
from tests.toys import TENANT

only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@only_sqlite
def test_added_listed_and_removed(world: World, receiver: Receiver) -> None:
    world.route("ops", receiver.url, severity="info", kinds=("drift", "slo_*"), after_s=900.0)
    with pytest.raises(AlreadyExists):
        world.route("ops")
    (row,) = world.desk.book.listed(TENANT)
    assert (row["name"], row["channel"], row["kinds"], row["created_by"]) == (
        "ops",
        "webhook",
        ["drift", "slo_*"],
        "test",
    )
    assert row["config"] == {"url": receiver.url, "secret": "file:hook"}
    assert (row["sent"], row["waiting"], row["failed"], row["error"]) == (0, 0, 0, "")
    assert world.desk.book.listed("elsewhere") == []
    world.desk.book.remove(TENANT, "ops", actor="ada")
    assert world.desk.book.listed(TENANT) == []
    with pytest.raises(NotFound, match="no alert route 'ops'"):
        world.desk.book.remove(TENANT, "ops", actor="ada")
    entries = Audit(world.database, world.clock).entries(TENANT)
    assert [(e["action"], e["actor"], e["target"]) for e in entries] == [
        ("alert_route.remove", "ada", "ops"), ("alert_route.add", "test", "ops"),
    ]  # fmt: skip
    assert SECRET not in str(entries)


@only_sqlite
def test_what_was_to_be_told_goes_with_its_route(world: World) -> None:
    world.route()
    world.look(finding())
    world.desk.book.remove(TENANT, "ops", actor="ada")
    assert world.rows() == []


@only_sqlite
def test_tried(world: World, receiver: Receiver) -> None:
    world.route(url=receiver.url)
    assert world.desk.book.test(TENANT, "ops", actor="ada") == {"route": "ops", "sent": True, "error": ""}
    assert receiver.requests[0].json["event"] == "test"
    receiver.answer = lambda _request: 503
    assert world.desk.book.test(TENANT, "ops", actor="ada")["error"].startswith("status 503")
    assert world.rows() == []
    with pytest.raises(NotFound):
        world.desk.book.test("elsewhere", "ops", actor="ada")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "Ops!"}, "a route's name is of a-z"),
        ({"channel": "pigeon"}, "channel is webhook, email"),
        ({"severity": "bad"}, "a severity is info"),
        ({"after_s": float("nan")}, "after_s is 0 to"),
        ({"after_s": -1.0}, "after_s is 0 to"),
        ({"per_hour": 0}, "per_hour is 1 to"),
    ],
)
def test_what_cannot_be_a_route(changes: dict[str, Any], told: str) -> None:
    given = {
        "name": "ops",
        "channel": "webhook",
        "config": {"url": "http://h/", "secret": "file:s"},
        **changes,
    }
    with pytest.raises(InvalidInput, match=told):
        AlertRoute(**given).check()


class TestSecrets:
    def test_of_the_default_tenant(self, tmp_path: Path) -> None:
        (tmp_path / "hook").write_text(" s3cret\n")
        secrets = Secrets(tmp_path, environ={"PREDIS_ALERT_HOOK": "other"})
        assert secrets.read("file:hook", tenant="default") == "s3cret"
        assert secrets.read("env:PREDIS_ALERT_HOOK", tenant="default") == "other"

    def test_other_tenants_reach_their_own_folder_only(self, tmp_path: Path) -> None:
        (tmp_path / "hook").write_text("of default")
        (tmp_path / "acme").mkdir()
        (tmp_path / "acme" / "mine").write_text("of acme")
        secrets = Secrets(tmp_path, environ={"PREDIS_ALERT_HOOK": "of default"})
        assert secrets.read("file:mine", tenant="acme") == "of acme"
        for reference in ("file:hook", "env:PREDIS_ALERT_HOOK"):
            with pytest.raises(Unavailable, match="a secret is missing"):
                secrets.read(reference, tenant="acme")

    def test_what_is_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "empty").write_text("\n")
        (tmp_path / "folder").mkdir()
        for reference in ("env:PREDIS_ALERT_NO", "file:no", "file:empty", "file:folder"):
            with pytest.raises(Unavailable, match="put it into"):
                Secrets(tmp_path, environ={}).read(reference, tenant="default")
