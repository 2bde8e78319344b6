from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from predis.access import Audit
from predis.cache.sources.declarations import Declarations
from predis.cache.sources.desk import SourceDesk
from predis.cache.store import WriteStore
from predis.clock import ManualClock
from predis.errors import AccessDenied, AlreadyExists, Conflict, InvalidInput, InvalidSetting, SourceNotFound
from predis.metrics import Metrics
from predis.state.engine import Database
from tests.cache.sources import slow

SQL = {"pattern": "user:{id:int}", "kind": "sql", "statement": "SELECT id, name FROM users WHERE id IN :id"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "predis.toml"
    file.write_text(
        f'[cache.sources.carts]\npattern = "cart:{{id}}"\nkind = "sql"\nurl = "sqlite:///{tmp_path}/users.sqlite"\n'
        'statement = "SELECT name FROM users WHERE id = :id"\nencoding = "text"\n'
    )
    return file


@pytest.fixture
def desk(database: Database, clock: ManualClock, config: Path) -> SourceDesk:
    return SourceDesk(
        database, Declarations(database, clock, config=config), clock=clock, metrics=Metrics(None, "control")
    )


def test_declared_shown_tried_and_removed(
    desk: SourceDesk, database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    slow.table(f"sqlite:///{tmp_path}/users.sqlite", 9).dispose()
    document = {**SQL, "url": f"sqlite:///{tmp_path}/users.sqlite"}
    assert (
        desk.add("default", "users", document=document, actor="ann", replace=False)["pattern"]
        == "user:{id:int}"
    )
    assert [(one["name"], one["declared_in"]) for one in desk.listed("default")] == [
        ("carts", "predis.toml"),
        ("users", "API"),
    ]
    assert desk.listed("acme") == []
    tried = desk.test("default", "user:7")
    assert (tried["source"], tried["arguments"], tried["value"]) == (
        "users",
        {"id": 7},
        '{"id":7,"name":"user 7"}',
    )
    assert "WHERE id IN :id" in tried["asked"]
    assert desk.test("default", "user:77")["value"] is None
    assert desk.test("default", "cart:3")["value"] == "user 3"
    assert desk.shown("default", "users")["troubled"] == []
    desk.measure()
    with pytest.raises(AlreadyExists):
        desk.add("default", "users", document=document, actor="ann", replace=False)
    desk.remove("default", "users", actor="ann")
    with pytest.raises(SourceNotFound):
        desk.shown("default", "users")
    assert [entry["action"] for entry in Audit(database, clock).entries("default")] == [
        "source.remove",
        "source.add",
    ]


def test_writes_that_wait_are_not_forgotten(
    desk: SourceDesk, database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    document = {**SQL, "url": f"sqlite:///{tmp_path}/users.sqlite"}
    behind = {**document, "writes": "behind", "delete": "DELETE FROM users WHERE id = :id"}
    desk.add("default", "users", document=behind, actor="ann", replace=False)
    row = {"tenant": "default", "source": "users", "kind": "set", "attempts": 0, "due_at": 0, "created_at": 1}
    row |= {"key": b"user:1", "value": b"x", "error": "", "set_aside": False}
    store = WriteStore(database)
    store.add([row, {**row, "source": "other"}, {**row, "set_aside": True}])
    with pytest.raises(
        Conflict, match=r"2 writes wait for source 'users'.* not reach it with writes = 'none'"
    ):
        desk.add("default", "users", document=document, actor="ann", replace=True)
    with pytest.raises(Conflict, match="2 writes wait for source 'users'; let it take them first"):
        desk.remove("default", "users", actor="ann")
    desk.add("default", "users", document={**behind, "ttl_s": 7}, actor="ann", replace=True)
    assert desk.listed("default")[-1]["queued"] == 1
    desk.remove("default", "users", actor="ann", discard=True)
    assert [queue["source"] for queue in store.depths()] == ["other"]
    assert Audit(database, clock).entries("default")[0]["detail"] == {"discarded": 2}


def test_what_goes_wrong_is_told(desk: SourceDesk) -> None:
    assert (
        "unable to open" in desk.test("default", "cart:3")["error"]
        or "no such table" in desk.test("default", "cart:3")["error"]
    )
    with pytest.raises(InvalidInput, match="no source has keys"):
        desk.test("default", "other:1")
    with pytest.raises(Conflict):
        desk.remove("default", "carts", actor="ann")
    with pytest.raises(Conflict):
        desk.add("default", "carts", document={**SQL, "url": "sqlite:///x"}, actor="ann", replace=True)
    with pytest.raises(InvalidInput, match="PREDIS_SOURCE_"):
        desk.add("default", "users", document={**SQL, "url_env": "HOME"}, actor="ann", replace=False)
    with pytest.raises(AccessDenied, match="allow_code"):
        code = {"pattern": "x:{id}", "kind": "python", "function": "os:listdir"}
        desk.add("default", "code", document=code, actor="ann", replace=False)
    with pytest.raises(InvalidInput, match="cannot be used"):
        desk.add("default", "users", document={**SQL, "url": "nothing://x"}, actor="ann", replace=False)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda batch: exec("raise SystemExit(3)"), "SystemExit(3)"),
        (lambda batch: [KeyError("name")], "KeyError: 'name'"),
        (None, "no answer within 0.02 s"),
    ],
)
def test_code_that_ends_threads_or_hangs_is_told_too(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, answer: Any, said: str
) -> None:
    monkeypatch.setattr("predis.cache.sources.desk._CONNECTING_S", 0.01)
    function = slow.Function(answer or slow.well)
    monkeypatch.setattr(slow, "USERS", function)
    if answer is None:
        function.hold()
    slow.declare(
        database, "users", pattern="user:{id}", kind="python", function="tests.cache.sources.slow:users",
        timeout_s=0.01 if answer is None else 60.0,
    )  # fmt: skip
    desk = SourceDesk(database, Declarations(database, clock, allow_code=True), clock=clock)
    assert said in desk.test("default", "user:1")["error"]
    function.open.set()


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "text",
    ["[cache]\nx = 1\n", "[cache.sources]\nx = 1\n", "[cache.sources.x]\nkind = 'sql'\n", "cache = 1\n"],
)
def test_a_file_that_declares_what_is_no_source(
    database: Database, clock: ManualClock, tmp_path: Path, text: str
) -> None:
    (tmp_path / "predis.toml").write_text(text)
    with pytest.raises(InvalidSetting, match="cache"):
        Declarations(database, clock, config=tmp_path / "predis.toml").all()
