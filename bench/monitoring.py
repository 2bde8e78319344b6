"""Measures what drift monitoring costs: taking predictions in, counting windows, checking each that closes; and reports over files.

See README.md beside this file. Seconds are those of the processor (one core: set OMP_NUM_THREADS=1), memory is the process's peak.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from predis.monitoring.checks import Rules, Watched
from predis.monitoring.drift import DriftWatch
from predis.monitoring.ingest import Ingest
from predis.monitoring.store import MonitoringStore
from predis.state import Database, JournalWriter, migrations
from predis.state.records import BlockEncoder
from predis.stats import build_profile

COLUMNS, PER_SECOND, TOGETHER, WINDOW_ROWS = 30, 10_000, 16, 5_000
LOOKS_PER_SECOND = 4
REPORTS = ((1_000_000, 30), (100_000, 800))
OUT = Path(__file__).parent / "results" / "2026-11-21-drift.json"
KEY = {"tenant": "default", "endpoint": "flights", "version": 1}

RNG = np.random.default_rng(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="of traffic to take in")
    parser.add_argument("--report", type=Path, nargs=2, help="compare two files, and tell what it took")
    parser.add_argument(
        "--out", type=Path, default=OUT, help="results; what other benches wrote there is kept"
    )
    arguments = parser.parse_args()
    if arguments.report:
        print(json.dumps(report(*arguments.report)))
        return
    found = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    found["monitoring"] = {
        "command": " ".join(["bench/monitoring.py", *sys.argv[1:]]),
        "live": live(arguments.seconds),
        "reports": [report_in_a_process(rows, columns) for rows, columns in REPORTS],
    }
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found["monitoring"], indent=2))


def live(seconds: int) -> dict[str, Any]:
    """Control's part of 10,000 predictions a second of 30 features: ingest, drift windows, and a check of every window."""
    names = [f"f{column}" for column in range(COLUMNS)]
    profile = build_profile(
        RNG.normal(size=(100_000, COLUMNS)), names=names, levels={}, scores=RNG.random(100_000), labels=None
    )
    watched = Watched("default", "flights", 1, "model", {}, profile)
    watch = DriftWatch(profile, Rules())
    costs: dict[str, list[float]] = {"ingest": [], "checks": []}
    with tempfile.TemporaryDirectory(prefix="predis-") as folder:
        database = Database(f"sqlite:///{folder}/state.sqlite")
        migrations.upgrade(database)
        journal = Path(folder) / "journal"
        writer = JournalWriter(journal / "serving-0")
        ingest = Ingest(database, journal, profile=lambda _t, _e, *, number: profile, window_rows=WINDOW_ROWS)
        store = MonitoringStore(database)

        def check() -> None:
            newest = store.closed_windows(KEY, limit=1)
            if newest and newest[0]["number"] > watch.number:
                for window in reversed(store.closed_windows(KEY, limit=newest[0]["number"] - watch.number)):
                    watch.feed(window)
            watch.findings(watched)

        for _ in range(seconds * LOOKS_PER_SECOND):
            fill(writer, PER_SECOND // LOOKS_PER_SECOND)
            costs["ingest"].append(clocked(ingest.catch_up))
            costs["checks"].append(clocked(check))
        writer.close()
        database.close()
    per_second = {name: statistics.fmean(spent[1:]) * LOOKS_PER_SECOND for name, spent in costs.items()}
    return {
        "features": COLUMNS,
        "predictions_per_second": PER_SECOND,
        "windows_checked": watch.number,
        "share_of_a_core": {name: round(value, 4) for name, value in per_second.items()},
        "share_of_a_core_in_all": round(sum(per_second.values()), 4),
        "window_check_ms": round(window_check_ms(watch), 3),
    }


def window_check_ms(watch: DriftWatch) -> float:
    """One window through the ensemble, its breaks and the words for them."""
    assert watch.window is not None
    window = dict(watch.window)
    spent = []
    for _ in range(50):
        window["number"] += 1
        spent.append(clocked(lambda: watch.feed(window)))
    return statistics.median(spent) * 1e3


def fill(writer: JournalWriter, count: int) -> None:
    """One-row predictions, answered so many together."""
    encoder = BlockEncoder("default", "flights", version=1)
    for start in range(0, count, TOGETHER):
        size = min(TOGETHER, count - start)
        now = time.time_ns()
        payload = encoder.encode(
            [uuid.UUID(bytes=RNG.bytes(16)).hex for _ in range(size)],
            bytes(size),
            numbers=([1] * size, [now] * size, [now] * size, [1_000] * size),
            scores=RNG.random(size),
            features=RNG.normal(size=(size, COLUMNS)),
        )
        assert writer.append(payload, size)


def report_in_a_process(rows: int, columns: int) -> dict[str, Any]:
    """A report over two Parquet files of so many rows, in a process of its own, so that its memory is its own."""
    with tempfile.TemporaryDirectory(prefix="predis-") as folder:
        paths = [Path(folder) / f"{name}.parquet" for name in ("reference", "current")]
        for path in paths:
            normal = RNG.standard_normal((columns, rows))
            np.exp(normal[::3], out=normal[::3])
            pq.write_table(pa.table({f"f{at}": column for at, column in enumerate(normal)}), path)
        command = [sys.executable, __file__, "--report", *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {"rows": rows, "columns": columns, **json.loads(done.stdout)}


def report(reference: Path, current: Path) -> dict[str, Any]:
    """Compare two files from reading to the finished page."""
    from predis.drift import compare

    wall, cpu = time.perf_counter(), time.process_time()
    found = compare(reference, current)
    page = found.html()
    return {
        "seconds": round(time.perf_counter() - wall, 2),
        "processor_seconds": round(time.process_time() - cpu, 2),
        "peak_megabytes": peak_megabytes(),
        "page_kilobytes": len(page) // 1024,
        "severity": found.severity.word,
    }


def peak_megabytes() -> int:
    """Of this process alone: what getrusage tells includes its parent's, from before it was another program."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) // 1024


def clocked(work: Callable[[], object]) -> float:
    """Seconds of this process's processor."""
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
