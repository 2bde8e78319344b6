"""Which keys follow which, heard live: for keys whose names say nothing of each other.

Rules (``templates``) speak of kinds of keys; of ``config:nav`` and ``banner:home``, always read one after the other, no rule can tell.
Here each *needed* key is tied to the reads of the same client that are just old enough (``followers``): at least a load ago, or the
prefetch would be late, and at most as long ago as a prefetched key is watched. Needed is a read that missed, or one that may only have hit
because the tables in use foretold it; a key that is always there is no news, and is forgotten when its counts are halved.

A pair is said when the second was needed after at least so many of the first's reads, and that share is surely not much less (the count
is taken one too high for the first, one too low for the second). Everything is bounded: sources, followers of each, clients. A source
that is not read again before so many others is forgotten; a flood of keys read once costs memory for no more than those.

It costs some 10 us a read in the learner. The gateway sees a dictionary.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from predis.cache.predictor.followers import Followers, Occurrence, Recent

_HALVING = 32


class Associations:
    """Hears reads in order, says which keys follow which.

    Args:
        delay_us: how long a load takes.
        horizon_us: reads that are older are not tied to.
        sources: most keys remembered; the one read longest ago goes first.
        fan: followers remembered of each, more than are said, as chance takes places too.
        near: how many of the reads that are just old enough a needed key is tied to.
        clients: most clients whose last reads are remembered.

    >>> heard = Associations(delay_us=1_000)
    >>> for visit in range(6):
    ...     heard.read("nav", visit * 10**9, client=1, needed=True)
    ...     heard.read("banner", visit * 10**9 + 5_000, client=1, needed=True)
    >>> heard.learned()
    {'nav': ('banner',)}
    """

    def __init__(
        self,
        *,
        delay_us: int = 10_000,
        horizon_us: int = 60_000_000,
        sources: int = 20_000,
        fan: int = 8,
        near: int = 4,
        clients: int = 4_096,
    ) -> None:
        self.delay_us = delay_us
        self.horizon_us = horizon_us
        self.near = near
        self.clients = clients
        self.foretold: Collection[str] = frozenset()
        """Keys that the tables in use say: a hit of theirs counts as needed."""
        self._table = Followers(sources, fan=fan, halving=_HALVING)
        self._streams: OrderedDict[int, Recent] = OrderedDict()

    def __len__(self) -> int:
        return len(self._table.sources)

    def read(self, key: str, us: int, *, client: int, needed: bool) -> None:
        """One read, in the order of ``us``.

        Args:
            needed: it missed.
        """
        stream = self._stream(client)
        old = stream.ripen(us - self.delay_us)
        if needed or key in self.foretold:
            earliest = us - self.horizon_us
            for occurrence in old:
                if occurrence.key != key and occurrence.when >= earliest:
                    self._table.tie(occurrence.first, key)
        stream.young.append(Occurrence(us, key, first=self._table.seen(key), second=None))

    def learned(
        self, *, least: float = 0.5, support: float = 3.0, most: int = 3
    ) -> dict[str, tuple[str, ...]]:
        """For each key those that follow it in time, the likeliest first.

        Args:
            least: share of the first's reads after which the second was needed.
            support: how often that was.
            most: followers said of one key.
        """
        found: dict[str, tuple[str, ...]] = {}
        for name, source in self._table.sources.items():
            wanted = max(support, least * (source.seen + 1.0) + 0.5)
            sure = [(count, key) for key, count in source.after.items() if count >= wanted]
            if sure:
                sure.sort(key=lambda one: -one[0])
                found[str(name)] = tuple(str(key) for _, key in sure[:most])
        return found

    def _stream(self, client: int) -> Recent:
        stream = self._streams.get(client)
        if stream is None:
            stream = self._streams[client] = Recent(self.near)
            if len(self._streams) > self.clients:
                self._streams.popitem(last=False)
        else:
            self._streams.move_to_end(client)
        return stream
