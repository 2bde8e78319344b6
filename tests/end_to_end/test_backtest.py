"""A backtest as a person runs it: against a real installation, by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from predis.supervisor import environment
from tests import toys
from tests.installation import Installation, running, settings_of

pytestmark = pytest.mark.slow

ROWS = 200


def predis(installed: Installation, *arguments: str) -> subprocess.CompletedProcess[str]:
    where = {"PREDIS_CONTROL": installed.control, "PREDIS_SERVING": installed.serving}
    return subprocess.run(
        [sys.executable, "-m", "predis", "rollout", "backtest", toys.ENDPOINT, *arguments],
        env={**os.environ, **environment(installed.settings), **where},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def ask(installed: Installation, seed: int) -> None:
    """One request of many rows, and their labels."""
    found = toys.table(ROWS, seed=seed)
    rows: list[dict[str, Any]] = found.drop_columns([toys.LABEL]).to_pylist()
    rows[0] |= {"kind": "never met", "x": None}
    answer = installed.client.predict(toys.ENDPOINT, rows)
    labels = found.column(toys.LABEL).to_pylist()
    installed.client.feedback(
        toys.ENDPOINT, [{"id": answer.id, "row": row, "label": label} for row, label in enumerate(labels)]
    )


def register(installed: Installation, folder: Path, column: str) -> int:
    file = folder / f"{column}.txt"
    file.write_bytes(toys.booster(column))
    found = installed.client.register(toys.MODEL, file, format="lightgbm", signature=toys.SIGNATURE.to_dict())
    return int(found["version"])


def test_a_candidate_is_tried_on_what_was_really_asked(home: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    with running(settings_of(home)) as installed:
        installed.deploy_toy(tmp_path)
        for seed in range(10):
            ask(installed, seed)
        same, worse = register(installed, tmp_path, "x"), register(installed, tmp_path, "z")

        shown = predis(installed, "--candidate", str(same), "--json")
        assert shown.returncode == 0, shown.stderr
        report = json.loads(shown.stdout)["report"]
        assert report["conclusion"]["outcome"] == "pass"
        assert report["window"]["rows"] == report["quality"]["labels"] == 10 * ROWS
        assert report["fidelity"]["same"] == report["fidelity"]["rows"]
        assert report["flips"]["flips"] == 0
        assert all(each["ratio"] > 0 for each in report["speed"])

        shown = predis(installed, "--candidate", str(worse), "--since", "1h", "--html", str(page))
        assert shown.returncode == 1, shown.stderr
        assert shown.stdout.startswith(f"version {worse} on {toys.ENDPOINT}: would likely fail on AUC")
        assert "<svg" in page.read_text("utf-8")
        again = predis(installed, "--last")
        assert (again.returncode, again.stdout) == (1, shown.stdout)

        refused = predis(installed, "--candidate", "99")
        assert refused.returncode == 2
        assert "[version_not_found]" in refused.stderr
        assert installed.counted()["traffic"]["failed"] == 0
        assert not installed.restarts
