from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from predis.cache.insight import Insight
from predis.cli import cache_stats, main
from predis.cli.cache_stats import shown_key, size
from tests.cache.told import tell


class Server:
    """Answers as control would."""

    def __init__(self, home: Path) -> None:
        self._insight = Insight(home / "cache", home / "metrics")

    def cache_insight(self) -> dict[str, Any]:
        return self._insight.shown()

    def cache_what_if(self, memory: str, policy: str) -> dict[str, Any]:
        return self._insight.what_if(memory, policy)


@pytest.fixture(autouse=True)
def _server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_stats, "client", lambda *_urls, key: Server(tmp_path))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["cache", *arguments], env={"COLUMNS": "200"})


def test_stats(tmp_path: Path) -> None:
    assert "The learner has told nothing yet" in run("stats").output
    tell(tmp_path)
    said = run("stats").output
    assert "91.0% of 100,000 reads were hits." in said
    assert "1 gateway worker tells the learner; all reads are looked at" in said
    assert "Largest values" in said
    assert json.loads(run("stats", "--json").output)["valkey"]["keys"] == 400


def test_hot_keys(tmp_path: Path) -> None:
    assert "The learner has told nothing yet" in run("hot-keys").output
    tell(tmp_path)
    said = run("hot-keys", "--limit", "3").output
    assert "user:0" in said
    assert said.count(":") == 3
    assert len(json.loads(run("hot-keys", "--json").output)) == 20


def test_what_if(tmp_path: Path) -> None:
    refused = run("what-if")
    assert (refused.exit_code, "reads were sampled so far" in refused.output) == (1, True)
    tell(tmp_path)
    said = run("what-if", "--memory", "2x", "--policy", "s3fifo").output
    assert said.startswith("With twice the memory and S3-FIFO, ")
    assert "█" in said
    assert json.loads(run("what-if", "--json").output)["scale"] == 2.0


def test_keys_and_sizes_as_people_read_them() -> None:
    assert shown_key("a\x1b[31m\n") == "a\\x1b[31m\\x0a"
    assert len(shown_key("k" * 500)) == 80
    assert [size(count) for count in (0, 999, 1_500, 2.5e6, 7e12)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.5 MB",
        "7e+03 GB",
    ]
