from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import resource
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from predis.errors import DiskFull, IntegrityFailure, InvalidInput, NotFound, TooLarge
from predis.state import artifacts
from predis.state.artifacts import ArtifactStore

CONTENT = b"a model" * 1_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, folder: Path) -> ArtifactStore:
    """A fresh store: a folder, and one of fsspec's others."""
    return ArtifactStore(str(folder) if request.param == "folder" else f"memory://{uuid.uuid4().hex}/predis")


@pytest.fixture
def local(folder: Path) -> ArtifactStore:
    return ArtifactStore(str(folder))


def files(store: ArtifactStore) -> list[str]:
    """Names of all files in the store, those on their way in too."""
    if not store._files.exists(store._root):
        return []
    return sorted(path.rpartition("/")[2] for path in store._files.find(store._root))


async def chunks(*parts: bytes, error: BaseException | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if error is not None:
        raise error


def put_stream(store: ArtifactStore, *parts: bytes, limit: int = 1 << 30, **other: Any) -> Any:
    return asyncio.run(store.put_stream(chunks(*parts, **other), limit_bytes=limit))


def put_bytes(store: ArtifactStore, _tmp: Path) -> Any:
    return store.put(CONTENT)


def put_file(store: ArtifactStore, tmp: Path) -> Any:
    path = tmp / "model.txt"
    path.write_bytes(CONTENT)
    return store.put_file(path)


def put_body(store: ArtifactStore, _tmp: Path) -> Any:
    return put_stream(store, CONTENT[:10], b"", CONTENT[10:])


each_way = pytest.mark.parametrize("put", [put_bytes, put_file, put_body])
Put = Callable[[ArtifactStore, Path], Any]


@contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    """The kernel refuses writes past this size, as it does where the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestContentAddressing:
    @each_way
    def test_a_file_is_named_by_its_digest(self, store: ArtifactStore, tmp_path: Path, put: Put) -> None:
        assert not store.exists(DIGEST)
        stored = put(store, tmp_path)
        assert (stored.digest, stored.size_bytes) == (DIGEST, len(CONTENT))
        assert store.exists(DIGEST)
        assert store.read(DIGEST) == CONTENT

    @each_way
    def test_twice_is_once(self, store: ArtifactStore, tmp_path: Path, put: Put) -> None:
        assert put(store, tmp_path) == put(store, tmp_path)
        assert files(store) == [DIGEST]

    def test_of_nothing(self, store: ArtifactStore) -> None:
        stored = store.put(b"")
        assert stored == put_stream(store)
        assert store.read(stored.digest) == b""

    def test_at_once_from_many_sides(self, store: ArtifactStore) -> None:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda place: store.put(b"%d" % (place % 3)).digest, range(60)))
        assert files(store) == sorted(set(found))
        assert len(set(found)) == 3

    def test_another_store_over_the_same_folder_sees_it(self, local: ArtifactStore, folder: Path) -> None:
        local.put(CONTENT)
        assert ArtifactStore(str(folder)).read(DIGEST) == CONTENT
        assert ArtifactStore(f"file://{folder}/").read(DIGEST) == CONTENT

    def test_where_it_lies(self, local: ArtifactStore, folder: Path) -> None:
        local.put(CONTENT)
        path = local.local_path(DIGEST)
        assert path == folder / DIGEST[:2] / DIGEST
        assert path.read_bytes() == CONTENT

    def test_other_stores_have_no_path(self) -> None:
        assert ArtifactStore("memory://somewhere").local_path(DIGEST) is None

    def test_delete(self, store: ArtifactStore) -> None:
        store.put(CONTENT)
        store.delete(DIGEST)
        store.delete(DIGEST)
        assert not store.exists(DIGEST)


class TestRead:
    def test_a_file_that_is_not_there(self, store: ArtifactStore) -> None:
        with pytest.raises(NotFound, match=DIGEST[:12]):
            store.read(DIGEST)

    @pytest.mark.parametrize(
        "change",
        [
            lambda content: content[:-1],
            lambda content: content + b"\0",
            lambda content: bytes([content[0] ^ 1]) + content[1:],
            lambda _content: b"",
        ],
    )
    def test_a_changed_byte(
        self, store: ArtifactStore, tmp_path: Path, change: Callable[[bytes], bytes]
    ) -> None:
        store.put(CONTENT)
        store._files.pipe_file(store._path(DIGEST), change(CONTENT))
        with pytest.raises(IntegrityFailure, match=DIGEST[:12]):
            store.read(DIGEST)

    @pytest.mark.parametrize("put", [put_file, put_body])
    def test_sending_it_again_mends_it(self, store: ArtifactStore, tmp_path: Path, put: Put) -> None:
        store.put(CONTENT)
        store._files.pipe_file(store._path(DIGEST), b"damaged")
        put(store, tmp_path)
        assert store.read(DIGEST) == CONTENT

    @pytest.mark.parametrize(
        "digest",
        [
            "", "abc", "g" * 64, DIGEST.upper(), DIGEST + "0", "../" * 21 + "x", "0" * 63 + "\n", "0" * 63 + "é",
            "/etc/passwd", "٣" * 64,
        ],
    )  # fmt: skip
    def test_what_is_no_digest(self, store: ArtifactStore, digest: str) -> None:
        for use in (store.read, store.exists, store.delete):
            with pytest.raises(InvalidInput, match="64 hexadecimal"):
                use(digest)


class TestNothingHalfWritten:
    def test_a_source_that_breaks_off(self, store: ArtifactStore) -> None:
        with pytest.raises(ConnectionError, match="gone"):
            put_stream(store, CONTENT, error=ConnectionError("gone"))
        assert files(store) == []

    def test_a_source_that_is_cancelled(self, store: ArtifactStore) -> None:
        with pytest.raises(asyncio.CancelledError):
            put_stream(store, CONTENT, error=asyncio.CancelledError())
        assert files(store) == []

    def test_more_than_the_limit(self, store: ArtifactStore) -> None:
        with pytest.raises(TooLarge, match="100 bytes"):
            put_stream(store, b"x" * 60, b"x" * 41, limit=100)
        assert files(store) == []
        assert put_stream(store, b"x" * 60, b"x" * 40, limit=100).size_bytes == 100

    def test_the_limit_is_held_while_it_arrives(self, store: ArtifactStore) -> None:
        """A body without end is not read to its end."""
        taken = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal taken
            while True:
                taken += 1
                yield b"x" * 10

        with pytest.raises(TooLarge):
            asyncio.run(store.put_stream(endless(), limit_bytes=100))
        assert taken == 11

    @pytest.mark.parametrize("piece", [100, 1 << 20])
    def test_a_full_disk(self, local: ArtifactStore, piece: int) -> None:
        local.put(b"there already")
        before = files(local)
        with file_size_limit(50_000), pytest.raises(DiskFull, match="artifacts"):
            put_stream(local, *[b"x" * piece] * ((1 << 21) // piece))
        assert files(local) == before
        assert put_stream(local, b"x" * piece).size_bytes == piece

    def test_a_full_disk_at_the_last_moment(
        self, local: ArtifactStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(DiskFull, match="No space left"):
            local.put(CONTENT)
        assert files(local) == []

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(DiskFull, match="file/artifacts"):
            ArtifactStore(str(tmp_path / "file" / "artifacts")).put(CONTENT)

    def test_a_killed_writer(self, local: ArtifactStore, folder: Path) -> None:
        """Whatever is under a digest's name is whole, whenever the writer died."""
        script = textwrap.dedent(
            """
            import os, sys
            from predis.state import ArtifactStore

            store = ArtifactStore(sys.argv[1])
            while True:
                store.put(os.urandom(200_000))
            """
        )
        for _ in range(2):
            before = len(files(local))
            with subprocess.Popen([sys.executable, "-c", script, str(folder)]) as child:
                try:
                    while len(files(local)) < before + 6:
                        assert child.poll() is None
                        time.sleep(0.002)
                finally:
                    child.kill()
        whole = [path.name for path in folder.glob("??/*")]
        assert len(whole) > 6
        for digest in whole:
            local.read(digest)


class TestChecked:
    def test_is_a_file_with_the_content(self, store: ArtifactStore, folder: Path) -> None:
        store.put(CONTENT)
        with store.checked(DIGEST) as path:
            assert path.read_bytes() == CONTENT
            assert (path == store.local_path(DIGEST)) is folder.exists()
        assert path.exists() is folder.exists()  # a copy ends with the block, the store's own file does not

    def test_only_if_it_is_what_was_stored(self, store: ArtifactStore) -> None:
        store.put(CONTENT)
        store._files.pipe_file(store._path(DIGEST), CONTENT[:-1])
        with pytest.raises(IntegrityFailure), store.checked(DIGEST):
            pass

    def test_of_no_file(self, store: ArtifactStore) -> None:
        with pytest.raises(NotFound), store.checked(DIGEST):
            pass


def test_new_folders_are_synced_into_their_parent(
    local: ArtifactStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(artifacts, "_sync_folder", synced.append)
    local.put(CONTENT)
    assert synced == [folder / DIGEST[:2], folder]
