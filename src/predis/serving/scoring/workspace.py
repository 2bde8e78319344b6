"""The folder beside a result in which it comes into being: what is being scored, and the parts that are done.

A part is a Parquet file named by the rows it holds, and it appears whole. So the list of names IS the state: a run that was killed is
gone on with by scoring the rows that no part has, by as many processes, and on whichever engine, the next run likes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from predis.errors import Conflict
from predis.serving.scoring.files import is_local, locate, whole
from predis.serving.scoring.spans import Span

_PART = re.compile(r"rows-(\d{15})-(\d{15})\.parquet")
_PLAN = "plan.json"
_LOCK = "lock"


class Workspace:
    """The folder of one result.

    Args:
        url: the result's; the folder is called after it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._files, path = locate(url)
        self.folder = f"{path}.scoring"

    def plan(self) -> dict[str, Any] | None:
        """What is being scored here; None where nothing is, or it cannot be told what."""
        try:
            found = json.loads(self._files.cat_file(f"{self.folder}/{_PLAN}"))
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Forget what was scored here before, and say what will be."""
        self.remove()
        with whole(self._files, f"{self.folder}/{_PLAN}") as file:
            file.write(json.dumps(plan).encode())

    def done(self) -> list[Span]:
        """The rows of every part, in the order of their names."""
        if not self._files.isdir(self.folder):
            return []
        names = sorted(str(path).rpartition("/")[2] for path in self._files.ls(self.folder, detail=False))
        found = (_PART.fullmatch(name) for name in names)
        return [Span(int(match[1]), int(match[2])) for match in found if match]

    def write(self, span: Span, table: pa.Table) -> None:
        """Store the rows of a span; storing them again does no harm."""
        with whole(self._files, self._path(span)) as file:
            pq.write_table(table, file, compression="zstd")

    def read(self, span: Span) -> pa.Table:
        """The rows of a part."""
        with self._files.open(self._path(span), "rb") as file:
            return pq.read_table(file)

    def remove(self) -> None:
        """Forget everything but who is at work here."""
        if not self._files.isdir(self.folder):
            return
        for path in self._files.ls(self.folder, detail=False):
            if str(path).rpartition("/")[2] != _LOCK:
                self._files.rm_file(path)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only one at work here; on a file system of this machine. At the end a folder without a part goes.

        Raises:
            Conflict: another process is.
        """
        # An object store has no locks; there, parts that are written twice are the same.
        descriptor = self._claim() if is_local(self._files) else None
        try:
            yield
        finally:
            with suppress(OSError):
                if not self.done():
                    self._files.rm(self.folder, recursive=True)
            if descriptor is not None:
                os.close(descriptor)

    def _claim(self) -> int:
        lock = f"{self.folder}/{_LOCK}"
        while True:
            os.makedirs(self.folder, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise Conflict(
                    f"{self.url} is being scored by another process; wait for it, or name another result"
                ) from None
            if os.path.exists(lock) and os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                return descriptor
            os.close(descriptor)  # who held it has just removed it

    def _path(self, span: Span) -> str:
        return f"{self.folder}/rows-{span.start:015d}-{span.stop:015d}.parquet"
