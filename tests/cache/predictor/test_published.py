"""From the learner to the workers: what is in use, what is not trusted, what a full disk leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from predis.cache.predictor import published
from predis.cache.predictor.published import CURRENT, Follower, current, publish, read
from predis.cache.predictor.tables import Tables
from predis.errors import IntegrityFailure

ONE, TWO = Tables(followers={b"a": (b"b",)}), Tables(followers={b"a": (b"c",)})


def test_a_worker_takes_on_what_is_published(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    assert follower.look() is None
    publish(tmp_path, ONE, number=1)
    assert follower.look() == ONE
    assert follower.look() is None, "it is in use already"
    digest = publish(tmp_path, TWO, number=2, about={"reads": 9})
    assert follower.look() == TWO
    assert current(tmp_path) == {"digest": digest, "number": 2, "reads": 9}
    assert read(tmp_path, digest) == TWO


def test_a_damaged_artifact_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    follower = Follower(tmp_path)
    publish(tmp_path, ONE, number=1)
    follower.look()
    publish(tmp_path, TWO, number=2)
    (path,) = [path for path in tmp_path.glob("tables-*") if TWO.digest()[:16] in path.name]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert follower.look() is None
    assert "digest" in caplog.text
    with pytest.raises(IntegrityFailure):
        read(tmp_path, TWO.digest())


def test_tables_that_are_gone_are_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    publish(tmp_path, ONE, number=1)
    for path in tmp_path.glob("tables-*"):
        path.unlink()
    assert Follower(tmp_path).look() is None
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize("contents", [b"", b"[]", b"{", b'{"digest": 1}'])
def test_a_pointer_to_nothing_is_left(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / CURRENT).write_bytes(contents)
    assert current(tmp_path) is None
    assert Follower(tmp_path).look() is None


def test_a_full_disk_leaves_what_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, ONE, number=1)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(published.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        publish(tmp_path, TWO, number=2)
    assert Follower(tmp_path).look() == ONE
    assert not list(tmp_path.glob(".*")), "nothing half-written stays"


def test_old_tables_are_dropped(tmp_path: Path) -> None:
    for i in range(10):
        publish(tmp_path, Tables(followers={b"a": (b"%d" % i,)}), number=i)
    assert len(list(tmp_path.glob("tables-*"))) == 3
    assert Follower(tmp_path).look() == Tables(followers={b"a": (b"9",)})
