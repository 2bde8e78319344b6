"""Files by URL, in folders and object stores alike: read, write whole or not at all, tell whether one has changed."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from predis.errors import DiskFull, InvalidInput, MissingExtra

_CHUNK = 1 << 20
# What object stores call that which is another where the content is.
_MARKS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "generation",
    "LastModified",
    "last_modified",
    "mtime",
    "created",
)


def locate(url: str) -> tuple[Any, str]:
    """The file system that a URL or path names, and the path in it.

    Raises:
        InvalidInput: no file system is known for it.
        MissingExtra: its package is not installed.
    """
    import fsspec

    try:
        files, path = fsspec.url_to_fs(url)
    except ImportError as error:
        raise MissingExtra(f"{url}: {error}") from None
    except ValueError as error:
        raise InvalidInput(f"{url}: {error}") from None
    return files, str(path)


def is_local(files: Any) -> bool:
    """Whether it is this machine's own file system."""
    protocols = (files.protocol,) if isinstance(files.protocol, str) else files.protocol
    return "file" in protocols


def identity(files: Any, path: str) -> str:
    """Something that is another where the file's content is: the SHA-256 of a local file, and for one in an object store what the store
    itself keeps, for reading it all would be fetching it twice.
    """
    if not is_local(files):
        about = files.info(path)
        marks = [f"{mark}={about[mark]}" for mark in _MARKS if about.get(mark) is not None]
        if marks:
            return f"size={about.get('size')} {marks[0]}"
    digest = hashlib.sha256()
    with files.open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def whole(files: Any, path: str, *, by: str = "") -> Iterator[BinaryIO]:
    """A file to write, which appears under its name whole when the block ends, or not at all.

    Args:
        by: the folder in which it comes into being, and where a process that is killed leaves it behind; its own, where not given.

    Raises:
        DiskFull: the system does not take it.
    """
    folder, _, name = path.rpartition("/")
    temporary = f"{by or folder}/.{name}.{uuid.uuid4().hex}"
    try:
        files.makedirs(folder, exist_ok=True)
        with files.open(temporary, "wb") as file:
            yield file
            file.flush()
            if is_local(files):
                os.fsync(file.fileno())
        if is_local(files):
            os.replace(temporary, path)
            _sync(Path(folder))
        else:
            files.mv(temporary, path)
    except OSError as error:
        raise DiskFull(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            files.rm_file(temporary)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
