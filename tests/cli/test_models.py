from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from predis import Client
from predis.cli import main, models
from predis.registry.model import FORMATS

METRICS: dict[str, float] = {}


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any]]:
    """What the server was asked to store and to register."""
    asked: list[tuple[str, str, Any]] = []

    def api(_client: Client, method: str, path: str, *, body: Any = None, **_more: Any) -> Any:
        asked.append((method, path, body))
        return {"version": 1, "digest": "0" * 64, "metrics": METRICS}

    monkeypatch.setattr(Client, "_api", api)
    monkeypatch.setattr(Client, "upload", lambda _client, path: f"digest of {path.name}")
    return asked


def test_the_formats_are_the_registrys() -> None:
    assert set(models.FORMATS) == FORMATS.keys()
    assert set(models.SUFFIXES.values()) == FORMATS.keys()


@pytest.mark.parametrize(("suffix", "kind"), models.SUFFIXES.items())
def test_the_ending_tells_the_format(registered: list[Any], tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"")
    assert CliRunner().invoke(main, ["model", "register", "m", str(path)]).exit_code == 0
    ((_method, _path, body),) = registered
    assert (body["format"], body["files"]) == (kind, {f"model{suffix}": f"digest of model{suffix}"})


def test_a_folder_is_all_its_files(registered: list[Any], tmp_path: Path) -> None:
    for name in (
        "model.py",
        "lib/words.py",
        "lib/__pycache__/words.pyc",
        ".git/HEAD",
        "data/.hidden",
        "data/a b.txt",
    ):
        path = tmp_path / "churn" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    assert CliRunner().invoke(main, ["model", "register", "m", str(tmp_path / "churn")]).exit_code == 0
    ((_method, _path, body),) = registered
    assert body["format"] == "python"
    assert list(body["files"]) == ["data/a b.txt", "lib/words.py", "model.py"]


def test_an_ending_that_tells_nothing(registered: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"")
    shown = CliRunner().invoke(main, ["model", "register", "m", str(path)])
    assert shown.exit_code != 0
    assert "say --format" in shown.output + shown.stderr
    assert registered == []
