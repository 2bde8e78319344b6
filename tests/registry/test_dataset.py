from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from predis.errors import InvalidInput
from predis.registry import dataset
from predis.registry.dataset import DataSet, Spread

TABLE = pa.table({"n": range(1_000), "t": [str(n % 3) for n in range(1_000)]})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "table.parquet"
    pq.write_table(TABLE, path, row_group_size=170)
    return path


def test_batches_are_all_rows_in_order_as_often_as_wanted(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "BATCH_ROWS", 64)
    with DataSet(source, "reference") as found:
        for _ in range(2):
            batches = list(found.batches())
            assert max(batch.num_rows for batch in batches) <= 64
            assert pa.concat_tables(batches).equals(TABLE)


def test_long_rows_come_in_fewer(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_BATCH_BYTES", 100)
    with DataSet(source, "reference") as found:
        assert max(batch.num_rows for batch in found.batches()) < 12


@pytest.mark.parametrize("size", [1, 7, 64, 1_000, 5_000])
def test_a_spread_sample_does_not_hang_on_the_batches(size: int) -> None:
    spread = Spread(1_000, 101)
    for at in range(0, 1_000, size):
        spread.add(TABLE.slice(at, size))
    expected = TABLE.take(np.linspace(0, 999, 101).astype(np.int64))
    assert spread.sample().combine_chunks().equals(expected)


def test_a_sample_of_long_rows_is_smaller(source: Path) -> None:
    with DataSet(source, "reference") as found:
        spread = found.spread(500, most_bytes=1)
        for batch in found.batches():
            spread.add(batch)
        assert spread.sample().num_rows == 1


def test_distinct_values(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "BATCH_ROWS", 64)
    monkeypatch.setattr(dataset, "_DISTINCT", 100)
    with DataSet(source, "reference") as found:
        texts, numbers = found.distinct("t"), found.distinct("n")
        assert texts is not None
        assert numbers is not None
        assert texts.to_pylist() == ["0", "1", "2"]
        assert 100 < len(numbers) < 200
        assert found.distinct("x") is None


def test_damage_behind_the_first_rows(source: Path) -> None:
    content = bytearray(source.read_bytes())
    place = pq.ParquetFile(source).metadata.row_group(3).column(0).data_page_offset
    content[place : place + 20] = b"\xff" * 20
    with (
        DataSet(pa.BufferReader(bytes(content)), "reference") as found,
        pytest.raises(InvalidInput, match="reference"),
    ):
        list(found.batches())


def test_two_columns_of_one_name() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table([[1], [2]], names=["x", "x"]), sink)
    with pytest.raises(InvalidInput, match="two columns have the same name"):
        DataSet(pa.BufferReader(sink.getvalue()), "reference")
