"""The journal: how evidence leaves the data plane without slowing it.

A worker appends records to a memory-mapped segment file; the control role tails it. The rules that make it safe:

* An append is a memory copy into pages the kernel owns. It survives a SIGKILL of the process, costs microseconds and
  blocks nobody. (It does not survive a power cut before the kernel writes back; feedback, which must, goes to SQL.)
* A record is its payload's length, CRC-32 and bytes. The length is written LAST, in one aligned four-byte store: until then a
  reader sees zero, "nothing here yet". On machines that reorder stores the reader may see the length before the bytes; then
  the checksum does not match and, at the tail of the newest segment, that too means "not yet".
* Disk for a whole segment is allocated before it is mapped. Writing to a mapped hole of a full disk would be SIGBUS, a
  crash; a failed allocation is an exception, answered by dropping the oldest segment.
* Every record has an ordinal. A segment's header says the ordinal of its first record, so a reader that finds records
  missing (dropped because nobody read in time, or never stored because the disk was full) knows exactly how many.
* One writer per stream, held by a file lock; one reader per stream, which deletes what it has read but always leaves
  the newest segment, from which a restarted writer learns where to go on.

Layout, little-endian. Header: magic(8) number(u64) first_ordinal(u64) records(u64) sealed(u64) zeros to 64 bytes.
Record: length(u32) crc32(u32) payload, padded to 8 bytes.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from predis.errors import Conflict, DiskFull

log = logging.getLogger(__name__)

MAGIC = b"PREDISJ1"
HEADER_BYTES = 64
_HEADER = struct.Struct("<8sQQQQ")
_FRAME = struct.Struct("<II")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_RECORDS_AT, _SEALED_AT = 24, 32
_READ_BYTES = 4 << 20


@dataclass(frozen=True)
class Position:
    """How far a stream has been read: the segment, the byte in it, and the ordinal of the next record expected."""

    segment: int = 0
    byte: int = HEADER_BYTES
    ordinal: int = 0


@dataclass(frozen=True)
class Batch:
    """Records read in one go, where to go on, and what was lost on the way (both counts since the last position)."""

    payloads: list[bytes]
    position: Position
    dropped: int
    damaged: int


class JournalWriter:
    """Appends records to a stream.

    Args:
        folder: the stream's folder, made if missing.
        segment_bytes: size of a segment; raising it means fewer files and later deletion.
        limit_bytes: most bytes of the stream on disk; past it the oldest segment goes, read or not.

    Raises:
        Conflict: another process writes this stream.
    """

    def __init__(self, folder: Path, *, segment_bytes: int = 8 << 20, limit_bytes: int = 1 << 30) -> None:
        self.folder = folder
        self.segment_bytes = segment_bytes
        self.limit_bytes = max(limit_bytes, 2 * segment_bytes)
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _exclusive(folder)
        self._number, self._ordinal = _resume_point(folder)
        self._map: mmap.mmap | None = None
        self._at = self._end = 0
        self._records = 0
        self.lost = 0

    def append(self, payload: bytes) -> bool:
        """Store one record; ``False`` where the disk took none of it (counted in ``lost`` and seen by the reader).

        Cost: a copy of the payload and its checksum, no system call; once per segment a file is allocated.
        """
        need = (_FRAME.size + len(payload) + 7) & ~7
        if self._at + need > self._end and not self._rotate(need):
            self._ordinal += 1
            self.lost += 1
            return False
        segment, at = self._map, self._at
        assert segment is not None
        start = at + _FRAME.size
        segment[start : start + len(payload)] = payload
        _U32.pack_into(segment, at + 4, zlib.crc32(payload))
        self._records += 1
        self._ordinal += 1
        _U32.pack_into(segment, at, len(payload))
        _U64.pack_into(segment, _RECORDS_AT, self._records)
        self._at = at + need
        return True

    def seal(self) -> None:
        """End the current segment, so that a reader may go past it; the next append opens another."""
        if self._map is not None:
            _U64.pack_into(self._map, _SEALED_AT, 1)
            self._map.close()
        self._map, self._at, self._end = None, 0, 0

    def close(self) -> None:
        self.seal()
        os.close(self._lock)

    def _rotate(self, need: int) -> bool:
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
                    return False
            else:
                return True
        return False

    def _open(self, size: int) -> None:
        number = self._number + 1
        path = _segment_path(self.folder, number)
        partial = path.with_suffix(".new")
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
            mapped = mmap.mmap(descriptor, size)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        _HEADER.pack_into(mapped, 0, MAGIC, number, self._ordinal, 0, 0)
        partial.rename(path)
        self._map, self._at, self._end = mapped, HEADER_BYTES, size
        self._number, self._records = number, 0

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

        Records that were dropped before they could be read, and bytes that fail their checksum, are counted, never raised.
        """
        found = _segments(self.folder)
        if found and found[-1][0] < position.segment:
            # A writer numbers upward and the newest segment is never deleted: this is another journal than the one that was read.
            log.warning("the journal stream %s began anew; reading it from its start", self.folder.name)
            position = Position()
        segments = [(n, path) for n, path in found if n >= position.segment]
        dropped = damaged = 0
        for index, (number, path) in enumerate(segments):
            newest = index == len(segments) - 1
            try:
                chunk, header = _load(path, position, number=number, max_bytes=max_bytes)
            except (OSError, struct.error):
                continue
            _magic, _number, first_ordinal, _records, sealed = header
            if number != position.segment:
                dropped += max(0, first_ordinal - position.ordinal)
                position = Position(number, HEADER_BYTES, max(first_ordinal, position.ordinal))
            payloads, used, broken = _parse(chunk)
            if broken and (sealed or not newest):
                damaged += 1
                position = Position(number, 1 << 62, position.ordinal + len(payloads))
                return Batch(payloads, position, dropped, damaged)
            if payloads:
                position = Position(number, position.byte + used, position.ordinal + len(payloads))
                return Batch(payloads, position, dropped, damaged)
            if newest:
                break
        return Batch([], position, dropped, damaged)

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
    if not journal.is_dir():
        return []
    return sorted(path.name for path in journal.iterdir() if path.is_dir())


def _parse(chunk: bytes) -> tuple[list[bytes], int, bool]:
    """Payloads at the start of ``chunk``, bytes they take, and whether something unreadable follows them."""
    payloads: list[bytes] = []
    at, end = 0, len(chunk)
    while at + _FRAME.size <= end:
        length, checksum = _FRAME.unpack_from(chunk, at)
        start = at + _FRAME.size
        if length == 0 or start + length > end:
            break
        payload = chunk[start : start + length]
        if zlib.crc32(payload) != checksum:
            return payloads, at, True
        payloads.append(payload)
        at = (start + length + 7) & ~7
    return payloads, at, False


def _load(
    path: Path, position: Position, *, number: int, max_bytes: int
) -> tuple[bytes, tuple[bytes, int, int, int, int]]:
    with path.open("rb") as file:
        header = _HEADER.unpack(file.read(_HEADER.size))
        start = position.byte if number == position.segment else HEADER_BYTES
        file.seek(min(start, 1 << 62))
        chunk = file.read(max_bytes)
        if len(chunk) == max_bytes:
            length = _FRAME.unpack_from(chunk)[0] + _FRAME.size
            if length > max_bytes:  # one record larger than the usual read
                chunk += file.read(length - max_bytes)
    return chunk, header


def _segments(folder: Path) -> list[tuple[int, Path]]:
    found = [(int(path.stem), path) for path in folder.glob("*.seg") if path.stem.isdigit()]
    return sorted(found)


def _size(path: Path) -> int:
    """Bytes of a file; none where the reader deleted it meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _segment_path(folder: Path, number: int) -> Path:
    return folder / f"{number:012d}.seg"


def _resume_point(folder: Path) -> tuple[int, int]:
    """Number of the newest segment and the ordinal after its last record."""
    for partial in folder.glob("*.new"):
        partial.unlink(missing_ok=True)
    found = _segments(folder)
    if not found:
        return 0, 0
    number, path = found[-1]
    content = path.read_bytes()
    if len(content) < HEADER_BYTES:
        return number, 0
    _magic, _number, first_ordinal, records, _sealed = _HEADER.unpack_from(content)
    # A kill between an append's last two stores leaves a record that the header does not count.
    stored, _used, _broken = _parse(content[HEADER_BYTES:])
    return number, first_ordinal + max(records, len(stored))


def _exclusive(folder: Path) -> int:
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DiskFull(f"cannot write in {folder}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Conflict(f"another process writes the journal stream {folder.name!r}") from None
    return descriptor
