"""What prefetching is worth, measured on itself: a share of what is foretold is held back on purpose.

That a prefetched key was read soon after proves nothing: it might have been in the cache anyway. So of all keys that a rule foretells
and that are not in the cache, a share (by a hash of the key, so that no worker has to ask another) is *held back*: not loaded, only
watched. What becomes of them is what would have become of all. For each rule there are two groups of foretold keys:

* given: loaded ahead; then ``used`` (read, and there), ``late`` (read before it had come) or unread when the time was over;
* held back: ``missed`` (read, and a demand load) or unread when the time was over.

The *gain* of a rule is how many misses a foretold key is spared: misses of the held back, a key, less those of the given. Its
*waste* is the share of the given that nobody read: a load for nothing each. A rule pays where the misses it spares are worth the loads
it wastes: ``gain >= cost x waste``. All is judged by confidence sequences (``stats.sequential``), which stay valid though somebody looks
every second: a rule is switched off when its gain is surely too little, and tried again after a rest that doubles each time.

A key counts once: foretold again while it is watched, it stays with the rule and the group it has.
"""

from __future__ import annotations

import math
import zlib
from collections import OrderedDict
from collections.abc import Collection, Hashable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from predis.stats.sequential import rate_difference_interval

Group: TypeAlias = Literal["given", "held"]
Outcome: TypeAlias = Literal["hit", "miss", "unread"]

HELD_BACK = 0.05
_ALL = 1 << 32
_EVERY = 16  # outcomes from one interval to the next: it costs as much as a read


class HoldBack:
    """Which keys are held back: the same in every worker, others each time the salt changes.

    >>> held = HoldBack(0.5, salt="monday")
    >>> round(sum(held.holds(b"key:%d" % i) for i in range(10_000)) / 10_000, 1)
    0.5
    """

    def __init__(self, share: float = HELD_BACK, *, salt: str = "") -> None:
        self.share = share
        self._seed = zlib.crc32(salt.encode())
        self._below = int(share * _ALL)

    def holds(self, key: bytes) -> bool:
        # CRC is linear, so a salt alone would only shift all places by the same bits; multiplied, they are strewn anew.
        place = (zlib.crc32(key, self._seed) * 0x9E3779B1 + self._seed) & 0xFFFFFFFF
        return place < self._below


@dataclass(slots=True)
class Tally:
    """What became of the keys a rule foretold. ``given`` and ``held`` are those whose outcome is known."""

    given: int = 0
    used: int = 0
    late: int = 0
    held: int = 0
    missed: int = 0

    def count(self, group: Group, outcome: Outcome) -> None:
        """What became of one foretold key."""
        if group == "given":
            self.given += 1
            self.used += outcome == "hit"
            self.late += outcome == "miss"
        else:
            self.held += 1
            self.missed += outcome == "miss"

    def add(self, other: Tally) -> None:
        self.given += other.given
        self.used += other.used
        self.late += other.late
        self.held += other.held
        self.missed += other.missed

    @property
    def precision(self) -> float:
        """Share of the given that were read, in time or late; NaN where none was given."""
        return (self.used + self.late) / self.given if self.given else math.nan

    @property
    def on_time(self) -> float:
        """Share of those read that were there by then; NaN where none was."""
        read = self.used + self.late
        return self.used / read if read else math.nan

    @property
    def gain(self) -> float:
        """Misses spared a foretold key; NaN before both groups have some."""
        if not self.given or not self.held:
            return math.nan
        return self.missed / self.held - self.late / self.given

    @property
    def waste(self) -> float:
        """Loads for nothing a foretold key; NaN where none was given."""
        return 1.0 - self.precision

    def gain_interval(self, alpha: float) -> tuple[float, float]:
        """(low, high) that contain the gain at all times at once with probability >= 1 - alpha."""
        low, high = rate_difference_interval((self.late, self.given), (self.missed, self.held), alpha=alpha)
        return low, high

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Watched:
    rule: Hashable
    group: Group
    until: float


class Watch:
    """The foretold keys whose outcome is not known yet. Bounded: the oldest leaves without an outcome.

    Args:
        horizon_s: how long a foretold key may take to be read before it counts as unread.
    """

    def __init__(self, *, horizon_s: float = 60.0, limit: int = 65_536) -> None:
        self.horizon_s = horizon_s
        self.limit = limit
        self.dropped = 0
        self._keys: OrderedDict[bytes, Watched] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def begin(self, key: bytes, rule: Hashable, *, group: Group, now: float) -> None:
        """Watch a key that is not watched yet."""
        self._keys[key] = Watched(rule, group, now + self.horizon_s)
        if len(self._keys) > self.limit:
            self._keys.popitem(last=False)
            self.dropped += 1

    def read(self, key: bytes) -> Watched | None:
        """The watched entry of a key that was read just now; it is watched no longer."""
        return self._keys.pop(key, None)

    def over(self, now: float) -> list[Watched]:
        """Those that nobody read in time."""
        found = []
        while self._keys:
            key = next(iter(self._keys))
            if self._keys[key].until > now:
                break
            found.append(self._keys.pop(key))
        return found


class Judge:
    """Whether rules pay, each by itself.

    Args:
        cost: what a load for nothing costs, in misses spared. 0.1: ten wasted loads weigh as much as one miss.
        alpha: chance that a rule which pays is ever switched off wrongly.
        least: outcomes of given keys before precision alone may switch off; the interval needs no minimum.
        precision: share of the given that must be read, whatever the gain.
        rest_s: how long a rule that did not pay stays off, the first time; then twice as long, and so on.
        longest_rest_s: the longest rest.
    """

    def __init__(
        self,
        *,
        cost: float = 0.1,
        alpha: float = 0.01,
        least: int = 50,
        precision: float = 0.5,
        rest_s: float = 60.0,
        longest_rest_s: float = 86_400.0,
    ) -> None:
        self.cost = cost
        self.alpha = alpha
        self.least = least
        self.precision = precision
        self.rest_s = rest_s
        self.longest_rest_s = longest_rest_s
        self.tallies: dict[Hashable, Tally] = {}
        self.condemned: dict[Hashable, Tally] = {}
        """Of the rules that were switched off, what they were last judged by."""
        self._off: dict[Hashable, tuple[float, float]] = {}  # until when, and how long that rest is

    def settle(self, watched: Watched, outcome: Outcome, *, now: float) -> None:
        """Count what became of a key, and switch its rule off where it does not pay."""
        tally = self.tallies.get(watched.rule)
        if tally is None:
            tally = self.tallies[watched.rule] = Tally()
        tally.count(watched.group, outcome)
        if self.is_on(watched.rule, now) and self._fails(tally):
            self._switch_off(watched.rule, now)

    def is_on(self, rule: Hashable, now: float) -> bool:
        """Whether a rule may load. One whose rest is over may, and begins to be counted anew."""
        off = self._off.get(rule)
        return off is None or now >= off[0]

    def off_until(self, rule: Hashable) -> float | None:
        """When the rest of a rule that is off ends; None: it is on, or was never off."""
        off = self._off.get(rule)
        return off[0] if off else None

    def forget(self, kept: Collection[Hashable]) -> None:
        """Let go of rules that are no more."""
        self.tallies = {rule: tally for rule, tally in self.tallies.items() if rule in kept}
        self.condemned = {rule: tally for rule, tally in self.condemned.items() if rule in kept}
        self._off = {rule: off for rule, off in self._off.items() if rule in kept}

    def _fails(self, tally: Tally) -> bool:
        if tally.given >= self.least and tally.precision < self.precision:
            return True
        known = tally.given + tally.held
        if known < self.least or known % _EVERY or tally.given == 0:
            return False
        _, high = tally.gain_interval(self.alpha)
        return high < self.cost * tally.waste or high <= 0.0

    def _switch_off(self, rule: Hashable, now: float) -> None:
        _, before = self._off.get(rule, (0.0, self.rest_s / 2))
        rest = min(before * 2, self.longest_rest_s)
        self._off[rule] = (now + rest, rest)
        self.condemned[rule] = self.tallies[rule]
        self.tallies[rule] = Tally()  # what is counted after the rest is judged by itself
