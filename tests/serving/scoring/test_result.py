"""The result's file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from predis.errors import IntegrityFailure
from predis.serving.scoring import result
from predis.serving.scoring.result import assemble, made_of
from predis.serving.scoring.spans import Span
from predis.serving.scoring.workspace import Workspace

PLAN = {"rows": 10}
SCHEMA = pa.schema([("row", pa.int64())])


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(str(tmp_path / "out.parquet"))


def rows(*span: int) -> pa.Table:
    return pa.table({"row": range(*span)}, schema=SCHEMA)


def test_parts_that_overlap_give_every_row_once(workspace: Workspace) -> None:
    for span in (Span(0, 4), Span(0, 6), Span(4, 8), Span(8, 10)):
        workspace.write(span, rows(*span))
    assemble(workspace, PLAN, schema=SCHEMA)
    assert pq.read_table(workspace.url).column("row").to_pylist() == list(range(10))
    assert made_of(workspace.url) == (True, PLAN)


def test_row_groups_do_not_hang_on_the_parts(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result, "_GROUP_ROWS", 4)
    for span in (Span(0, 1), Span(1, 9), Span(9, 10)):
        workspace.write(span, rows(*span))
    assemble(workspace, PLAN, schema=SCHEMA)
    found = pq.ParquetFile(workspace.url).metadata
    assert [found.row_group(place).num_rows for place in range(found.num_row_groups)] == [4, 4, 2]


def test_a_part_that_is_missing_or_damaged_is_told(workspace: Workspace, tmp_path: Path) -> None:
    workspace.write(Span(0, 5), rows(0, 5))
    with pytest.raises(IntegrityFailure, match="no part holds row 5; score again with --fresh"):
        assemble(workspace, PLAN, schema=SCHEMA)
    workspace.write(Span(5, 10), rows(5, 10))
    next((tmp_path / "out.parquet.scoring").glob("*05-*10.parquet")).write_bytes(b"PAR1")
    with pytest.raises(IntegrityFailure, match="are damaged"):
        assemble(workspace, PLAN, schema=SCHEMA)
    assert not (tmp_path / "out.parquet").exists()


def test_what_a_file_was_made_of(workspace: Workspace, tmp_path: Path) -> None:
    assert made_of(workspace.url) == (False, None)
    pq.write_table(rows(0, 1), workspace.url)
    assert made_of(workspace.url) == (True, None)
    (tmp_path / "out.parquet").write_bytes(b"")
    assert made_of(workspace.url) == (True, None)
