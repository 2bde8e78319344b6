"""``predis score`` on an installation without a server."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from predis import settings as predis_settings
from predis.app.home import prepare
from predis.cli import main
from predis.clock import ManualClock
from predis.serving.scoring import batch
from predis.state import Database
from tests.serving.scoring.toy import check, table, write
from tests.toys import ENDPOINT, Installation, installed

runner = CliRunner()


@pytest.fixture
def installation(home: Path, clock: ManualClock) -> Iterator[Installation]:
    """Version 1 answers, by ``x``; version 2 is registered, by ``z``."""
    settings = predis_settings.load({"home": home}, environ={})
    prepare(settings)
    database = Database(settings.database_url)
    try:
        with installed(database, home, clock) as found:
            found.register("x")
            found.register("z", alias="next", data=False)
            found.create_endpoint()
            found.deploy(1)
            yield found
    finally:
        database.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.parquet", table(1_000))


def score(installation: Installation, source: Path, *options: str, endpoint: str = ENDPOINT) -> Result:
    target = str(source.with_name("out.parquet"))
    home = str(installation.settings.home)
    return runner.invoke(
        main, ["score", endpoint, str(source), target, "--home", home, "--workers", "1", *options]
    )


def test_the_version_that_the_endpoint_serves_scores(installation: Installation, source: Path) -> None:
    shown = score(installation, source, "--keep", "id")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("1,000 rows scored by toy-model@1 (to which toy-endpoint gives 100%) in ")
    check(source.with_name("out.parquet"), table(1_000))
    again = score(installation, source, "--keep", "id")
    assert "out.parquet is there already" in again.stdout
    assert (again.exit_code, again.stderr) == (0, "")


@pytest.mark.parametrize("version", ["2", "next", "latest"])
def test_another_version_by_number_or_alias(installation: Installation, source: Path, version: str) -> None:
    shown = score(installation, source, "--version", version, "--json")
    found = json.loads(shown.stdout)
    assert (found["endpoint"], found["model"], found["version"]) == (ENDPOINT, "toy-model", 2)
    assert (found["rows"], found["scored_before"], found["files"]) == (1_000, 0, 1)
    assert found["out"] == str(source.with_name("out.parquet"))
    refused = score(installation, source)
    assert refused.exit_code == 1
    assert "was made with toy-model@2, and this is toy-model@1" in refused.stderr
    assert score(installation, source, "--fresh").exit_code == 0


@pytest.mark.parametrize("keep", [["--keep", "*"], ["--columns", "id, x,z", "--keep", "kind"]])
def test_columns_to_keep(installation: Installation, source: Path, keep: list[str]) -> None:
    import pyarrow.parquet as pq

    assert score(installation, source, *keep).exit_code == 0
    found = pq.read_table(source.with_name("out.parquet"))
    assert found.drop_columns("probability").equals(table(1_000))


def test_an_interrupted_run_says_how_to_go_on_and_does(
    installation: Installation, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from predis.serving.scoring import scorer

    monkeypatch.setattr(scorer, "_BATCH_ROWS", 100)
    monkeypatch.setattr(scorer, "_PART_ROWS", 100)
    run = batch._run

    def interrupted(*given: object, **more: object) -> Iterator[int]:
        found = run(*given, **more)  # type: ignore[arg-type]
        yield next(found)
        yield next(found)
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "_run", interrupted)
    stopped = score(installation, source, "--keep", "id")
    assert (stopped.exit_code, stopped.stderr.strip()) == (
        130,
        "stopped; give the same command again to go on",
    )
    monkeypatch.setattr(batch, "_run", run)
    shown = score(installation, source, "--keep", "id")
    assert shown.stderr == "going on: 200 of 1,000 rows were scored before\n"
    check(source.with_name("out.parquet"), table(1_000))


def test_an_endpoint_that_serves_nothing_needs_a_version(installation: Installation, source: Path) -> None:
    installation.create_endpoint("new")
    refused = score(installation, source, endpoint="new")
    assert "endpoint 'new' serves no version yet; deploy one, or choose one with --version" in refused.stderr
    assert score(installation, source, "--version", "1", endpoint="new").exit_code == 0


def test_what_is_not_there_is_told(installation: Installation, source: Path, tmp_path: Path) -> None:
    assert "[endpoint_not_found]" in score(installation, source, endpoint="nowhere").stderr
    assert "[alias_not_found]" in score(installation, source, "--version", "champ").stderr
    assert "[not_found]" in score(installation, tmp_path / "none.parquet").stderr
    nowhere = runner.invoke(
        main, ["score", "e", "in.parquet", "out.parquet", "--home", str(tmp_path / "nowhere")]
    )
    assert nowhere.stderr.startswith(f"predis: there is no installation in {tmp_path / 'nowhere'}")
    assert "nowhere" not in os.listdir(tmp_path)
