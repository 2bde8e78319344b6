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

Layout, little endian. Header of 4,096 bytes: see ``Word``. Slot of 128 bytes: an event, CRC-32 last.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from enum import IntEnum, IntFlag
from pathlib import Path
from zlib import crc32

from predis.errors import Conflict, InvalidInput

KEY_BYTES = 96  # of a longer key, its first bytes; place and length then tell it from others that begin alike
SUFFIX = ".ring"

# An event: microseconds since 1970, place, client, size, length of the whole key, flags, key. What they mean: `ring_reader.EVENT`.
_SLOT = struct.Struct(f"<QIIIIB3x{KEY_BYTES}s")
CHECK = struct.Struct("<I")
SLOT_BYTES = _SLOT.size + CHECK.size
HEADER_BYTES = 4096
_MAGIC = int.from_bytes(b"PREDISR1", "little")
_U32 = 0xFFFFFFFF
_MIX = 0x9E3779B1  # 2^32 divided by the golden ratio, made odd: spreads what CRC-32 leaves in order


class Flag(IntFlag):
    """What an event says of itself."""

    HIT = 1
    WHOLE = 2  # one of a stretch in which every read of its client is there
    FIRST = 4  # the first of its stretch
    SPATIAL = 8  # of the sample by key


class Looking(IntEnum):
    """Whether a worker takes the sample by key."""

    RESTING = 0  # what it spent last time is not earned yet
    READY = 1  # it would, when it is asked
    AT_IT = 2


class Word(IntEnum):
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
        self._map = mmap.mmap(self._descriptor, HEADER_BYTES + slots * SLOT_BYTES)
        self._words = memoryview(self._map)[:HEADER_BYTES].cast("Q")
        self._slots = slots
        self._head = self._words[Word.HEAD]
        self._free_until = 0  # events below this number have room for certain

    def put(self, key: bytes, size: int, *, client: int, flags: int, place: int) -> bool:
        """Write one event, or drop it where there is no room; says which."""
        head = self._head
        if head >= self._free_until:
            self._free_until = self._words[Word.TAIL] + self._slots
            if head >= self._free_until:
                self._words[Word.DROPPED] += 1
                return False
        event = _SLOT.pack(time.time_ns() // 1000, place, client, min(size, _U32), len(key), flags, key)
        at = HEADER_BYTES + (head & self._slots - 1) * SLOT_BYTES
        self._map[at : at + SLOT_BYTES] = event + CHECK.pack(crc32(event, head & _U32))
        self._head = head = head + 1
        self._words[Word.HEAD] = head
        return True

    @property
    def written(self) -> int:
        return self._head

    @property
    def dropped(self) -> int:
        return self._words[Word.DROPPED]

    @property
    def heard_us(self) -> int:
        """When somebody last listened, in microseconds since 1970."""
        return self._words[Word.HEARD_US]

    @property
    def wanted(self) -> int:
        """The threshold that the consumer asks for; 0: it wants no sample by key now."""
        return self._words[Word.WANTED]

    def tell(self, *, looked: int, threshold: int, looking: Looking) -> None:
        """Say how the sample is taken now, so that the consumer can make up for what it does not see.

        Args:
            looked: reads looked at since the last call.
        """
        self._words[Word.LOOKED] += looked
        self._words[Word.THRESHOLD] = threshold
        self._words[Word.LOOKING] = looking
        self._words[Word.BEAT_US] = time.time_ns() // 1000

    def close(self) -> None:
        self._words.release()
        self._map.close()
        os.close(self._descriptor)


def _opened_for_writing(path: Path, slots: int) -> int:
    """A descriptor that holds the lock of one producer, of a file with that many slots."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(descriptor)
            if slots_in(descriptor, status.st_size) == slots:
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
        os.posix_fallocate(descriptor, 0, HEADER_BYTES + slots * SLOT_BYTES)
        os.pwrite(descriptor, struct.pack("<QQ", _MAGIC, slots), 0)
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def slots_in(descriptor: int, size: int) -> int:
    """Slots of a ring's file; 0 of one that is none."""
    if size < HEADER_BYTES:
        return 0
    magic, slots = struct.unpack("<QQ", os.pread(descriptor, 16, 0))
    return slots if magic == _MAGIC and size == HEADER_BYTES + slots * SLOT_BYTES else 0
