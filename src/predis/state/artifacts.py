"""The artifact store: files named by their own SHA-256, in a folder or any object store fsspec speaks to.

A file's name is its content's digest, so it can be written twice without harm, never changes, and is checked by reading it.
A write lands under a temporary name and is moved in place whole: a crash leaves a stray temporary, never half an artifact.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import uuid
from collections.abc import AsyncIterable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from predis.errors import DiskFull, IntegrityFailure, InvalidInput, NotFound, TooLarge

_CHUNK = 1 << 20
_YOUNG_S = 600.0  # a file in an object store is not written again while it is younger


@dataclass(frozen=True)
class Stored:
    """A file in the store: its SHA-256 in hex, and its size."""

    digest: str
    size_bytes: int


class ArtifactStore:
    """Content-addressed files under one root.

    Args:
        url: a folder, or an fsspec URL such as ``s3://bucket/predis``.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        self._files, root = fsspec.url_to_fs(url)
        self._root = str(root).rstrip("/")
        self._local = "file" in _protocols(self._files)

    def put(self, content: bytes) -> Stored:
        """Store bytes; storing what is there already makes it new, and costs little."""
        digest = hashlib.sha256(content).hexdigest()
        if not self._renewed(digest):
            with self._landing() as landing:
                landing.write(content)
                landing.commit(digest)
        return Stored(digest, len(content))

    def put_file(self, path: Path) -> Stored:
        """Store a file, reading it once in pieces."""
        with path.open("rb") as source, self._landing() as landing:
            while chunk := source.read(_CHUNK):
                landing.write(chunk)
            return landing.commit()

    async def put_stream(self, chunks: AsyncIterable[bytes], *, limit_bytes: int) -> Stored:
        """Store a body as it arrives, in constant memory.

        Raises:
            TooLarge: more than ``limit_bytes`` came; nothing is kept.
        """
        with self._landing() as landing:
            async for chunk in chunks:
                landing.write(chunk)
                if landing.size > limit_bytes:
                    raise TooLarge(f"the file is larger than {limit_bytes} bytes")
            return landing.commit()

    def put_chunks(self, chunks: Iterable[bytes], *, digest: str) -> Stored:
        """Store a file that comes in pieces and must have this digest, in constant memory.

        Raises:
            IntegrityFailure: it has another; nothing is kept.
        """
        with self._landing() as landing:
            for chunk in chunks:
                landing.write(chunk)
            if landing.digest != digest:
                raise IntegrityFailure(
                    f"a file that should have the digest {digest[:12]}… has {landing.digest[:12]}…: it was changed or damaged"
                )
            return landing.commit()

    def exists(self, digest: str) -> bool:
        return bool(self._files.exists(self._path(digest)))

    def read(self, digest: str) -> bytes:
        """The content of a file, checked against its digest.

        Raises:
            NotFound: no such file.
            IntegrityFailure: the bytes are not what was stored.
        """
        try:
            content: bytes = self._files.cat_file(self._path(digest))
        except FileNotFoundError:
            raise _gone(digest) from None
        actual = hashlib.sha256(content).hexdigest()
        if actual != digest:
            raise _damaged(digest, actual)
        return content

    def chunks(self, digest: str) -> Iterator[bytes]:
        """The content of a file in pieces, in constant memory. The last piece comes only if all of them are what was stored.

        Raises:
            NotFound, IntegrityFailure: as ``read``, the latter after all pieces but the last.
        """
        actual, last = hashlib.sha256(), b""
        try:
            with self._files.open(self._path(digest), "rb") as file:
                while chunk := file.read(_CHUNK):
                    actual.update(chunk)
                    if last:
                        yield last
                    last = chunk
        except FileNotFoundError:
            raise _gone(digest) from None
        if actual.hexdigest() != digest:
            raise _damaged(digest, actual.hexdigest())
        yield last

    @contextmanager
    def checked(self, digest: str) -> Iterator[Path]:
        """A file on this machine with the content, checked, in constant memory: the store's own, or a copy until the block ends.

        Raises:
            NotFound, IntegrityFailure: as ``read``.
        """
        if path := self.local_path(digest):
            for _chunk in self.chunks(digest):
                pass
            yield path
            return
        with tempfile.NamedTemporaryFile(prefix="predis-artifact-") as copy:
            for chunk in self.chunks(digest):
                copy.write(chunk)
            copy.flush()
            yield Path(copy.name)

    def delete(self, digest: str) -> None:
        if self.exists(digest):
            self._files.rm_file(self._path(digest))

    def held(self) -> dict[str, int]:
        """Every file's digest and size."""
        found = self._files.find(self._root, detail=True) if self._files.exists(self._root) else {}
        sizes = {path.rpartition("/")[2]: info["size"] for path, info in found.items()}
        return {name: size for name, size in sizes.items() if len(name) == 64}

    def discard(self, digest: str, *, before_s: float, dry_run: bool = False) -> bool:
        """Delete a file unless it was stored, or stored again, since ``before_s`` (seconds since the epoch). Whether it is gone.

        In a folder the file is taken aside first: if it was made new between the look and the deed, it is put back. In an object store
        a file that is stored again at that very moment may go; whoever stored it finds out when they use it.
        """
        path = self._path(digest)
        older = self._is_older(path, before_s)
        if dry_run or not older:
            return older
        if not self._local:
            self._files.rm_file(path)
            return True
        aside = Path(self._incoming())
        try:
            aside.parent.mkdir(exist_ok=True)
            Path(path).rename(aside)
            if aside.stat().st_mtime < before_s:
                return True
            with suppress(FileExistsError):
                os.link(aside, path)
            return False
        except FileNotFoundError:
            return False
        finally:
            aside.unlink(missing_ok=True)

    def discard_strays(self, before_s: float, *, dry_run: bool = False) -> int:
        """Delete what writes that never ended have left since before ``before_s``; how many they were."""
        folder = f"{self._root}/incoming"
        found = self._files.ls(folder, detail=False) if self._files.exists(folder) else []
        strays = [path for path in found if self._is_older(path, before_s)]
        for path in strays if not dry_run else ():
            with suppress(FileNotFoundError):
                self._files.rm_file(path)
        return len(strays)

    def _renewed(self, digest: str) -> bool:
        """Whether a file is there, and is now as good as just stored: nobody collects it as garbage."""
        path = self._path(digest)
        if not self._local:
            return not self._is_older(path, time.time() - _YOUNG_S) and bool(self._files.exists(path))
        try:
            os.utime(path)
        except OSError:  # if it is not that there is none, writing it tells
            return False
        return True

    def _is_older(self, path: str, before_s: float) -> bool:
        """Whether a file is there and was last written before that; never, of a store that does not tell."""
        try:
            return bool(self._files.modified(path).timestamp() < before_s)
        except (FileNotFoundError, NotImplementedError):
            return False

    def _incoming(self) -> str:
        return f"{self._root}/incoming/{uuid.uuid4().hex}"

    def local_path(self, digest: str) -> Path | None:
        """Where a file lies, for stores that are folders; its content is NOT checked."""
        return Path(self._path(digest)) if self._local else None

    def _path(self, digest: str) -> str:
        if len(digest) != 64 or not all(c in "0123456789abcdef" for c in digest):
            raise InvalidInput(f"a digest is 64 hexadecimal digits, got {digest[:80]!r}")
        return f"{self._root}/{digest[:2]}/{digest}"

    def _landing(self) -> _Landing:
        return _Landing(self._files, self._root, local=self._local)


class _Landing:
    """One file on its way in: written under a temporary name, then moved in place or removed."""

    def __init__(self, files: Any, root: str, *, local: bool) -> None:
        self._files, self._root, self._local = files, root, local
        self._temporary = f"{root}/incoming/{uuid.uuid4().hex}"
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = None
        self.size = 0

    def __enter__(self) -> _Landing:
        with _disk_errors(self._root):
            self._files.makedirs(f"{self._root}/incoming", exist_ok=True)
            self._file = self._files.open(self._temporary, "wb")
        return self

    def write(self, chunk: bytes) -> None:
        assert self._file is not None
        with _disk_errors(self._root):
            self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    @property
    def digest(self) -> str:
        """Of what was written so far."""
        return self._hash.hexdigest()

    def commit(self, digest: str | None = None) -> Stored:
        assert self._file is not None
        digest = digest or self._hash.hexdigest()
        target = f"{self._root}/{digest[:2]}/{digest}"
        with _disk_errors(self._root):
            self._file.flush()
            if self._local:
                os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
            if self._local:
                folder = Path(target).parent
                folder.mkdir(exist_ok=True)
                os.replace(self._temporary, target)
                _sync_folder(folder)
                # Always, not only where the folder is new: whoever made it may not have come to this yet.
                _sync_folder(folder.parent)
            else:
                self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._files.mv(self._temporary, target)
        return Stored(digest, self.size)

    def __exit__(self, *_error: object) -> None:
        if self._file is not None:
            with suppress(OSError):  # What a full disk did not take is written once more here, in vain.
                self._file.close()
        if self._files.exists(self._temporary):
            self._files.rm_file(self._temporary)


def _gone(digest: str) -> NotFound:
    return NotFound(f"the artifact store has no file {digest[:12]}…; was it deleted by hand?")


def _damaged(digest: str, actual: str) -> IntegrityFailure:
    return IntegrityFailure(
        f"file {digest[:12]}… in the artifact store has the digest {actual[:12]}…: it was changed or damaged after "
        "registration; restore it from a backup or register the version again"
    )


@contextmanager
def _disk_errors(root: str) -> Iterator[None]:
    """Turns the operating system's refusal to write into an error that says where."""
    try:
        yield
    except OSError as error:
        raise DiskFull(f"cannot write to the artifact store {root}: {error.strerror or error}") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _protocols(files: Any) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)
