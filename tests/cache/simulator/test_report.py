"""Reports: LRU is the yardstick, sizes and names are what was asked for, several processes count like one."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from predis.cache.simulator import runs
from predis.cache.simulator.page import draw
from predis.cache.simulator.report import Plan, Report, simulate
from predis.cache.simulator.runs import split, usual
from predis.cache.simulator.setup import Delay
from predis.cache.simulator.trace import Trace
from predis.errors import InvalidInput
from tests.cache.simulator.judge import judge
from tests.cache.simulator.streams import mixed, trace_of

TRACE = trace_of(mixed(4_000), step_s=0.01, sizes=True, clients=3)


def by_name(found: Report) -> dict[str, dict[str, object]]:
    return {row["run"]: row for row in found.rows()}


def without_seconds(found: Report) -> list[dict[str, object]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found.rows()]


def test_everything_there_is() -> None:
    found = by_name(simulate(TRACE, Plan(sizes=("5%",), delay=Delay(2))))
    assert {
        "lru",
        "s3-fifo",
        "arc",
        "lru+mithril",
        "lru+markov1-client",
        "belady",
        "unlimited",
    } <= found.keys()
    lru = found["lru"]["misses"]
    assert isinstance(lru, int)
    for row in found.values():
        assert row["coverage"] == pytest.approx(1 - row["misses"] / lru)  # type: ignore[operator]
        assert row["loads_to_lru"] == row["loads"] / lru  # type: ignore[operator]
        assert (row["prefetches"] is None) is ("+" not in str(row["run"]))
    assert found["belady"]["misses"] < lru
    assert found["unlimited"]["misses"] == TRACE.distinct


def test_lru_is_always_there_and_nothing_runs_twice() -> None:
    found = simulate(TRACE, Plan(names=["arc", "ARC", "arc+none"], sizes=["1%", "1%", "50"]))
    assert [(row["run"], row["size"]) for row in found.rows()] == [
        ("lru", "1%"), ("arc", "1%"), ("lru", "50"), ("arc", "50"),
    ]  # fmt: skip


def test_what_cannot_do_anything_is_left_out() -> None:
    names = usual(trace_of(["a", "b"]))
    assert "lru+markov1" in names
    assert not {"lru+obl", "lru+sequence", "lru+markov1-client"} & set(names)


def test_processes_count_like_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_LITTLE", 0)
    plan = Plan(names=["lru", "s3-fifo", "lru+markov1", "belady"], delay=Delay(5))
    told: list[int] = []
    together = simulate(TRACE, plan, processes=2, begin=lambda total: told.append)
    assert without_seconds(together) == without_seconds(simulate(TRACE, plan))
    assert sum(told) == 4 * len(TRACE)


def test_with_bytes_everything_runs_that_can_count_them() -> None:
    assert "predis+predis" in by_name(simulate(TRACE, Plan()))
    assert "predis+predis" not in by_name(simulate(TRACE, Plan(in_bytes=True)))


def test_bytes() -> None:
    found = by_name(simulate(TRACE, Plan(names=["s3-fifo", "lru+markov1", "belady"], in_bytes=True)))
    assert found["lru"]["capacity"] == round(TRACE.footprint / 100)
    assert int(str(found["lru"]["missed_bytes"])) > int(str(found["lru"]["misses"]))
    assert found["belady"]["missed_bytes"] is None


@pytest.mark.parametrize(
    ("trace", "plan", "fault"),
    [
        (TRACE, Plan(names=["mru"]), "no policy 'mru'"),
        (TRACE, Plan(names=["lru+oracle"]), "no prefetcher 'oracle'"),
        (TRACE, Plan(names=["belady+markov1"]), "is a bound"),
        (trace_of([1, 2]), Plan(in_bytes=True), "no column 'size'"),
        (trace_of([1, 2], sizes=True), Plan(names=["predis"], in_bytes=True), "counts objects, not bytes"),
        (
            trace_of([1, 2], sizes=True),
            Plan(names=["lru+predis"], in_bytes=True),
            "counts objects, not bytes",
        ),
        (trace_of([1, 2]), Plan(delay=Delay(seconds=1.0)), "no clock"),
        (TRACE, Plan(events=Path("e.parquet")), "name one policy"),
        (TRACE, Plan(names=["belady"], events=Path("e.parquet")), "makes no events"),
    ],
)
def test_what_is_refused(trace: Trace, plan: Plan, fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault):
        simulate(trace, plan)


def test_events_of_one_run(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    found = by_name(simulate(TRACE, Plan(sizes=["60"], names=["twoq+markov1"], delay=Delay(4), events=path)))
    verdict = judge(TRACE.keys.to_pylist(), path, capacity=60, delay=4)
    assert verdict.misses == found["twoq+markov1"]["misses"]
    assert verdict.loads == found["twoq+markov1"]["loads"]


def test_predis_is_a_pair() -> None:
    assert split("predis") == ("predis", "predis")
    assert split("predis+none") == ("predis", "")


@pytest.mark.parametrize("sizes", [["1%"], ["1%", "5%", "20%"]])
def test_pictures(sizes: list[str]) -> None:
    found = simulate(TRACE, Plan(sizes=sizes, names=["arc", "lru+markov1", "unlimited"]))
    assert json.loads(json.dumps(found.to_dict()))["trace"]["requests"] == 4_000
    picture = ElementTree.fromstring(draw(found, svg=True))
    said = " ".join(picture.itertext())
    page = draw(found)
    for name in ("lru", "arc", "lru+markov1", "unlimited"):
        assert name in said
        assert name in page
    assert page.startswith("<!doctype html>")
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    lines = picture.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == (4 if len(sizes) > 1 else 0)
