"""Markov prefetchers: what followed a key before will follow it again."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from predis.cache.simulator.prefetchers.base import Prefetcher
from predis.cache.simulator.setup import Key, Setup

_SUCCESSORS = 4  # remembered of each key
_MOST_KEYS = 1_000_000  # with successors; the first learned is forgotten first
_LEAST_SEEN = 2  # times a successor came before it counts as one
_CHAIN = 8
_CHAIN_CONFIDENCE = 0.5


class _Table:
    """How often each key was followed by anything, and by each of up to four successors."""

    def __init__(self) -> None:
        self._of: dict[Key, tuple[int, dict[Key, int]]] = {}

    def learn(self, before: Key, after: Key) -> None:
        seen, counts = self._of.get(before) or (0, {})
        if not seen and len(self._of) >= _MOST_KEYS:
            del self._of[next(iter(self._of))]
        if after not in counts and len(counts) >= _SUCCESSORS:
            del counts[min(counts, key=counts.__getitem__)]
        counts[after] = counts.get(after, 0) + 1
        self._of[before] = seen + 1, counts

    def after(self, key: Key, *, confidence: float, most: int) -> list[Key]:
        """The likeliest successors of at least a confidence."""
        seen, counts = self._of.get(key) or (0, {})
        least = max(confidence * seen, _LEAST_SEEN)
        found = [(count, after) for after, count in counts.items() if count >= least]
        if len(found) > 1:
            found.sort(key=lambda pair: -pair[0])
        return [after for _, after in found[:most]]


class Markov(Prefetcher):
    """Order 1, online: the likeliest successors of the key, counted over all earlier requests.

    Args:
        confidence: share of a key's counted successors that one must have.
        degree: prefetches a request, at most.
        per_client: what one client asks for next, where the trace tells clients apart.

    References:
        D. Joseph, D. Grunwald: Prefetching using Markov predictors. ISCA 1997.
    """

    def __init__(self, setup: Setup, *, confidence: float, degree: int, per_client: bool = False) -> None:
        super().__init__(setup)
        self._confidence, self._degree, self._per_client = confidence, degree, per_client
        self._table = _Table()
        self._before: dict[int, Key] = {}

    def observe(self, i: int, key: Key, *, client: int, hit: bool, ts: float) -> Iterable[Key]:
        who = client if self._per_client else 0
        before = self._before.get(who)
        if before is not None:
            self._table.learn(before, key)
        self._before[who] = key
        return self._table.after(key, confidence=self._confidence, most=self._degree)


class MarkovChain(Prefetcher):
    """Order 1, followed for eight steps: the likeliest successor, its likeliest successor and so on, while each is likely enough."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._table = _Table()
        self._before: Key | None = None

    def observe(self, i: int, key: Key, *, client: int, hit: bool, ts: float) -> Iterable[Key]:
        if self._before is not None:
            self._table.learn(self._before, key)
        self._before = key
        chain: list[Key] = []
        at = key
        while len(chain) < _CHAIN:
            following = self._table.after(at, confidence=_CHAIN_CONFIDENCE, most=1)
            if not following or following[0] in chain or following[0] == key:
                break
            at = following[0]
            chain.append(at)
        return chain


bold = partial(Markov, confidence=0.3, degree=2)
careful = partial(Markov, confidence=0.6, degree=1)
bold_per_client = partial(Markov, confidence=0.3, degree=2, per_client=True)
