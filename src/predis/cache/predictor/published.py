"""From the learner to the gateway's workers: compiled tables in a folder, and which of them are the newest.

The learner writes the tables under the name of their digest and then replaces ``current.json``, which names them; both whole, or not at
all. Workers look at that file's time; where it changed they load what it names. What cannot be read, or is not what its digest says, is
logged and left: the worker goes on with what it has.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from predis.cache.predictor.tables import Tables
from predis.errors import IntegrityFailure

log = logging.getLogger(__name__)

CURRENT = "current.json"
_KEPT = 3


def publish(folder: Path, tables: Tables, *, number: int, about: dict[str, Any] | None = None) -> str:
    """Make these the learner's tables; their digest.

    Args:
        number: how many it published before, and one.
        about: what else ``current`` shall tell of them.

    Raises:
        OSError: the disk does not take them; those in use stay.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    contents = tables.dump()
    digest = hashlib.sha256(contents).hexdigest()
    path = folder / _name(digest)
    if not path.exists():
        write(path, contents)
    entry = {"digest": digest, "number": number, **(about or {})}
    write(folder / CURRENT, json.dumps(entry).encode())
    _drop_old(folder, digest)
    return digest


def current(folder: Path) -> dict[str, Any] | None:
    """What is said of the tables in use; None where there are none."""
    try:
        entry = json.loads((folder / CURRENT).read_bytes())
    except (OSError, ValueError):
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("digest"), str) else None


def read(folder: Path, digest: str) -> Tables:
    """The tables with a digest.

    Raises:
        IntegrityFailure: they are not there, or are not what the digest says.
    """
    try:
        contents = (folder / _name(digest)).read_bytes()
    except OSError as error:
        raise IntegrityFailure(f"the predictor's tables cannot be read: {error.strerror}") from error
    return Tables.load(contents, digest=digest)


class Follower:
    """A worker's eye on the tables in use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: tuple[int, int] | None = None

    def look(self) -> Tables | None:
        """Tables that have come into use since the last look; None where that is as it was, or they are not to be trusted."""
        try:
            found = (self._folder / CURRENT).stat()
        except OSError:
            return None
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp == self._seen:
            return None
        self._seen = stamp
        entry = current(self._folder)
        if entry is None:
            log.warning("the predictor's %s cannot be read; prefetching goes on as it was", CURRENT)
            return None
        try:
            return read(self._folder, entry["digest"])
        except IntegrityFailure as error:
            log.warning("%s; prefetching goes on as it was", error.message)
            return None


def _name(digest: str) -> str:
    return f"tables-{digest[:16]}.json.zst"


def write(path: Path, contents: bytes) -> None:
    """Replace a file, whole and durably.

    Raises:
        OSError
    """
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with half.open("wb") as out:
            out.write(contents)
            out.flush()
            os.fsync(out.fileno())
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def _drop_old(folder: Path, digest: str) -> None:
    """Keep the last few tables: a worker may be about to read the ones before."""
    old = sorted(folder.glob("tables-*.json.zst"), key=lambda path: path.stat().st_mtime_ns)
    for path in [path for path in old if path.name != _name(digest)][: -_KEPT + 1]:
        path.unlink(missing_ok=True)
