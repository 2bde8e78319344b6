"""``predis cache simulate``, on a small trace."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner

from predis.cli.simulate import simulate
from tests.cache.simulator.judge import judge
from tests.cache.simulator.streams import mixed

KEYS = mixed(3_000)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "shop.parquet"
    pyarrow.parquet.write_table(pa.table({"key": KEYS, "ts": [9, 5, *range(10, 3_008)]}), path)
    return path


def test_a_table_for_people(trace: Path) -> None:
    result = CliRunner().invoke(
        simulate, [str(trace), "--size", "2%,5%", "--policy", "arc,lru+markov1,belady"]
    )
    assert result.exit_code == 0, result.output
    assert "shop: 3,000 requests" in result.output
    assert "The clock went back 1 times" in result.output
    assert result.output.count("belady (bound)") == 2
    assert "lru+markov1 " in result.output


def test_json(trace: Path) -> None:
    result = CliRunner().invoke(
        simulate, [str(trace), "--policy", "s3-fifo", "--delay", "5ms", "--clock", "ms", "--json"]
    )
    found = json.loads(result.stdout)
    assert [row["run"] for row in found["runs"]] == ["lru", "s3-fifo"]
    assert found["trace"]["clock_went_back"] == 1
    assert found["delay"] == "5ms"


def test_plot_and_events(trace: Path, tmp_path: Path) -> None:
    plot, events = tmp_path / "p.html", tmp_path / "e.parquet"
    given = [
        "--policy",
        "lru+markov1",
        "--size",
        "40",
        "--delay",
        "3",
        "--plot",
        str(plot),
        "--events",
        str(events),
    ]
    result = CliRunner().invoke(simulate, [str(trace), *given, "--json"])
    assert "<svg" in plot.read_text("utf-8")
    row = json.loads(result.stdout)["runs"][1]
    assert judge(KEYS, events, capacity=40, delay=3).misses == row["misses"]


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (["--size", "big"], "a size is"),
        (["--delay", "soon"], "a delay is"),
        (["--policy", "mru"], "no policy 'mru'"),
        (["--bytes"], "no column 'size'"),
        (["--plot", "p.png"], "an .html or .svg file"),
        (["--plot", "/no/such/folder/p.html", "--policy", "lru"], "cannot be written"),
    ],
)
def test_what_is_refused(trace: Path, given: list[str], fault: str) -> None:
    result = CliRunner().invoke(simulate, [str(trace), *given])
    assert fault in str(result.exception)
