"""What a terminal shows."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
from rich.console import Console

from predis.loadtest import Histogram, Load, Result, screen


def shown(results: list[Result], width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    screen.show(console, results)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def result(rate: float | None = None, *, answered: int = 3_000, **more: object) -> Result:
    latencies = np.random.default_rng(1).lognormal(-6, 0.5, answered)
    return Result(
        Load(connections=64, duration_s=3, rate=rate), answered=answered, latency=Histogram(latencies), **more
    )  # type: ignore[arg-type]


def test_a_test_of_one_load_fits_in_80_columns_and_has_a_histogram() -> None:
    lines = shown([result()]).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert any(line.startswith(" 64 connections") and "1,000" in line for line in lines)
    assert sum("█" in line for line in lines) > 3
    assert "Closed loop" in lines[-2]


def test_several_loads_are_a_table_with_the_knee() -> None:
    text = shown([result(1_000.0), result(2_000.0)])
    assert "1,000/s ◆" in text
    assert "Most that was kept up with: 1,000/s, 1,000 answers/s." in text
    assert "█" not in text


def test_errors_are_told_with_the_servers_words() -> None:
    failing = result(
        errors=Counter({"HTTP 400": 30, "timeout": 2}), samples={"HTTP 400": "missing input: age"}
    )
    text = shown([failing])
    assert "30 × HTTP 400: missing input: age" in text
    assert "2 × timeout" in text
    assert "1.06%" in text


def test_nothing_answered_has_no_histogram() -> None:
    assert "█" not in shown([Result(Load(connections=1, duration_s=1))])


def test_bars_count_every_latency_once() -> None:
    for seen in (
        Histogram(np.random.default_rng(2).exponential(0.01, 10_000)),
        Histogram([0.005]),
        Histogram([0.001, 9.0]),
    ):
        rows = list(screen.bars(seen))
        assert sum(count for _, _, count in rows) == seen.total
        assert len(rows) <= 13
