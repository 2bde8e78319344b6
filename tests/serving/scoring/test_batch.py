"""Whole batches: right, resumable, never half there, and the same however they are made."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from predis.errors import AlreadyExists, Conflict, InvalidInput, NotFound, Unavailable
from predis.serving.scoring import Batch, Progress, pool, result, score, scorer
from predis.serving.scoring.workspace import Workspace
from tests.serving.scoring import killed
from tests.serving.scoring.toy import batch, check, table, version, write

ROOT = Path(killed.__file__).parents[3]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes that ``killed`` sets in its own process."""
    monkeypatch.setattr(scorer, "_BATCH_ROWS", 50)
    monkeypatch.setattr(scorer, "_PART_ROWS", 100)
    monkeypatch.setattr(result, "_GROUP_ROWS", 300)


class Told(Progress):
    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []

    def begin(self, rows: int, *, done: int) -> None:
        self.log += [("rows", rows), ("done", done)]

    def advance(self, rows: int) -> None:
        self.log.append(("more", rows))

    def assembling(self) -> None:
        self.log.append(("assembling", 0))


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_every_row_is_scored_once_in_order(tmp_path: Path, ending: str) -> None:
    rows = table(9_000)
    told = Told()
    summary = score(batch(write(tmp_path / f"in{ending}", rows), tmp_path / "out.parquet"), told)
    check(tmp_path / "out.parquet", rows)
    assert (summary.rows, summary.scored, summary.files) == (9_000, 9_000, 1)
    assert summary.size_bytes == (tmp_path / "out.parquet").stat().st_size
    assert told.log == [
        ("rows", 9_000),
        ("done", 0),
        ("more", 4_096),
        ("more", 4_096),
        ("more", 808),
        ("assembling", 0),
    ]
    assert sorted(os.listdir(tmp_path)) == [f"in{ending}", "out.parquet"]


def test_a_folder_is_one_data_set(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rows = table(300)
    for place in range(3):
        write(tmp_path / "in" / f"{place}.parquet", rows.slice(place * 100, 100), group_rows=30)
    summary = score(batch(tmp_path / "in", tmp_path / "out.parquet"))
    check(tmp_path / "out.parquet", rows)
    assert summary.files == 3


def test_a_result_may_lie_beside_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = batch(tmp_path, tmp_path / "out.parquet")
    write(tmp_path / "in.parquet", table(100))
    monkeypatch.setattr(scorer, "_BATCH_ROWS", 50)
    monkeypatch.setattr(scorer, "_PART_ROWS", 50)

    class Interrupted(Progress):
        def advance(self, rows: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(asked, Interrupted())
    assert [score(asked).scored for _ in range(2)] == [50, 0]
    check(tmp_path / "out.parquet", table(100))


def test_data_are_not_scored_onto_themselves(tmp_path: Path) -> None:
    source = write(tmp_path / "in.parquet", table(10))
    with pytest.raises(NotFound, match="no Parquet or CSV file"):
        score(batch(source, source, fresh=True))
    assert pq.read_table(source).equals(table(10))


def test_no_rows_are_a_result_too(tmp_path: Path) -> None:
    score(batch(write(tmp_path / "in.parquet", table(0)), tmp_path / "out.parquet"))
    check(tmp_path / "out.parquet", table(0))


def test_object_stores() -> None:
    files = fsspec.filesystem("memory")
    files.store.clear()
    rows = table(500)
    with files.open("/lake/in.parquet", "wb") as file:
        pq.write_table(rows, file)
    for scored in (500, 0):
        assert score(batch("memory://lake/in.parquet", "memory://lake/out.parquet")).scored == scored
    with files.open("/lake/out.parquet", "rb") as file:
        assert pq.read_table(file).column("id").equals(rows.column("id"))
    assert sorted(files.ls("/lake", detail=False)) == ["/lake/in.parquet", "/lake/out.parquet"]


def test_a_finished_result_is_not_made_again(tmp_path: Path) -> None:
    asked = batch(write(tmp_path / "in.parquet", table(100)), tmp_path / "out.parquet")
    score(asked)
    before = (tmp_path / "out.parquet").stat()
    told = Told()
    assert score(asked, told).scored == 0
    assert told.log == []
    assert (tmp_path / "out.parquet").stat() == before
    assert sorted(os.listdir(tmp_path)) == ["in.parquet", "out.parquet"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("moment", ["1", "3", "4", "19", "assembling", "half-written", "written"])
def test_a_run_that_was_killed_goes_on_and_ends_the_same(tmp_path: Path, moment: str) -> None:
    rows = table(1_000)
    source = write(tmp_path / "in.parquet", rows, group_rows=130)
    score(batch(source, tmp_path / "whole.parquet"))
    target = tmp_path / "out.parquet"
    command = [sys.executable, "-m", killed.__name__, str(source), str(target), moment]
    ended = subprocess.run(command, cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert target.exists() is (moment == "written")
    told = Told()
    summary = score(batch(source, target), told)
    saved = {
        "1": 0,
        "3": 100,
        "4": 200,
        "19": 900,
        "assembling": 1_000,
        "half-written": 1_000,
        "written": 1_000,
    }
    assert summary.scored == 1_000 - saved[moment]
    assert target.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    check(target, rows)
    assert sorted(os.listdir(tmp_path)) == ["in.parquet", "out.parquet", "whole.parquet"]


class TestWhatLiesThere:
    """Results and beginnings of other data, versions and columns are refused, and replaced when asked for."""

    @pytest.fixture
    def asked(self, tmp_path: Path) -> Batch:
        found = batch(write(tmp_path / "in.parquet", table(100)), tmp_path / "out.parquet")
        score(found)
        return found

    def refused(self, other: Batch, message: str) -> None:
        before = Path(other.target).read_bytes()
        with pytest.raises(Conflict, match=message):
            score(other)
        assert Path(other.target).read_bytes() == before
        assert score(Batch(**{**vars(other), "fresh": True})).scored == 100
        assert score(other).scored == 0

    def test_other_data(self, asked: Batch) -> None:
        write(Path(asked.source), table(100, seed=1))
        self.refused(
            asked,
            r"was made of other data: in\.parquet changed since; name another result, or score again with --fresh",
        )

    def test_another_version(self, asked: Batch) -> None:
        self.refused(
            Batch(**{**vars(asked), "version": version(2)}),
            "was made with toy-model@1, and this is toy-model@2",
        )

    def test_other_columns(self, asked: Batch) -> None:
        self.refused(
            Batch(**{**vars(asked), "keep": ()}), "was made keeping the columns id, and now they are none"
        )

    def test_something_else_altogether(self, asked: Batch, tmp_path: Path) -> None:
        for content in (table(3), None):
            if content is None:
                Path(asked.target).write_bytes(b"dear diary")
            else:
                write(Path(asked.target), content)
            with pytest.raises(AlreadyExists, match="is no result of scoring"):
                score(asked)
        assert Path(asked.target).read_bytes() == b"dear diary"

    def test_a_beginning_of_other_data(self, asked: Batch, tmp_path: Path) -> None:
        Path(asked.target).unlink()
        workspace = Workspace(asked.target)
        workspace.begin({"model": "toy-model", "version": 1, "digest": "other"})
        with workspace.held():
            score_parts(workspace)
        with pytest.raises(Conflict, match="was begun with toy-model@1"):
            score(asked)

    def test_a_beginning_without_a_part_is_none(self, asked: Batch) -> None:
        Path(asked.target).unlink()
        Workspace(asked.target).begin({"model": "other", "version": 1, "digest": "other"})
        assert score(asked).scored == 100

    def test_a_fresh_run_that_was_interrupted_goes_on_without_being_told_again(
        self, asked: Batch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(scorer, "_BATCH_ROWS", 50)
        monkeypatch.setattr(scorer, "_PART_ROWS", 50)
        write(Path(asked.source), table(100, seed=1))

        class Interrupted(Progress):
            def advance(self, rows: int) -> None:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            score(Batch(**{**vars(asked), "fresh": True}), Interrupted())
        assert score(asked).scored == 50
        check(Path(asked.target), table(100, seed=1))


def score_parts(workspace: Workspace) -> None:
    from predis.serving.scoring.spans import Span

    workspace.write(Span(0, 1), pa.table({"probability": [0.5]}))


@pytest.mark.parametrize("workers", [2, 3])
def test_several_processes_make_the_same_bytes(tmp_path: Path, workers: int) -> None:
    rows = table(300_000)
    source = write(tmp_path / "in.parquet", rows, group_rows=100_000)
    score(batch(source, tmp_path / "one.parquet"))
    summary = score(batch(source, tmp_path / "out.parquet", workers=workers))
    assert summary.scored == 300_000
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "out.parquet").read_bytes()
    check(tmp_path / "out.parquet", rows)


def test_a_process_s_error_is_the_batch_s(tmp_path: Path) -> None:
    rows = table(200_000)
    values = rows.column("z").to_pylist()
    values[150_000] = None
    source = write(tmp_path / "in.parquet", rows.set_column(2, "z", pa.array(values)))
    with pytest.raises(InvalidInput, match=r"^in\.parquet, row 150,001: column 'z' holds a null"):
        score(batch(source, tmp_path / "out.parquet", workers=2))


def test_a_process_that_dies_is_told_and_what_it_did_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "in.parquet", table(300_000))
    asked = batch(source, tmp_path / "out.parquet", workers=2)
    heard = pool._heard
    spans_done = 0

    def kills_after_a_span(pipe: object) -> int | None:
        nonlocal spans_done
        found = heard(pipe)
        if found is None:
            spans_done += 1
            for child in multiprocessing.active_children():
                child.kill()
        return found

    monkeypatch.setattr(pool, "_heard", kills_after_a_span)
    with pytest.raises(Unavailable, match=r"ended on its own.*Run again to go on"):
        score(asked)
    monkeypatch.setattr(pool, "_heard", heard)
    assert 0 < score(asked).scored <= 300_000 - 16_384
    check(tmp_path / "out.parquet", table(300_000))


# Not the ru_maxrss of getrusage: that is the parent's too, which holds the data set.
MEASURED = """
import re, sys
from pathlib import Path
from predis.serving.scoring import score
from tests.serving.scoring.toy import batch
score(batch(*sys.argv[1:]))
print(re.search("VmHWM: *([0-9]+)", Path("/proc/self/status").read_text().replace("\t", " "))[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    used = []
    for million in (0.4, 4):
        rows = table(int(million * 1e6))
        source = write(tmp_path / "in.parquet", rows, group_rows=200_000)
        command = [sys.executable, "-c", MEASURED, str(source), str(tmp_path / f"{million}.parquet")]
        ended = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        used.append(int(ended.stdout))
    assert used[1] < 1.3 * used[0]


def test_a_result_that_is_no_parquet_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="the result is a Parquet file"):
        score(batch(tmp_path / "in.parquet", tmp_path / "out.csv"))
