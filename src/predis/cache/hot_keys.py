"""What is read most, what is largest, and who reads: each in bounded memory, however many keys there are.

References:
    A. Metwally, D. Agrawal, A. El Abbadi: Efficient computation of frequent and top-k elements in data streams. ICDT 2005 (Space-Saving).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from predis.errors import InvalidInput

K = TypeVar("K", bytes, str)


@dataclass(frozen=True)
class Heavy(Generic[K]):
    """A key that is read often. It was read ``count`` times at most, and ``count - error`` times at least."""

    key: K
    count: float
    error: float


class HeavyHitters(Generic[K]):
    """The most frequent keys of a stream, by Space-Saving: every key that makes more than 1/``room`` of it is among them.

    Args:
        room: keys that are counted at once.
    """

    def __init__(self, room: int = 1024) -> None:
        if room < 1:
            raise InvalidInput(f"room for {room} keys counts nothing; give it one or more")
        self.room = room
        self.total = 0.0
        self._counts: dict[K, list[float]] = {}  # key: count, error
        self._heap: list[
            tuple[float, K]
        ] = []  # counts as they were when a key was last looked at: never too high

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, key: K, weight: float = 1.0) -> None:
        self.total += weight
        found = self._counts.get(key)
        if found is not None:
            found[0] += weight
            return
        least = self._evicted() if len(self._counts) >= self.room else 0.0
        self._counts[key] = [least + weight, least]
        heapq.heappush(self._heap, (least + weight, key))

    def decay(self, factor: float) -> None:
        """Let what was counted count less; keys that were next to never read are forgotten."""
        self.total *= factor
        for count in self._counts.values():
            count[0] *= factor
            count[1] *= factor
        self._counts = {key: count for key, count in self._counts.items() if count[0] >= 0.01}
        self._heap = [(count[0], key) for key, count in self._counts.items()]
        heapq.heapify(self._heap)

    def top(self, most: int) -> list[Heavy[K]]:
        """The most frequent first; those whose order is uncertain say so by their errors."""
        found = heapq.nlargest(most, self._counts.items(), key=lambda item: (item[1][0], item[0]))
        return [Heavy(key, count, error) for key, (count, error) in found]

    def to_list(self) -> list[tuple[K, float, float]]:
        return [(key, count, error) for key, (count, error) in self._counts.items()]

    def restore(self, saved: Iterable[tuple[K, float, float]], *, total: float) -> None:
        """Go on from ``to_list``."""
        self._counts = {key: [count, error] for key, count, error in saved}
        self._heap = [(count[0], key) for key, count in self._counts.items()]
        heapq.heapify(self._heap)
        self.total = total

    def _evicted(self) -> float:
        """Let the least frequent go; returns its count."""
        while True:
            said, key = self._heap[0]
            count = self._counts[key][0]
            if count == said:
                heapq.heappop(self._heap)
                del self._counts[key]
                return count
            heapq.heapreplace(self._heap, (count, key))


class BigKeys:
    """The largest values among those that were read, by what they were when last read.

    Args:
        room: keys that are kept.
        stale_us: what was not read for that long is left out.
    """

    def __init__(self, room: int = 128, *, stale_us: int = 86_400_000_000) -> None:
        self.room = room
        self._stale_us = stale_us
        self._sizes: dict[bytes, tuple[int, int]] = {}  # key: bytes, when
        self._least = 0

    def add(self, key: bytes, *, size: int, us: int) -> None:
        if size <= self._least and key not in self._sizes:
            return
        self._sizes[key] = size, us
        if len(self._sizes) >= 2 * self.room:
            kept = heapq.nlargest(self.room, self._sizes.items(), key=lambda item: item[1])
            self._sizes = dict(kept)
            self._least = kept[-1][1][0]

    def top(self, most: int, *, now_us: int) -> list[tuple[bytes, int]]:
        """The largest first, with their bytes."""
        fresh = {key: size for key, (size, us) in self._sizes.items() if now_us - us < self._stale_us}
        if len(fresh) < len(self._sizes):
            self._sizes = {key: self._sizes[key] for key in fresh}
            self._least = 0
        return heapq.nlargest(most, fresh.items(), key=lambda item: (item[1], item[0]))

    def to_list(self) -> list[tuple[bytes, int, int]]:
        return [(key, size, us) for key, (size, us) in self._sizes.items()]

    def restore(self, saved: Iterable[tuple[bytes, int, int]]) -> None:
        """Go on from ``to_list``."""
        self._sizes = {key: (size, us) for key, size, us in saved}


class Shares:
    """Reads, bytes and misses by the first part of the key, up to the colon: the tenant, where there are tenants.

    Args:
        room: parts that are told apart; the rest is together in one.
    """

    OTHERS = ""

    def __init__(self, room: int = 256) -> None:
        self.room = room
        self._counts: dict[str, list[float]] = {}  # part: reads, bytes, misses

    def add(self, key: bytes, *, size: int, hit: bool) -> None:
        part = key.partition(b":")[0].decode("utf-8", "backslashreplace") if b":" in key else self.OTHERS
        found = self._counts.get(part)
        if found is None:
            if len(self._counts) >= self.room:
                part = self.OTHERS
            found = self._counts.setdefault(part, [0.0, 0.0, 0.0])
        found[0] += 1
        found[1] += size
        found[2] += not hit

    def decay(self, factor: float) -> None:
        """Let what was counted count less; parts that were next to never read make room for others."""
        for counts in self._counts.values():
            counts[:] = [count * factor for count in counts]
        self._counts = {part: counts for part, counts in self._counts.items() if counts[0] >= 0.1}

    def shown(self) -> list[dict[str, Any]]:
        """By their share of the reads, the largest first."""
        reads = sum(counts[0] for counts in self._counts.values()) or 1.0
        sent = sum(counts[1] for counts in self._counts.values()) or 1.0
        rows = [
            {"prefix": part, "reads": counts[0] / reads, "bytes": counts[1] / sent, "hit_rate": 1 - counts[2] / max(counts[0], 1e-9)}
            for part, counts in self._counts.items()
        ]  # fmt: skip
        return sorted(rows, key=lambda row: (-row["reads"], row["prefix"]))

    def to_dict(self) -> dict[str, list[float]]:
        return self._counts

    def restore(self, saved: dict[str, list[float]]) -> None:
        """Go on from ``to_dict``."""
        self._counts = {part: list(counts) for part, counts in saved.items()}
