"""Bins fixed on reference data, so that any later batch is reduced to a handful of counts.

Counts in fixed bins are exact, merge by addition across replicas and windows, and cost nanoseconds a value;
a drift check on them no longer depends on the number of rows. Every value has a bin: what the reference
never showed (below its minimum, above its maximum, an unseen category) and what is missing (NaN) have
reserved ones, so that a broken upstream shows as drift and not as an error.

Order of the bins:
    numeric      below the minimum | interior bins ... | above the maximum | missing
    categorical  one per level ... | unseen | missing
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike

from predis.errors import InvalidInput
from predis.stats._arrays import Floats, Ints, vector

FEW_DISTINCT = 12  # columns with at most this many values get one bin per value
_BLOCK = 16_384  # rows counted at once: 128 KiB of float64, stays in the L2 cache
_LONG, _FEW = 1_024, 48  # from so many rows and up to so many edges, SIMD comparisons beat a binary search

Kind = Literal["numeric", "categorical"]


@dataclass(frozen=True)
class Bins:
    """The bins of one column.

    edges (numeric): ascending; the first and last are the reference's minimum and maximum. Interior bins
    are [a, b), the last one [a, b]; the last edge stands twice where the maximum has a bin of its own. No
    edges: the reference had no finite value, all values share one bin. levels (categorical): the names of
    codes 0..L-1. In numeric bins of a column with few distinct values: the value each interior bin stands
    for; else empty.
    """

    name: str
    kind: Kind
    edges: tuple[float, ...]
    levels: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.kind == "categorical":
            if self.edges:
                raise InvalidInput(f"bins of {self.name!r}: categorical bins have levels, not edges")
            if len(set(self.levels)) != len(self.levels):
                raise InvalidInput(f"bins of {self.name!r}: a level stands twice")
        elif self.kind == "numeric":
            if len(self.edges) == 1 or not all(a <= b for a, b in pairwise(self.edges)):
                raise InvalidInput(f"bins of {self.name!r}: edges must ascend, two or more or none")
            if self.levels and len(self.levels) != len(self.edges) - 1:
                raise InvalidInput(f"bins of {self.name!r}: one level per interior bin, or none")
        else:
            raise InvalidInput(f"bins of {self.name!r}: kind is numeric or categorical, not {self.kind!r}")

    @property
    def size(self) -> int:
        """Number of bins, reserved ones included."""
        return len(self.levels if self.kind == "categorical" else self.edges) + 2

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """What a person calls each bin; str[size]."""
        if self.kind == "categorical":
            return (*self.levels, "unseen", "missing")
        if not self.edges:
            return ("any value", "missing")
        edges = _short(self.edges)
        inner = self.levels or tuple(a if a == b else f"{a} - {b}" for a, b in pairwise(edges))
        return (f"< {edges[0]}", *inner, f"> {edges[-1]}", "missing")

    def count(self, values: ArrayLike) -> Ints:
        """How many of `values` float64[n] fall in each bin: int64[size], adding up to n.

        Categorical values are codes: whole numbers 0..L-1, anything else (-1 by convention) is unseen; NaN
        is missing. Raises `InvalidInput` if values have more than one dimension.
        """
        array = vector(values, self.name)
        counts = np.zeros(self.size, dtype=np.int64)
        for start in range(0, array.size, _BLOCK):
            counts += self._count_block(array[start : start + _BLOCK])
        return counts

    def place(self, values: ArrayLike) -> Ints:
        """The bin int64[n] of each of `values` float64[n], read as `count` does."""
        array = vector(values, self.name)
        if self.kind == "numeric":
            return np.asarray(self._cuts.searchsorted(array, side="right"), dtype=np.int64)
        places = np.full(array.size, len(self.levels), dtype=np.int64)
        known = (array >= 0) & (array < len(self.levels))
        places[known] = array[known].astype(np.int64)
        places[np.isnan(array)] = len(self.levels) + 1
        return places

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; infinite edges become the strings "inf" and "-inf"."""
        edges = [edge if math.isfinite(edge) else str(edge) for edge in self.edges]
        return {"name": self.name, "kind": self.kind, "edges": edges, "levels": list(self.levels)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Bins:
        """The inverse of `to_dict`. Raises `InvalidInput` for anything else."""
        try:
            edges = tuple(float(edge) for edge in data["edges"])
            levels = tuple(str(level) for level in data["levels"])
            return cls(str(data["name"]), cast(Kind, data["kind"]), edges, levels)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"not bins: {error}") from error

    @cached_property
    def _cuts(self) -> Floats:
        """Value v lies in the bin numbered by how many cuts are <= v, NaN being larger than any number."""
        cuts = np.array([*self.edges, np.nan], dtype=np.float64)
        with np.errstate(over="ignore"):  # after the largest float64 comes infinity, rightly
            cuts[-2:-1] = np.nextafter(cuts[-2:-1], np.inf)  # the last interior bin includes the maximum
        return cuts

    def _count_block(self, block: Floats) -> Ints:
        if self.kind == "categorical":
            return _count_codes(block, len(self.levels))
        if block.size >= _LONG and len(self.edges) <= _FEW:
            return _count_by_comparing(block, self._cuts)
        return _count_by_searching(block, self._cuts)


def numeric_bins(name: str, values: ArrayLike, *, bins: int = 10) -> Bins:
    """Bins for a numeric column, fixed on reference `values` float64[n].

    bins: interior bins aimed at, >= 2, each with about the same number of reference rows; more show finer
    changes and need more rows to show them. A column with at most `FEW_DISTINCT` distinct values gets one
    bin per value, cut halfway between; a value so frequent that it fills a quantile bin gets a bin of its
    own. NaN and infinite values have no say in the edges. Cost: one sort.

    >>> numeric_bins("age", range(100), bins=4).labels
    ('< 0', '0 - 25', '25 - 50', '50 - 75', '75 - 99', '> 99', 'missing')
    >>> numeric_bins("owns_home", [0, 1, 1, 0]).labels
    ('< 0', '0', '1', '> 1', 'missing')
    """
    if bins < 2:
        raise InvalidInput(f"bins must be at least 2, got {bins}")
    array = vector(values, name)
    ascending = np.sort(array[np.isfinite(array)]) + 0.0  # -0.0 becomes 0.0
    if ascending.size == 0:
        return Bins(name, "numeric", (), ())
    starts = np.append(0, np.flatnonzero(ascending[1:] != ascending[:-1]) + 1)
    if starts.size <= FEW_DISTINCT:
        distinct = ascending[starts].tolist()
        middles = [_between(a, b) for a, b in pairwise(distinct)]
        return Bins(name, "numeric", (distinct[0], *middles, distinct[-1]), _short(distinct))
    return Bins(name, "numeric", _quantile_edges(ascending, starts, bins=bins), ())


def categorical_bins(name: str, levels: Sequence[str]) -> Bins:
    """Bins for a categorical column whose code i means levels[i]; `InvalidInput` if a level stands twice."""
    return Bins(name, "categorical", (), tuple(levels))


def _quantile_edges(ascending: Floats, starts: Ints, *, bins: int) -> tuple[float, ...]:
    """Edges that are values of the sample; one that is several quantiles at once gets a bin of its own."""
    quantiles = ascending[np.arange(bins) * ascending.size // bins]
    frequent = np.unique(quantiles[1:][quantiles[1:] == quantiles[:-1]])
    distinct = ascending[starts]
    successors = np.append(distinct, distinct[-1])[np.searchsorted(distinct, frequent) + 1]
    edges = np.unique(np.concatenate([quantiles, successors]))
    return (*edges.tolist(), float(ascending[-1]))


def _between(low: float, high: float) -> float:
    """A cut in (low, high], halfway if the two are not neighbours."""
    middle = low + (high - low) / 2.0 if math.isfinite(high - low) else low / 2.0 + high / 2.0
    return middle if low < middle < high else high


def _short(numbers: Sequence[float]) -> tuple[str, ...]:
    """Decimal forms: whole numbers in full, others with enough digits (six or more) to stay different."""
    distinct = len(set(numbers))
    for digits in range(6, 18):
        texts = tuple(f"{n:.0f}" if abs(n) < 1e15 and n == int(n) else f"{n:.{digits}g}" for n in numbers)
        if len(set(texts)) == distinct:
            return texts
    return tuple(map(repr, numbers))


def _count_by_comparing(block: Floats, cuts: Floats) -> Ints:
    """Rows at or above each cut, then differences. NaN compares false everywhere."""
    at_least = [np.count_nonzero(block >= cut) for cut in cuts[:-1].tolist()]
    missing = np.count_nonzero(np.isnan(block))
    falling = np.array([block.size - missing, *at_least, 0, -missing], dtype=np.int64)
    return falling[:-1] - falling[1:]


def _count_by_searching(block: Floats, cuts: Floats) -> Ints:
    """A binary search per value."""
    return np.bincount(cuts.searchsorted(block, side="right"), minlength=cuts.size + 1)


def _count_codes(block: Floats, levels: int) -> Ints:
    known = block[(block >= 0) & (block < levels)]
    missing = np.count_nonzero(np.isnan(block))
    counts = np.bincount(known.astype(np.intp), minlength=levels + 2)
    counts[levels] = block.size - known.size - missing
    counts[levels + 1] = missing
    return counts
