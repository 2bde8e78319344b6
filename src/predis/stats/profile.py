"""The reference profile of a model version: bins and counts of its training inputs, scores and labels.

A profile is what drift is measured against. It is small (a few kilobytes), travels as JSON with the
version, and the counts of any batch taken with its bins can be compared to it or added to it.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from predis.errors import InvalidInput
from predis.stats import _arrays
from predis.stats._arrays import Floats, Ints
from predis.stats.bins import Bins, categorical_bins, numeric_bins

_BLOCK = 4_096  # rows transposed at once: 30 columns of float64 are 1 MiB
_BLOCKS = 48
_BLOCK_ROWS = 1_000
_BLOCK_LEAST = 20  # rows of a block, at the least
_BLOCK_NUMBERS = 1_000_000


@dataclass(frozen=True, eq=False)
class Profile:
    """Bins of k feature columns and of the score, with their counts.

    bins: one per column, in the order of the matrix's columns. counts: int64[size] per column, read-only.
    score_bins, score_counts: the same for the model's output. rows: rows counted. labelled: rows with a
    known label. positives: labelled rows whose label is 1.
    """

    bins: tuple[Bins, ...]
    counts: tuple[Ints, ...]
    score_bins: Bins
    score_counts: Ints
    rows: int
    labelled: int
    positives: int
    blocks: Ints = field(default_factory=lambda: np.empty((0, 0), dtype=np.int64))

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.bins):
            raise InvalidInput(f"profile: {len(self.bins)} columns but {len(self.counts)} lists of counts")
        counts = tuple(_own_counts(bins, counts) for bins, counts in zip(self.bins, self.counts, strict=True))
        object.__setattr__(self, "counts", counts)
        object.__setattr__(self, "score_counts", _own_counts(self.score_bins, self.score_counts))
        object.__setattr__(self, "blocks", _own_blocks(self.blocks, sum(each.size for each in self.bins)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Profile) and self.to_dict() == other.to_dict()

    @property
    def names(self) -> tuple[str, ...]:
        """Column names."""
        return tuple(bins.name for bins in self.bins)

    def count(self, matrix: ArrayLike) -> tuple[Ints, ...]:
        """Counts int64[size] per column of `matrix` float64[n, k]. Raises `InvalidInput` for another shape.

        Rows are transposed a cache-sized block at a time: a column of a row-major matrix is one value per
        cache line.
        """
        table = _arrays.matrix(matrix, "matrix", columns=len(self.bins))
        return _count_columns(self.bins, table)

    def count_scores(self, scores: ArrayLike) -> Ints:
        """Counts int64[size] of `scores` float64[n]."""
        return self.score_bins.count(scores)

    def merge(self, other: Profile) -> Profile:
        """The profile of both data sets together, without blocks: their order is not known.

        Raises `InvalidInput` unless their bins are the same.
        """
        if self.bins != other.bins or self.score_bins != other.score_bins:
            raise InvalidInput("profiles with different bins cannot be merged; count both with the same bins")
        return Profile(
            bins=self.bins,
            counts=tuple(mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)),
            score_bins=self.score_bins,
            score_counts=self.score_counts + other.score_counts,
            rows=self.rows + other.rows,
            labelled=self.labelled + other.labelled,
            positives=self.positives + other.positives,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "bins": [bins.to_dict() for bins in self.bins],
            "counts": [counts.tolist() for counts in self.counts],
            "score_bins": self.score_bins.to_dict(),
            "score_counts": self.score_counts.tolist(),
            "rows": self.rows,
            "labelled": self.labelled,
            "positives": self.positives,
            "blocks": _packed(self.blocks),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Profile:
        """The inverse of `to_dict`. Raises `InvalidInput` for anything else."""
        try:
            return cls(
                bins=tuple(Bins.from_dict(bins) for bins in data["bins"]),
                counts=tuple(np.array(counts, dtype=np.int64) for counts in data["counts"]),
                score_bins=Bins.from_dict(data["score_bins"]),
                score_counts=np.array(data["score_counts"], dtype=np.int64),
                rows=int(data["rows"]),
                labelled=int(data["labelled"]),
                positives=int(data["positives"]),
                blocks=_unpacked(data.get("blocks")),
            )
        except InvalidInput:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, zlib.error) as error:
            raise InvalidInput(f"not a profile: {error!r}") from error


def build_profile(
    matrix: ArrayLike,
    *,
    names: Sequence[str],
    levels: Mapping[str, Sequence[str]],
    scores: ArrayLike,
    labels: ArrayLike | None,
) -> Profile:
    """The profile of reference data.

    matrix: float64[n, k]; names: its columns; levels: level names of the categorical ones (their values are
    codes 0..L-1, -1 unseen, NaN missing), every other column is numeric. scores: float64[n], the model's
    output. labels: float64[n] with NaN for "not known", or None. Raises `InvalidInput` if shapes or names
    do not fit.
    """
    table = _arrays.matrix(matrix, "matrix", columns=len(names))
    outputs = _arrays.vector(scores, "scores")
    known = np.empty(0) if labels is None else _arrays.vector(labels, "labels")
    if outputs.size != len(table) or (labels is not None and known.size != len(table)):
        raise InvalidInput(f"{len(table)} rows, {outputs.size} scores, {known.size} labels: one per row")
    strange = set(levels) - set(names)
    if strange or len(set(names)) != len(names):
        raise InvalidInput(f"names must be distinct and hold every key of levels, not: {sorted(strange)}")
    bins = tuple(
        categorical_bins(name, levels[name]) if name in levels else numeric_bins(name, table[:, column])
        for column, name in enumerate(names)
    )
    score_bins = numeric_bins("score", outputs)
    return Profile(
        bins=bins,
        counts=_count_columns(bins, table),
        score_bins=score_bins,
        score_counts=score_bins.count(outputs),
        rows=len(table),
        labelled=int(np.count_nonzero(~np.isnan(known))),
        positives=int(np.count_nonzero(known == 1.0)),
        blocks=count_blocks(bins, table),
    )


def block_slices(rows: int, *, most: int = _BLOCKS) -> list[slice]:
    """Up to `most` contiguous parts of one size of a table, in order: what `Profile.blocks` counts.

    Parts stand side by side as long as they have at most 1,000 rows; of a larger table they are evenly spread parts of 1,000
    rows. None of a table that has too few rows for three parts of 20.
    """
    wanted = min(most, rows // _BLOCK_LEAST)
    if wanted < 3:
        return []
    # Side by side they cover a table only if they divide it: the last rows, fewer than there are blocks, are left out.
    step = rows // wanted
    return [slice(at * step, at * step + min(step, _BLOCK_ROWS)) for at in range(wanted)]


def count_blocks(bins: tuple[Bins, ...], table: Floats) -> Ints:
    """int64[K, total]: concatenated counts of the `block_slices` of `table` float64[n, k]; fewer where there are very many bins."""
    slices = block_slices(len(table), most=most_blocks(bins))
    counts = [np.concatenate(_count_columns(bins, table[part])) for part in slices]
    return np.array(counts, dtype=np.int64).reshape(len(counts), sum(each.size for each in bins))


def most_blocks(bins: tuple[Bins, ...]) -> int:
    """How many blocks a profile with these bins keeps at the most; none without bins."""
    total = sum(each.size for each in bins)
    return min(_BLOCKS, _BLOCK_NUMBERS // total) if total else 0


def _count_columns(bins: tuple[Bins, ...], table: Floats) -> tuple[Ints, ...]:
    totals = tuple(np.zeros(each.size, dtype=np.int64) for each in bins)
    for start in range(0, len(table), _BLOCK):
        columns = np.ascontiguousarray(table[start : start + _BLOCK].T)
        for total, each, column in zip(totals, bins, columns, strict=True):
            total += each.count(column)
    return totals


def _own_blocks(blocks: Ints, total: int) -> Ints:
    """A read-only copy of the blocks, checked against the bins."""
    own = np.array(blocks, dtype=np.int64)
    if own.size == 0:
        own = own.reshape(0, total)
    if own.ndim != 2 or own.shape[1] != total or (own < 0).any():
        raise InvalidInput(f"profile: blocks must have {total} numbers >= 0 each")
    own.setflags(write=False)
    return own


def _packed(blocks: Ints) -> dict[str, Any]:
    """Blocks as JSON: most numbers are small, so that they pack well."""
    content = zlib.compress(blocks.astype("<i4").tobytes())
    return {"shape": list(blocks.shape), "zlib": base64.b64encode(content).decode()}


def _unpacked(data: Any) -> Ints:
    if data is None:
        return np.empty((0, 0), dtype=np.int64)
    rows, columns = (int(each) for each in data["shape"])
    content = zlib.decompressobj().decompress(base64.b64decode(data["zlib"]), 4 * rows * columns + 1)
    return np.frombuffer(content, dtype="<i4").reshape(rows, columns).astype(np.int64)


def _own_counts(bins: Bins, counts: Ints) -> Ints:
    """A read-only copy of the counts, checked against the bins."""
    own = np.array(counts, dtype=np.int64)
    if own.shape != (bins.size,) or (own < 0).any():
        raise InvalidInput(f"profile: counts of {bins.name!r} must be {bins.size} numbers >= 0")
    own.setflags(write=False)
    return own
