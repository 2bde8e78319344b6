"""One process's numbers on disk, in a file that others may read at any moment.

The writer maps the file and adds to numbers in place: no system call, and what was counted survives a SIGKILL. The rules that
make it safe:

* Disk is allocated before it is mapped. Writing to a mapped hole of a full disk would be SIGBUS, a crash; a failed allocation
  is an exception.
* The file grows by doubling; each new part is mapped on its own and earlier parts stay where they are, so that references into
  them stay good. No slot lies across two parts. A file never shrinks: readers may have it mapped.
* A number is an aligned 8-byte store: a reader sees the old or the new one.
* A slot holds one series. It is published last, by the header's ``used`` when it is new, by its generation when its place is
  used again: odd means live, even means that nobody may read it. A reader looks at the generation before and after, and at
  the checksum of the key: on machines that reorder stores it may see the one before the other, and then skips the slot.
* One writer a file, held by a lock on it. Whether somebody holds it also tells readers whether the process lives.

Layout, in the machine's byte order. Header: magic(8) used(u64) pid(u64) start_ticks(u64) zeros to 64 bytes. Slot: size(u32)
generation(u32) crc32_of_key(u32) key_bytes(u32) cells(u32) zero(u32) key, padded to 8, then the cells (f64), padded to 64.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from predis.errors import Conflict, IntegrityFailure

MAGIC = int.from_bytes(b"PREDISM1", "little")
HEADER_BYTES = 64
FIRST_BYTES = 256 << 10  # a multiple of every page size
SUFFIX = ".bin"
_SLOT_HEADER_BYTES = 24
_ALIGNMENT = 64
_USED, _PID, _TICKS = 1, 2, 3  # places in the header, in u64
_LOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux

Cells: TypeAlias = "memoryview[float]"


@dataclass(frozen=True)
class Process:
    """Who writes a file, or wrote it: the process's id, and its start in clock ticks since the machine's (0: unknown)."""

    pid: int
    start_ticks: int


def slot_bytes(key: bytes, cells: int) -> int:
    """Bytes that a series takes in the file."""
    return _aligned(_cells_at(len(key)) + 8 * cells, _ALIGNMENT)


class Slot:
    """The place of one series, or of none, in a mapped part of the file."""

    def __init__(self, part: memoryview, size: int) -> None:
        self.size = size
        self._bytes = part
        self._words = part.cast("I")
        self._words[0] = size

    @property
    def live(self) -> bool:
        return bool(self._words[1] & 1)

    @property
    def key(self) -> bytes:
        """
        Raises:
            IntegrityFailure: what stands there is no key.
        """
        length = self._words[3]
        key = bytes(self._bytes[_SLOT_HEADER_BYTES : _SLOT_HEADER_BYTES + length])
        if _cells_at(length) + 8 * self._words[4] > self.size or zlib.crc32(key) != self._words[2]:
            raise IntegrityFailure("a series of a metrics file fails its checksum")
        return key

    def cells(self) -> Cells:
        """The numbers, to be read and changed in place."""
        start, count = _cells_at(self._words[3]), self._words[4]
        return self._bytes[start : start + 8 * count].cast("d")

    def free(self) -> None:
        """Take the series from the file; its numbers are gone for readers."""
        if self.live:
            self._words[1] = (self._words[1] + 1) & 0xFFFFFFFF

    def fill(self, key: bytes, cells: int) -> None:
        """Make this the place of a series whose numbers are all zero. It must be free and large enough."""
        start = _cells_at(len(key))
        self._bytes[_SLOT_HEADER_BYTES : _SLOT_HEADER_BYTES + len(key)] = key
        self._bytes[start : start + 8 * cells] = bytes(8 * cells)
        self._words[2], self._words[3], self._words[4] = zlib.crc32(key), len(key), cells
        # From even to odd; from odd too, where a kill left a slot that was filled and not yet counted in the header.
        self._words[1] = ((self._words[1] + 1) | 1) & 0xFFFFFFFF


class SeriesFile:
    """The writer's side of a file: its slots, and room for more.

    Raises:
        IntegrityFailure: there is a file, and it is not one of ours, or not whole.
        Conflict: another process writes it.
        OSError: the disk does not let us.
    """

    def __init__(self, path: Path, process: Process) -> None:
        self.path = path
        created = not path.exists()
        self._descriptor = _created(path) if created else os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _lock(self._descriptor)
            self._size = os.fstat(self._descriptor).st_size
            if self._size < FIRST_BYTES or self._size % FIRST_BYTES:
                raise IntegrityFailure(f"{path} has a length that no metrics file has")
            self._parts = [memoryview(mmap.mmap(self._descriptor, self._size))]
            self._ends = [self._size]
            self._header = self._parts[0][:HEADER_BYTES].cast("Q")
            self.slots = list(self._read())
        except BaseException:
            os.close(self._descriptor)
            raise
        self._header[_PID], self._header[_TICKS] = process.pid, process.start_ticks

    def add(self, key: bytes, cells: int) -> Slot:
        """A new place for a series whose numbers are all zero.

        Raises:
            OSError: the disk has no room.
        """
        size = slot_bytes(key, cells)
        used = self._header[_USED]
        room = self._size - used
        if size > room:
            self._grow()
            if room:  # what is left of the part is a slot that a smaller series may take
                self.slots.append(self._slot(used, room))
                self.slots[-1].free()
            used += room
        slot = self._slot(used, size)
        slot.fill(key, cells)
        self._header[_USED] = used + size
        self.slots.append(slot)
        return slot

    def close(self) -> None:
        """Say that nobody writes any more. Parts stay mapped while something refers to them."""
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _request(fcntl.F_UNLCK))
        os.close(self._descriptor)

    def _grow(self) -> None:
        more = self._size
        os.posix_fallocate(self._descriptor, self._size, more)
        self._parts.append(memoryview(mmap.mmap(self._descriptor, more, offset=self._size)))
        self._size += more
        self._ends.append(self._size)

    def _slot(self, at: int, size: int) -> Slot:
        start = 0
        for part, end in zip(self._parts, self._ends, strict=True):
            if at < end:
                return Slot(part[at - start : at - start + size], size)
            start = end
        raise IndexError(at)

    def _read(self) -> Iterator[Slot]:
        """The slots of a file that an earlier process wrote."""
        used = self._header[_USED]
        if self._header[0] != MAGIC or not HEADER_BYTES <= used <= self._size:
            raise IntegrityFailure(f"{self.path} is no metrics file of this machine")
        words = self._parts[0].cast("I")
        at = HEADER_BYTES
        while at < used:
            size = words[at // 4]
            if not _is_slot(size, used - at):
                raise IntegrityFailure(f"{self.path} is damaged at byte {at}")
            slot = self._slot(at, size)
            if slot.live:
                _ = slot.key  # whole, or it raises
            yield slot
            at += size


class Reading:
    """Any process's look at a file. It changes nothing and may happen while the file is written.

    Raises:
        IntegrityFailure: not a file of ours.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        with ExitStack() as stack:
            file = stack.enter_context(path.open("rb"))
            size = os.fstat(file.fileno()).st_size
            if size < HEADER_BYTES or size % _ALIGNMENT:
                raise IntegrityFailure(f"{path} has a length that no metrics file has")
            mapped = stack.enter_context(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
            self._bytes = stack.enter_context(memoryview(mapped))
            self._words = stack.enter_context(self._bytes.cast("I"))
            self._cells: Cells = stack.enter_context(self._bytes.cast("d"))
            with self._bytes[:HEADER_BYTES].cast("Q") as header:
                if header[0] != MAGIC:
                    raise IntegrityFailure(f"{path} is no metrics file of this machine")
                self._end = min(header[_USED], size)
                self.process = Process(header[_PID], header[_TICKS])
            self.alive = _is_locked(file.fileno())
            self._stack = stack.pop_all()

    def __enter__(self) -> Reading:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def series(self) -> Iterator[tuple[bytes, list[float]]]:
        """Key and numbers of every series, as far as the file can be understood."""
        at = HEADER_BYTES
        while at < self._end:
            size = self._words[at // 4]
            if not _is_slot(size, self._end - at):
                return
            found = self._series_at(at, size)
            if found is not None:
                yield found
            at += size

    def _series_at(self, at: int, size: int) -> tuple[bytes, list[float]] | None:
        word = at // 4
        generation, checksum, length, count = self._words[word + 1 : word + 5].tolist()
        start = _cells_at(length)
        if not generation & 1 or start + 8 * count > size:
            return None
        key = bytes(self._bytes[at + _SLOT_HEADER_BYTES : at + _SLOT_HEADER_BYTES + length])
        cells = list(self._cells[(at + start) // 8 : (at + start) // 8 + count])
        if zlib.crc32(key) != checksum or self._words[word + 1] != generation:
            return None
        return key, cells


def _aligned(count: int, to: int) -> int:
    return -(-count // to) * to


def _cells_at(key_length: int) -> int:
    return _SLOT_HEADER_BYTES + _aligned(key_length, 8)


def _is_slot(size: int, room: int) -> bool:
    return 0 < size <= room and size % _ALIGNMENT == 0


def _created(path: Path) -> int:
    """A new file with its header, put in its place whole."""
    partial = path.with_suffix(".new")
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, FIRST_BYTES)
        os.pwrite(descriptor, struct.pack("=QQ", MAGIC, HEADER_BYTES), 0)
        partial.rename(path)
    except BaseException:
        os.close(descriptor)
        partial.unlink(missing_ok=True)
        raise
    return descriptor


def _request(kind: int) -> bytes:
    return _LOCK.pack(kind, os.SEEK_SET, 0, 0, 0)


def _lock(descriptor: int) -> None:
    """Hold the file. The lock belongs to the open file, so that a reader in the same process sees it and cannot lose it."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _request(fcntl.F_WRLCK))
    except (BlockingIOError, PermissionError):
        raise Conflict("another process writes these metrics") from None


def _is_locked(descriptor: int) -> bool:
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _request(fcntl.F_WRLCK))
    return bool(_LOCK.unpack(answer)[0] != fcntl.F_UNLCK)
