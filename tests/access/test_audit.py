from __future__ import annotations

import pytest

from predis.access.audit import Audit
from predis.clock import ManualClock
from predis.state.engine import Database


@pytest.fixture
def audit(database: Database, clock: ManualClock) -> Audit:
    return Audit(database, clock)


def note(audit: Audit, database: Database, action: str, *, tenant: str = "default") -> None:
    with database.write() as connection:
        audit.add(connection, tenant, actor="alice", action=action, target="churn@3", detail={"from": 2})


def test_an_entry_says_who_what_when(audit: Audit, database: Database) -> None:
    note(audit, database, "model.alias")
    (found,) = audit.entries("default")
    assert isinstance(found.pop("id"), int)
    assert found == {
        "tenant": "default",
        "at": "2023-11-14T22:13:20Z",
        "actor": "alice",
        "action": "model.alias",
        "target": "churn@3",
        "detail": {"from": 2},
    }


def test_detail_may_be_left_out(audit: Audit, database: Database) -> None:
    with database.write() as connection:
        audit.add(connection, "default", actor="alice", action="a", target="t")
    assert audit.entries("default")[0]["detail"] == {}


def test_it_is_written_exactly_if_the_deed_is(audit: Audit, database: Database) -> None:
    with pytest.raises(RuntimeError), database.write() as connection:
        audit.add(connection, "default", actor="alice", action="failed", target="t")
        raise RuntimeError
    assert audit.entries("default") == []


def test_newest_first(audit: Audit, database: Database, clock: ManualClock) -> None:
    for action in ("first", "second", "third"):
        note(audit, database, action)
        clock.advance(-5)  # Wall clocks jump back; the order is that of the deeds.
    assert [entry["action"] for entry in audit.entries("default")] == ["third", "second", "first"]
    assert [entry["action"] for entry in audit.entries("default", limit=1)] == ["third"]


def test_tenants_see_their_own(audit: Audit, database: Database) -> None:
    note(audit, database, "theirs", tenant="acme")
    assert audit.entries("default") == []
    assert len(audit.entries("acme")) == 1
