"""Candidates for prefetching with what the tables say of them, as columns for a learned confidence; and what became of them.

The same tables as the ensemble's: a needed key is tied to what its client read just long enough before for a prefetch to be on time
(`followers`). Nothing is decided here. ``outcomes`` looks back at a stretch that is over, to label it for training.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from predis.cache.predictor.followers import Followers, Occurrence, Recent, Source
from predis.cache.simulator.setup import Key

COLUMNS = ("first_share", "first_seen", "second_share", "second_seen")
"""Share of the times that this key was needed after the one just read, how often that was seen; the same of the last two keys."""

_NEAR, _FAN, _HALVING = 4, 4, 32
_CLIENTS = 20_000


class Proposal(NamedTuple):
    """A key that may be needed soon, and ``COLUMNS``."""

    key: Key
    first_share: float
    first_seen: float
    second_share: float
    second_seen: float

    @property
    def share(self) -> float:
        """What tables alone would believe: of the source that knows more, drawn towards nothing where it was seldom seen."""
        sure = [
            share * seen / (seen + 1.0)
            for share, seen in ((self.first_share, self.first_seen), (self.second_share, self.second_seen))
            if seen > 0
        ]
        return max(sure, default=0.0)


class Proposer:
    """Learns which keys follow which, and proposes.

    Args:
        wait: how long a prefetch is under way, in the unit of ``when`` (requests: delay + 1).
        most: sources in each table; the one not seen for the longest goes first.
    """

    def __init__(self, wait: float, *, most: int = 200_000) -> None:
        self._wait = wait
        self._first = Followers(most, fan=_FAN, halving=_HALVING)
        self._second = Followers(most, fan=_FAN, halving=_HALVING)
        self._streams: dict[int, Recent] = {}

    def read(self, key: Key, when: float, *, client: int, needed: bool) -> list[Proposal]:
        """One read, in order; the keys that may follow.

        Args:
            needed: the demand policy alone did not hold it.
        """
        stream = self._stream(client)
        old = stream.ripen(when - self._wait)
        if needed:
            for source in old:
                if source.key != key:
                    self._first.tie(source.first, key)
                    if source.second is not None:
                        self._second.tie(source.second, key)
        previous = stream.young[-1] if stream.young else old[-1] if old else None
        first = self._first.seen(key)
        second = self._second.seen((previous.key, key)) if previous is not None else None
        stream.young.append(Occurrence(when, key, first=first, second=second))
        return _proposed(key, first, second=second)

    def _stream(self, client: int) -> Recent:
        stream = self._streams.pop(client, None) or Recent(_NEAR)
        self._streams[client] = stream
        if len(self._streams) > _CLIENTS:
            del self._streams[next(iter(self._streams))]
        return stream


def _proposed(key: Key, first: Source, *, second: Source | None) -> list[Proposal]:
    of_first = _shares(first)
    of_second = _shares(second) if second is not None else {}
    seen = float(first.seen - 1), float(second.seen - 1) if second is not None else 0.0
    return [
        Proposal(follower, of_first.get(follower, 0.0), seen[0], of_second.get(follower, 0.0), seen[1])
        for follower in of_first | of_second
        if follower != key
    ]


def _shares(source: Source) -> dict[Key, float]:
    before = source.seen - 1
    return {key: min(count / before, 1.0) for key, count in source.after.items()} if before > 0 else {}


def outcomes(
    rows: NDArray[np.int64],
    keys: NDArray[np.int64],
    *,
    reads: NDArray[np.int64],
    missed: NDArray[np.bool_],
    ready: NDArray[np.int64],
    horizon: int,
) -> NDArray[np.bool_]:
    """Whether each candidate was worth its prefetch: first read when that was there, at most ``horizon`` requests later, and missed then.

    Args:
        rows, keys: candidates: after which read, and which key.
        reads: keys of all reads of the stretch, as numbers.
        missed: whether the demand policy alone missed them.
        ready: for each read, the first one that a prefetch asked for then is there for.
    """
    order = np.lexsort((np.arange(len(reads)), reads))
    scale = len(reads) + 1
    sorted_reads = reads[order] * scale + order
    at = np.searchsorted(sorted_reads, keys * scale + rows, side="right")
    inside = at < len(order)
    following = order[np.minimum(at, len(order) - 1)]
    found = inside & (reads[following] == keys)
    return np.asarray(found & (following >= ready[rows]) & (following <= rows + horizon) & missed[following])
