"""Several processes against one server, and what becomes of their troubles."""

from __future__ import annotations

import multiprocessing
import resource
from pathlib import Path

import pytest

from predis.errors import Unavailable, Unreachable
from predis.loadtest import Load, Point, fleet, run
from tests.loadtest.server import always, in_thread, response


def test_processes_share_the_load_and_their_counts_add_up() -> None:
    points: list[Point] = []
    load = Load(connections=4, duration_s=1.2, rate=200, poisson=False, warmup_s=0.1)
    with in_thread(always(response())) as target:
        found = run(target, load, processes=2, on_second=points.append)
    assert found.measured == found.lateness.total == pytest.approx(240, abs=2)
    assert len(found.usage) == 2
    assert not found.errors
    assert [point.second for point in found.points] == [0, 1]
    assert sum(point.answered for point in points) == found.answered


def test_a_closed_loop_over_processes() -> None:
    with in_thread(always(response())) as target:
        found = run(target, Load(connections=3, duration_s=0.3, warmup_s=0.0), processes=8)
    assert len(found.usage) == 3  # one connection each
    assert found.answered > 0
    assert found.throughput == pytest.approx(found.answered / 0.3)


def test_nobody_there_is_told() -> None:
    with in_thread(always(response())) as target:
        pass
    with pytest.raises(Unreachable, match=r"no connection to 127\.0\.0\.1:\d+: connection refused"):
        run(target, Load(connections=2, duration_s=1), processes=2)
    assert multiprocessing.active_children() == []


def test_a_process_that_dies_is_told() -> None:
    def kill(_point: Point) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with in_thread(always(response())) as target, pytest.raises(Unavailable, match="ended on its own"):
        run(target, Load(connections=1, duration_s=30, warmup_s=0.0), on_second=kill)
    assert multiprocessing.active_children() == []


def test_a_process_tells_what_it_had_of_the_machine() -> None:
    with in_thread(always(response())) as target:
        (usage,) = run(target, Load(connections=1, duration_s=0.3, warmup_s=0.0)).usage
    assert 0 < usage.used <= 1
    assert 0 <= usage.waited <= 1


def test_a_system_without_scheduler_statistics_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: "nothing")
    assert fleet._times()[2] == 0.0


def test_the_limit_on_files_is_raised_as_far_as_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1_024, 4_096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    for connections in (100, 2_000, 1_000_000):
        fleet._allow_files(connections)
    assert asked == [(2_000 + 64, 4_096), (4_096, 4_096)]
