"""Scoring on a local Ray cluster, really. In a process of its own: Ray leaves warnings and threads behind."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from predis.serving.scoring import score
from tests.serving.scoring import toy

ROOT = Path(toy.__file__).parents[3]
RUN = """
import sys
from predis.errors import PredisError
from predis.serving.scoring import score
from tests.serving.scoring.toy import batch
try:
    print(score(batch(*sys.argv[1:], workers=2, engine="ray")).scored)
except PredisError as error:
    print(error.code, error.message)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="needs Ray: pip install 'predis[ray]'"
    ),
]


def on_ray(source: Path, target: Path) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", RUN, str(source), str(target)],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": "local"},
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return ended.stdout.strip()


def test_it_makes_the_same_bytes_and_names_the_same_faults(tmp_path: Path) -> None:
    rows = toy.table(300_000)
    source = toy.write(tmp_path / "in.parquet", rows, group_rows=100_000)
    score(toy.batch(source, tmp_path / "local.parquet"))
    assert on_ray(source, tmp_path / "out.parquet") == "300000"
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "local.parquet").read_bytes()
    assert on_ray(source, tmp_path / "out.parquet") == "0"
    values = rows.column("z").to_pylist()
    values[200_000] = None
    toy.write(source, rows.set_column(2, "z", pa.array(values)))
    assert on_ray(source, tmp_path / "bad.parquet").startswith(
        "invalid_input in.parquet, row 200,001: column 'z' holds a null"
    )
