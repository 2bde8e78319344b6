"""The events of a worker's ring as the learner reads them. How the two sides agree, and why it is safe: ``ring``.

Apart from the producer, which is imported before a gateway worker answers and needs no numpy.
"""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from predis.cache.ring import CHECK, HEADER_BYTES, KEY_BYTES, SLOT_BYTES, Looking, Word, slots_in
from predis.errors import IntegrityFailure

# An event. `us`: microseconds since 1970. `place`: 32 bits that depend on the key only, see `place_of`.
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
_PATIENCE = 64  # looks at a slot that does not pass before it is given up


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
            self._slots = slots_in(descriptor, status.st_size)
            if not self._slots:
                raise IntegrityFailure(f"{path} is no ring of events; delete it while no gateway runs")
            self._map = mmap.mmap(descriptor, status.st_size)
        finally:
            os.close(descriptor)
        self._words = memoryview(self._map)[:HEADER_BYTES].cast("Q")
        self._tries = 0
        self.damaged = 0

    def read(self, limit: int = 1 << 16) -> np.ndarray[Any, Any]:
        """The events that have come, oldest first, at most ``limit``: an array of dtype ``EVENT``. Their slots are free again."""
        self._words[Word.HEARD_US] = time.time_ns() // 1000
        tail = self._words[Word.TAIL]
        count = min(self._words[Word.HEAD] - tail, limit)
        if not 0 <= count <= self._slots:  # a header that a crash of the machine left half written
            self._words[Word.TAIL] = self._words[Word.HEAD]
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
        self._words[Word.TAIL] = tail + good
        return np.frombuffer(raw, EVENT, good)

    def want(self, threshold: int) -> None:
        """Ask for the keys whose place is below this; 0: for none."""
        self._words[Word.WANTED] = threshold

    @property
    def lag(self) -> int:
        """Events that wait."""
        return self._words[Word.HEAD] - self._words[Word.TAIL]

    @property
    def dropped(self) -> int:
        return self._words[Word.DROPPED]

    @property
    def looked(self) -> int:
        return self._words[Word.LOOKED]

    @property
    def threshold(self) -> int:
        return self._words[Word.THRESHOLD]

    @property
    def looking(self) -> Looking:
        return Looking(min(self._words[Word.LOOKING], 2))

    @property
    def beat_us(self) -> int:
        """When the producer last said that it lives, in microseconds since 1970."""
        return self._words[Word.BEAT_US]

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
        at = HEADER_BYTES + start * SLOT_BYTES
        raw: bytes = self._map[at : at + first * SLOT_BYTES]
        return raw + self._map[HEADER_BYTES : HEADER_BYTES + (count - first) * SLOT_BYTES]


def keys_of(events: np.ndarray[Any, Any]) -> list[bytes]:
    """The keys of events as bytes, the longest cut to ``KEY_BYTES``."""
    lengths = events["length"].tolist()
    return [bytes(key)[:length] for key, length in zip(events["key"], lengths, strict=True)]


def _passing(raw: bytes, number: int) -> int:
    """How many slots from the first on are whole and of their turn."""
    view = memoryview(raw)
    for place, at in enumerate(range(0, len(raw), SLOT_BYTES)):
        end = at + SLOT_BYTES
        if crc32(view[at : end - 4], number + place & 0xFFFFFFFF) != CHECK.unpack_from(view, end - 4)[0]:
            return place
    return len(raw) // SLOT_BYTES
