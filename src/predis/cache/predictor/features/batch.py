"""Reads as columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.cache.predictor.features.places import Names
from predis.cache.predictor.templates import by_shape

_BITS = np.uint64(12)  # of 64 that are dropped, so that a name is a whole number that a float holds exactly
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_ODD = np.uint64(0x9E3779B97F4A7C15)
_TEMPLATES = 65_536  # keys whose template is remembered

Shape = Callable[[bytes], str]


@dataclass(frozen=True)
class Batch:
    """Rows in the order of time, as equally long columns.

    Attributes:
        key, template, client: names, of 52 bits and not 0 (see ``named``).
        size: bytes of the value; 0 where it is not known.
        hit: whether it was there.
        seconds: of a clock; NaN where there is none.
        learn: rows that are reads. The others ask what is known of a key right after the read before them, and leave no trace.
    """

    key: Names
    template: Names
    client: Names
    size: NDArray[np.float64]
    hit: NDArray[np.float64]
    seconds: NDArray[np.float64]
    learn: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.key)

    @classmethod
    def of_columns(
        cls,
        keys: NDArray[np.int64],
        *,
        templates: NDArray[np.int64] | None = None,
        clients: NDArray[np.int64] | None = None,
        sizes: NDArray[np.int64] | None = None,
        hits: NDArray[np.bool_] | None = None,
        seconds: NDArray[np.float64] | None = None,
    ) -> Batch:
        """Reads of a trace; templates and clients are one where they are not told."""
        zero = np.zeros(len(keys), np.int64)
        return cls(
            key=named(keys),
            template=named(zero if templates is None else templates),
            client=named(zero if clients is None else clients),
            size=np.asarray(zero if sizes is None else sizes, np.float64),
            hit=np.asarray(zero if hits is None else hits, np.float64),
            seconds=np.full(len(keys), np.nan) if seconds is None else np.asarray(seconds, np.float64),
            learn=np.ones(len(keys), bool),
        )

    def cut(self, start: int, stop: int) -> Batch:
        """Some of the rows."""
        return Batch(*(getattr(self, column.name)[start:stop] for column in fields(self)))

    def with_questions(
        self, rows: NDArray[np.int64], keys: NDArray[np.int64], *, templates: NDArray[np.int64]
    ) -> Batch:
        """The same and, right after each of these rows, a question about a key asked by the row's client.

        Args:
            rows: indices, ascending; a row may have several questions.
            keys, templates: numbers as for ``of_columns``.
        """
        at = np.asarray(rows) + 1

        def grown(column: NDArray[Any], values: Any) -> NDArray[Any]:
            return np.insert(column, at, values)

        return Batch(
            key=grown(self.key, named(keys)),
            template=grown(self.template, named(templates)),
            client=grown(self.client, self.client[rows]),
            size=grown(self.size, 0.0),
            hit=grown(self.hit, 0.0),
            seconds=grown(self.seconds, self.seconds[rows]),
            learn=grown(self.learn, False),
        )


class Shapes:
    """Templates of keys as numbers, bounded: what was learnt of keys is dropped when it becomes too much.

    Args:
        shape: the template of a key, as text.
    """

    def __init__(self, shape: Shape | None = None) -> None:
        self._shape = shape or _shape
        self._known: dict[bytes, int] = {}

    def of(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        known = self._known
        if len(known) > _TEMPLATES:
            known.clear()
        found = []
        for key in keys:
            number = known.get(key)
            if number is None:
                text = self._shape(key).encode()
                number = known[key] = int.from_bytes(text[-8:].rjust(8, b"\0"), "little") ^ hash_of(text)
            found.append(number)
        return np.array(found, np.uint64).astype(np.int64)


def hash_of(text: bytes) -> int:
    """64 bits (FNV-1a), the same in every process."""
    mixed = 0xCBF29CE484222325
    for byte in text:
        mixed = (mixed ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return mixed


def named(numbers: NDArray[Any]) -> Names:
    """Names from whole numbers, evenly spread (the finisher of SplitMix64), the same in every process."""
    mixed = np.asarray(numbers).astype(np.uint64) + _ODD
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> _BITS) | np.uint64(1)


def _shape(key: bytes) -> str:
    text = key.decode("utf-8", "replace")
    parsed = by_shape(text)
    return parsed.template if parsed else text
