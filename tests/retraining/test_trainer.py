"""The trainer: whatever a train function does, there is an answer. Its process is tested with the train step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from predis.retraining import trainer
from tests import toys

TESTS = Path(__file__).parents[1]


def job(tmp_path: Path, function: str) -> dict[str, Any]:
    table = tmp_path / "train.parquet"
    table.write_bytes(toys.parquet(toys.table(30)))
    (tmp_path / "output").mkdir()
    return {
        "train": f"tests.toy_model:{function}", "label": toys.LABEL, "table": str(table), "output": str(tmp_path / "output"),
        "memory_bytes": 1 << 40,
    }  # fmt: skip


def test_result(tmp_path: Path) -> None:
    result = trainer._run(job(tmp_path, "train_z"))
    assert result == {"format": "lightgbm", "file": "model.txt", "notes": {"rows": 30, "column": "z"}}
    assert (tmp_path / "output" / "model.txt").read_bytes() == toys.booster("z")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("fails", "tests.toy_model:fails failed: ValueError: no luck with 30 rows"),
        ("returns_nothing", "must return a TrainedModel whose file lies in the job's output folder"),
        ("makes_no_file", "must return a TrainedModel whose file lies in the job's output folder"),
        ("notes_that_are_no_json", "failed: TypeError: Object of type object is not JSON serializable"),
        ("notes_that_are_none", "failed: TypeError"),
        ("is_not_there", "failed: AttributeError"),
    ],
)
def test_failures(tmp_path: Path, function: str, words: str) -> None:
    (key,), (message,) = zip(*trainer._run(job(tmp_path, function)).items(), strict=True)
    assert key == "error"
    assert words in message


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    found = trainer._run({**job(tmp_path, "train"), "train": "no_such_module:train"})
    assert "failed: ModuleNotFoundError" in found["error"]


def test_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(_job: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("tests.toy_model.train", hungry)
    found = trainer._run(job(tmp_path, "train"))
    assert found["error"].endswith(f"needed more than {1 << 40} bytes (setting train_memory_bytes)")


def test_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Its standard input closes when that process dies, however it dies."""
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job(tmp_path, "waits_for_a_sign") | {"train": "toy_model:waits_for_a_sign"}))
    process = subprocess.Popen(
        [sys.executable, "-m", "predis.retraining.trainer", str(path)],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TESTS), "TOY_SIGNS": str(tmp_path)},
    )
    try:
        while not list(tmp_path.glob("begun-*")):
            assert process.poll() is None
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 1
    finally:
        process.kill()
        process.wait()
    assert not path.with_suffix(".result").exists()
