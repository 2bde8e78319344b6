"""Association mining in the manner of MITHRIL."""

from __future__ import annotations

from collections.abc import Iterable

from predis.cache.simulator.prefetchers.base import Prefetcher
from predis.cache.simulator.setup import Key, Setup

_LEAST, _MOST = 2, 8  # misses of a key that make it fit for mining, and the most that do
_DELTA = 100  # requests between two keys' that still belong together
_DEGREE = 2  # associations a key
_MINED = 2_048  # keys that are mined at a time
_RECORDED = 200_000  # keys of which misses are recorded, until they are ready
_MOST_KEYS = 1_000_000  # with associations; the first learned is forgotten first


class Mithril(Prefetcher):
    """Keys that were missed equally often, each time within a hundred requests of each other, belong together.

    Only keys missed 2 to 8 times are mined: fewer tell nothing, and more frequent ones are of another kind. Mining runs whenever 2,048
    keys are ready for it; of what it finds for a key, the last two count.

    References:
        J. Yang, R. Karimi, T. Sæmundsson, A. Wildani, Y. Vigfusson: MITHRIL: mining sporadic associations for cache prefetching.
        SoCC 2017, arXiv 1705.07400.
    """

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._recorded: dict[Key, list[int]] = {}
        self._ready: dict[Key, list[int]] = {}
        self._associated: dict[Key, list[Key]] = {}

    def observe(self, i: int, key: Key, *, client: int, hit: bool, ts: float) -> Iterable[Key]:
        if not hit:
            self._record(i, key)
        return self._associated.get(key, ())

    def _record(self, i: int, key: Key) -> None:
        times = self._ready.get(key)
        if times is not None:
            times.append(i)
            if len(times) > _MOST:
                del self._ready[key]
            return
        times = self._recorded.get(key)
        if times is None:
            if len(self._recorded) >= _RECORDED:
                del self._recorded[next(iter(self._recorded))]
            self._recorded[key] = [i]
            return
        times.append(i)
        if len(times) >= _LEAST:
            del self._recorded[key]
            self._ready[key] = times
            if len(self._ready) >= _MINED:
                self._mine()

    def _mine(self) -> None:
        """Compares each key with those first asked for within delta after it."""
        rows = sorted(self._ready.items(), key=lambda row: row[1][0])
        self._ready = {}
        for at, (key, times) in enumerate(rows):
            for other, others in rows[at + 1 :]:
                if others[0] - times[0] > _DELTA:
                    break
                if len(others) == len(times) and all(
                    abs(a - b) <= _DELTA for a, b in zip(times, others, strict=True)
                ):
                    self._associate(key, other)

    def _associate(self, key: Key, other: Key) -> None:
        found = self._associated.get(key)
        if found is None:
            if len(self._associated) >= _MOST_KEYS:
                del self._associated[next(iter(self._associated))]
            found = self._associated[key] = []
        if other not in found:
            del found[: len(found) + 1 - _DEGREE]
            found.append(other)
