"""Measures capture and what follows it: encoding and appending records, taking them in, logging them. See README.md beside this file."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parent.parent))

from predis.clock import SystemClock
from predis.monitoring.ingest import Ingest
from predis.monitoring.log import PredictionLog
from predis.registry import Field, Signature, Version
from predis.registry.signature import PROBABILITY
from predis.state import Database, JournalWriter, migrations
from predis.state.records import BlockEncoder
from predis.stats import build_profile

COLUMNS = 22
SIZES = (1, 16, 64)
PER_LOOK = 5_000  # what comes in a quarter of a second at 20,000 requests a second
FEW = 10
OUT = Path(__file__).parent / "results" / "2026-11-21-capture.json"

RNG = np.random.default_rng(0)
NAMES = [f"f{column}" for column in range(COLUMNS)]
PROFILE = build_profile(
    RNG.normal(size=(5_000, COLUMNS)), names=NAMES, levels={}, scores=RNG.random(5_000), labels=None
)
SIGNATURE = Signature(tuple(Field(name, "FP64") for name in NAMES), (PROBABILITY,), "probability")
VERSION = Version("default", "bench", 1, "lightgbm", "", (), SIGNATURE, {}, {}, 0, "bench")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=9, help="looks, and runs of what is quick; medians are told"
    )
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "command": " ".join(["bench/capture.py", *sys.argv[1:]]),
        "columns": COLUMNS,
        "rows_per_request": 1,
        "capture": [capture(size, arguments.rounds) for size in SIZES],
    }
    pa.array(np.zeros(1))  # the first of all imports pandas, where it is installed
    with database_url(arguments.database) as make:
        cases = [(size, False) for size in SIZES] + [(SIZES[1], True)]
        found["monitoring"] = [
            monitoring(size, arguments.rounds, make=make, random_ids=random_ids) for size, random_ids in cases
        ]
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    print(table("Capture, us of the worker per request", found["capture"]))
    print(table("Monitoring, us of control's processor per request, ms per look", found["monitoring"]))


def capture(size: int, rounds: int) -> dict[str, Any]:
    """What a worker pays for one request, in records of ``size`` requests."""
    encoder, requests = BlockEncoder("default", "flights", version=1), Requests(size)
    with tempfile.TemporaryDirectory() as folder:
        writer = JournalWriter(Path(folder) / "serving-0")
        payload = requests.encoded(encoder)

        def both() -> None:
            writer.append(requests.encoded(encoder), size)

        calls = max(200, 40_000 // size)
        found = {
            "requests_in_record": size,
            "bytes": round(len(payload) / size),
            "encode_us": typical(lambda: requests.encoded(encoder), rounds, calls=calls) / size,
            "append_us": typical(lambda: writer.append(payload, size), rounds, calls=calls) / size,
            "encode_and_append_us": typical(both, rounds, calls=calls) / size,
        }
        writer.close()
    return rounded(found)


def monitoring(size: int, rounds: int, *, make: Callable[[], Database], random_ids: bool) -> dict[str, Any]:
    """What control pays: a look at many requests and at few, one at nothing, and the log."""
    database = make()
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        writer = JournalWriter(journal / "serving-0")
        ingest = Ingest(
            database, journal, profile=lambda _tenant, _endpoint, *, number: PROFILE, window_rows=5_000
        )
        sent = 0

        def look_at(count: int) -> tuple[float, float]:
            nonlocal sent
            fill(writer, count, size=min(size, count), first=sent, random_ids=random_ids)
            sent += count
            return clocked(ingest.catch_up)

        look_at(PER_LOOK)  # the first of all reads what later ones have in mind
        many = [look_at(PER_LOOK) for _ in range(rounds)]
        few = [look_at(FEW) for _ in range(5 * rounds)]
        nothing = [clocked(ingest.look) for _ in range(5 * rounds)]
        statements = counted(database, lambda: look_at(FEW))
        log = PredictionLog(
            database, journal, folder=Path(folder) / "log", version=lambda _t, _e, *, number: VERSION, clock=SystemClock()
        )  # fmt: skip
        logged: list[int] = []
        seconds = clocked(lambda: logged.append(log.flush()))
        writer.close()
        kept = sum(path.stat().st_size for path in (Path(folder) / "log").rglob("*.parquet"))
    database.close()
    return rounded({
        "requests_in_record": size,
        "ids": "random" if random_ids else "in order",
        "ingest_us": statistics.median(cpu for _, cpu in many) / PER_LOOK * 1e6,
        "ingest_wall_us": statistics.median(wall for wall, _ in many) / PER_LOOK * 1e6,
        "share_of_a_core_at_20000_per_s": statistics.median(cpu for _, cpu in many) / PER_LOOK * 20_000,
        "look_at_10_ms": statistics.median(cpu for _, cpu in few) * 1e3,
        "look_at_10_wall_ms": statistics.median(wall for wall, _ in few) * 1e3,
        "look_at_10_statements": statements,
        "look_at_nothing_ms": statistics.median(cpu for _, cpu in nothing) * 1e3,
        "log_us": seconds[1] / logged[0] * 1e6,
        "log_bytes": kept / logged[0],
    })  # fmt: skip


class Requests:
    """One-row requests that are answered together, as the plane has them."""

    def __init__(self, size: int, *, first: int = 0, random_ids: bool = False) -> None:
        self.ids = [
            str(uuid.UUID(bytes=RNG.bytes(16))) if random_ids else f"abcdef012345-{first + place:x}" for place in range(size)
        ]  # fmt: skip
        self.status = bytes(size)
        now = time.time_ns()
        self.numbers = ([1] * size, [now] * size, [now] * size, [1_000] * size)
        self.scores = RNG.random(size)
        self.features = RNG.normal(size=(size, COLUMNS))

    def encoded(self, encoder: BlockEncoder) -> bytes:
        return encoder.encode(
            self.ids, self.status, numbers=self.numbers, scores=self.scores, features=self.features
        )


def fill(writer: JournalWriter, count: int, *, size: int, first: int, random_ids: bool) -> None:
    encoder = BlockEncoder("default", "flights", version=1)
    for start in range(0, count, size):
        together = min(size, count - start)
        requests = Requests(together, first=first + start, random_ids=random_ids)
        writer.append(requests.encoded(encoder), together)


def typical(work: Callable[[], object], rounds: int, *, calls: int) -> float:
    """Processor's microseconds of one call: the median of ``rounds`` runs of many."""
    found = []
    for _ in range(rounds):
        started = time.process_time()
        for _ in range(calls):
            work()
        found.append((time.process_time() - started) / calls * 1e6)
    return statistics.median(found)


def clocked(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the wall and of this process's processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def counted(database: Database, work: Callable[[], object]) -> int:
    """SQL statements that something takes."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        seen.append(statement)

    sa.event.listen(database.engine, "before_cursor_execute", note)
    work()
    sa.event.remove(database.engine, "before_cursor_execute", note)
    return len(seen)


@contextmanager
def database_url(dialect: str) -> Iterator[Callable[[], Database]]:
    """Gives fresh databases, on SQLite or on a PostgreSQL server of its own."""
    with tempfile.TemporaryDirectory(prefix="predis-") as folder:
        made = 0

        def make() -> Database:
            nonlocal made
            made += 1
            url = server.create() if server else f"sqlite:///{folder}/state-{made}.sqlite"
            database = Database(url)
            migrations.upgrade(database)
            return database

        server = None
        if dialect == "postgresql":
            from tests.conftest import PostgresServer

            server = PostgresServer(Path(folder))
        try:
            yield make
        finally:
            if server:
                server.stop()


def rounded(found: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in found.items()}


def table(title: str, rows: list[dict[str, Any]]) -> str:
    """The rows side by side, a line for each figure."""
    lines = [title, *(f"  {name:<32}" + "".join(f"{row[name]!s:>12}" for row in rows) for name in rows[0])]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
