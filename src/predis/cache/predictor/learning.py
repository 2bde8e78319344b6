"""The learner's part of prefetching: stretches of reads in, tables out: rules between kinds of keys, and which single keys follow which.

Only keys that a source has are learnt from: no other can be fetched. Time is the coordinate here, in microseconds, as a stretch is a
sample and the requests between its reads are not known; so "on time" means that the second key was read later than a load takes.

To see that an order leads to its customer one must know what the order holds. So the values of some keys are looked at, where they
still are in Valkey, at most so many a second.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from predis.cache.predictor.associations import Associations
from predis.cache.predictor.tables import Matched, Tables, scalars_of
from predis.cache.predictor.templates import Learned, Parsed, Scalars, TemplateRules
from predis.cache.ring import KEY_BYTES, Flag

Peek = Callable[[Sequence[bytes]], Sequence[bytes | None]]

HORIZON_US = 60_000_000
CONFIDENCE, SUPPORT = 0.3, 20.0  # that a rule must have
_WHOLE, _HIT = int(Flag.WHOLE), int(Flag.HIT)


class _Read(NamedTuple):
    key: bytes
    parsed: Parsed
    client: int
    us: int
    hit: bool


class TableLearner:
    """Learns from the access stream.

    Args:
        match: the source of a key.
        peek: the values of keys in Valkey, None where it has none; None: values are not looked at.
        delay_s: how long a load takes: what comes sooner than that is not on time.
        min_confidence: share of a template's reads after which a rule must have been right, on time.
        min_support: how often it must have been right.
        peeks: most values looked at of one batch of events.
    """

    def __init__(
        self,
        match: Callable[[bytes], Matched | None],
        *,
        peek: Peek | None = None,
        delay_s: float = 0.01,
        min_confidence: float = CONFIDENCE,
        min_support: float = SUPPORT,
        peeks: int = 100,
    ) -> None:
        self._match = match
        self._peek = peek
        self._peeks = peeks
        self.min_confidence = min_confidence
        self.min_support = min_support
        delay_us = round(delay_s * 1e6)
        self.rules = TemplateRules(delay=delay_us, horizon=HORIZON_US)
        self.associations = Associations(delay_us=delay_us, horizon_us=HORIZON_US)
        self.reads = 0
        self.kinds: Counter[str] = Counter()
        """Reads by template; whoever looks may empty it."""

    def take(self, worker: str, events: np.ndarray[Any, Any]) -> None:
        """Learn from a batch of events of one worker, in order."""
        whole = events[(events["flags"] & _WHOLE != 0) & (events["length"] <= KEY_BYTES)]
        if not len(whole):
            return
        found = [entry for event in whole if (entry := self._parsed(event)) is not None]
        values = self._values([read.key for read in found])
        salt = zlib.crc32(worker.encode())  # clients are numbered by each worker for itself
        for read, value in zip(found, values, strict=True):
            self.reads += 1
            self.kinds[read.parsed.template] += 1
            key, client = read.key.decode(), read.client ^ salt
            self.rules.read(read.us, key, client=client, value=value, parsed=read.parsed)
            self.associations.read(key, read.us, client=client, needed=not read.hit)

    def take_delay(self, delay_s: float) -> None:
        """How long a load takes now."""
        self.rules.delay = self.associations.delay_us = round(delay_s * 1e6)

    def rules_learned(self) -> tuple[Learned, ...]:
        """The rules that are known now; quick."""
        return tuple(self.rules.learned(min_confidence=self.min_confidence, min_support=self.min_support))

    def compile(self) -> Tables:
        """All that is known now. Of single keys only what no rule says already; it takes some tenths of a second where many are known.

        From then on a hit of a key that these tables foretell counts as needed: it may be there because of them.
        """
        rules = Tables(rules=self.rules_learned())
        followers = {}
        for first, then in self.associations.learned().items():
            key = first.encode()
            source = self._match(key)
            said = {made for _, made in rules.after(key, source, value=None)} if source is not None else ()
            rest = tuple(made for made in (text.encode() for text in then) if made not in said)
            if rest and source is not None:
                followers[key] = rest
        self.associations.foretold = {key.decode() for keys in followers.values() for key in keys}
        return replace(rules, followers=followers)

    def _parsed(self, event: Any) -> _Read | None:
        key = bytes(event["key"])[: int(event["length"])]
        source = self._match(key)
        texts = source.matched.texts(key) if source is not None else None
        if source is None or texts is None:
            return None
        parsed = Parsed(source.matched.template, texts)
        return _Read(key, parsed, int(event["client"]), int(event["us"]), bool(event["flags"] & _HIT))

    def _values(self, keys: list[bytes]) -> list[Scalars | None]:
        if self._peek is None or not keys:
            return [None] * len(keys)
        # Evenly over the batch, so that a long one is not judged by its beginning.
        step = max(1, -(-len(keys) // self._peeks))
        looked = dict(zip(keys[::step], self._peek(keys[::step]), strict=True))
        values: list[Scalars | None] = []
        for key in keys:
            value = looked.get(key)
            values.append(scalars_of(value) if value else None)
        return values
