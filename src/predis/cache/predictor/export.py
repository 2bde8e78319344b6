"""The access stream as Parquet files, written in the background: what to train on, and what ``predis cache simulate`` replays.

A file holds 65,536 reads or ten minutes, under Zstandard. It is written under another name and renamed when it is whole, so a reader
never finds half a file; a kill costs what was not yet written. The learner is never kept waiting: events go to a thread through a
queue of bounded length, and what finds it full is dropped and counted. So is what the disk does not take. The oldest files are
deleted when the folder holds more than it may, or they are older than they may become; the reads in them are counted as well.

Columns: ``key`` (text; a byte that is no UTF-8 is written as ``\\xNN``), ``ts`` (microseconds, UTC), ``size`` (bytes, 0 of a miss),
``client`` (a number, of one connection), ``op`` (``get``), ``hit``, and ``whole``: one of a stretch in which every read of the client
is there. Rows are those of the samples that the gateway's workers take, not all reads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from predis.cache.ring import KEY_BYTES, Flag
from predis.cache.ring_reader import EVENT, keys_of
from predis.metrics import NOTHING, Metrics

log = logging.getLogger(__name__)

SCHEMA = pa.schema(
    [
        ("key", pa.large_string()),
        ("ts", pa.timestamp("us", tz="UTC")),
        ("size", pa.int64()),
        ("client", pa.int64()),
        ("op", pa.dictionary(pa.int8(), pa.string())),
        ("hit", pa.bool_()),
        ("whole", pa.bool_()),
    ]
)
_PREFIX, _SUFFIX = "accesses-", ".parquet"
_ROWS = 65_536  # of a file
_FILE_S = 600.0
_WAITING = 262_144  # reads that wait for the thread, at 128 bytes


@dataclass(frozen=True, slots=True)
class Retention:
    """What the folder may hold.

    Attributes:
        max_bytes: of all files.
        max_age_s: of a file; 0: any.
    """

    max_bytes: int = 256 << 20
    max_age_s: float = 7 * 86_400.0


class AccessExport:
    """A listener of the learner.

    Args:
        folder: where files go; made if it is not there.
        metrics: where written and dropped reads are counted.
        rows, file_s: a file is written when it has so many rows, or its first is so old.

    Attributes:
        written: reads in files, deleted ones too.
        dropped: reads that were not written: the queue was full, or the disk.
        retired: reads in files that were deleted for their age or for room.
    """

    def __init__(
        self,
        folder: Path,
        *,
        retention: Retention | None = None,
        metrics: Metrics = NOTHING,
        rows: int = _ROWS,
        file_s: float = _FILE_S,
    ) -> None:
        self.folder = folder
        self.retention = retention or Retention()
        self.written = self.dropped = self.retired = 0
        self._lock = threading.Lock()  # of ``dropped`` and what waits, which both threads count
        self._told = [0, 0]
        counted = ("predis_learner_exported_total", "predis_learner_export_dropped_total")
        self._counters = [metrics.counter(name) for name in counted]
        self._rows, self._file_s = rows, file_s
        self._queue: queue.SimpleQueue[tuple[str, NDArray[Any]] | None] = queue.SimpleQueue()
        self._waiting = 0  # reads in it
        self._kept: list[tuple[str, NDArray[Any]]] = []
        self._count = 0
        self._since = time.monotonic()
        self._number = 0
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for half in folder.glob(f".{_PREFIX}*"):  # of one that was killed
            half.unlink(missing_ok=True)
        self._thread = threading.Thread(target=self._work, name="access-export", daemon=True)
        self._thread.start()

    def take(self, worker: str, events: NDArray[Any]) -> None:
        """Events of one worker, as ``Consumer.read`` gives them. Never waits."""
        with self._lock:
            room = self._waiting + len(events) <= _WAITING
            if room:
                self._waiting += len(events)
            else:
                self.dropped += len(events)
        if room and len(events):
            self._queue.put((worker, events))
        self._tell()

    def close(self) -> None:
        """Write what waits, and end."""
        self._queue.put(None)
        self._thread.join()
        self._tell()

    def __enter__(self) -> AccessExport:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _tell(self) -> None:
        """In the caller's thread, which is the only one that counts."""
        for at, now in enumerate((self.written, self.dropped)):
            if now > self._told[at]:
                self._counters[at].add(now - self._told[at])
                self._told[at] = now

    def _work(self) -> None:
        while True:
            try:
                given = self._queue.get(
                    timeout=max(0.05, self._since + self._file_s - time.monotonic()) if self._kept else None
                )
            except queue.Empty:
                self._write()
                continue
            if given is None:
                self._write()
                return
            with self._lock:
                self._waiting -= len(given[1])
            if not self._kept:
                self._since = time.monotonic()
            self._kept.append(given)
            self._count += len(given[1])
            if self._count >= self._rows or time.monotonic() - self._since >= self._file_s:
                self._write()

    def _write(self) -> None:
        """One file of all that is kept, and room for it. What cannot be written is dropped: the next may find room."""
        if not self._kept:
            return
        kept, count = self._kept, self._count
        self._kept, self._count = [], 0
        half = self.folder / f".{_PREFIX}{os.getpid()}"
        try:
            self._write_whole(as_table(kept), half)
        except (OSError, pa.ArrowException) as error:
            with contextlib.suppress(OSError):
                half.unlink(missing_ok=True)
            with self._lock:
                self.dropped += count
            log.warning("%s reads were not exported to %s: %s", count, self.folder, error)
            return
        self.written += count
        try:
            self._retire()
        except OSError as error:
            log.warning("no old file in %s was deleted: %s", self.folder, error)

    def _write_whole(self, table: pa.Table, half: Path) -> None:
        began = time.strftime("%Y%m%dT%H%M%S", time.gmtime(table["ts"][0].as_py().timestamp()))
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # somebody may have cleared it away
        with half.open("wb") as out:
            pq.write_table(table, out, compression="zstd", row_group_size=_ROWS)
            out.flush()
            os.fsync(out.fileno())
        while True:
            self._number += 1
            path = self.folder / f"{_PREFIX}{began}-{self._number:06d}{_SUFFIX}"
            if not path.exists():  # of a learner before this one
                half.rename(path)
                return

    def _retire(self) -> None:
        """Deletes the oldest files, never the newest one."""
        files = [(path, path.stat()) for path in exported(self.folder)]
        total = sum(found.st_size for _, found in files)
        for path, found in files[:-1]:
            aged = self.retention.max_age_s and time.time() - found.st_mtime > self.retention.max_age_s
            if not aged and total <= self.retention.max_bytes:
                return
            self.retired += _rows_in(path)
            path.unlink(missing_ok=True)
            total -= found.st_size


def _rows_in(path: Path) -> int:
    """0 of a file that somebody has damaged: it goes like the others."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException):
        return 0


def exported(folder: Path) -> list[Path]:
    """The whole files of a folder, the oldest first."""
    return sorted(folder.glob(f"{_PREFIX}*{_SUFFIX}"), key=lambda path: (path.stat().st_mtime_ns, path.name))


def as_table(batches: list[tuple[str, NDArray[Any]]]) -> pa.Table:
    """Events of workers as a table, by time. Connections are numbered by each worker for itself; here all are told apart."""
    events = np.concatenate([np.asarray(events, EVENT) for _, events in batches])
    salt = np.concatenate(
        [np.full(len(events), zlib.crc32(worker.encode()), np.int64) for worker, events in batches]
    )
    order = np.argsort(events["us"], kind="stable")
    events, salt = events[order], salt[order]
    keys = [
        key.decode("utf-8", "backslashreplace") + (f"#{place:08x}" if length > KEY_BYTES else "")
        for key, length, place in zip(
            keys_of(events), events["length"].tolist(), events["place"].tolist(), strict=True
        )
    ]
    flags = events["flags"]
    ops = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(events), np.int8)), pa.array(["get"]))
    columns = [
        pa.array(keys, pa.large_string()),
        pa.array(events["us"].astype(np.int64)).cast(pa.timestamp("us", tz="UTC")),
        pa.array(events["size"].astype(np.int64)),
        pa.array(salt << 32 | events["client"].astype(np.int64)),
        ops,
        pa.array(flags & int(Flag.HIT) != 0),
        pa.array(flags & int(Flag.WHOLE) != 0),
    ]
    return pa.table(columns, schema=SCHEMA)
