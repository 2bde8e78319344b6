"""``predis drift report``: words, a page, JSON, and the exit code that scripts ask for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from predis.cli import main


def write(path: Path, seed: int, *, shift: float = 0.0, gone: bool = False) -> Path:
    rng = np.random.default_rng(seed)
    columns = {
        "age": rng.normal(40 + shift, 10, 4_000),
        "zone": rng.choice(["a", "b"], 4_000),
        "y": rng.random(4_000) < 0.3,
    }
    if gone:
        del columns["zone"]
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return write(tmp_path / "reference.parquet", 1)


def report(reference: Path, current: Path, *options: str) -> Result:
    return CliRunner().invoke(
        main, ["drift", "report", "--reference", str(reference), "--current", str(current), *options]
    )


def test_nothing_moved(reference: Path, tmp_path: Path) -> None:
    done = report(reference, write(tmp_path / "b.parquet", 2))
    assert done.exit_code == 0, done.output
    assert "Nothing has moved." in done.output
    assert "4,000 rows in 4 windows" in done.output


def test_drift_fails(reference: Path, tmp_path: Path) -> None:
    current = write(tmp_path / "b.parquet", 2, shift=5.0)
    done = report(reference, current, "--target", "y")
    assert done.exit_code == 1
    assert "Drift in age." in done.output
    assert "values are higher" in " ".join(done.output.split())
    assert report(reference, current, "--fail-on", "critical").exit_code == 0
    assert report(reference, current, "--fail-on", "never").exit_code == 0
    everything = report(reference, current, "--all")
    assert "stable" in everything.output


def test_a_break_fails_and_is_named(reference: Path, tmp_path: Path) -> None:
    done = report(reference, write(tmp_path / "b.parquet", 2, gone=True), "--fail-on", "critical")
    assert done.exit_code == 1
    assert "Broken data in zone." in done.output


def test_the_page_and_json(reference: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = report(reference, write(tmp_path / "b.parquet", 2, shift=5.0), "--html", str(page), "--json")
    assert done.exit_code == 1
    assert json.loads(done.output)["features"][0]["name"] == "age"
    assert "<svg" in page.read_text("utf-8")


def test_what_cannot_be_read_is_one_line(reference: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_text("no")
    done = report(reference, broken)
    assert done.exit_code == 1
    assert "neither a Parquet nor a CSV file" in done.output
    assert "Traceback" not in done.output
