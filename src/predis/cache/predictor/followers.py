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
from collections.abc import Hashable, Iterable

from predis.cache.simulator.setup import Key

_FORGOTTEN = 0.6  # a count below this after halving is dropped
_HELD = 32  # keys that a client is taken to hold itself


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
        self.tie_all((source,), key)

    def tie_all(self, sources: Iterable[Source], key: Key) -> None:
        """The key was needed, late enough after each of these sources."""
        fan = self.fan
        for source in sources:
            after = source.after
            if key in after:
                after[key] += 1.0
            elif len(after) < fan:
                after[key] = 1.0
            else:
                self._compete(after, key)

    def _compete(self, after: dict[Key, float], key: Key) -> None:
        least = min(after.values())
        weakest = list(after)[list(after.values()).index(least)]
        if least <= 1.0:
            del after[weakest]
            after[key] = 1.0
        else:
            after[weakest] = least - 0.5


class Occurrence:
    """A source that occurred: when, by which key, and its entries in the tables."""

    __slots__ = ("first", "key", "second", "when")

    def __init__(self, when: float, key: Key, *, first: Source, second: Source | None) -> None:
        self.when, self.key, self.first, self.second = when, key, first, second


class Recent:
    """The last occurrences of one stream: those still too young to have helped, and the ``most`` youngest of those old enough.

    Args:
        most: of those old enough.
        young: the most of the others, however long the clock stands still.
    """

    __slots__ = ("old", "young")

    def __init__(self, most: int, *, young: int = 4_096) -> None:
        self.young: deque[Occurrence] = deque(maxlen=young)
        self.old: deque[Occurrence] = deque(maxlen=most)

    def ripen(self, latest: float) -> deque[Occurrence]:
        """Those that occurred at ``latest`` or before, the oldest first."""
        young = self.young
        while young and young[0].when <= latest:
            self.old.append(young.popleft())
        return self.old


class Stream:
    """One client: what it asked for of late, what of that was needed, and what it may therefore hold itself.

    A browser, an application or a near cache seldom asks twice within a short time: that a key is ``held`` makes it another
    kind of guess. How much less likely is measured, as of all kinds.
    """

    __slots__ = ("asked", "held", "needed")

    def __init__(self, *, near: int, far: int, young: int) -> None:
        self.asked, self.needed = Recent(near, young=young), Recent(far, young=young)
        self.held: OrderedDict[Key, None] = OrderedDict()

    def holds(self, key: Key) -> None:
        held = self.held
        held[key] = None
        held.move_to_end(key)
        if len(held) > _HELD:
            held.popitem(last=False)
