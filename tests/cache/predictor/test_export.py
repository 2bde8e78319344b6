from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from predis.cache.predictor import export
from predis.cache.predictor.export import SCHEMA, AccessExport, Retention, exported
from predis.cache.ring import Flag
from predis.cache.simulator.policies.lru import LRU
from predis.cache.simulator.replay import replay
from predis.cache.simulator.trace import read
from tests.cache.told import events, zipf

KEYS = [b"user:%d" % (n % 7) for n in range(100)]


def test_what_is_written_can_be_simulated(tmp_path: Path) -> None:
    with AccessExport(tmp_path / "accesses", rows=60) as exporting:
        exporting.take("0", events(KEYS, flags=Flag.HIT | Flag.WHOLE, client=3))
        exporting.take("1", events(KEYS[:10], flags=0, sizes=[0] * 10, client=3))
    assert (exporting.written, exporting.dropped) == (110, 0)
    files = exported(tmp_path / "accesses")
    assert len(files) == 2
    first = pq.read_table(files[0])
    assert first.schema.equals(SCHEMA)
    assert first["key"].to_pylist() == [key.decode() for key in KEYS]
    assert set(first["op"].to_pylist()) == {"get"}
    assert first["hit"].to_pylist() == first["whole"].to_pylist() == [True] * 100
    assert pq.ParquetFile(files[0]).metadata.row_group(0).column(0).compression == "ZSTD"
    second = pq.read_table(files[1])
    assert set(first["client"].to_pylist()).isdisjoint(
        second["client"].to_pylist()
    )  # other workers' connections
    trace = read(files[0])
    assert (len(trace), trace.distinct) == (100, 7)
    assert trace.ts is not None
    assert replay(trace, LRU(7)).misses == 7


def test_keys_that_are_no_text_or_too_long_are_told_apart(tmp_path: Path) -> None:
    with AccessExport(tmp_path) as exporting:
        exporting.take("0", events([b"\xff\x00:1", b"\xfe\x00:1", b"x" * 120, b"x" * 119 + b"y"], flags=0))
    keys = read(exported(tmp_path)[0]).keys.to_pylist()
    assert len(set(keys)) == 4
    assert keys[0] == "\\xff\x00:1"


def test_the_oldest_go_when_it_is_too_much_and_are_counted(tmp_path: Path) -> None:
    with AccessExport(tmp_path, rows=1, retention=Retention(max_bytes=20_000)) as exporting:
        for seed in range(40):
            exporting.take("0", events(zipf(100, 500, seed=seed), flags=0))
    files = exported(tmp_path)
    assert sum(path.stat().st_size for path in files) <= 20_000
    rows = sum(pq.read_metadata(path).num_rows for path in files)
    assert exporting.written + exporting.dropped == 4_000
    assert exporting.retired == exporting.written - rows > 0


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    with AccessExport(tmp_path) as exporting:
        exporting.take("0", events(KEYS, flags=0))
    os.utime(exported(tmp_path)[0], (1.0, 1.0))
    with AccessExport(tmp_path, retention=Retention(max_age_s=60.0)) as exporting:
        exporting.take("0", events(KEYS[:5], flags=0))
    assert [pq.read_metadata(path).num_rows for path in exported(tmp_path)] == [5]
    assert exporting.retired == 100


def test_a_damaged_file_goes_like_the_others(tmp_path: Path) -> None:
    damaged = tmp_path / "accesses-20200101T000000-000001.parquet"
    damaged.write_bytes(b"no Parquet" * 1_000)
    os.utime(damaged, (1.0, 1.0))
    with AccessExport(tmp_path, retention=Retention(max_bytes=8_000)) as exporting:
        exporting.take("0", events(KEYS, flags=0))
    assert (exporting.written, exporting.dropped, exporting.retired) == (100, 0, 0)
    assert damaged not in exported(tmp_path)


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".accesses-17").write_bytes(b"half of a file")
    full = True
    write = pq.write_table

    def writing(table: object, out: object, **options: object) -> None:
        write(table, out, **options)
        if full:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(export.pq, "write_table", writing)
    with AccessExport(tmp_path, rows=1) as exporting:
        exporting.take("0", events(KEYS, flags=0))
    assert (exporting.written, exporting.dropped) == (0, 100)
    assert list(tmp_path.iterdir()) == []
    full = False
    with AccessExport(tmp_path, rows=1) as exporting:
        exporting.take("0", events(KEYS, flags=0))
    assert exporting.written == 100
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_was_cleared_away_is_made_again(tmp_path: Path) -> None:
    with AccessExport(tmp_path / "accesses") as exporting:
        exporting.folder.rmdir()
        exporting.take("0", events(KEYS, flags=0))
    assert (exporting.written, exporting.dropped) == (100, 0)
    assert len(exported(exporting.folder)) == 1


def test_the_learner_never_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk stands still, batches are dropped and counted."""
    go_on = threading.Event()
    write = AccessExport._write_whole

    def slow(self: AccessExport, table: object, half: Path) -> None:
        assert go_on.wait(60)
        write(self, table, half)

    monkeypatch.setattr(AccessExport, "_write_whole", slow)
    monkeypatch.setattr(export, "_WAITING", 640)
    batch = events(KEYS[:10], flags=0)
    exporting = AccessExport(tmp_path, rows=1)
    for _ in range(200):
        exporting.take("0", batch)
    assert exporting.dropped >= 10 * (200 - 64 - 1)  # one is being written
    go_on.set()
    exporting.close()
    assert exporting.written + exporting.dropped == 2_000


def test_a_file_is_written_when_its_time_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    retire = AccessExport._retire

    def told(self: AccessExport) -> None:
        retire(self)
        done.set()

    monkeypatch.setattr(AccessExport, "_retire", told)
    with AccessExport(tmp_path, file_s=0.01) as exporting:
        exporting.take("0", events(KEYS, flags=0))
        assert done.wait(60)
        assert len(exported(tmp_path)) == 1
        exporting.take("0", np.empty(0, events(KEYS, flags=0).dtype))
    assert len(exported(tmp_path)) == 1
