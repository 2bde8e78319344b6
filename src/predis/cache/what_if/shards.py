"""The hit rate of an LRU cache of every size at once, from a sample of the keys.

A read hits an LRU cache of c keys if fewer than c others were read since this key was last read. That number, the reuse distance, needs
all keys. SHARDS takes the keys whose place is below a threshold, a share R of all, finds their distances among themselves, and divides
by R: it needs all reads of few keys instead of few reads of all keys. With a fixed number of keys (8,192) the threshold falls as more
keys come; counts made before are scaled to the new R.

Three things go beyond the paper, for a stream that never ends and is not always looked at:

* A key that is not among those kept was read longer ago than all of them, or before somebody looked. Its distance is not infinite but
  unknown: at least the number of keys kept. The curve is the Kaplan-Meier estimate of distances so censored: at each distance, the
  share of hits among those reads that are known to have come that far. What nobody looked at is left out, a scan of new keys is not.
* Keys that lie deeper than any size that is asked for are forgotten before the threshold is lowered, so that it does not fall for
  ever. Where few keys are left it rises again.
* Counts decay, so that the curve is that of the last hours.

Distances are also taken in bytes: the sum of the sizes of the keys in between.

The uncertainty comes from the sample itself: keys fall in eight groups by the last bits of their place, each group gives a curve, and
the spread of the eight is what another choice of keys would have changed.

References:
    C. Waldspurger, N. Park, A. Garthwaite, I. Ahmad: Efficient MRC construction with SHARDS. FAST 2015 (fixed size, with the correction
    of the count of section 4, "SHARDS-adj").
    E. Kaplan, P. Meier: Nonparametric estimation from incomplete observations. J. Am. Stat. Assoc. 53, 1958.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from predis.cache.accesses import ALL
from predis.errors import InvalidInput

GROUPS = 8
_STEPS = 16  # bins of the histogram in each doubling of the distance
_BINS = 64 * _STEPS
_FALL = 0.75  # what a threshold that falls is multiplied with
_DEPTH = 5.0  # times the present cache: deeper than any size that is asked for


class Shards:
    """Reuse distances of a stream of reads.

    Args:
        most_keys: kept at once; more is more exact, and takes about 400 bytes each.
        threshold: where to begin; every key, unless told otherwise.
        from_empty: nothing was read before: a key's first read is a miss at any size, as in the replay of a whole trace.
    """

    def __init__(self, most_keys: int = 8192, threshold: int = ALL, *, from_empty: bool = False) -> None:
        if most_keys < 16:
            raise InvalidInput(f"a sample of {most_keys} keys says nothing; take 16 or more")
        self.most_keys = most_keys
        self.threshold = threshold
        self.depth_keys = math.inf  # keys of the whole that deeper reads are misses for certain
        self._order = _Order(4 * most_keys)
        self._places: dict[bytes, int] = {}
        self._from_empty = from_empty
        self._keys = _Distances()
        self._bytes = _Distances()
        self.looked = 0.0  # reads of the whole stream, as far as somebody looked

    def __len__(self) -> int:
        return len(self._places)

    @property
    def ratio(self) -> float:
        """The share of keys that are in the sample, R of the paper."""
        return self.threshold / ALL

    @property
    def reads(self) -> float:
        """Reads of the sample that were counted, decayed."""
        return self._keys.reads

    def read(self, key: bytes, place: int, *, size: int) -> bool:
        """One read. False: the key is not of the sample.

        Args:
            size: what the key takes, in bytes.
        """
        if place >= self.threshold:
            return False
        ratio = self.threshold / ALL
        kept, kept_bytes = len(self._places), self._order.total_bytes
        found = self._order.touch(key, size)
        group = place % GROUPS
        if found is not None:
            self._keys.add(group, found[0] / ratio)
            self._bytes.add(group, found[1] / ratio)
            return True
        self._places[key] = place
        self._keys.add_beyond(group, math.inf if self._from_empty else kept / ratio)
        self._bytes.add_beyond(group, math.inf if self._from_empty else kept_bytes / ratio)
        if len(self._places) > self.most_keys:
            self._make_room()
        return True

    def interrupt(self) -> None:
        """Reads went by unseen: what was read before is not known to be more recent than anything."""
        self._order = _Order(4 * self.most_keys)
        self._places.clear()

    def follow(self, threshold: int) -> None:
        """Take over what those who write the sample do: they leave out keys from ``threshold`` on."""
        if threshold < self.threshold:
            self._lower(threshold)
        elif threshold > self.threshold:
            self._rescale(threshold / self.threshold)
            self.threshold = threshold
            self.interrupt()

    def wanted(self) -> int:
        """The threshold that would suit: a higher one where there is room for more keys."""
        if len(self._places) < self.most_keys // 4 and self.threshold < ALL:
            return min(ALL, int(self.threshold / _FALL))
        return self.threshold

    def decay(self, factor: float) -> None:
        """Let what was counted count less."""
        self._rescale(factor)
        self.looked *= factor

    def hit_rates(self, sizes: np.ndarray[Any, Any], *, unit: str = "keys") -> np.ndarray[Any, Any]:
        """Share of reads that an LRU cache of each size would have answered, by group: ``GROUPS + 1`` rows, the whole sample first.

        Args:
            sizes: in keys or in bytes of the whole cache.
            unit: "keys" or "bytes".
        """
        distances = self._keys if unit == "keys" else self._bytes
        # SHARDS-adj: reads that the sample has too few or too many of are those of a few hot keys, with short distances.
        missing = self.looked * self.ratio - distances.reads if self.looked else 0.0
        return distances.up_to(np.asarray(sizes, float), missing=missing)

    def recent(self) -> Iterator[tuple[bytes, int]]:
        """Keys of the sample and their sizes, the least recently read first."""
        return self._order.items()

    def mean_size(self) -> float:
        """Bytes that a key takes on average; NaN of an empty sample."""
        return self._order.total_bytes / len(self._places) if self._places else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Everything, to go on from with ``from_dict``."""
        return {
            "most_keys": self.most_keys,
            "threshold": self.threshold,
            "looked": self.looked,
            "keys": self._keys.to_dict(),
            "bytes": self._bytes.to_dict(),
            "order": [(key.decode("latin-1"), self._places[key], size) for key, size in self.recent()],
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Shards:
        made = cls(saved["most_keys"], saved["threshold"])
        made.looked = saved["looked"]
        made._keys, made._bytes = _Distances.from_dict(saved["keys"]), _Distances.from_dict(saved["bytes"])
        for text, place, size in saved["order"]:
            key = text.encode("latin-1")
            made._places[key] = place
            made._order.touch(key, size)
        return made

    def _make_room(self) -> None:
        """Forget what lies too deep to matter; where that is too little, sample fewer keys."""
        deep = self.depth_keys * _DEPTH * self.ratio
        while len(self._places) > max(deep, self.most_keys // 2):
            del self._places[self._order.forget_oldest()]
        while len(self._places) > self.most_keys * 0.95:
            self._lower(int(self.threshold * _FALL))

    def _lower(self, threshold: int) -> None:
        for key in [key for key, place in self._places.items() if place >= threshold]:
            del self._places[key]
            self._order.forget(key)
        self._rescale(threshold / self.threshold)
        self.threshold = threshold

    def _rescale(self, factor: float) -> None:
        self._keys.scale(factor)
        self._bytes.scale(factor)


class _Distances:
    """How many reads came at which distance, and how many are only known to have come from beyond one; by group of keys."""

    def __init__(self) -> None:
        self._at = [[0.0] * (_BINS + 1) for _ in range(GROUPS)]
        self._beyond = [[0.0] * (_BINS + 1) for _ in range(GROUPS)]  # the last bin: beyond everything
        self.reads = 0.0

    def add(self, group: int, distance: float) -> None:
        self._at[group][_bin(distance)] += 1
        self.reads += 1

    def add_beyond(self, group: int, distance: float) -> None:
        self._beyond[group][_BINS if distance == math.inf else _bin(distance)] += 1
        self.reads += 1

    def scale(self, factor: float) -> None:
        self._at = [[count * factor for count in counts] for counts in self._at]
        self._beyond = [[count * factor for count in counts] for counts in self._beyond]
        self.reads *= factor

    def up_to(self, sizes: np.ndarray[Any, Any], *, missing: float) -> np.ndarray[Any, Any]:
        """Share of reads at distances up to each size: of all groups together, then of each; ``missing`` reads of short distance are
        added to all together."""
        at, beyond = np.asarray(self._at), np.asarray(self._beyond)
        whole = at.sum(axis=0, keepdims=True)
        if missing < 0:  # reads too many are taken from the shortest distances
            whole = np.diff(np.maximum(np.cumsum(whole, axis=1) + missing, 0.0), axis=1, prepend=0.0)
        else:
            whole[0, 0] += missing
        at, beyond = np.vstack([whole, at]), np.vstack([beyond.sum(axis=0, keepdims=True), beyond])
        both = at + beyond
        left = np.cumsum(both[:, ::-1], axis=1)[:, ::-1] - beyond / 2  # reads known to have come that far
        stay = 1.0 - np.divide(at, left, out=np.zeros_like(at), where=left > 0)
        missed = np.hstack([np.ones((len(at), 1)), np.cumprod(np.clip(stay, 0.0, 1.0), axis=1)])
        ends = np.append(0.0, 2.0 ** (np.arange(1, _BINS + 2) / _STEPS))
        # Half a key more: a distance that is the size is a hit, and stands at the lower end of its bin.
        return np.vstack([np.interp(sizes + 0.5, ends, 1.0 - row) for row in missed])

    def to_dict(self) -> dict[str, Any]:
        return {
            "at": [_sparse(counts) for counts in self._at],
            "beyond": [_sparse(counts) for counts in self._beyond],
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> _Distances:
        made = cls()
        made._at = [_dense(counts) for counts in saved["at"]]
        made._beyond = [_dense(counts) for counts in saved["beyond"]]
        made.reads = sum(map(sum, made._at)) + sum(map(sum, made._beyond))
        return made


class _Order:
    """Keys by their last read, and how many, and how many bytes, were read since.

    Each read has the next number; a Fenwick tree over the numbers holds a 1 and the size at each key's last one. When the numbers are
    used up, keys are numbered anew.
    """

    def __init__(self, numbers: int) -> None:
        self._numbers = numbers
        self._last: dict[bytes, int] = {}  # the least recently read first
        self._sizes: dict[bytes, int] = {}
        self._ones = [0] * (numbers + 1)
        self._weights = [0] * (numbers + 1)
        self._next = 1
        self.total_bytes = 0

    def touch(self, key: bytes, size: int) -> tuple[int, int] | None:
        """Read a key. Returns distinct keys, and bytes of them, since its last read, itself included; None of a new one."""
        last = self._last.pop(key, 0)
        found = None
        if last:
            before_ones, before_bytes = self._up_to(last - 1)
            found = len(self._sizes) - before_ones, self.total_bytes - before_bytes
            self._add(last, one=-1, weight=-self._sizes[key])
            self.total_bytes -= self._sizes[key]
        if self._next > self._numbers:
            self._renumber()
        self._last[key] = self._next
        self._sizes[key] = size
        self._add(self._next, one=1, weight=size)
        self.total_bytes += size
        self._next += 1
        return found

    def forget(self, key: bytes) -> None:
        size = self._sizes.pop(key)
        self._add(self._last.pop(key), one=-1, weight=-size)
        self.total_bytes -= size

    def forget_oldest(self) -> bytes:
        key = next(iter(self._last))
        self.forget(key)
        return key

    def items(self) -> Iterator[tuple[bytes, int]]:
        return ((key, self._sizes[key]) for key in self._last)

    def _up_to(self, number: int) -> tuple[int, int]:
        ones = weights = 0
        while number:
            ones += self._ones[number]
            weights += self._weights[number]
            number &= number - 1
        return ones, weights

    def _add(self, number: int, *, one: int, weight: int) -> None:
        while number <= self._numbers:
            self._ones[number] += one
            self._weights[number] += weight
            number += number & -number

    def _renumber(self) -> None:
        keys = list(self._last)
        self._ones = [0] * (self._numbers + 1)
        self._weights = [0] * (self._numbers + 1)
        self._next = 1
        for key in keys:
            self._last[key] = self._next
            self._add(self._next, one=1, weight=self._sizes[key])
            self._next += 1


def _bin(distance: float) -> int:
    return min(int(math.log2(distance) * _STEPS), _BINS - 1) if distance > 1 else 0


def _sparse(counts: list[float]) -> list[tuple[int, float]]:
    return [(place, count) for place, count in enumerate(counts) if count]


def _dense(pairs: list[Any]) -> list[float]:
    counts = [0.0] * (_BINS + 1)
    for place, count in pairs:
        counts[place] = count
    return counts
