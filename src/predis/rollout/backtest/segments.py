"""Which kind of row changes sides more often than the others?

Segments are the levels of every categorical input, the quarters of every numeric one, and what is missing. Their counts grow batch by
batch, so memory does not grow with the rows; the quarters are fixed on the first thousands of rows, which are spread over the window.

Hundreds of segments are looked at, and some stand out by chance. So the intervals of the rates (Clopper and Pearson 1934) and the tests
against the rest of the rows (Fisher's exact test, one-sided) are corrected by Bonferroni for the number of segments looked at: the chance
that ANY segment is said to stand out where none does is at most ``ALPHA``.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from predis.registry.columns import numpy_of
from predis.registry.signature import Field

ALPHA = 0.05
LEAST_ROWS = 30
SHOWN = 20
_MOST_INPUTS = 200
_EDGE_ROWS = 5_000
_MOST_LEVELS = 200

Flips = NDArray[np.bool_]
_Count = tuple[int, int]  # rows, flips


class Segments:
    """Counts flips by segment.

    Args:
        inputs: the columns looked at; wide inputs and free texts make no segments.
    """

    def __init__(self, inputs: tuple[Field, ...]) -> None:
        usable = [f for f in inputs if f.width == 1 and (f.datatype != "BYTES" or f.levels)]
        self._fields = usable[:_MOST_INPUTS]
        self._edges: dict[str, NDArray[np.float64]] | None = None
        self._waiting: list[tuple[pa.Table, Flips]] = []
        self._waiting_rows = 0
        self._counts: dict[tuple[str, str], _Count] = defaultdict(lambda: (0, 0))

    def add(self, inputs: pa.Table, flipped: Flips) -> None:
        """Count rows."""
        if self._edges is not None:
            self._count(inputs, flipped)
            return
        self._waiting.append((inputs, flipped))
        self._waiting_rows += inputs.num_rows
        if self._waiting_rows >= _EDGE_ROWS:
            self._fix()

    def report(self, *, rows: int, flips: int) -> dict[str, Any]:
        """The segments that flip most against the rest; ``rows`` and ``flips`` are those of all rows."""
        if self._edges is None:
            self._fix()
        large = {key: n for key, n in self._counts.items() if LEAST_ROWS <= n[0] < rows}
        found = [_judged(key, count, every=(rows, flips), looked=len(large)) for key, count in large.items()]
        found.sort(key=lambda each: (each["p_value"], each["rest_rate"] - each["rate"]))
        return {"looked_at": len(large), "least_rows": LEAST_ROWS, "alpha": ALPHA, "rows": found[:SHOWN]}

    def _fix(self) -> None:
        """Cut the numeric inputs into quarters, and count what has waited."""
        self._edges = {}
        for each in self._fields:
            if each.datatype != "BYTES" and self._waiting:
                values = np.concatenate([_numbers(table, each.name) for table, _ in self._waiting])
                known = values[np.isfinite(values)]
                cuts = np.unique(np.quantile(known, (0.25, 0.5, 0.75))) if known.size else np.empty(0)
                # A cut at the smallest value would leave nothing below it.
                self._edges[each.name] = cuts[cuts > known.min()] if known.size else cuts
        for table, flipped in self._waiting:
            self._count(table, flipped)
        self._waiting = []

    def _count(self, inputs: pa.Table, flipped: Flips) -> None:
        for each in self._fields:
            names, codes = self._coded(inputs, each)
            rows = np.bincount(codes, minlength=len(names))
            flips = np.bincount(codes, weights=flipped, minlength=len(names))
            for place in np.flatnonzero(rows):
                before = self._counts[each.name, names[place]]
                self._counts[each.name, names[place]] = (
                    before[0] + int(rows[place]),
                    before[1] + int(flips[place]),
                )

    def _coded(self, inputs: pa.Table, given: Field) -> tuple[list[str], NDArray[np.int64]]:
        """Names of a column's segments, and which of them each row is in."""
        if given.datatype == "BYTES":
            encoded = inputs.column(given.name).combine_chunks().dictionary_encode()
            levels = set(given.levels[:_MOST_LEVELS])
            names = [text if text in levels else "(another)" for text in encoded.dictionary.to_pylist()]
            codes = numpy_of(encoded.indices.fill_null(len(names)).cast(pa.int64()))
            return [*(f"= {name}" for name in names), "is missing"], codes
        assert self._edges is not None
        edges = self._edges.get(given.name, np.empty(0))
        values = _numbers(inputs, given.name)
        codes = np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="right"))
        return [*_ranges(edges), "is missing"], codes


def _ranges(edges: NDArray[np.float64]) -> list[str]:
    """Names of the stretches between cuts.

    >>> _ranges(np.array([1.0, 2.5]))
    ['< 1', '1 to 2.5', '>= 2.5']
    """
    texts = [f"{edge:.4g}" for edge in edges]
    if not texts:
        return ["is known"]
    between = [f"{low} to {high}" for low, high in pairwise(texts)]
    return [f"< {texts[0]}", *between, f">= {texts[-1]}"]


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    return numpy_of(table.column(name).combine_chunks().cast(pa.float64()))


def _judged(key: tuple[str, str], count: _Count, *, every: _Count, looked: int) -> dict[str, Any]:
    from scipy.stats import hypergeom  # takes half a second to load

    (rows, flips), (all_rows, all_flips) = count, every
    tail = float(hypergeom.sf(flips - 1, all_rows, all_flips, rows))
    low, high = exact_interval(flips, rows, alpha=ALPHA / looked)
    return {
        "input": key[0],
        "segment": key[1],
        "rows": rows,
        "flips": flips,
        "rate": flips / rows,
        "low": low,
        "high": high,
        "rest_rate": (all_flips - flips) / (all_rows - rows),
        "p_value": min(1.0, max(tail, 0.0) * looked),
        "stands_out": tail * looked < ALPHA,
    }


def exact_interval(successes: int, trials: int, *, alpha: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share: it holds the truth with probability >= 1 - alpha, however few the trials.

    >>> [round(bound, 4) for bound in exact_interval(3, 100, alpha=0.05)]
    [0.0062, 0.0852]
    """
    from scipy.special import betaincinv

    failures = trials - successes
    low = float(betaincinv(successes, failures + 1, alpha / 2)) if successes else 0.0
    high = float(betaincinv(successes + 1, failures, 1 - alpha / 2)) if failures else 1.0
    return low, high
