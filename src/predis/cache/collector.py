"""What the learner knows: made from events, shown to people, saved and gone on with.

Two samples come in one stream. Reads of the sample by key make the curves, and only while every worker looks at all its reads. Hot keys
and shares of prefixes need reads taken evenly, so they are made from the stretches; where the sample by key holds everything, from that.
Big keys are taken wherever they are seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from predis.cache.accesses import ALL
from predis.cache.hot_keys import BigKeys, HeavyHitters, Shares
from predis.cache.ring import KEY_BYTES, Flag
from predis.cache.ring_reader import keys_of
from predis.cache.what_if import Curves

_CURVES_HALF_S = 3_600.0
_KEYS_HALF_S = 600.0
_SHOWN = 50
_HIT, _WHOLE, _SPATIAL = int(Flag.HIT), int(Flag.WHOLE), int(Flag.SPATIAL)


class Collector:
    """Takes events and says what they tell."""

    def __init__(self) -> None:
        self.curves = Curves()
        self.hot: HeavyHitters[bytes] = HeavyHitters()
        self.big = BigKeys()
        self.shares = Shares()
        self.long_keys = 0  # events whose key is known only by its beginning
        self._looking = False

    def watch(self, *, looking: bool, threshold: int) -> None:
        """Say whether all reads are looked at now, and which keys are written.

        Args:
            looking: whether every worker looks at all of its reads.
            threshold: the least of the workers'.
        """
        if looking:
            self.curves.follow(threshold)
            if not self._looking:
                self.curves.interrupt()
        self._looking = looking

    def take(self, events: np.ndarray[Any, Any], *, looked: int) -> None:
        """Learn from events of one ring.

        Args:
            looked: reads that were looked at for them, written or not.
        """
        complete = self._looking and self.curves.shards.threshold == ALL
        even = _SPATIAL if complete else _WHOLE
        if self._looking:
            self.curves.shards.looked += looked
        rows = zip(
            keys_of(events),
            events["place"].tolist(),
            events["length"].tolist(),
            events["size"].tolist(),
            events["flags"].tolist(),
            events["us"].tolist(),
            strict=True,
        )
        for key, place, length, size, flags, us in rows:
            if length > KEY_BYTES:
                self.long_keys += 1
                name = b"%s#%08x" % (key, place)
            else:
                name = key
            if flags & _SPATIAL and self._looking:
                self.curves.read(name, place, length=length, size=size)
            if flags & even:
                self.hot.add(name)
                self.shares.add(key, size=size, hit=bool(flags & _HIT))
            if size:
                self.big.add(name, size=size, us=us)

    def decay(self, passed_s: float) -> None:
        """Let the past count less."""
        self.curves.decay(0.5 ** (passed_s / _CURVES_HALF_S))
        self.hot.decay(0.5 ** (passed_s / _KEYS_HALF_S))
        self.shares.decay(0.5 ** (passed_s / _KEYS_HALF_S))

    def shown(self, now_us: int) -> dict[str, Any]:
        """All of it, as JSON has it. A hot key's share of the reads lies between ``share_low`` and ``share``."""
        total = self.hot.total or 1.0
        return {
            "curves": self.curves.shown(),
            "hot_keys": [
                {"key": _text(heavy.key), "share": heavy.count / total, "share_low": (heavy.count - heavy.error) / total}
                for heavy in self.hot.top(_SHOWN)
            ],
            "hot_reads": self.hot.total,
            "big_keys": [{"key": _text(key), "bytes": size} for key, size in self.big.top(_SHOWN, now_us=now_us)],
            "prefixes": self.shares.shown()[:_SHOWN],
            "long_keys": self.long_keys,
        }  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        return {
            "curves": self.curves.to_dict(),
            "hot": _saved(self.hot.to_list()),
            "hot_total": self.hot.total,
            "big": _saved(self.big.to_list()),
            "shares": self.shares.to_dict(),
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Collector:
        made = cls()
        made.curves = Curves.from_dict(saved["curves"])
        made.hot.restore(_restored(saved["hot"]), total=saved["hot_total"])
        made.big.restore(_restored(saved["big"]))
        made.shares.restore(saved["shares"])
        return made


def _text(key: bytes) -> str:
    """A key as people read it."""
    return key.decode("utf-8", "backslashreplace")


def _saved(rows: Iterable[tuple[bytes, Any, Any]]) -> list[list[Any]]:
    return [[key.decode("latin-1"), *rest] for key, *rest in rows]


def _restored(rows: Iterable[Iterable[Any]]) -> list[tuple[bytes, Any, Any]]:
    return [(key.encode("latin-1"), one, other) for key, one, other in rows]
