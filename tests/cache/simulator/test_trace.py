"""Reading traces: what is taken as it is, and what is refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from predis.cache.simulator.setup import Delay
from predis.cache.simulator.sizes import capacity
from predis.cache.simulator.trace import BLOCK, Trace, read
from predis.errors import InvalidInput


def written(tmp_path: Path, columns: dict[str, Any], *, name: str = "t.parquet") -> Path:
    path, table = tmp_path / name, pa.table(columns)
    if name.endswith(".csv"):
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path, row_group_size=2)
    return path


def requests(trace: Trace) -> list[tuple[Any, ...]]:
    return [
        row
        for block in trace.blocks(sizes=True)
        for row in zip(block.keys, block.sizes, block.clients, block.ts, strict=False)
    ]


@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
def test_every_column(tmp_path: Path, name: str) -> None:
    columns = {
        "ts": [100, 101, 103],
        "key": [7, 8, 7],
        "size": [5, 0, 9],
        "op": ["r", "w", "r"],
        "client": [4, 5, 4],
    }
    trace = read(written(tmp_path, columns, name=name))
    assert requests(trace) == [(7, 5, 4, 0.0), (8, 1, 5, 1.0), (7, 9, 4, 3.0)]
    assert (trace.name, len(trace), trace.distinct, trace.footprint) == ("t", 3, 2, 6)
    assert trace.first_sizes == {7: 5, 8: 1}


@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
def test_keys_alone_as_they_are(tmp_path: Path, name: str) -> None:
    trace = read(written(tmp_path, {"key": ["/b", "/a", "/b"]}, name=name))
    assert [row[:3] for row in requests(trace)] == [("/b", 1, 0), ("/a", 1, 0), ("/b", 1, 0)]
    assert trace.footprint == trace.distinct == 2


def test_large_keys_stay_what_they_are(tmp_path: Path) -> None:
    keys = [2**62 + 1, -5, 2**62 + 1]
    assert [row[0] for row in requests(read(written(tmp_path, {"key": keys})))] == keys


def test_blocks_are_bounded() -> None:
    trace = Trace(pa.array(range(BLOCK + 5)))
    assert [len(block.keys) for block in trace.blocks()] == [BLOCK, 5]


@pytest.mark.parametrize(("unit", "seconds"), [("s", 2.0), ("ms", 0.002), ("us", 2e-6), ("ns", 2e-9)])
def test_units_of_the_clock(tmp_path: Path, unit: str, seconds: float) -> None:
    path = written(tmp_path, {"key": [1, 2], "ts": [10**12, 10**12 + 2]})
    trace = read(path, clock_unit=unit)
    assert trace.ts is not None
    assert trace.ts[1] == pytest.approx(seconds)


def test_a_column_of_times_has_its_own_unit(tmp_path: Path) -> None:
    times = pa.array([0, 1500], pa.timestamp("ms"))
    trace = read(written(tmp_path, {"key": [1, 2], "ts": times}), clock_unit="ns")
    assert trace.ts is not None
    assert trace.ts.tolist() == [0.0, 1.5]


def test_a_clock_that_goes_back_is_held_and_counted() -> None:
    trace = Trace(pa.array([1, 2, 3, 4]), ts=np.array([0.0, 5.0, 2.0, 6.0]))
    assert trace.clock_back == 1
    assert trace.ts is not None
    assert trace.ts.tolist() == [0.0, 5.0, 5.0, 6.0]


def test_clients_may_be_names(tmp_path: Path) -> None:
    trace = read(written(tmp_path, {"key": [1, 2, 3], "client": ["a", "b", "a"]}))
    assert [row[2] for row in requests(trace)] == [0, 1, 0]


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"id": [1], "time": [2]}, r"no column 'key'; it has id, time"),
        ({"key": pa.array([], pa.int64())}, "there is no request"),
        ({"key": [1.5, 2.5]}, "column 'key' holds double"),
        ({"key": [[1], [2]]}, "column 'key' holds list"),
        ({"key": [1, None, 3]}, "'key' has 1 missing values, the first in row 1"),
        ({"key": pa.array([2**63], pa.uint64())}, "64 bits"),
        ({"key": [1, 2], "size": [3, -1]}, "'size' has -1 in row 1"),
        ({"key": [1], "size": ["many"]}, "'size' holds string"),
        ({"key": [1], "ts": ["today"]}, "'ts' holds string"),
        ({"key": [1], "ts": [float("nan")]}, "no finite numbers"),
        ({"key": [1], "client": [[1]]}, "'client' holds list"),
    ],
)
def test_what_is_refused(tmp_path: Path, columns: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault):
        read(written(tmp_path, columns))


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with pytest.raises(InvalidInput, match="there is no file"):
        read(path)
    path.write_bytes(b"not a table")
    with pytest.raises(InvalidInput, match=r"t\.parquet cannot be read"):
        read(path)
    empty = tmp_path / "t.csv"
    empty.write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"t\.csv cannot be read"):
        read(empty)


@pytest.mark.parametrize(
    ("text", "delay"),
    [("10", Delay(10)), ("0", Delay()), ("5ms", Delay(0, 0.005)), ("1.5 s", Delay(0, 1.5)), ("20us", Delay(0, 2e-5))],
)  # fmt: skip
def test_delays(text: str, delay: Delay) -> None:
    read_delay = Delay.parse(text)
    assert read_delay.requests == delay.requests
    assert read_delay.seconds == pytest.approx(delay.seconds)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "5 minutes", "ms"])
def test_what_is_no_delay(text: str) -> None:
    with pytest.raises(InvalidInput, match="a delay is"):
        Delay.parse(text)


TRACE = Trace(pa.array(range(1_000)), sizes=np.full(1_000, 10))


@pytest.mark.parametrize(
    ("text", "in_bytes", "expected"),
    [
        ("1%", False, 10), ("0.1%", False, 1), ("0.01%", False, 1), ("25", False, 25), ("2k", False, 2_000),
        ("1%", True, 100), ("4KiB", True, 4_096), ("1.5 MiB", True, 1_572_864), ("1g", True, 10**9),
    ],
)  # fmt: skip
def test_sizes(text: str, in_bytes: bool, expected: int) -> None:
    assert capacity(text, TRACE, in_bytes=in_bytes) == expected


@pytest.mark.parametrize("text", ["", "much", "-1", "1ib", "5 TB", "0", "0%"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidInput, match="a size is"):
        capacity(text, TRACE, in_bytes=False)
