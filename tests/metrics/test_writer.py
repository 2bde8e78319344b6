from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from predis.errors import InvalidInput
from predis.metrics import NOTHING, Metrics, exposition, writer
from predis.metrics.file import Reading
from tests.metrics.text import samples

LABELS = {"tenant": "default", "endpoint": "churn"}


def version(number: int) -> dict[str, str]:
    return {**LABELS, "version": str(number)}


def value(folder: Path, name: str, **labels: str) -> float | None:
    return samples(exposition(folder)).get((name, frozenset(labels.items())))


def test_the_same_series_has_one_handle(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "serving-0")
    rows = metrics.counter("predis_rows_total", **version(1))
    assert metrics.counter("predis_rows_total", **version(1)) is rows
    assert metrics.counter("predis_rows_total", **version(2)) is not rows


def test_what_the_table_does_not_hold_is_refused(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "serving-0")
    with pytest.raises(InvalidInput, match=r"labels of predis_rows_total are: tenant, endpoint, version"):
        metrics.counter("predis_rows_total", **LABELS)
    with pytest.raises(InvalidInput, match="no gauge 'predis_rows_total'"):
        metrics.gauge("predis_rows_total", **version(1))


def test_a_restarted_process_counts_on(tmp_path: Path) -> None:
    for times in (1, 2, 3):
        metrics = Metrics(tmp_path, "serving-0")
        assert metrics.gauge("predis_in_flight").value == 0
        metrics.counter("predis_rows_total", **version(1)).add(5)
        metrics.histogram("predis_queue_seconds", **version(1)).observe([0.5, 0.25])
        metrics.gauge("predis_in_flight").set(7)
        assert value(tmp_path, "predis_rows_total", **version(1)) == 5 * times
        assert value(tmp_path, "predis_queue_seconds_sum", **version(1)) == 0.75 * times
        assert value(tmp_path, "predis_queue_seconds_count", **version(1)) == 2 * times
        metrics.close()


def test_a_series_of_an_earlier_run_is_shown_before_anybody_asks_for_it(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "serving-0")
    metrics.counter("predis_rows_total", **version(1)).add(5)
    metrics.close()
    Metrics(tmp_path, "serving-0")
    assert value(tmp_path, "predis_rows_total", **version(1)) == 5


def test_what_another_release_counted_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics(tmp_path, "serving-0")
    metrics.counter("predis_rows_total", **version(1)).add(5)
    metrics.close()
    path = tmp_path / "serving-0.bin"
    content = path.read_bytes()
    old, new = b"predis_rows_total", b"predis_hats_total"
    path.write_bytes(content.replace(old, new))
    checksum = zlib.crc32
    # Its checksum must fit, or the file would be set aside.
    monkeypatch.setattr("predis.metrics.file.zlib.crc32", lambda key: checksum(key.replace(new, old)))
    again = Metrics(tmp_path, "serving-0")
    assert again.counter("predis_rows_total", **version(1)).value == 0
    again.close()


@pytest.mark.parametrize("content", [b"", b"not ours", bytes(256 << 10)])
def test_a_file_that_is_not_ours_is_set_aside(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "serving-0.bin").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        metrics = Metrics(tmp_path, "serving-0")
    metrics.counter("predis_rows_total", **version(1)).add(5)
    assert (tmp_path / "serving-0.damaged").read_bytes() == content
    assert value(tmp_path, "predis_rows_total", **version(1)) == 5
    assert "counting begins anew" in caplog.text


def test_a_folder_that_cannot_be_written_to_costs_only_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "metrics").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        metrics = Metrics(tmp_path / "metrics", "serving-0")
        rows = metrics.counter("predis_rows_total", **version(1))
        rows.add(5)
        metrics.forget(version="1")
        rows.add(1)
    assert rows.value == 6
    assert len(caplog.records) == 1


def test_a_second_writer_of_the_same_name_counts_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Metrics(tmp_path, "serving-0"), Metrics(tmp_path, "serving-0")
    first.counter("predis_rows_total", **version(1)).add(1)
    second.counter("predis_rows_total", **version(1)).add(10)
    assert value(tmp_path, "predis_rows_total", **version(1)) == 1
    assert "another process" in caplog.text


def test_a_full_disk_is_told_once_and_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    metrics = Metrics(tmp_path, "serving-0")
    kept = metrics.counter("predis_rows_total", **version(0))
    monkeypatch.setattr(os, "posix_fallocate", full)
    handles = [metrics.histogram("predis_queue_seconds", **version(number)) for number in range(2_000)]
    for handle in handles:
        handle.observe([0.5])
    kept.add(3)
    assert all(handle.count == 1 for handle in handles)
    assert value(tmp_path, "predis_rows_total", **version(0)) == 3
    assert len(caplog.records) == 1
    assert "No space" in caplog.text


def test_beyond_the_bound_numbers_go_to_other(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "serving-0", max_series=10)
    for number in range(50):
        metrics.counter("predis_rows_total", **version(number)).add(1)
    found = {
        labels: n
        for (name, labels), n in samples(exposition(tmp_path)).items()
        if name == "predis_rows_total"
    }
    others = frozenset(dict.fromkeys(version(1), "other").items())
    assert found[others] > 1
    assert sum(found.values()) == 50
    assert value(tmp_path, "predis_series_overflow_total") == found[others]
    # A metric without labels always has its place.
    metrics.counter("predis_journal_lost_total").add(1)
    assert value(tmp_path, "predis_journal_lost_total") == 1


def test_what_nobody_holds_makes_room_the_oldest_first(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "serving-0", max_series=11)  # ten of them, and the one that counts overflows
    old = [metrics.histogram("predis_queue_seconds", **version(number)) for number in range(10)]
    for handle in old:
        handle.observe([1.0])
    metrics.forget(**LABELS, version="3")
    metrics.forget(**LABELS, version="4")
    assert value(tmp_path, "predis_queue_seconds_count", **version(3)) == 1
    metrics.counter("predis_rows_total", **version(11)).add(2)
    old[3].observe([1.0])  # late: it counts for nobody, and harms nobody
    assert value(tmp_path, "predis_queue_seconds_count", **version(3)) is None
    assert value(tmp_path, "predis_queue_seconds_count", **version(4)) == 1
    assert value(tmp_path, "predis_rows_total", **version(11)) == 2
    # Who comes back in time goes on.
    assert metrics.histogram("predis_queue_seconds", **version(4)) is old[4]
    metrics.counter("predis_rows_total", **version(12)).add(2)
    assert value(tmp_path, "predis_queue_seconds_count", **version(4)) == 1
    assert value(tmp_path, "predis_series_overflow_total") == 1


def test_series_of_an_earlier_run_make_room_too(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "serving-0", max_series=6)
    for number in range(5):
        metrics.counter("predis_rows_total", **version(number)).add(1)
    metrics.close()
    size = (tmp_path / "serving-0.bin").stat().st_size
    for run in range(1, 200):
        metrics = Metrics(tmp_path, "serving-0", max_series=6)
        for number in range(5 * run, 5 * run + 5):
            metrics.counter("predis_rows_total", **version(number)).add(1)
        metrics.close()
    found = {name: n for name, n in samples(exposition(tmp_path)).items() if name[0] == "predis_rows_total"}
    assert {dict(labels)["version"] for _, labels in found} == {str(number) for number in range(995, 1_000)}
    assert value(tmp_path, "predis_series_overflow_total") == 0
    assert (tmp_path / "serving-0.bin").stat().st_size == size


def test_a_forgotten_gauge_ends_at_once(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "serving-0")
    loaded = metrics.gauge("predis_version_loaded", **version(1))
    loaded.set(1)
    assert value(tmp_path, "predis_version_loaded", **version(1), worker="serving-0") == 1
    metrics.forget(**version(1))
    assert value(tmp_path, "predis_version_loaded", **version(1), worker="serving-0") is None
    loaded.set(0)
    assert metrics.gauge("predis_version_loaded", **version(1)) is not loaded


def test_nothing_takes_everything_and_keeps_nothing() -> None:
    NOTHING.counter("predis_rows_total", **version(1)).add(5)
    NOTHING.gauge("predis_in_flight").set(1)
    NOTHING.histogram("predis_queue_seconds", **version(1)).observe([0.1])
    assert NOTHING.counter("predis_rows_total", **version(1)).value == 0
    with pytest.raises(InvalidInput):
        NOTHING.counter("predis_rows_total")


def test_handles_may_be_asked_for_from_many_threads(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "serving-0")

    def count() -> None:
        for number in range(500):
            metrics.counter("predis_rows_total", **version(number)).add()

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {name: n for name, n in samples(exposition(tmp_path)).items() if name[0] == "predis_rows_total"}
    assert len(found) == 500
    assert set(found.values()) == {8}


WRITER = """
import sys
from pathlib import Path
from predis.metrics import Metrics

folder, name, orders = Path(sys.argv[1]), sys.argv[2], sys.stdin
metrics = Metrics(folder, name)
rows = metrics.counter("predis_rows_total", tenant="t", endpoint="e", version="1")
seconds = metrics.histogram("predis_request_seconds", tenant="t", endpoint="e", version="1")
metrics.gauge("predis_in_flight").set(1)
for order in orders:
    for number in range(int(order)):
        rows.add(3)
        seconds.observe([0.001, 0.2])
        metrics.counter("predis_cache_hits_total", tenant="t", endpoint=f"e{number % 700}").add()
    print("done", flush=True)
"""


class Worker:
    """A process that counts when told to, and says when it has."""

    def __init__(self, folder: Path, name: str) -> None:
        self._command = [sys.executable, "-c", WRITER, str(folder), name]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def order(self, times: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{times}\n")
        self.process.stdin.flush()

    def wait(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "done\n"

    def end(self, how: int) -> None:
        self.process.send_signal(how)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[Worker]]:
    made = [Worker(tmp_path, f"serving-{number}") for number in range(3)]
    yield made
    for worker in made:
        worker.end(signal.SIGKILL)


def test_totals_of_many_processes_are_exact_and_never_fall(tmp_path: Path, workers: list[Worker]) -> None:
    """Three processes count at once, are killed between and in the middle of it, and start again."""
    seen: list[float] = []

    def total(name: str = "predis_rows_total") -> float:
        found = value(tmp_path, name, tenant="t", endpoint="e", version="1") or 0.0
        if name == "predis_rows_total":
            seen.append(found)
        return found

    for number, worker in enumerate(workers):
        worker.order(2_000 + number)
    while total() < 9_000:  # read while they write
        pass
    for worker in workers:
        worker.wait()
    assert total() == 3 * 6_003
    workers[0].end(signal.SIGKILL)
    assert total() == 3 * 6_003
    workers[0].start()
    workers[0].order(1_000)
    workers[0].wait()
    assert total() == 3 * 7_003
    assert total("predis_request_seconds_count") == 2 * 7_003
    assert total("predis_request_seconds_sum") == pytest.approx(0.201 * 7_003)

    workers[1].order(10_000_000)
    while total() < 3 * 8_000:
        pass
    workers[1].end(signal.SIGKILL)  # in the middle of counting
    with Reading(tmp_path / "serving-1.bin") as reading:
        assert not reading.alive
    before = total()
    workers[1].start()
    workers[1].order(10)
    workers[1].wait()
    assert total() == before + 30
    assert seen == sorted(seen)
    assert not list(tmp_path.glob("*.damaged"))
    hits = [n for (name, _), n in samples(exposition(tmp_path)).items() if name == "predis_cache_hits_total"]
    # A kill may come between the counting of rows and of hits.
    assert sum(hits) * 3 == pytest.approx(before + 30, abs=3)


def test_the_bound_is_ten_thousand() -> None:
    assert writer.MAX_SERIES == 10_000
