"""What a worker does with its rows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from predis.errors import InvalidInput, ModelFailure
from predis.registry import Field, Signature
from predis.serving import runtimes
from predis.serving.scoring import scorer as module
from predis.serving.scoring.data import examine
from predis.serving.scoring.scorer import Job, Scorer, result_schema
from predis.serving.scoring.spans import Span
from predis.serving.scoring.workspace import Workspace
from tests.serving.scoring.toy import CONTENTS, table, write
from tests.toys import INPUTS, SIGNATURE


def job(
    tmp_path: Path, rows: pa.Table, *, signature: Signature = SIGNATURE, keep: tuple[str, ...] = ("id",)
) -> Job:
    data = examine(str(write(tmp_path / "in.parquet", rows)), signature.inputs, keep=keep)
    return Job("lightgbm", CONTENTS, signature, data, str(tmp_path / "out.parquet"))


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 10 rows, parts of 30."""
    monkeypatch.setattr(module, "_BATCH_ROWS", 10)
    monkeypatch.setattr(module, "_PART_ROWS", 30)


@pytest.mark.usefixtures("sizes")
def test_parts_are_whole_batches_and_batches_begin_at_their_multiples(tmp_path: Path) -> None:
    made = job(tmp_path, table(95))
    assert list(Scorer(made).score(Span(25, 95))) == [5, 10, 10, 10, 10, 10, 10, 5]
    assert Workspace(made.target).done() == [Span(25, 60), Span(60, 90), Span(90, 95)]
    assert Workspace(made.target).read(Span(90, 95)).column("id").to_pylist() == [90, 91, 92, 93, 94]


@pytest.mark.usefixtures("sizes")
def test_a_slow_model_s_parts_are_written_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 1_000, 6))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    made = job(tmp_path, table(40))
    list(Scorer(made).score(Span(0, 40)))
    assert Workspace(made.target).done() == [Span(0, 20), Span(20, 40)]


def test_wide_rows_go_in_small_batches(tmp_path: Path) -> None:
    image = Signature(
        (Field("image", "FP32", (-1, 3, 224, 224)),), (Field("logits", "FP32", (-1, 10)),), "logits"
    )
    made = Job("onnx", {}, image, job(tmp_path, table(1)).data, "out.parquet")
    assert made.batch_rows == 6
    assert made.unit_rows(1_000_000, workers=1) == 124_998
    assert job(tmp_path, table(1)).batch_rows == 4_096


@pytest.mark.parametrize(
    ("rows", "workers", "unit"),
    [(10, 4, 16_384), (2_000_000, 4, 61_440), (10_000_000, 4, 131_072), (10_000_000, 1, 131_072)],
)
def test_every_worker_gets_several_units(tmp_path: Path, rows: int, workers: int, unit: int) -> None:
    assert job(tmp_path, table(1)).unit_rows(rows, workers=workers) == unit


def test_a_row_is_predicted_among_the_same_rows_whoever_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH_ROWS", 10)
    seen: list[tuple[int, float]] = []
    run = runtimes.run
    monkeypatch.setattr(
        runtimes, "run", lambda r, inputs: seen.append((inputs.rows, inputs.features[0, 0])) or run(r, inputs)
    )
    made = job(tmp_path, table(50))
    list(Scorer(made).score(Span(0, 50)))
    whole, seen[:] = seen[:], []
    for span in (Span(30, 50), Span(0, 30)):
        list(Scorer(made).score(span))
    assert sorted(seen) == sorted(whole)


def bad(rows: pa.Table, *places: int) -> pa.Table:
    values = rows.column("z").to_pylist()
    for place in places:
        values[place] = None
    return rows.set_column(rows.column_names.index("z"), "z", pa.array(values))


@pytest.mark.parametrize("place", [0, 1, 57, 98, 99])
def test_a_row_that_does_not_fit_is_named(tmp_path: Path, place: int) -> None:
    made = job(tmp_path, bad(table(100), place, 60))
    first = min(place, 60)
    with pytest.raises(InvalidInput, match=rf"^in\.parquet, row {first + 1}: column 'z' holds a null"):
        list(Scorer(made).score(Span(0, 100)))


def test_a_column_of_another_type_is_not_one_row_s_fault(tmp_path: Path) -> None:
    rows = table(10)
    made = job(tmp_path, rows.set_column(1, "x", pa.array([[1.0]] * 10)))
    with pytest.raises(InvalidInput, match=r"^column 'x'"):
        list(Scorer(made).score(Span(0, 10)))


def test_a_model_that_fails_on_a_row_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_runtime: Any, inputs: Any) -> Any:
        if 7 in inputs.features[:, 0]:
            raise ModelFailure("no sevens")
        return [np.zeros(inputs.rows)]

    monkeypatch.setattr(runtimes, "run", run)
    made = job(tmp_path, table(10).set_column(1, "x", pa.array([0.0] * 4 + [7.0] + [0.0] * 5)))
    with pytest.raises(ModelFailure, match=r"^in\.parquet, row 5: no sevens$"):
        list(Scorer(made).score(Span(0, 10)))


def test_a_result_has_the_columns_kept_and_the_outputs(tmp_path: Path) -> None:
    outputs = (Field("label", "INT64"), Field("probabilities", "FP32", (-1, 3)), Field("text", "BYTES"))
    made = job(tmp_path, table(1), signature=Signature(INPUTS, outputs, "label"), keep=("kind", "id"))
    assert result_schema(made) == pa.schema(
        [
            ("kind", pa.string()), ("id", pa.int64()), ("label", pa.int64()), ("probabilities", pa.list_(pa.float32(), 3)),
            ("text", pa.string()),
        ]
    )  # fmt: skip


def test_a_kept_column_with_an_output_s_name_is_told(tmp_path: Path) -> None:
    rows = table(1).append_column("probability", pa.array([0.5]))
    with pytest.raises(InvalidInput, match="'probability' has the name of an output"):
        result_schema(job(tmp_path, rows, keep=("id", "probability")))
