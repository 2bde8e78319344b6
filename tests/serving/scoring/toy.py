"""A version to score with, and data for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from predis.registry import Version
from predis.registry.model import File, digest_of
from predis.serving.scoring import Batch
from tests.toy_model import booster, scores_of
from tests.toys import MODEL, SIGNATURE

CONTENTS = {"model.txt": booster()}


def version(number: int = 1) -> Version:
    files = (File("model.txt", "0" * 64, 1),)
    return Version(
        "default", MODEL, number, "lightgbm", digest_of(files), files, SIGNATURE, {}, {}, 0, "test"
    )


def table(rows: int, *, seed: int = 0, first: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "id": np.arange(first, first + rows),
            "x": rng.normal(size=rows),
            "z": rng.normal(size=rows),
            "kind": rng.choice(["a", "b"], size=rows),
        }
    )


def write(path: Path, rows: pa.Table, *, group_rows: int = 1_000) -> Path:
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(rows, path)
    else:
        pq.write_table(rows, path, row_group_size=group_rows)
    return path


def batch(source: Path | str, target: Path | str, **more: Any) -> Batch:
    given: dict[str, Any] = {"version": version(), "contents": CONTENTS, "keep": ("id",), **more}
    return Batch(source=str(source), target=str(target), **given)


def expected(rows: pa.Table) -> pa.Table:
    scores = scores_of(rows.column("x").to_numpy())
    return pa.table({"id": rows.column("id"), "probability": scores})


def check(target: Path, rows: pa.Table) -> None:
    """The result holds every row once, in order, with the model's own score."""
    found, wanted = pq.read_table(target), expected(rows)
    assert found.column_names == wanted.column_names
    assert found.column("id").equals(wanted.column("id"))
    np.testing.assert_allclose(found.column("probability"), wanted.column("probability"), rtol=1e-12)
