"""One worker's events on their way to the learner: a ring in a mapped file, with one producer and one consumer.

The producer is a gateway worker. It tries once and never waits: where the ring is full, the event is dropped and counted. It makes no
system call. The consumer is the learner, which may be late, killed, or not there at all.

Why this is safe between two processes
--------------------------------------
``head`` counts the events ever written, ``tail`` those ever read; both only grow, each is written by one side only, and each stands on
a cache line of its own. Event n lies in slot ``n mod slots``. The producer fills the slot and then raises ``head``; the consumer copies
the slots between ``tail`` and ``head`` and then raises ``tail``; the producer writes only where ``head - tail < slots``.

That order must hold for the other process too, and CPython gives no fences. What is relied on, and what is not:

* A store to an item of a ``memoryview`` of format ``Q`` at an aligned address is one 8-byte store (CPython copies the item with a
  ``memcpy`` of constant size, which compilers make a single move). So a counter is read as it was before or after, never half.
* On x86 stores become visible in program order, and loads are not done before earlier loads: the plain scheme is enough.
* On ARM either may be reordered: ``head`` may be seen before the slot it publishes, and ``tail`` before the loads that it says are
  done. So the consumer relies on neither. Each slot ends with the CRC-32 of the slot *and of the event's number*: a slot that is half
  old and half new, or whole but of another turn of the ring, does not pass. The consumer then takes nothing from there on and looks
  again next time, when the store has arrived. The same check finds what a crash of the machine left of a page.

A kill at any point is one of these: before ``head`` is raised the event was never written, and the next producer writes over it;
before ``tail`` is raised the events are read once more by the next consumer, which never saw them used. Nothing else is state.

The file is allocated in full before it is mapped: writing to a hole on a full disk would be SIGBUS.

Layout, little endian. Header of 4,096 bytes: see ``_Word``. Slot of 128 bytes: ``EVENT`` below, CRC-32 last.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from predis.errors import Conflict, IntegrityFailure, InvalidInput

KEY_BYTES = 96  # of a longer key, its first bytes; place and length then tell it from others that begin alike
SUFFIX = ".ring"

# An event, as the consumer gets it. `us`: microseconds since 1970. `place`: 32 bits that depend on the key only, see `place_of`.
# `size`: bytes of the value, 0 of a miss. `length`: bytes of the whole key.
EVENT = np.dtype(
    [
        ("us", "<u8"),
        ("place", "<u4"),
        ("client", "<u4"),
        ("size", "<u4"),
        ("length", "<u4"),
        ("flags", "u1"),
        ("_zero", "V3"),
        ("key", f"V{KEY_BYTES}"),
        ("check", "<u4"),
    ]
)
_SLOT = struct.Struct(f"<QIIIIB3x{KEY_BYTES}s")
_CHECK = struct.Struct("<I")
SLOT_BYTES = EVENT.itemsize
_HEADER_BYTES = 4096
_MAGIC = int.from_bytes(b"PREDISR1", "little")
_U32 = 0xFFFFFFFF
_MIX = 0x9E3779B1  # 2^32 divided by the golden ratio, made odd: spreads what CRC-32 leaves in order
_PATIENCE = 64  # looks at a slot that does not pass before it is given up


class Flag(IntFlag):
    """What an event says of itself."""

    HIT = 1
    WHOLE = 2  # one of a stretch in which every read of its client is there
    FIRST = 4  # the first of its stretch
    SPATIAL = 8  # of the sample by key
    PREFETCHED = 16  # the value was there because it had been fetched ahead of time


class Looking(IntEnum):
    """Whether a worker takes the sample by key."""

    RESTING = 0  # what it spent last time is not earned yet
    READY = 1  # it would, when it is asked
    AT_IT = 2


class _Word(IntEnum):
    """Places in the header, in words of 8 bytes. Who writes which: the producer from HEAD on, the consumer from TAIL on."""

    MAGIC = 0
    SLOTS = 1
    HEAD = 8
    DROPPED = 9  # events that found the ring full
    LOOKED = 10  # reads that were looked at for the sample by key, written or not
    THRESHOLD = 11  # keys whose place is below it are written
    LOOKING = 12  # see Looking
    BEAT_US = 13  # when the producer last told
    TAIL = 16
    HEARD_US = 17  # when the consumer last looked
    WANTED = 18  # the threshold that the consumer asks for; 0: it wants no sample by key now


def place_of(key: bytes) -> int:
    """Where a key stands among all: 32 bits, evenly spread, the same in every process. A sample by key takes those below a threshold."""
    return crc32(key) * _MIX & _U32


class Producer:
    """A worker's side.

    Args:
        path: the ring's file; one of another size, or damaged, is replaced, and the consumer follows.
        slots: a power of two.

    Raises:
        Conflict: another process writes it.
        OSError: the disk does not let us.
    """

    def __init__(self, path: Path, slots: int) -> None:
        if slots < 2 or slots & (slots - 1):
            raise InvalidInput(f"a ring has a power of two of slots, not {slots}")
        self.path = path
        self._descriptor = _opened_for_writing(path, slots)
        self._map = mmap.mmap(self._descriptor, _HEADER_BYTES + slots * SLOT_BYTES)
        self._words = memoryview(self._map)[:_HEADER_BYTES].cast("Q")
        self._slots = slots
        self._head = self._words[_Word.HEAD]
        self._free_until = 0  # events below this number have room for certain

    def put(self, key: bytes, size: int, *, client: int, flags: int, place: int) -> bool:
        """Write one event, or drop it where there is no room; says which."""
        head = self._head
        if head >= self._free_until:
            self._free_until = self._words[_Word.TAIL] + self._slots
            if head >= self._free_until:
                self._words[_Word.DROPPED] += 1
                return False
        event = _SLOT.pack(time.time_ns() // 1000, place, client, min(size, _U32), len(key), flags, key)
        at = _HEADER_BYTES + (head & self._slots - 1) * SLOT_BYTES
        self._map[at : at + SLOT_BYTES] = event + _CHECK.pack(crc32(event, head & _U32))
        self._head = head = head + 1
        self._words[_Word.HEAD] = head
        return True

    @property
    def written(self) -> int:
        return self._head

    @property
    def dropped(self) -> int:
        return self._words[_Word.DROPPED]

    @property
    def heard_us(self) -> int:
        """When somebody last listened, in microseconds since 1970."""
        return self._words[_Word.HEARD_US]

    @property
    def wanted(self) -> int:
        """The threshold that the consumer asks for; 0: it wants no sample by key now."""
        return self._words[_Word.WANTED]

    def tell(self, *, looked: int, threshold: int, looking: Looking) -> None:
        """Say how the sample is taken now, so that the consumer can make up for what it does not see.

        Args:
            looked: reads looked at since the last call.
        """
        self._words[_Word.LOOKED] += looked
        self._words[_Word.THRESHOLD] = threshold
        self._words[_Word.LOOKING] = looking
        self._words[_Word.BEAT_US] = time.time_ns() // 1000

    def close(self) -> None:
        self._words.release()
        self._map.close()
        os.close(self._descriptor)


class Consumer:
    """The learner's side. A ring may be opened by one at a time, and again after a kill: it goes on where the last one stopped.

    Raises:
        IntegrityFailure: not a ring.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            self._inode = status.st_ino
            self._slots = _slots_in(descriptor, status.st_size)
            if not self._slots:
                raise IntegrityFailure(f"{path} is no ring of events; delete it while no gateway runs")
            self._map = mmap.mmap(descriptor, status.st_size)
        finally:
            os.close(descriptor)
        self._words = memoryview(self._map)[:_HEADER_BYTES].cast("Q")
        self._tries = 0
        self.damaged = 0

    def read(self, limit: int = 1 << 16) -> np.ndarray[Any, Any]:
        """The events that have come, oldest first, at most ``limit``: an array of dtype ``EVENT``. Their slots are free again."""
        self._words[_Word.HEARD_US] = time.time_ns() // 1000
        tail = self._words[_Word.TAIL]
        count = min(self._words[_Word.HEAD] - tail, limit)
        if not 0 <= count <= self._slots:  # a header that a crash of the machine left half written
            self._words[_Word.TAIL] = self._words[_Word.HEAD]
            self.damaged += 1
            return np.empty(0, EVENT)
        raw = self._copied(tail, count)
        good = _passing(raw, tail)
        if good == 0 and count:
            self._tries += 1
            if self._tries <= _PATIENCE:
                return np.empty(0, EVENT)
            tail, self.damaged = tail + 1, self.damaged + 1
        self._tries = 0
        self._words[_Word.TAIL] = tail + good
        return np.frombuffer(raw, EVENT, good)

    def want(self, threshold: int) -> None:
        """Ask for the keys whose place is below this; 0: for none."""
        self._words[_Word.WANTED] = threshold

    @property
    def lag(self) -> int:
        """Events that wait."""
        return self._words[_Word.HEAD] - self._words[_Word.TAIL]

    @property
    def dropped(self) -> int:
        return self._words[_Word.DROPPED]

    @property
    def looked(self) -> int:
        return self._words[_Word.LOOKED]

    @property
    def threshold(self) -> int:
        return self._words[_Word.THRESHOLD]

    @property
    def looking(self) -> Looking:
        return Looking(min(self._words[_Word.LOOKING], 2))

    @property
    def beat_us(self) -> int:
        """When the producer last said that it lives, in microseconds since 1970."""
        return self._words[_Word.BEAT_US]

    @property
    def replaced(self) -> bool:
        """Whether the file is another one by now, or gone."""
        try:
            return self.path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def close(self) -> None:
        self._words.release()
        self._map.close()

    def _copied(self, tail: int, count: int) -> bytes:
        start = tail & self._slots - 1
        first = min(count, self._slots - start)
        at = _HEADER_BYTES + start * SLOT_BYTES
        raw: bytes = self._map[at : at + first * SLOT_BYTES]
        return raw + self._map[_HEADER_BYTES : _HEADER_BYTES + (count - first) * SLOT_BYTES]


def keys_of(events: np.ndarray[Any, Any]) -> list[bytes]:
    """The keys of events as bytes, the longest cut to ``KEY_BYTES``."""
    lengths = events["length"].tolist()
    return [bytes(key)[:length] for key, length in zip(events["key"], lengths, strict=True)]


def _passing(raw: bytes, number: int) -> int:
    """How many slots from the first on are whole and of their turn."""
    view = memoryview(raw)
    for place, at in enumerate(range(0, len(raw), SLOT_BYTES)):
        end = at + SLOT_BYTES
        if crc32(view[at : end - 4], number + place & _U32) != _CHECK.unpack_from(view, end - 4)[0]:
            return place
    return len(raw) // SLOT_BYTES


def _opened_for_writing(path: Path, slots: int) -> int:
    """A descriptor that holds the lock of one producer, of a file with that many slots."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(descriptor)
            if _slots_in(descriptor, status.st_size) == slots:
                return descriptor
            _replace(path, slots)
        except BlockingIOError:
            os.close(descriptor)
            raise Conflict(f"another process writes {path}; each worker has a ring of its own") from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _replace(path: Path, slots: int) -> None:
    """Put a new, empty ring in the place of what is there, whole or not at all."""
    partial = path.with_suffix(".new")
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, _HEADER_BYTES + slots * SLOT_BYTES)
        os.pwrite(descriptor, struct.pack("<QQ", _MAGIC, slots), 0)
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _slots_in(descriptor: int, size: int) -> int:
    """Slots of a ring's file; 0 of one that is none."""
    if size < _HEADER_BYTES:
        return 0
    magic, slots = struct.unpack("<QQ", os.pread(descriptor, 16, 0))
    return slots if magic == _MAGIC and size == _HEADER_BYTES + slots * SLOT_BYTES else 0
