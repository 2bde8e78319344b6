from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from predis.cli import main


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREDIS_CONFIG", raising=False)


def promote(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["promote", "churn@7", *arguments])


def test_an_environment_that_nobody_named() -> None:
    shown = promote("--to", "prod")
    assert shown.exit_code == 1
    assert "it names none; add [environments.prod]" in shown.stderr
    Path("predis.toml").write_text('[environments.staging]\ncontrol = "http://127.0.0.1:1"\n')
    assert "it names staging" in promote("--to", "prod").stderr


def test_a_key_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("predis.toml").write_text(
        '[environments.staging]\ncontrol = "http://127.0.0.1:1"\nkey_env = "STAGING_KEY"\n'
    )
    monkeypatch.delenv("STAGING_KEY", raising=False)
    shown = promote("--to", "staging")
    assert shown.exit_code == 1
    assert "STAGING_KEY is to hold its API key" in shown.stderr
