"""The learner's part of prefetching: stretches of reads in, tables out.

Only keys that a source has are learnt from: no other can be fetched. Time is the coordinate here, in microseconds, as a stretch is a
sample and the requests between its reads are not known; so "on time" means that the second key was read later than a load takes.

To see that an order leads to its customer one must know what the order holds. So the values of some keys are looked at, where they
still are in Valkey, at most so many a second.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from predis.cache.predictor.tables import Matched, Tables, scalars_of
from predis.cache.predictor.templates import Parsed, Scalars, TemplateRules
from predis.cache.ring import KEY_BYTES, Flag

Peek = Callable[[Sequence[bytes]], Sequence[bytes | None]]

_HORIZON_US = 60_000_000
_WHOLE = int(Flag.WHOLE)


class RuleLearner:
    """Learns template rules from the access stream.

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
        min_confidence: float = 0.3,
        min_support: float = 20.0,
        peeks: int = 100,
    ) -> None:
        self._match = match
        self._peek = peek
        self._peeks = peeks
        self.min_confidence = min_confidence
        self.min_support = min_support
        self.rules = TemplateRules(delay=round(delay_s * 1e6), horizon=_HORIZON_US)
        self.reads = 0

    def take(self, worker: str, events: np.ndarray[Any, Any]) -> None:
        """Learn from a batch of events of one worker, in order."""
        whole = events[(events["flags"] & _WHOLE != 0) & (events["length"] <= KEY_BYTES)]
        if not len(whole):
            return
        found = [entry for event in whole if (entry := self._parsed(event)) is not None]
        values = self._values([key for key, _, _, _ in found])
        salt = zlib.crc32(worker.encode())  # clients are numbered by each worker for itself
        for (key, parsed, client, us), value in zip(found, values, strict=True):
            self.reads += 1
            self.rules.read(us, key.decode(), client=client ^ salt, value=value, parsed=parsed)

    def compile(self) -> Tables:
        """What is known now."""
        learned = self.rules.learned(min_confidence=self.min_confidence, min_support=self.min_support)
        return Tables(rules=tuple(learned))

    def _parsed(self, event: Any) -> tuple[bytes, Parsed, int, int] | None:
        key = bytes(event["key"])[: int(event["length"])]
        source = self._match(key)
        texts = source.matched.texts(key) if source is not None else None
        if source is None or texts is None:
            return None
        return key, Parsed(source.matched.template, texts), int(event["client"]), int(event["us"])

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
