"""Data sets of any files, read from any row."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from predis.errors import InvalidInput, NotFound
from predis.registry import Field
from predis.serving.scoring.data import ALL, Cursor, examine
from tests.serving.scoring.toy import table, write
from tests.toys import INPUTS

ROWS = 230


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files: row groups of 30 rows, an empty file, a CSV file, and what is no data."""
    folder = tmp_path_factory.mktemp("data")
    whole = table(ROWS)
    write(folder / "a.parquet", whole.slice(0, 100), group_rows=30)
    write(folder / "b.parquet", whole.slice(0, 0))
    write(folder / "c.csv", whole.slice(100, 50))
    (folder / "deep").mkdir()
    write(folder / "deep" / "d.parquet", whole.slice(150, 80), group_rows=30)
    for name in ("_SUCCESS", ".hidden.parquet", "read.me", "_temporary.parquet"):
        (folder / name).write_bytes(b"")
    return folder


def test_a_folder_is_all_its_files_in_the_order_of_their_names(mixed: Path) -> None:
    data = examine(str(mixed), INPUTS, keep=["id"])
    assert [source.name for source in data.sources] == ["a.parquet", "b.parquet", "c.csv", "d.parquet"]
    assert [source.groups for source in data.sources] == [(30, 30, 30, 10), (0,), (50,), (30, 30, 20)]
    assert data.rows == ROWS
    assert data.schema.names == ["x", "z", "kind", "id"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ends=st.lists(st.tuples(st.integers(0, ROWS), st.integers(0, ROWS)), max_size=6))
def test_any_rows_can_be_read_in_any_order(mixed: Path, ends: list[tuple[int, int]]) -> None:
    data = examine(str(mixed), INPUTS, keep=["id"])
    cursor = Cursor(data)
    whole = table(ROWS).select(data.schema.names)
    for pair in ends:
        start, stop = min(pair), max(pair)
        found = cursor.read(start, stop) if start < stop else data.schema.empty_table()
        assert found.equals(whole.slice(start, stop - start).cast(data.schema))


def test_reading_on_opens_no_file_again(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from predis.serving.scoring import parquetfile

    data = examine(str(mixed / "a.parquet"), INPUTS)
    entered: list[list[int]] = []
    read = parquetfile.read

    def counted(*args: Any, groups: list[int], **more: Any) -> Any:
        entered.append(groups)
        return read(*args, groups=groups, **more)

    monkeypatch.setattr(parquetfile, "read", counted)
    cursor = Cursor(data)
    for start in (0, 7, 14, 25, 35):
        cursor.read(start, start + 5)
    assert entered == [[0, 1, 2, 3]]
    cursor.read(65, 70)  # two groups further on
    cursor.read(3, 5)  # back
    assert entered == [[0, 1, 2, 3], [2, 3], [0, 1, 2, 3]]


@pytest.mark.parametrize("pattern", ["*.parquet", "a.parquet", "deep/*"])
def test_patterns(mixed: Path, pattern: str) -> None:
    data = examine(str(mixed / pattern), INPUTS)
    assert all(source.name in ("a.parquet", "b.parquet", "d.parquet") for source in data.sources)


def test_object_stores() -> None:
    files = fsspec.filesystem("memory")
    files.store.clear()
    for name in ("a", "b"):
        with files.open(f"/bucket/{name}.parquet", "wb") as file:
            pq.write_table(table(10), file)
    data = examine("memory://bucket/*.parquet", INPUTS)
    assert [source.url for source in data.sources] == [
        "memory:///bucket/a.parquet",
        "memory:///bucket/b.parquet",
    ]
    assert Cursor(data).read(8, 12).num_rows == 4


def test_rows_are_placed_for_people(mixed: Path) -> None:
    data = examine(str(mixed), INPUTS)
    assert [data.place(row) for row in (0, 99, 100, 229)] == [
        "a.parquet, row 1", "a.parquet, row 100", "c.csv, row 1", "d.parquet, row 80",
    ]  # fmt: skip


def test_all_columns_can_be_kept(mixed: Path) -> None:
    assert examine(str(mixed), INPUTS, keep=ALL).keep == ("id", "x", "z", "kind")


def test_types_that_go_together_become_the_wider_one(tmp_path: Path) -> None:
    write(tmp_path / "1.parquet", pa.table({"x": [1, 2], "id": pa.array(["a", "b"]).dictionary_encode()}))
    write(tmp_path / "2.parquet", pa.table({"x": [0.5, None], "id": ["c", "d"]}))
    write(tmp_path / "3.parquet", pa.table({"x": pa.nulls(1), "id": ["e"]}))
    data = examine(str(tmp_path), [Field("x", "FP64", nullable=True)], keep=["id"])
    assert data.schema.types == [pa.float64(), pa.string()]
    assert Cursor(data).read(0, 5).to_pydict() == {"x": [1.0, 2.0, 0.5, None, None], "id": list("abcde")}


def test_wide_inputs_are_lists_or_one_column_per_place(tmp_path: Path) -> None:
    wide = [Field("x", "FP32", (-1, 2))]
    lists = write(tmp_path / "lists.parquet", pa.table({"x": [[1.0, 2.0]]}))
    places = write(tmp_path / "places.parquet", pa.table({"x[1]": [2.0], "x[0]": [1.0]}))
    assert examine(str(lists), wide).inputs == ("x",)
    assert examine(str(places), wide).inputs == ("x[0]", "x[1]")


class TestCsv:
    def examined(self, tmp_path: Path, text: str, *, keep: list[str] | None = None) -> dict[str, list[Any]]:
        path = tmp_path / "data.csv"
        path.write_text(text)
        data = examine(str(path), INPUTS, keep=keep or [])
        return dict(Cursor(data).read(0, data.rows).to_pydict())

    def test_inputs_have_the_types_of_the_signature(self, tmp_path: Path) -> None:
        found = self.examined(tmp_path, 'kind,x,z\na,1,2\n"",,0.5\n,3,4\n')
        assert found == {"x": [1.0, None, 3.0], "z": [2.0, 0.5, 4.0], "kind": ["a", "", None]}

    @pytest.mark.parametrize(
        ("values", "found"),
        [
            (["1", "-2", ""], [1, -2, None]),
            (["007", "008"], ["007", "008"]),
            (["1", "2x"], ["1", "2x"]),
            (["1.0", "2.0"], ["1.0", "2.0"]),
        ],
    )
    def test_kept_columns_are_whole_numbers_or_texts(
        self, tmp_path: Path, values: list[str], found: list[Any]
    ) -> None:
        lines = "".join(f"{value},1,1,a\n" for value in values)
        assert self.examined(tmp_path, "id,x,z,kind\n" + lines, keep=["id"])["id"] == found

    def test_lines_may_break_inside_quotes(self, tmp_path: Path) -> None:
        found = self.examined(tmp_path, 'note,x,z,kind\n"two\nlines",1,1,a\nb,2,2,b\n', keep=["note"])
        assert found["note"] == ["two\nlines", "b"]

    def test_compressed_files(self, tmp_path: Path) -> None:
        (tmp_path / "data.csv.gz").write_bytes(gzip.compress(b"x,z,kind\n1,2,a\n"))
        assert examine(str(tmp_path / "data.csv.gz"), INPUTS).rows == 1

    def test_a_value_of_the_wrong_type_is_placed(self, tmp_path: Path) -> None:
        with pytest.raises(
            InvalidInput, match=r"^data\.csv: row 2: column 'z' cannot be read as double: 'q'$"
        ):
            self.examined(tmp_path, "x,z,kind\n1,2,a\n1,q,a\n")

    def test_a_line_of_other_length_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match=r"^data\.csv cannot be read: .*Expected 3 columns, got 2"):
            self.examined(tmp_path, "x,z,kind\n1,2,a\n1,2\n")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.parquet", b"nonsense", r"data\.parquet cannot be read"),
        ("data.csv", b"", r"data\.csv cannot be read"),
        ("data.xlsx", b"", r"files that end in \.parquet"),
        (
            "data.csv",
            b"x,zz,kind\n",
            r"data\.csv: there is no column 'z', which is an input of the model; did you mean 'zz'",
        ),
        ("data.csv", b"a,b\n", r"no column 'x', .* and 3 more are missing; it has a, b"),
    ],
)
def test_files_that_cannot_be_scored_are_told(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=message):
        examine(str(tmp_path / name), INPUTS, keep=["id"] if content == b"a,b\n" else [])


def test_a_column_to_keep_that_is_not_there_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "data.parquet", table(3))
    with pytest.raises(InvalidInput, match="no column 'idd', which is to be kept; did you mean 'id'"):
        examine(str(path), INPUTS, keep=["idd"])


def test_types_that_do_not_go_together_are_told(tmp_path: Path) -> None:
    write(tmp_path / "1.parquet", table(1))
    write(tmp_path / "2.parquet", table(1).set_column(1, "x", pa.array(["text"])))
    with pytest.raises(InvalidInput, match=r"2\.parquet does not go with 1\.parquet"):
        examine(str(tmp_path), INPUTS)


@pytest.mark.parametrize("name", ["none.parquet", "none/*.parquet", "empty"])
def test_nothing_there_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="there is no Parquet or CSV file there"):
        examine(str(tmp_path / name), INPUTS)


def test_a_file_that_became_shorter_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "data.csv", table(20))
    data = examine(str(path), INPUTS)
    write(path, table(10))
    with pytest.raises(InvalidInput, match="became shorter"):
        Cursor(data).read(0, 20)
