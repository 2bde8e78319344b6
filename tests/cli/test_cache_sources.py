"""The cache's sources at the command line, against a control role in this process."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from predis.cache.store import WriteStore
from predis.cli.cache_sources import source
from predis.clock import ManualClock
from predis.state import Database
from tests import toys
from tests.cache.sources import slow
from tests.cli.asking import Run, commands
from tests.toys import Installation

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
STATEMENT = "SELECT id, name FROM users WHERE id IN :id"
UPSERT = "INSERT INTO users (id, name) VALUES (:id, :name)"


@pytest.fixture
def installation(database: Database, home: Path, clock: ManualClock) -> Iterator[Installation]:
    with toys.installed(database, home, clock) as found:
        yield found


@pytest.fixture
def run(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Run:
    return commands(installation, monkeypatch, "cache", "source")


@pytest.fixture
def shop(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/shop.sqlite"
    slow.table(url, 9).dispose()
    return url


def test_added_listed_shown_tried_and_removed(run: Run, shop: str) -> None:
    assert "No sources; declare one" in run("list")
    users = ("--pattern", "user:{id:int}", "--sql", shop, "--statement", STATEMENT)
    assert "source users loads keys like user:{id:int}" in run("add", "users", *users, "--set", "ttl_s=60")
    assert "say replace" in run("add", "users", *users, code=1)
    added = json.loads(run("add", "users", *users, "--set", "ttl_s=7", "--replace", "--json"))
    assert (added["name"], added["ttl_s"]) == ("users", 7.0)
    assert re.search(r"users +user:\{id:int\} +sql +7", run("list"))
    (listed,) = json.loads(run("list", "--json"))
    assert (listed["name"], listed["declared_in"], listed["queued"]) == ("users", "API", 0)
    assert re.search(r"statement +SELECT id, name", run("show", "users"))
    assert json.loads(run("show", "users", "--json"))["ttl_s"] == 7.0
    tried = run("test", "user:7")
    assert "source     users, keys like user:{id:int}" in tried
    assert '{"id":7,"name":"user 7"}' in tried
    assert "value      none" in run("test", "user:77")
    assert json.loads(run("test", "user:7", "--json"))["value"] == '{"id":7,"name":"user 7"}'
    assert "source users is gone" in run("remove", "users")
    assert "there is no source 'users'" in run("remove", "users", code=1)
    assert "there is no source 'users'" in run("show", "users", code=1)
    assert "no source has keys like" in run("test", "user:7", code=1)


def test_what_a_source_has_not_taken(run: Run, shop: str, database: Database) -> None:
    writes = ("--set", "writes=behind", "--set", f"upsert={UPSERT}")
    run("add", "users", "--pattern", "user:{id:int}", "--sql", shop, "--statement", STATEMENT, *writes)
    row = {"tenant": "default", "source": "users", "kind": "set", "attempts": 5, "due_at": 0, "created_at": 1}
    store = WriteStore(database)
    store.add([{**row, "key": b"user:1", "value": b"x", "set_aside": True, "error": "it has no 'name'"}])
    assert re.search(r"users .* 1 ", run("list"))
    shown = run("show", "users")
    assert "Writes that it has not taken" in shown
    assert "it has no 'name'" in shown
    assert "1 writes are tried again" in run("retry", "users")
    assert [one["set_aside"] for one in store.next("default", "users", limit=9)] == [False]
    assert "1 writes wait for source 'users'" in run("remove", "users", code=1)
    assert "source users is gone" in run("remove", "users", "--discard")
    assert store.depths() == []


def test_a_source_that_fails_when_tried(run: Run) -> None:
    run(
        "add",
        "rates",
        "--pattern",
        "rate:{of}",
        "--http",
        "http://127.0.0.1:1/{of}",
        "--set",
        "path=data.rate",
    )
    assert "ConnectionRefusedError" in run("test", "rate:eur", code=1)
    assert json.loads(run("test", "rate:eur", "--json", code=1))["error"]


def test_from_a_file_and_from_the_environment(
    run: Run, shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREDIS_SOURCE_SHOP", shop)
    file = tmp_path / "users.toml"
    file.write_text(f'pattern = "user:{{id:int}}"\nstatement = "{STATEMENT}"\nttl_s = 9\n')
    run("add", "users", "--from", str(file), "--sql", "env:PREDIS_SOURCE_SHOP")
    assert "user 3" in run("test", "user:3")
    assert json.loads(run("show", "users", "--json"))["url"] == ""


def test_fields(run: Run) -> None:
    assert re.search(r"ttl_s +300.0 +How long a value is fresh", run("add", "--fields"))
    assert "batch_url" in [one["field"] for one in json.loads(run("add", "--fields", "--json"))]


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        ((), "Missing argument 'NAME'", 2),
        (("x", "--sql", "a", "--http", "b"), "not of sql and http", 1),
        (("x", "--set", "ttl_s"), "--set is like ttl_s=60", 1),
        (("x", "--set", "ttl_s=long"), "ttl_s must be a number", 1),
        (("x", "--set", "colour=red"), "no 'colour'", 1),
        (("x", "--pattern", "a:{b}", "--python", "os:listdir"), "allow_code", 1),
        (("x", "--from", "FILE"), "no TOML", 1),
    ],
)
def test_bad_input(run: Run, tmp_path: Path, words: tuple[str, ...], said: str, code: int) -> None:
    (tmp_path / "bad.toml").write_text("this is [ no")
    words = tuple(str(tmp_path / "bad.toml") if word == "FILE" else word for word in words)
    assert said in run("add", *words, code=code)


def test_every_verb_has_examples(run: Run) -> None:
    assert "predis cache source add users" in run("--help")
    for verb in source.commands:
        assert f"predis cache source {verb}" in run(verb, "--help")
