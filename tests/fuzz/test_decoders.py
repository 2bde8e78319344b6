from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="atheris has wheels for Linux only")

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_no_decoder_fails_on_anything(tmp_path: Path) -> None:
    """A short run with a fixed seed. A long one: ``python -m tests.fuzz.decoders FOLDER``."""
    corpus = tmp_path / "corpus"
    write = f"from tests.fuzz.decoders import seeds; from pathlib import Path; seeds(Path({str(corpus)!r}))"
    subprocess.run([sys.executable, "-c", write], cwd=ROOT, check=True, timeout=120)
    options = [
        "-seed=1",
        "-runs=20000",
        "-max_len=400",
        "-timeout=20",
        "-rss_limit_mb=1500",
        f"-artifact_prefix={tmp_path}/",
    ]
    command = [sys.executable, "-m", "tests.fuzz.decoders", *options, str(corpus)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert found.returncode == 0, found.stdout[-3_000:] + found.stderr[-6_000:]
    assert "Done 20000 runs" in found.stderr
