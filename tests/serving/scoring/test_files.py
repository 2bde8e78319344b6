"""Files that appear whole, and what tells one from another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pytest

from predis.errors import DiskFull, InvalidInput, MissingExtra
from predis.serving.scoring.files import identity, is_local, locate, whole


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, str]:
    """A file system of this machine, and one that is like an object store."""
    if request.param == "local":
        return locate(str(tmp_path / "folder" / "file"))
    fsspec.filesystem("memory").store.clear()
    return locate("memory://bucket/folder/file")


def test_a_file_appears_when_it_is_whole(place: tuple[Any, str]) -> None:
    files, path = place
    with whole(files, path) as file:
        file.write(b"one")
        assert not files.exists(path)
    assert files.cat_file(path) == b"one"
    with whole(files, path) as file:
        file.write(b"two")
    assert files.cat_file(path) == b"two"
    assert len(files.ls(path.rpartition("/")[0])) == 1


def test_a_file_that_failed_leaves_nothing_and_what_was_there(place: tuple[Any, str]) -> None:
    files, path = place
    with whole(files, path) as file:
        file.write(b"one")
    with pytest.raises(RuntimeError), whole(files, path) as file:
        file.write(b"half")
        raise RuntimeError
    assert files.cat_file(path) == b"one"
    assert len(files.ls(path.rpartition("/")[0])) == 1


def test_where_nothing_can_be_written_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    files, path = locate(str(tmp_path / "file" / "below"))
    with pytest.raises(DiskFull, match="cannot write"), whole(files, path):
        pass


def test_identity_follows_the_content(place: tuple[Any, str]) -> None:
    files, path = place
    found = []
    for content in (b"one", b"two"):
        with whole(files, path) as file:
            file.write(content)
        found.append(identity(files, path))
        assert identity(files, path) == found[-1]
    assert found[0] != found[1]


def test_identity_of_a_local_file_does_not_hang_on_its_age(tmp_path: Path) -> None:
    names = [tmp_path / "a", tmp_path / "b"]
    for name in names:
        name.write_bytes(b"same")
    files, _ = locate(str(tmp_path))
    assert identity(files, str(names[0])) == identity(files, str(names[1]))


def test_locations() -> None:
    assert is_local(locate("relative/file")[0])
    assert is_local(locate("file:///file")[0])
    assert not is_local(locate("memory://file")[0])
    with pytest.raises(InvalidInput, match="Protocol not known"):
        locate("nonsense://file")
    with pytest.raises(MissingExtra, match="adlfs"):
        locate("abfs://container/file")
