"""Which levels of an endpoint's segments each row belongs to, as numbers that stay the same for ever.

A level is found while records are taken in, so that whatever is counted of a row, and later its label, need not be joined with anything: a
prediction carries the numbers of its levels. Numbers are an endpoint's own; a level gets the next one when it is first met.

A column of 10,000 values must not become 10,000 windows. Of each segment the first ``followed`` levels that are met are followed, most
frequent first within what is read together; what comes later is "other". Frequent levels are met early, and whoever reads windows is shown
the largest ``LEVELS`` of what is followed, and the rest as one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.clock import Clock
from predis.expressions import Expression
from predis.monitoring.segments import LEVELS, MISSING, OTHER, configured, named
from predis.state.records import Block
from predis.stats import Bins

NOT_CAPTURED = "(inputs not kept)"  # failed requests, and those of endpoints that keep none
MOST_NUMBERS = 50_000  # of an endpoint, over all its segments of all times; a number has two bytes
_FOLLOWED, _FOLLOWED_IN_ALL = 100, 1_000
_CONFIG_S = 10.0
_NAME = 128
_INPUT = "input."
Cells = NDArray[np.uint16]


class LevelBook:
    """The numbers of an endpoint's levels.

    Args:
        rows: number, segment and level, as the database has them.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self._numbers = {(row["segment"], row["level"]): int(row["number"]) for row in rows}
        self._followed = Counter(segment for segment, _ in self._numbers)
        self._new: list[dict[str, Any]] = []

    def numbers(self, segment: str, counts: Sequence[tuple[str, int]], *, followed: int) -> dict[str, int]:
        """The number of each level of a segment; ``counts`` are levels and their rows."""
        found = {}
        for level, _ in sorted(counts, key=lambda pair: -pair[1]):
            number = self._numbers.get((segment, level))
            if number is None:
                room = level in (MISSING, NOT_CAPTURED) or self._followed[segment] < followed
                number = self._number(segment, level if room and len(self._numbers) < MOST_NUMBERS else OTHER)
            found[level] = number
        return found

    def new(self) -> list[dict[str, Any]]:
        """Levels that got their number since the last call."""
        new, self._new = self._new, []
        return new

    def _number(self, segment: str, level: str) -> int:
        known = self._numbers.get((segment, level))
        if known is not None:
            return known
        number = max(self._numbers.values(), default=0) + 1
        self._numbers[segment, level] = number
        self._followed[segment] += 1
        self._new.append({"number": number, "segment": segment, "level": level})
        return number


class Segmenter:
    """Finds the levels of a version's rows.

    Args:
        segments: expressions over inputs.
        names, levels: of the columns of features, and of those that are texts.
        bins: those of the reference, by column: they cut numbers of many values.
    """

    def __init__(
        self,
        segments: Sequence[Expression],
        *,
        names: Sequence[str],
        levels: Mapping[str, Sequence[str]],
        bins: Mapping[str, Bins],
    ) -> None:
        self._segments = tuple(segments)
        self._places = {name: place for place, name in enumerate(names)}
        self._levels = levels
        self._bins = bins
        self._followed = max(LEVELS, min(_FOLLOWED, _FOLLOWED_IN_ALL // max(1, len(self._segments))))

    def cells(self, block: Block, book: LevelBook) -> Cells:
        """The numbers of each row's levels: uint16[rows, segments]; of a block without features all are "not kept"."""
        rows = len(block.scores)
        found = np.empty((rows, len(self._segments)), np.uint16)
        kept = block.features.shape[1] == len(self._places)
        unseen = block.unseen() if kept else {}
        for at, segment in enumerate(self._segments):
            if kept:
                labels, codes = self._of(segment, block.features, unseen=unseen)
            else:
                labels, codes = [NOT_CAPTURED], np.zeros(rows, np.int64)
            sizes = np.bincount(codes, minlength=len(labels))
            met = [(labels[code], int(sizes[code])) for code in np.flatnonzero(sizes).tolist()]
            numbers = book.numbers(segment.text, met, followed=self._followed)
            table = np.array([numbers.get(label, 0) for label in labels], np.uint16)
            found[:, at] = table[codes]
        return found

    def refused(self, book: LevelBook) -> list[int]:
        """The numbers of requests that got no prediction: their inputs were not kept."""
        return [
            book.numbers(segment.text, [(NOT_CAPTURED, 1)], followed=self._followed)[NOT_CAPTURED]
            for segment in self._segments
        ]

    def _of(
        self, segment: Expression, features: NDArray[np.float64], *, unseen: Mapping[int, Mapping[int, str]]
    ) -> tuple[list[str], NDArray[np.int64]]:
        """Names of levels, and which of them each row has."""
        read = [name for name in segment.names if name.removeprefix(_INPUT) in self._places]
        alone = read[0].removeprefix(_INPUT) if len(segment.names) == len(read) == 1 else ""
        own = self._bins.get(alone)
        plain = segment.text in (f"{_INPUT}{alone}", f"input[{alone!r}]")
        if own is not None and own.kind == "numeric" and plain:
            return list(own.labels), own.place(features[:, self._places[alone]])
        columns = [self._values(name.removeprefix(_INPUT), features, unseen=unseen) for name in read]
        known: dict[Any, int] = {}
        labels: dict[str, int] = {}
        codes = np.empty(len(features), np.int64)
        for row, values in enumerate(zip(*columns, strict=True) if columns else [()] * len(features)):
            code = known.get(values)
            if code is None:
                level = named(segment(dict(zip(read, values, strict=True)).get))[:_NAME]
                code = known[values] = labels.setdefault(level, len(labels))
            codes[row] = code
        return list(labels), codes

    def _values(
        self, name: str, features: NDArray[np.float64], *, unseen: Mapping[int, Mapping[int, str]]
    ) -> list[Any]:
        """A column as expressions read it: texts or numbers, None where one is missing."""
        place = self._places[name]
        column = features[:, place]
        levels = self._levels.get(name)
        if levels is None:
            return [None if value != value else value for value in column.tolist()]
        texts: list[Any] = [
            levels[int(code)] if 0 <= code < len(levels) else None for code in column.tolist()
        ]
        for row, text in unseen.get(place, {}).items():
            texts[row] = text
        return texts


class Segmenters:
    """The segmenter of each version, as its endpoint's configuration has it now.

    Args:
        config: (tenant, endpoint) to the endpoint's configuration.
        version: (tenant, endpoint, number) to the version, or None where it is unknown.
        profile: the same to its reference profile.
    """

    def __init__(
        self,
        config: Callable[[str, str], Mapping[str, Any]],
        *,
        version: Callable[..., Any],
        profile: Callable[..., Any],
        clock: Clock,
    ) -> None:
        self._config = config
        self._version = version
        self._profile = profile
        self._clock = clock
        self._known: dict[tuple[str, str, int], tuple[float, Segmenter | None]] = {}

    def __call__(self, tenant: str, endpoint: str, *, number: int) -> Segmenter | None:
        """None where the endpoint names no segments, or the version is not known."""
        key = (tenant, endpoint, number)
        now = self._clock.monotonic_s()
        read_at, found = self._known.get(key, (-_CONFIG_S, None))
        if now - read_at >= _CONFIG_S:
            found = self._made(tenant, endpoint, number=number)
            self._known[key] = (now, found)
        return found

    def _made(self, tenant: str, endpoint: str, *, number: int) -> Segmenter | None:
        try:
            segments = configured(self._config(tenant, endpoint))
        except LookupError:  # it was deleted, and its records are still in the journal
            return None
        version = self._version(tenant, endpoint, number=number) if segments else None
        if version is None:
            return None
        profile = self._profile(tenant, endpoint, number=number)
        bins = {each.name: each for each in profile.bins} if profile else {}
        return Segmenter(
            segments, names=version.signature.feature_names, levels=version.signature.levels, bins=bins
        )
