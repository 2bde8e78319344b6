"""Other policies than LRU: small caches that see only the sampled keys.

For a policy without a stack there is no distance to read a curve from. But a cache of R times the size that sees only a share R of the
keys has about the hit rate of the whole one, whatever the policy. So there is one small cache for each policy and size.

References:
    C. Waldspurger, T. Saemundsson, I. Ahmad, N. Park: Cache modeling and optimization using miniature simulations. USENIX ATC 2017.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from predis.cache.simulator import registry
from predis.cache.simulator.policies.base import Policy
from predis.cache.what_if.shards import GROUPS

POLICIES = ("lru", "s3-fifo", "twoq", "arc")


class Miniatures:
    """A small cache of each policy at each size. They hold nothing until ``resize`` said how large they are.

    Args:
        scales: sizes of the whole cache, as multiples of the present one.
    """

    def __init__(self, scales: Sequence[float], *, policies: Sequence[str] = POLICIES) -> None:
        self.scales = tuple(scales)
        self._names = tuple(policies)
        self._caches: list[list[Policy]] = []
        self.capacity = 0.0  # of the sampled share of the present cache
        self._hits = np.zeros((len(self._names), len(self.scales), GROUPS))
        self._reads = np.zeros(GROUPS)

    @property
    def reads(self) -> float:
        return float(self._reads.sum())

    def resize(self, capacity: float, *, recent: Iterable[tuple[bytes, int]] = ()) -> None:
        """Begin with empty caches of another size, and let them see what was read of late.

        Args:
            capacity: bytes of the present cache, times the share of keys sampled.
            recent: keys and sizes, the least recently read first.
        """
        self.capacity = capacity
        self._caches = [
            [registry.policy(name, max(1, round(scale * capacity))) for scale in self.scales]
            for name in self._names
        ]
        for key, size in recent:
            for cache in (cache for row in self._caches for cache in row):
                cache.admit(_text(key), size)

    def read(self, key: bytes, place: int, *, size: int) -> None:
        """One read of a sampled key."""
        if not self._caches:
            return
        group = place % GROUPS
        text = _text(key)
        self._reads[group] += 1
        for hits, row in zip(self._hits, self._caches, strict=True):
            for number, cache in enumerate(row):
                if cache.request(text):
                    hits[number, group] += 1
                else:
                    cache.admit(text, size)

    def hit_rates(self, policy: str) -> np.ndarray[Any, Any]:
        """As ``Shards.hit_rates`` of the sizes: ``GROUPS + 1`` rows, the whole sample first."""
        hits = self._hits[self._names.index(policy)].T
        hits, reads = np.vstack([hits.sum(axis=0), hits]), np.append(self._reads.sum(), self._reads)
        rates: np.ndarray[Any, Any] = hits / np.maximum(reads[:, None], 1e-9)
        return rates

    def decay(self, factor: float) -> None:
        self._hits *= factor
        self._reads *= factor

    def to_dict(self) -> dict[str, Any]:
        """What was counted; what the caches hold is had again from the sample."""
        return {
            "names": self._names,
            "scales": self.scales,
            "hits": self._hits.tolist(),
            "reads": self._reads.tolist(),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on counting from ``to_dict``, where it is of the same policies and sizes."""
        if (tuple(saved["names"]), tuple(saved["scales"])) == (self._names, self.scales):
            self._hits, self._reads = np.array(saved["hits"], float), np.array(saved["reads"], float)


def _text(key: bytes) -> str:
    return key.decode("latin-1")
