"""Values that are valid for any input, follow a profile, or come from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from predis.errors import InvalidInput
from predis.loadtest.values import DTYPES, Input, Profile, random_columns, read_columns, table_columns
from predis.stats import build_profile


def made(inputs: list[Input], rows: int = 500, profile: Profile | None = None) -> dict[str, Any]:
    return random_columns(inputs, rows, rng=np.random.default_rng(1), profile=profile)


@pytest.mark.parametrize("datatype", [*DTYPES, "BYTES"])
def test_random_values_are_of_the_datatype_and_shape(datatype: str) -> None:
    column = made([Input("x", datatype, (-1, 2, 3))])["x"]
    assert column.shape == (500, 6)
    assert column.dtype == np.dtype(DTYPES.get(datatype, "O"))
    if datatype == "BYTES":
        assert all(isinstance(text, str) for text in column.reshape(-1))


def test_texts_are_drawn_from_the_levels() -> None:
    column = made([Input("kind", "BYTES", levels=("a", "b"))])["kind"]
    assert set(column.reshape(-1)) == {"a", "b"}


def test_an_input_reads_what_metadata_says() -> None:
    document = {"name": "x", "datatype": "FP32", "shape": [-1, 3], "nullable": True}
    assert Input.from_dict(document) == Input("x", "FP32", (-1, 3), True)
    assert Input("x", "FP32", (-1, 3)).width == 3
    assert Input("x", "FP32", (-1, -1, 4)).width == 4  # what the server leaves open is 1


def test_random_values_look_like_the_training_data() -> None:
    rng = np.random.default_rng(5)
    matrix = np.column_stack(
        [
            rng.normal(1_000, 5, 4_000),
            rng.choice([3.0, 7.0], 4_000),
            rng.choice([0.0, 1.0], 4_000, p=[0.9, 0.1]),
        ]
    )
    profile = build_profile(
        matrix, names=("x", "few", "kind"), levels={"kind": ("a", "b")}, scores=matrix[:, 0], labels=None
    )
    known = Profile.from_dict(json.loads(json.dumps(profile.to_dict())))
    inputs = [
        Input("x", "FP64"),
        Input("few", "INT32"),
        Input("kind", "BYTES", levels=("a", "b")),
        Input("new", "FP64"),
    ]
    columns = made(inputs, rows=4_000, profile=known)
    assert columns["x"].mean() == pytest.approx(1_000, abs=1)
    assert columns["x"].std() == pytest.approx(5, rel=0.4)  # within a bin all values are as likely
    assert set(columns["few"].reshape(-1)) == {3, 7}
    assert (columns["kind"] == "a").mean() == pytest.approx(0.9, abs=0.03)
    assert columns["new"].shape == (4_000, 1)


def test_wide_inputs_have_a_profile_per_place() -> None:
    matrix = np.column_stack([np.linspace(0, 1, 100), np.linspace(50, 51, 100)])
    profile = build_profile(matrix, names=("x[0]", "x[1]"), levels={}, scores=matrix[:, 0], labels=None)
    column = made([Input("x", "FP32", (-1, 2))], profile=Profile.from_dict(profile.to_dict()))["x"]
    assert (column[:, 0] <= 1).all()
    assert (column[:, 1] >= 50).all()


TABLE = {"x": [1.0, 2.0, 3.0], "kind": ["a", "b", None]}


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_rows_come_from_files(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows{ending}"
    if ending == ".parquet":
        pq.write_table(pa.table(TABLE), path)
    elif ending == ".csv":
        pyarrow.csv.write_csv(pa.table({**TABLE, "kind": ["a", "b", "c"]}), path)
    else:
        rows = [dict(zip(TABLE, values, strict=True)) for values in zip(*TABLE.values(), strict=True)]
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    found = read_columns(path, 2)
    assert found == {"x": [1.0, 2.0], "kind": ["a", "b"]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.xlsx", b"", r"a file that ends in \.parquet"),
        ("rows.parquet", b"nonsense", "rows.parquet cannot be read"),
        ("rows.jsonl", b"[1]\n", "line 1 is not a JSON object"),
        ("rows.jsonl", b"{\n", "rows.jsonl cannot be read"),
        ("rows.jsonl", b"", "rows.jsonl has no rows"),
        ("rows.csv", b"x,kind\n", "rows.csv has no rows"),
    ],
)
def test_a_file_that_is_none_is_told(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=message):
        read_columns(tmp_path / name, 10)


def test_columns_of_a_file_go_by_name() -> None:
    inputs = [Input("x", "FP64"), Input("pair", "FP32", (-1, 2))]
    found = table_columns(
        inputs, {"pair": [[1, 2], [3, 4]], "x": [0.5, None], "more": [1, 2]}, where="the file"
    )
    assert found["x"].tolist() == [[0.5], [None]]
    assert found["pair"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"y": [1.0]}, "the file has no column 'x'; the endpoint's inputs are x"),
        ({"x": [[1, 2]]}, "must hold 1 values a row"),
    ],
)
def test_columns_that_do_not_fit_are_told(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        table_columns([Input("x", "FP64")], columns, where="the file")
