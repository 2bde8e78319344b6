"""The folder of a result in the making."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from predis.errors import Conflict
from predis.serving.scoring.spans import Span
from predis.serving.scoring.workspace import Workspace

PART = pa.table({"score": [0.5, 0.25]})


@pytest.fixture(params=["local", "memory"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Workspace:
    fsspec.filesystem("memory").store.clear()
    return Workspace(
        str(tmp_path / "out.parquet") if request.param == "local" else "memory://bucket/out.parquet"
    )


def test_parts_are_found_again(workspace: Workspace) -> None:
    assert (workspace.done(), workspace.plan()) == ([], None)
    workspace.begin({"rows": 4})
    workspace.write(Span(2, 4), PART)
    workspace.write(Span(0, 2), PART)
    workspace.write(Span(0, 2), PART)
    again = Workspace(workspace.url)
    assert (again.done(), again.plan()) == ([Span(0, 2), Span(2, 4)], {"rows": 4})
    assert again.read(Span(2, 4)).equals(PART)


def test_beginning_forgets_what_was_before(workspace: Workspace) -> None:
    workspace.begin({"rows": 4})
    workspace.write(Span(0, 2), PART)
    workspace.begin({"rows": 5})
    assert (workspace.done(), workspace.plan()) == ([], {"rows": 5})


def test_a_plan_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path / "out.parquet"))
    for content in (b"{", b"[]"):
        workspace.begin({})
        (tmp_path / "out.parquet.scoring" / "plan.json").write_bytes(content)
        assert workspace.plan() is None


def test_a_folder_without_parts_goes(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path / "out.parquet"))
    with workspace.held():
        workspace.begin({})
    assert os.listdir(tmp_path) == []


def test_a_folder_with_parts_stays(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path / "out.parquet"))
    with pytest.raises(RuntimeError), workspace.held():
        workspace.begin({"rows": 2})
        workspace.write(Span(0, 2), PART)
        raise RuntimeError
    assert workspace.done() == [Span(0, 2)]
    with workspace.held():  # its holder is gone
        pass


def _try_to_hold(url: str, told: multiprocessing.connection.Connection) -> None:  # type: ignore[name-defined]
    try:
        with Workspace(url).held():
            told.send("held")
    except Conflict as error:
        told.send(error.message)


def test_only_one_process_is_at_work(tmp_path: Path) -> None:
    url = str(tmp_path / "out.parquet")
    context = multiprocessing.get_context("spawn")
    for expected in (True, False):
        ours, theirs = context.Pipe()
        process = context.Process(target=_try_to_hold, args=(url, theirs))
        if expected:
            with Workspace(url).held():
                process.start()
                assert "is being scored by another process" in ours.recv()
        else:
            process.start()
            assert ours.recv() == "held"
        process.join()
        ours.close()
        theirs.close()
