"""Trust and upkeep at the command line, against a control role in this process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from predis.cli.provenance import git_revision, parameters_of
from predis.cli.upkeep import seconds_of
from predis.clock import ManualClock
from predis.errors import InvalidInput
from predis.state import Database
from tests import toys
from tests.cli.asking import Run, commands

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def run(
    database: Database, home: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Run]:
    """Of an empty folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.txt").write_bytes(toys.booster())
    (tmp_path / "other.txt").write_bytes(toys.booster("z"))
    with toys.installed(database, home, clock) as installation:
        yield commands(installation, monkeypatch, "model")


def test_from_key_to_demand(run: Run, tmp_path: Path) -> None:
    run("key", "new", "ann.key")
    assert (tmp_path / "ann.key").stat().st_mode & 0o777 == 0o600
    run("key", "new", "ann.key", fails="already_exists")
    assert "Signatures are not required." in run("policy")
    run("register", "churn", "model.txt", "--sign", "ann.key", fails="untrusted")
    run("key", "trust", "Ann", "ann.key.pub")
    assert "Signatures are required." in run("policy", "--require-signatures")
    run("register", "churn", "model.txt", fails="untrusted")
    run("register", "churn", "model.txt", "--sign", "ann.key")
    shown = run("show", "churn")
    assert "Ann (" in shown
    (key,) = json.loads(run("key", "list", "--json"))
    assert key["id"] in shown
    run("key", "revoke", key["id"])
    assert json.loads(run("show", "churn", "--json"))["signed_by"] == []
    assert json.loads(run("policy", "--no-require-signatures", "--json")) == {"require_signatures": False}


def test_signing_what_is_registered(run: Run) -> None:
    run("key", "new", "ann.key")
    run("key", "trust", "Ann", "ann.key.pub")
    run("register", "churn", "model.txt")
    assert "nothing was signed" in run(
        "sign", "churn@1", "--with", "ann.key", "--file", "other.txt", fails="invalid_input"
    )
    run("sign", "churn@1", "--with", "ann.key", "--file", "model.txt")
    assert json.loads(run("show", "churn", "--json"))["signed_by"][0]["name"] == "Ann"


def test_where_a_version_comes_from(run: Run, tmp_path: Path) -> None:
    run("register", "churn", "model.txt", "--no-revision")
    run(
        "register",
        "churn",
        "model.txt",
        "--param",
        "eta=.1",
        "--param",
        "max_depth=6",
        "--revision",
        "4f1c2aa",
        "--parent",
        "1",
    )
    shown = run("show", "churn")
    for words in ("churn@1", "4f1c2aa", "eta=0.1, max_depth=6", "by local"):
        assert words in shown
    run("register", "churn", "model.txt", "--param", "eta", fails="invalid_input")
    run("register", "churn", "model.txt", "--parent", "9", fails="version_not_found")
    assert json.loads(run("show", "churn", "--json"))["lineage"] == {
        "parameters": {"eta": 0.1, "max_depth": 6}, "revision": "4f1c2aa", "parent": 1,
    }  # fmt: skip


def test_the_revision_is_git_s(run: Run, tmp_path: Path) -> None:
    assert git_revision() == ""
    for words in (
        ("init", "-q"),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one", "--allow-empty"),
    ):
        subprocess.run(["git", *words], check=True, cwd=tmp_path)
    commit = git_revision().removesuffix(" (dirty)")
    assert len(commit) == 40
    run("register", "churn", "model.txt")
    assert json.loads(run("show", "churn", "--json"))["lineage"] == {"revision": f"{commit} (dirty)"}


def test_aliases_and_their_history(run: Run) -> None:
    run("register", "churn", "model.txt", "--alias", "champion")
    run("register", "churn", "other.txt")
    run("alias", "churn", "champion", "2")
    assert "champion" in run("aliases", "churn")
    moves = json.loads(run("aliases", "churn", "--history", "--json"))
    assert [(m["from"], m["to"]) for m in moves] == [(1, 2), (None, 1)]
    run("aliases", "churn", "--delete", "champion")
    assert "has no aliases" in run("aliases", "churn")


def test_a_difference(run: Run) -> None:
    toys_table = toys.parquet(toys.table(400, seed=1))
    Path("r.parquet").write_bytes(toys_table)
    data = ("--reference", "r.parquet", "--holdout", "r.parquet", "--label", toys.LABEL)
    run("register", "churn", "model.txt", *data, "--param", "depth=3")
    run("register", "churn", "other.txt", *data, "--param", "depth=4")
    shown = run("diff", "churn", "1", "latest")
    for words in ("auc", "parameters.depth", "file other.txt", "reference of", "score"):
        assert words in shown
    assert json.loads(run("diff", "churn", "1", "2", "--json"))["reference"]["features"]["x"] == {
        "psi": 0.0,
        "exact": True,
    }
    assert "same files" in run("diff", "churn", "1", "1")


def test_garbage(run: Run) -> None:
    for file in ("model.txt", "other.txt", "model.txt"):
        run("register", "churn", file)
    run("delete", "churn", "2")
    run("delete", "churn", "2", fails="version_not_found")
    run("alias", "churn", "stable", "1")
    run("delete", "churn", "1", fails="conflict")
    assert "0 versions, 0 files" in run("gc", "--dry-run")
    assert json.loads(run("gc", "--keep-last", "2", "--json"))["versions"] == []
    run("gc", "--older-than", "5m", fails="invalid_input")


def test_durations_and_parameters(database: Database) -> None:
    assert [seconds_of(text) for text in ("90m", "1.5h", "2d")] == [5_400.0, 5_400.0, 172_800.0]
    for text in ("", "7", "d", "-1d", "1w"):
        with pytest.raises(InvalidInput):
            seconds_of(text)
    assert parameters_of(["a=1", "b=.5", "c=x=y", "d=false", "e=[1]", "f="]) == {
        "a": 1, "b": 0.5, "c": "x=y", "d": False, "e": "[1]", "f": "",
    }  # fmt: skip
    for wrong in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(InvalidInput):
            parameters_of(wrong)
