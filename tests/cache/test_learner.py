from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from predis.cache import learner as learning
from predis.cache.accesses import ALL
from predis.cache.collector import Collector
from predis.cache.learner import INSIGHT, STATE, Learner, present_of
from predis.cache.ring import Flag, Looking, Producer, place_of
from predis.cache.what_if import Present
from predis.metrics import Metrics
from tests.cache.told import events, zipf

FIGURES = {
    "keys": 100, "used_memory": 2_000_000, "used_memory_dataset": 1_000_000, "maxmemory": 2_000_000, "keyspace_hits": 0,
    "keyspace_misses": 0,
}  # fmt: skip


class Worker:
    """A gateway worker's side: reads of some keys, all of them looked at."""

    def __init__(self, home: Path, name: str = "0", *, slots: int = 1 << 14) -> None:
        self.ring = Producer(home / "rings" / f"{name}.ring", slots)
        self.tell()

    def tell(self, *, looked: int = 0, looking: Looking = Looking.AT_IT) -> None:
        self.ring.tell(looked=looked, threshold=ALL, looking=looking)

    def read(self, keys: list[bytes], *, flags: int = Flag.SPATIAL | Flag.HIT) -> None:
        for key in keys:
            self.ring.put(key, 100, client=1, flags=flags, place=place_of(key))
        self.tell(looked=len(keys))


@pytest.fixture(autouse=True)
def _always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("_SHOW_S", "_SAVE_S", "_SERIES_S"):
        monkeypatch.setattr(learning, pause, 0.0)


def insight(home: Path) -> dict:
    return json.loads((home / INSIGHT).read_text())


def test_from_reads_to_what_is_shown(tmp_path: Path) -> None:
    metrics = Metrics(None, "learner")
    heard: list[int] = []
    learner = Learner(
        tmp_path,
        statistics=lambda: dict(FIGURES),
        metrics=metrics,
        listeners=(lambda _worker, batch: heard.append(len(batch)),),
    )
    worker = Worker(tmp_path)
    learner.look()
    assert worker.ring.wanted == ALL
    worker.read(zipf(3_000, 500))
    learner.look()
    worker.read(zipf(3_000, 500, seed=2))
    learner.look()
    found = insight(tmp_path)
    assert (found["workers"], found["looking"], found["waiting"], found["dropped"]) == (1, True, 0, 0)
    assert found["curves"]["sampled_reads"] == pytest.approx(6_000, rel=0.01)
    assert set(found["curves"]["policies"]) == {"lru", "s3-fifo", "twoq", "arc"}
    assert found["hot_keys"][0]["key"] == "user:0"
    assert found["prefixes"][0]["prefix"] == "user"
    assert found["big_keys"][0]["bytes"] == 100
    assert sum(heard) == metrics.counter("predis_learner_reads_total").value == 6_000


def test_workers_come_and_go_and_rest_together(tmp_path: Path) -> None:
    learner = Learner(tmp_path)
    learner.look()
    assert not (tmp_path / INSIGHT).exists() or insight(tmp_path)["workers"] == 0
    first, second = Worker(tmp_path, "0"), Worker(tmp_path, "1")
    learner.look()
    assert (first.ring.wanted, second.ring.wanted) == (ALL, ALL)
    second.tell(looking=Looking.RESTING)
    learner.look()
    assert (first.ring.wanted, second.ring.wanted) == (0, 0)
    assert insight(tmp_path)["looking"] is False
    first.read(zipf(100, 10))
    learner.look()
    assert insight(tmp_path)["curves"]["sampled_reads"] == 0  # the other worker's reads are not known
    second.ring.close()
    second.ring.path.unlink()
    learner.look()
    assert (insight(tmp_path)["workers"], first.ring.wanted) == (1, ALL)


def test_a_ring_of_another_size_is_followed_and_loses_nothing(tmp_path: Path) -> None:
    learner = Learner(tmp_path)
    worker = Worker(tmp_path)
    learner.look()
    worker.read([b"a"] * 5)
    worker.ring.close()
    worker = Worker(tmp_path, slots=1 << 12)
    learner.look()
    worker.read([b"a"] * 7)
    learner.look()
    assert learner.collector.hot.top(1)[0].count == pytest.approx(12, rel=0.01)


def test_what_is_dropped_is_counted(tmp_path: Path) -> None:
    metrics = Metrics(None, "learner")
    learner = Learner(tmp_path, metrics=metrics)
    worker = Worker(tmp_path, slots=64)
    learner.look()
    worker.read([b"a"] * 100)
    learner.look()
    assert metrics.counter("predis_learner_dropped_total", worker="0").value == 36
    assert insight(tmp_path)["dropped"] == 36


def test_the_next_learner_goes_on(tmp_path: Path) -> None:
    learner = Learner(tmp_path)
    worker = Worker(tmp_path)
    learner.look()
    worker.read(zipf(2_000, 100))
    learner.look()
    worker.read([b"late"] * 50)  # nobody reads it before the next learner comes
    learner.close()
    again = Learner(tmp_path)
    assert again.collector.curves.shards.reads == pytest.approx(2_000, rel=0.01)
    again.look()
    assert again.collector.hot.total == pytest.approx(2_050, rel=0.01)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"curves": 3}', "\x00"])
def test_a_state_that_cannot_be_read_is_begun_anew(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / STATE).write_text(content)
    assert Learner(tmp_path).collector.hot.total == 0
    assert "begins anew" in caplog.text


def test_a_killed_learner_leaves_whole_files_and_is_gone_on_from(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    program = f"""
import threading
from pathlib import Path
from predis.cache import learner
learner._SHOW_S = learner._SAVE_S = 0.0
learner._LOOK_S = 0.001
learner.Learner(Path({str(tmp_path)!r})).run(threading.Event())
"""
    seen = 0.0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", program])
        seen += 500
        while (
            not (tmp_path / STATE).exists()
            or json.loads((tmp_path / STATE).read_text())["hot_total"] < 0.9 * seen
        ):
            assert process.poll() is None
            if worker.ring.wanted and worker.ring.written < seen:
                worker.read([b"k"] * 500)
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert json.loads((tmp_path / INSIGHT).read_text())["at"] > 0


def test_hot_keys_come_from_stretches_where_the_sample_by_key_is_not_everything() -> None:
    collector = Collector()
    collector.watch(looking=True, threshold=ALL // 2)
    collector.take(events([b"a", b"b", b"c"], flags=Flag.SPATIAL), looked=3)
    assert collector.hot.total == 0
    collector.take(events([b"s:1", b"s:2"], flags=Flag.WHOLE), looked=0)
    assert [row["key"] for row in collector.shown(0)["hot_keys"]] == ["s:2", "s:1"]
    assert collector.shown(0)["prefixes"][0]["hit_rate"] == 0.0


def test_long_keys_are_told_apart() -> None:
    collector = Collector()
    collector.watch(looking=True, threshold=ALL)
    collector.take(events([b"k" * 96 + b"%d" % number for number in range(3)], flags=Flag.SPATIAL), looked=3)
    assert (collector.long_keys, len(collector.hot), len(collector.curves.shards)) == (3, 3, 3)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, Present(memory_bytes=2_000_000, keys=100)),
        ({"maxmemory": 0}, Present(memory_bytes=2_000_000, keys=100, limited=False, full=False)),
        ({"maxmemory": 11_000_000}, Present(memory_bytes=11_000_000, keys=1_000, full=False)),
        ({"maxmemory": 6_401_000_000, "keys": 0, "used_memory_dataset": 0, "used_memory": 1_000_000},
         Present(memory_bytes=6_401_000_000, keys=100_000_000, full=False)),
    ],
)  # fmt: skip
def test_the_present_cache(change: dict, expected: Present) -> None:
    assert present_of({**FIGURES, **change}) == expected
