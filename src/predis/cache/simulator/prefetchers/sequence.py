"""Prefetchers that reckon with keys: block and page numbers, ids."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from predis.cache.simulator.prefetchers.base import Prefetcher
from predis.cache.simulator.setup import Key, Setup

_DEGREE = 4
_RECENT = 64


class OBL(Prefetcher):
    """One block lookahead: after each key the next number, always. Keys that are no numbers have none.

    References:
        A. J. Smith: Sequentiality and prefetching in database systems. ACM TODS 3(3), 1978.
    """

    def observe(self, i: int, key: Key, *, client: int, hit: bool, ts: float) -> Iterable[Key]:
        return (key + 1,) if isinstance(key, int) else ()


class Sequence(Prefetcher):
    """The next four numbers, where the number before was among the last 64 requests: several sequences may run at once."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._recent: deque[Key] = deque()
        self._times: dict[Key, int] = {}  # a key is among them

    def observe(self, i: int, key: Key, *, client: int, hit: bool, ts: float) -> Iterable[Key]:
        if not isinstance(key, int):
            return ()
        goes_on = key - 1 in self._times
        self._remember(key)
        return range(key + 1, key + 1 + _DEGREE) if goes_on else ()

    def _remember(self, key: Key) -> None:
        self._recent.append(key)
        self._times[key] = self._times.get(key, 0) + 1
        if len(self._recent) > _RECENT:
            oldest = self._recent.popleft()
            self._times[oldest] -= 1
            if not self._times[oldest]:
                del self._times[oldest]
