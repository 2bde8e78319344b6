from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from predis import Client
from predis.cli import main
from predis.cli.move import named
from predis.errors import InvalidInput


def test_names_of_versions() -> None:
    assert named("churn@7") == ("churn", "7")
    assert named("churn@champion") == ("churn", "champion")
    assert named("churn") == ("churn", "latest")
    for wrong in ("", "@7", "churn@"):
        with pytest.raises(InvalidInput, match="names no version"):
            named(wrong)


def test_export(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def export(_client: Client, model: str, version: str, *, to: Path) -> int:
        asked.append((model, version, to))
        return 42

    monkeypatch.setattr(Client, "export_version", export)
    shown = CliRunner().invoke(main, ["model", "export", "churn@7", str(tmp_path / "a.predis")])
    assert shown.exit_code == 0, shown.output
    assert "42 bytes" in shown.output
    assert asked == [("churn", "7", tmp_path / "a.predis")]


@pytest.mark.parametrize(("is_new", "told"), [(True, "imported"), (False, "was here already")])
def test_import(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_new: bool, told: str) -> None:
    asked: list[Any] = []

    def import_version(_client: Client, archive: Path, **wanted: Any) -> Any:
        asked.append((archive.name, wanted))
        return {"model": "other", "version": 3, "digest": "ab" * 32, "is_new": is_new}

    monkeypatch.setattr(Client, "import_version", import_version)
    (tmp_path / "a.predis").write_bytes(b"x")
    shown = CliRunner().invoke(
        main, ["model", "import", str(tmp_path / "a.predis"), "--name", "other", "--alias", "new", "--trust"]
    )
    assert shown.exit_code == 0, shown.output
    assert f"other@3 {told}" in shown.output
    assert asked == [("a.predis", {"name": "other", "alias": "new", "trust": True, "source": "a.predis"})]
