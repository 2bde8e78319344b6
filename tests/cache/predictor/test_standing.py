"""From control to the workers: which versions are in use, and what is not to be trusted."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from predis.cache.predictor.published import publish
from predis.cache.predictor.standing import STANDING, Standing, Watcher, damaged, establish, read
from predis.cache.predictor.tables import Tables

ONE, TWO, ONLINE = (Tables(followers={b"a": (then,)}) for then in (b"one", b"two", b"online"))


def _establish(folder: Path, champion: Tables | None, candidate: Tables | None = None) -> Standing:
    artifacts = {hashlib.sha256(t.dump()).hexdigest(): t.dump() for t in (champion, candidate) if t}
    digests = [t.digest() if t else "" for t in (champion, candidate)]
    standing = Standing(
        int(champion is not None), digests[0], 2 * int(candidate is not None), digests[1], 0.5
    )
    establish(folder, standing, artifacts=artifacts)
    return standing


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("version-*"))


def test_a_worker_takes_on_versions_and_the_learners_tables(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path)
    assert watcher.look() is None
    publish(tmp_path, ONLINE, number=1)
    arms = watcher.look()
    assert arms is not None
    assert (arms.champion.version, arms.champion.tables.followers) == (0, {b"a": (b"online",)})
    assert watcher.look() is None
    _establish(tmp_path, ONE, TWO)
    publish(tmp_path, Tables(), number=2)
    arms = watcher.look()
    assert arms is not None
    assert arms.candidate is not None
    assert (arms.champion.version, arms.champion.tables) == (1, ONE)
    assert (arms.candidate.version, arms.candidate.tables) == (2, TWO)
    assert watcher.look() is None


def test_files_of_versions_no_longer_in_use_are_removed(tmp_path: Path) -> None:
    _establish(tmp_path, ONE, TWO)
    assert len(_files(tmp_path)) == 2
    standing = _establish(tmp_path, TWO)
    assert len(_files(tmp_path)) == 1
    assert read(tmp_path) == standing


def test_a_version_that_fails_its_digest_is_left_out_and_the_worker_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(tmp_path, ONLINE, number=1)
    standing = _establish(tmp_path, ONE)
    (file,) = _files(tmp_path)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert damaged(tmp_path, standing)
    watcher = Watcher(tmp_path)
    arms = watcher.look()
    assert arms is not None
    assert arms.champion.tables.followers == {b"a": (b"online",)}
    assert "left out" in caplog.text
    _establish(tmp_path, ONE)
    assert not damaged(tmp_path, standing)
    arms = watcher.look()
    assert arms is not None
    assert arms.champion.version == 1


def test_a_version_in_use_stays_in_use_though_its_file_is_damaged(tmp_path: Path) -> None:
    _establish(tmp_path, ONE)
    watcher = Watcher(tmp_path)
    watcher.look()
    (file,) = _files(tmp_path)
    file.unlink()
    publish(tmp_path, Tables(), number=1)
    arms = watcher.look()
    assert arms is not None
    assert arms.champion.tables == ONE


@pytest.mark.parametrize("contents", [b"", b"[]", b'{"champion": 1, "unknown": 2}'])
def test_what_cannot_be_read_stands_for_nothing(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / STANDING).write_bytes(contents)
    assert read(tmp_path) == Standing()
