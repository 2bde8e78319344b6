"""The curves that people ask about: hit rate by memory, for LRU and other policies, each with its uncertainty.

What is fed in are reads of the sample by key; what comes out is at multiples of the present cache, which ``Present`` describes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from predis.cache.what_if.miniature import POLICIES, Miniatures
from predis.cache.what_if.shards import GROUPS, Shards

SCALES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
OVERHEAD_BYTES = 64  # of an entry beside its key and value
_RESIZE = 0.1  # change of the present cache that is worth beginning anew for
_TWO_SIDED_95 = 2.36  # Student's t with seven degrees of freedom


@dataclass(frozen=True)
class Present:
    """The cache as it is.

    Args:
        memory_bytes: what it may use; where it has no limit, what it uses.
        keys: that it holds when it is full, with keys as large as those it has.
        limited: whether it has a limit.
        full: whether it has reached it.
    """

    memory_bytes: int
    keys: float
    limited: bool = True
    full: bool = True


class Curves:
    """LRU by reuse distance, the other policies by miniatures, all from one sample."""

    def __init__(self, most_keys: int = 8192, *, shards: Shards | None = None) -> None:
        self.shards = Shards(most_keys) if shards is None else shards
        self.miniatures = Miniatures(SCALES)
        self.present: Present | None = None
        self._sizes: dict[bytes, int] = {}  # of values of sampled keys, as last seen: a miss does not say

    def read(self, key: bytes, place: int, *, length: int, size: int) -> None:
        """One read of a key below the threshold.

        Args:
            key: as far as it is known.
            length: bytes of the whole key.
            size: bytes of the value; 0: not known.
        """
        if place >= self.shards.threshold:
            return
        takes = OVERHEAD_BYTES + length + self._value(key, size)
        before = self.shards.threshold
        self.shards.read(key, place, size=takes)
        if self.shards.threshold != before:
            self._fit()
        self.miniatures.read(key, place, size=takes)

    def interrupt(self) -> None:
        """Reads went by unseen."""
        self.shards.interrupt()

    def follow(self, threshold: int) -> None:
        """See ``Shards.follow``."""
        if threshold != self.shards.threshold:
            recent = list(self.shards.recent())
            mean = self.shards.mean_size()
            self.shards.follow(threshold)
            if self.present is not None and mean == mean:
                self.miniatures.resize(self.present.keys * mean * self.shards.ratio, recent=recent)

    def tell(self, present: Present) -> None:
        """Say what the cache is like now."""
        before, self.present = self.present, present
        self.shards.depth_keys = present.keys
        if (
            before is None
            or not self.miniatures.capacity
            or abs(self._capacity() / self.miniatures.capacity - 1) > _RESIZE
        ):
            self._fit()

    def decay(self, factor: float) -> None:
        self.shards.decay(factor)
        self.miniatures.decay(factor)

    def shown(self) -> dict[str, Any]:
        """The curves, as people and programs get them; ``policies`` is empty as long as nothing can be said."""
        shards, present = self.shards, self.present
        said: dict[str, Any] = {
            "scales": list(SCALES),
            "sampled_keys": len(shards),
            "sampled_reads": round(shards.reads),
            "sampled_share": shards.ratio,
            "present": None,
            "policies": {},
            "bytes": None,
        }
        if present is None or present.keys < 1 or shards.reads < 1:
            return said
        said["present"] = {
            "memory_bytes": present.memory_bytes, "keys": round(present.keys), "limited": present.limited, "full": present.full,
        }  # fmt: skip
        sizes = np.array(SCALES) * present.keys
        said["policies"]["lru"] = _told(shards.hit_rates(sizes))
        said["bytes"] = _told(shards.hit_rates(sizes * shards.mean_size(), unit="bytes"))
        if self.miniatures.reads >= 1:
            for policy in POLICIES:
                if policy != "lru":
                    said["policies"][policy] = _told(self._joined(policy))
        return said

    def to_dict(self) -> dict[str, Any]:
        return {"shards": self.shards.to_dict(), "miniatures": self.miniatures.to_dict()}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Curves:
        made = cls(shards=Shards.from_dict(saved["shards"]))
        made.miniatures.restore(saved["miniatures"])
        return made

    def _joined(self, policy: str) -> np.ndarray[Any, Any]:
        """A policy's curve: the miniature's difference to the miniature of LRU, on top of LRU's curve.

        Both miniatures see the same few hot keys, so that what the sample has too much of them falls out of the difference.
        """
        assert self.present is not None
        base = self.shards.hit_rates(np.array(SCALES) * self.present.keys)
        rates = base + self.miniatures.hit_rates(policy) - self.miniatures.hit_rates("lru")
        return np.asarray(np.clip(rates, 0.0, 1.0))

    def _value(self, key: bytes, size: int) -> int:
        """The size of a key's value; of one never seen, the mean of the others."""
        if size:
            if len(self._sizes) >= 2 * self.shards.most_keys:
                self._sizes = {key: self._sizes[key] for key, _ in self.shards.recent() if key in self._sizes}
            self._sizes[key] = size
            return size
        known = self._sizes.get(key)
        if known is not None:
            return known
        mean = self.shards.mean_size()
        return int(max(0.0, mean - OVERHEAD_BYTES - len(key))) if mean == mean else 0

    def _capacity(self) -> float:
        """Bytes of the sampled share of the present cache."""
        mean = self.shards.mean_size()
        return self.present.keys * mean * self.shards.ratio if self.present and mean == mean else 0.0

    def _fit(self) -> None:
        capacity = self._capacity()
        if capacity >= 1:
            self.miniatures.resize(capacity, recent=self.shards.recent())


def difference(
    curve: Mapping[str, Any], base: Mapping[str, Any], *, at: float, base_at: float = 1.0
) -> tuple[float, float]:
    """How much higher a curve lies at scale ``at`` than another at ``base_at``: the difference of the hit rates, and half of its
    95% interval."""
    grouped = [_at(a, at) - _at(b, base_at) for a, b in zip(curve["groups"], base["groups"], strict=True)]
    return _at(curve["hit_rate"], at) - _at(base["hit_rate"], base_at), _half_width(np.array([grouped]).T)[0]


def _at(rates: list[float], scale: float) -> float:
    return float(np.interp(np.log(scale), np.log(SCALES), rates))


def _told(rates: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {
        "hit_rate": [round(float(rate), 5) for rate in rates[0]],
        "half_width": [round(float(half), 5) for half in _half_width(rates[1:])],
        "groups": [[round(float(rate), 5) for rate in group] for group in rates[1:]],
    }


def _half_width(groups: np.ndarray[Any, Any]) -> list[float]:
    """Half of the 95% interval of the mean over the groups, in each column."""
    spread = np.std(groups, axis=0, ddof=1) / np.sqrt(GROUPS)
    return [float(value) for value in _TWO_SIDED_95 * spread]
