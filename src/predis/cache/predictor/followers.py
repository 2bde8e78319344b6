"""What follows what, far enough ahead: counted associations between a source and the keys that were needed after it.

A table of successors foretells the next request, which is too late where a load takes ten. So a key that is needed now is tied to
*sources that are just old enough*: had the prefetch been asked for when they were seen, it would be there by now. And only needed keys
are tied, those that the demand policy did not hold: a key that is always resident is no news.

A source is a key, or two successive keys where one says too little. Followers compete for a fixed number of places; a newcomer takes
the place of the weakest when that has nearly been forgotten (as in Space-Saving, Metwally et al. 2005, with decay). The whole is
bounded, the source not seen for the longest goes first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable

from predis.cache.simulator.setup import Key

_FORGOTTEN = 0.6  # a count below this after halving is dropped


class Source:
    """How often it was seen, and how often each follower was needed in time after that."""

    __slots__ = ("after", "seen")

    def __init__(self) -> None:
        self.seen = 0
        self.after: dict[Key, float] = {}


class Followers:
    """A bounded table of sources.

    Args:
        most: sources.
        fan: followers of a source.
        halving: occurrences after which a source's counts are halved.
    """

    def __init__(self, most: int, *, fan: int, halving: int) -> None:
        self.most, self.fan, self.halving = most, fan, halving
        self.sources: OrderedDict[Hashable, Source] = OrderedDict()

    def seen(self, name: Hashable) -> Source:
        """The source of that name occurs now."""
        sources = self.sources
        source = sources.get(name)
        if source is None:
            source = sources[name] = Source()
            if len(sources) > self.most:
                sources.popitem(last=False)
        else:
            sources.move_to_end(name)
        source.seen += 1
        if source.seen >= self.halving:
            source.seen >>= 1
            source.after = {key: n / 2 for key, n in source.after.items() if n / 2 >= _FORGOTTEN}
        return source

    def tie(self, source: Source, key: Key) -> None:
        """The key was needed, late enough after the source."""
        after = source.after
        count = after.get(key)
        if count is not None:
            after[key] = count + 1.0
        elif len(after) < self.fan:
            after[key] = 1.0
        else:
            weakest = min(after, key=after.__getitem__)
            if after[weakest] <= 1.0:
                del after[weakest]
                after[key] = 1.0
            else:
                after[weakest] -= 0.5


class Occurrence:
    """A source that occurred: when, by which key, and its entries in the tables."""

    __slots__ = ("first", "key", "second", "when")

    def __init__(self, when: float, key: Key, *, first: Source, second: Source | None) -> None:
        self.when, self.key, self.first, self.second = when, key, first, second


class Recent:
    """The last occurrences of one stream: those still too young to have helped, and the ``most`` youngest of those old enough."""

    __slots__ = ("old", "young")

    def __init__(self, most: int) -> None:
        self.young: deque[Occurrence] = deque()
        self.old: deque[Occurrence] = deque(maxlen=most)

    def ripen(self, latest: float) -> deque[Occurrence]:
        """Those that occurred at ``latest`` or before, the oldest first."""
        young = self.young
        while young and young[0].when <= latest:
            self.old.append(young.popleft())
        return self.old
