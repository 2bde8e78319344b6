"""The journal: how evidence leaves the data plane without slowing it.

A worker appends records to a memory-mapped segment file; the control role tails it. One record holds one or more requests (those that
were answered together), and whatever is counted here is counted in requests. The rules that make it safe:

* An append is a memory copy into pages the kernel owns. It survives a SIGKILL of the process, costs about a microsecond and
  blocks nobody. (It does not survive a power cut before the kernel writes back; feedback, which must, goes to SQL.)
* A record is its payload's length, CRC-32, count of requests and bytes. The length is written LAST, in one aligned four-byte store:
  until then a reader sees zero, "nothing here yet". On machines that reorder stores the reader may see the length before the rest;
  then the checksum, which begins with the count, does not match and, at the tail of the newest segment, that too means "not yet".
* The kernel is asked for pages in bulk, by writing zeros a good way ahead: a page fault for each would cost ten times as much.
* Disk for a whole segment is allocated before it is mapped. Writing to a mapped hole of a full disk would be SIGBUS, a
  crash; a failed allocation is an exception, answered by dropping the oldest segment. Where even that does not help, requests are
  lost, and for ``retry_s`` no other attempt is made: attempts are system calls.
* Every request has an ordinal. A segment's header says the ordinal of its first request, so a reader that finds requests
  missing (dropped because nobody read in time, or never stored because the disk was full) knows exactly how many. What a full disk
  did not take comes after the last segment; so the ordinal reached is noted in the lock file, whose eight bytes were allocated in
  better times, and a restarted writer goes on from there.
* One writer per stream, held by a file lock; one reader per stream, which deletes what it has read but always leaves
  the newest segment, from which a restarted writer learns where to go on.

Layout, little-endian. Header: magic(8) number(u64) first_ordinal(u64) requests(u64) sealed(u64) zeros to 64 bytes.
Record: length(u32) crc32(u32) requests(u32) payload, padded to 8 bytes. Lock file: ordinal(u64).
"""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
import struct
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from predis.errors import Conflict, DiskFull

log = logging.getLogger(__name__)

MAGIC = b"PREDISJ2"
HEADER_BYTES = 64
_HEADER = struct.Struct("<8sQQQQ")
_FRAME = struct.Struct("<III")
_CHECK = struct.Struct("<II")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_CHECK_AT, _PAYLOAD_AT = 4, _FRAME.size  # in a record
_REQUESTS_AT, _SEALED_AT = 24, 32  # in the header
_READ_BYTES = 4 << 20
# At the end of a stream there is seldom more to read; what is not written yet is zeros.
_AHEAD_BYTES = 1 << 17
_FIRST_READ_BYTES = 1 << 14
_READ_STEP_BYTES = 1 << 16  # what is parsed at once fits the CPU's cache
_BEYOND = 1 << 62


@dataclass(frozen=True)
class Position:
    """How far a stream has been read: the segment, the byte in it, and the ordinal of the next request expected."""

    segment: int = 0
    byte: int = HEADER_BYTES
    ordinal: int = 0


@dataclass(frozen=True)
class Batch:
    """Records read in one go.

    ``counts`` are the requests in each payload; ``dropped`` the requests and ``damaged`` the parts of segments that were lost since the
    last position; ``more`` says that another read would find something.
    """

    payloads: list[bytes]
    counts: list[int]
    position: Position
    dropped: int = 0
    damaged: int = 0
    more: bool = False


class JournalWriter:
    """Appends records to a stream.

    Args:
        folder: the stream's folder, made if missing.
        segment_bytes: size of a segment; raising it means fewer files and later deletion.
        limit_bytes: most bytes of the stream on disk; past it the oldest segment goes, read or not.
        retry_s: how long a full disk is left alone before the next attempt.

    Attributes:
        lost: requests that this writer could not store.

    Raises:
        Conflict: another process writes this stream.
        DiskFull: the folder or its lock file cannot be made.
    """

    def __init__(
        self, folder: Path, *, segment_bytes: int = 8 << 20, limit_bytes: int = 1 << 30, retry_s: float = 1.0
    ) -> None:
        self.folder = folder
        self.segment_bytes = segment_bytes
        self.limit_bytes = max(limit_bytes, 2 * segment_bytes)
        self._lock = _exclusive(folder)
        self._number, self._ordinal = _resume_point(folder, self._lock)
        self._map: mmap.mmap | None = None
        self._file = -1
        # Places in the segment: of the next record, the end of the pages made for it, the end of all.
        self._at = self._end = self._size = 0
        self._requests = 0
        self.lost = 0
        self._retry_s = retry_s
        self._full_until = 0.0

    def append(self, payload: bytes, count: int = 1) -> bool:
        """Store one record of ``count`` requests; ``False`` where the disk took none of it (they are ``lost``, and the reader will know).

        Cost: a copy of the payload and its checksum; once per 128 KiB a system call, once per segment a new file.
        """
        size = len(payload)
        need = (_PAYLOAD_AT + size + 7) & ~7
        if self._at + need > self._end and not self._make_room(need):
            self._lose(count)
            return False
        segment, at = self._map, self._at
        assert segment is not None
        start = at + _PAYLOAD_AT
        segment[start : start + size] = payload
        _CHECK.pack_into(segment, at + _CHECK_AT, zlib.crc32(payload, count), count)
        self._at = at + need
        self._ordinal += count
        self._requests += count
        _U32.pack_into(segment, at, size)
        _U64.pack_into(segment, _REQUESTS_AT, self._requests)
        return True

    def seal(self) -> None:
        """End the current segment, so that a reader may go past it; the next append opens another."""
        if self._map is not None:
            _U64.pack_into(self._map, _SEALED_AT, 1)
            self._map.close()
            os.close(self._file)
        self._map, self._file = None, -1
        self._at = self._end = self._size = 0

    def close(self) -> None:
        self.seal()
        os.close(self._lock)

    def _lose(self, count: int) -> None:
        """Count what cannot be stored, here and where a restarted writer finds it."""
        self._ordinal += count
        self.lost += count
        _note(self._lock, self._ordinal)

    def _make_room(self, need: int) -> bool:
        if self._at + need > self._size and not self._rotate(need):
            return False
        stop = min(((self._at + need) | (_AHEAD_BYTES - 1)) + 1, self._size)
        try:
            os.pwrite(self._file, bytes(stop - self._end), self._end)
        except OSError as error:  # then there is a page fault for each
            log.debug("no pages ahead for the journal: %s", error)
        self._end = stop
        return True

    def _rotate(self, need: int) -> bool:
        if self._map is None and time.monotonic() < self._full_until:
            return False
        self.seal()
        size = max(self.segment_bytes, HEADER_BYTES + need)
        self._drop_beyond(self.limit_bytes - size)
        for _attempt in range(2):
            try:
                self._open(size)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._drop_oldest():
                    if self.lost == 0:
                        log.warning(
                            "the journal cannot grow (%s); predictions go on, their records are lost", error
                        )
                    break
            else:
                return True
        self._full_until = time.monotonic() + self._retry_s
        return False

    def _open(self, size: int) -> None:
        number = self._number + 1
        path = _segment_path(self.folder, number)
        partial = path.with_suffix(".new")
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
            header = _HEADER.pack(MAGIC, number, self._ordinal, 0, 0)
            ahead = os.pwrite(descriptor, header.ljust(min(_AHEAD_BYTES, size), b"\0"), 0)
            mapped = mmap.mmap(descriptor, size)
            partial.rename(path)
        except OSError:
            os.close(descriptor)
            partial.unlink(missing_ok=True)
            raise
        self._map, self._file, self._size = mapped, descriptor, size
        self._at, self._end = HEADER_BYTES, ahead
        self._number, self._requests = number, 0

    def _drop_beyond(self, budget: int) -> None:
        """Delete the oldest segments until the rest fits, but never the newest."""
        sizes = [(path, _size(path)) for _, path in _segments(self.folder)]
        total = sum(size for _, size in sizes)
        for path, size in sizes[:-1]:
            if total <= budget:
                break
            path.unlink(missing_ok=True)
            total -= size

    def _drop_oldest(self) -> bool:
        """Free the disk that the oldest segment takes. Of the newest the header stays: a restarted writer needs it."""
        found = _segments(self.folder)
        if len(found) > 1:
            found[0][1].unlink(missing_ok=True)
            return True
        if not found or _size(found[0][1]) <= HEADER_BYTES:
            return False
        os.truncate(found[0][1], HEADER_BYTES)
        return True


class JournalReader:
    """Reads a stream from a position that the caller keeps, in the same transaction as what it derives.

    Reading changes nothing; ``forget`` deletes segments before a position that is safely stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, position: Position, *, max_bytes: int = _READ_BYTES) -> Batch:
        """Records from ``position`` on: at most about ``max_bytes``, from one segment.

        Requests that were dropped before they could be read, and bytes that fail their checksum, are counted, never raised.
        """
        listed = _segments(self.folder)
        if listed and listed[-1][0] < position.segment:
            # A writer numbers upward and the newest segment is never deleted: this is another journal than the one that was read.
            log.warning("the journal stream %s began anew; reading it from its start", self.folder.name)
            position = Position()
        segments = [(n, path) for n, path in listed if n >= position.segment]
        dropped = damaged = 0
        for index, (number, path) in enumerate(segments):
            newest = index == len(segments) - 1
            start = position.byte if number == position.segment else HEADER_BYTES
            try:
                header, found = _load(path, start, max_bytes=max_bytes)
            except (OSError, struct.error):
                continue
            _magic, _number, first_ordinal, _requests, sealed = header
            if number != position.segment:
                dropped += max(0, first_ordinal - position.ordinal)
                position = Position(number, HEADER_BYTES, max(first_ordinal, position.ordinal))
            ordinal = position.ordinal + sum(found.counts)
            if found.broken and (sealed or not newest):
                damaged += 1
                position = Position(number, _BEYOND, ordinal)
            elif found.payloads:
                position = Position(number, position.byte + found.used, ordinal)
            elif newest:
                break
            else:
                continue
            return Batch(
                found.payloads, found.counts, position, dropped, damaged, more=found.cut or not newest
            )
        return Batch([], [], position, dropped, damaged)

    def newest(self) -> int:
        """Number of the newest segment, 0 where there is none."""
        found = _segments(self.folder)
        return found[-1][0] if found else 0

    def forget(self, position: Position) -> None:
        """Delete segments wholly before ``position``, except the newest of all."""
        for number, path in _segments(self.folder)[:-1]:
            if number < position.segment:
                path.unlink(missing_ok=True)


def streams(journal: Path) -> list[str]:
    """Names of the streams under the journal folder, sorted."""
    try:
        with os.scandir(journal) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


@dataclass
class _Found:
    """Records parsed so far, the bytes they take, and why there are not more of them."""

    payloads: list[bytes] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    used: int = 0
    rest: bytes = b""  # the start of a record whose end was not in the chunk
    broken: bool = False  # what follows is unreadable
    cut: bool = False  # what follows was not read

    def parse(self, chunk: bytes) -> int:
        """Take the records at the start of ``chunk``. Bytes that the last one lacks; 0 where there is no other, or a broken one."""
        at, end = 0, len(chunk)
        missing = 0
        while True:
            start = at + _PAYLOAD_AT
            if start > end:
                missing = start - end
                break
            length, checksum, count = _FRAME.unpack_from(chunk, at)
            if length == 0:
                break
            stop = (start + length + 7) & ~7
            if stop > end:
                missing = stop - end
                break
            payload = chunk[start : start + length]
            if zlib.crc32(payload, count) != checksum:
                self.broken = True
                break
            self.payloads.append(payload)
            self.counts.append(count)
            at = stop
        self.used += at
        self.rest = chunk[at:]
        return missing


def _load(path: Path, start: int, *, max_bytes: int) -> tuple[tuple[bytes, int, int, int, int], _Found]:
    """A segment's header, and the records from byte ``start`` on: about ``max_bytes`` of them, one at least."""
    found = _Found()
    with path.open("rb", buffering=0) as file:
        header = _HEADER.unpack(file.read(_HEADER.size))
        file.seek(start)
        step = min(_FIRST_READ_BYTES, max_bytes)
        chunk = file.read(step)
        left = max_bytes - step
        while missing := found.parse(chunk):
            if left <= 0 and found.payloads:
                found.cut = True
                break
            step = min(max(missing, _READ_STEP_BYTES), left) if left > 0 else missing
            more = file.read(step)
            if not more:
                break
            left -= step
            chunk = found.rest + more
    return header, found


def _segments(folder: Path) -> list[tuple[int, Path]]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(
        (int(name[:-4]), folder / name) for name in names if name.endswith(".seg") and name[:-4].isdigit()
    )


def _size(path: Path) -> int:
    """Bytes of a file; none where the reader deleted it meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _segment_path(folder: Path, number: int) -> Path:
    return folder / f"{number:012d}.seg"


def _resume_point(folder: Path, lock: int) -> tuple[int, int]:
    """Number of the newest segment, and the ordinal after the last request that was stored or noted as lost."""
    for partial in folder.glob("*.new"):
        partial.unlink(missing_ok=True)
    (noted,) = _U64.unpack(os.pread(lock, _U64.size, 0).ljust(_U64.size, b"\0"))
    found = _segments(folder)
    if not found:
        return 0, noted
    number, path = found[-1]
    try:
        (_magic, _number, first_ordinal, requests, _sealed), stored = _load(
            path, HEADER_BYTES, max_bytes=_BEYOND
        )
    except struct.error:
        return number, noted
    # A kill between an append's last two stores leaves a record that the header does not count.
    return number, max(noted, first_ordinal + max(requests, sum(stored.counts)))


def _exclusive(folder: Path) -> int:
    """The descriptor of the stream's lock file, locked, its room for a note allocated where the disk allows it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DiskFull(f"cannot write in {folder}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Conflict(f"another process writes the journal stream {folder.name!r}") from None
    if os.fstat(descriptor).st_size < _U64.size:
        _note(descriptor, 0)
    return descriptor


def _note(lock: int, ordinal: int) -> None:
    """Write down the ordinal reached. A disk so full that these eight bytes were never allocated costs the note, not the worker."""
    try:
        os.pwrite(lock, _U64.pack(ordinal), 0)
    except OSError as error:
        log.debug("no note in the journal's lock file: %s", error)
