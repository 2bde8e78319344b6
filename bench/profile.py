"""What registering a version with a large reference costs: seconds, and the most memory of the server's process and of the model's.

A LightGBM model of 100 trees and 10 features is registered with tables of growing size as its reference, and at last with a holdout of the
largest size too. Each registration is made in a process of its own, which opens the model in another, as the server does. Tables are
written a row group at a time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from predis.clock import SystemClock
from predis.events import Bus
from predis.registry import Registration, Registry
from predis.registry.signing import Seals
from predis.serving.inspection import Inspected, Inspector
from predis.state import ArtifactStore, Database, migrations
from predis.stats import Profile

FEATURES, GROUP_ROWS, TREES, TRAINED_ROWS = 10, 1_000_000, 100, 50_000
ROWS = (100_000, 1_000_000, 10_000_000)
LABEL = "label"


def rows_of(count: int, *, seed: int) -> pa.Table:
    """Labelled rows of numbers, half of the columns with missing values."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(count, FEATURES))
    label = (matrix[:, 0] + matrix[:, 1] * matrix[:, 2] + rng.normal(size=count) > 0).astype(np.int8)
    matrix[:, FEATURES // 2 :][rng.random((count, FEATURES // 2)) < 0.02] = np.nan
    return pa.table({**{f"f{at}": matrix[:, at] for at in range(FEATURES)}, LABEL: label})


def write(path: Path, rows: int) -> None:
    first = rows_of(1, seed=0)
    with pq.ParquetWriter(path, first.schema) as writer:
        for at in range(0, rows, GROUP_ROWS):
            writer.write_table(rows_of(min(GROUP_ROWS, rows - at), seed=at + 1))


def model() -> bytes:
    table = rows_of(TRAINED_ROWS, seed=0)
    label = table.column(LABEL).to_numpy()
    matrix = np.column_stack([table.column(f"f{at}").to_numpy() for at in range(FEATURES)])
    names = [f"f{at}" for at in range(FEATURES)]
    data = lightgbm.Dataset(matrix, label, feature_name=names)
    booster = lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, data, TREES)
    return booster.model_to_string().encode()


class Watched(Inspector):
    """Opens models and remembers the most memory that their process had when it was closed."""

    mib = 0

    def __call__(self, kind: str, files: Mapping[str, bytes], **given: Any) -> Inspected:
        model, watched = super().__call__(kind, files, **given), self

        class Closing(Inspected):
            def close(self) -> None:
                watched.mib = peak_mib(self._process._process.pid)
                super().close()

        model.__class__ = Closing
        return model


def peak_mib(process: int | str) -> int:
    """The most resident memory since the process began; `getrusage` would count its parent's too."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def register(home: Path, wanted: Registration) -> dict[str, float | None]:
    """One registration, measured; in a process that did nothing before."""
    database = Database(f"sqlite:///{home / 'state.db'}")
    migrations.upgrade(database)
    inspect = Watched(timeout_s=60.0, memory_bytes=8 << 30)
    registry = Registry(
        database,
        ArtifactStore(str(home / "artifacts")),
        clock=SystemClock(),
        bus=Bus(),
        inspect=inspect,
        seals=Seals(home / "keys"),
    )
    before = peak_mib("self")
    started = time.monotonic()
    version = registry.register("default", wanted, actor="bench")
    seconds = time.monotonic() - started
    database.close()
    assert version.profile is not None
    own, child = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "profile_rows": Profile.from_dict(version.profile).rows,
        "auc": round(version.metrics.get("auc", float("nan")), 4) if version.metrics else None,
        "seconds": round(seconds, 1),
        "server_cpu_s": round(own.ru_utime + own.ru_stime, 1),
        "server_mib_before": before,
        "server_mib": peak_mib("self"),
        "model_cpu_s": round(child.ru_utime + child.ru_stime, 1),
        "model_mib": inspect.mib,
    }


def measure(rows: tuple[int, ...]) -> Iterator[dict[str, float | None]]:
    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        artifacts = ArtifactStore(str(home / "artifacts"))
        files = {"model.txt": artifacts.put(model()).digest}
        plans = [(count, False) for count in rows] + [(rows[-1], True)]
        for count, holdout in plans:
            table = home / "table.parquet"
            write(table, count)
            digest, size = artifacts.put_file(table).digest, table.stat().st_size
            wanted = Registration(
                model="bench", format="lightgbm", files=files, label=LABEL, reference=digest,
                holdout=digest if holdout else "",
            )  # fmt: skip
            with processes.Pool(1, maxtasksperchild=1) as pool:
                measured = pool.apply(register, (home, wanted))
            yield {"rows": count, "file_mib": size >> 20, "holdout": holdout, **measured}
            artifacts.delete(digest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="rows of each reference")
    parser.add_argument("--out", type=Path, help="file for the result")
    given = parser.parse_args()
    command = f"bench/profile.py --rows {' '.join(map(str, given.rows))}"
    result: dict[str, Any] = {
        "command": command,
        "features": FEATURES,
        "trees": TREES,
        "row_group_rows": GROUP_ROWS,
    }
    result["registrations"] = []
    for found in measure(tuple(given.rows)):
        print(json.dumps(found), flush=True)
        result["registrations"].append(found)
        if given.out:
            given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
