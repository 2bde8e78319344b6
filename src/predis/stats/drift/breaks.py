"""Broken data, told apart from drift: what no population does, and a broken source does all the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from predis.stats._arrays import Floats, Ints
from predis.stats.bins import Bins

BreakKind = Literal["vanished", "type", "all_null", "constant", "categories"]

_ALL = 0.995  # of the rows
_VARIED = 0.95  # a reference with at most this share in one bin varies
_NEW = 0.2  # share of rows in levels the reference never had
_LEAST_ROWS = 100
_WIDE = 0.1  # of the reference's range: what lies in a bin so wide may be anything but one value


@dataclass(frozen=True)
class Break:
    """One feature that is broken: what of it, and the figures, in words."""

    feature: str
    kind: BreakKind
    message: str


def find_breaks(
    bins: Sequence[Bins], reference: Sequence[Ints], *, counts: Sequence[Ints], blocks: Ints | None = None
) -> tuple[Break, ...]:
    """What is broken in a window, from counts int64[size] per feature of the reference and of the window.

    blocks: int64[K, total] as `Ensemble` has them; what a part of the reference does too is not broken. A window of fewer than 100
    rows says nothing.

    >>> from predis.stats import numeric_bins
    >>> bins = numeric_bins("age", range(1000))
    >>> find_breaks([bins], [bins.count(range(1000))], counts=[bins.count([float("nan")] * 500)])[0].message
    'all 500 values are missing; in the reference 0 % were'
    """
    found = []
    at = 0
    for each, held, own in zip(bins, reference, counts, strict=True):
        parts = None if blocks is None or not len(blocks) else blocks[:, at : at + each.size]
        at += each.size
        broken = _broken(each, np.asarray(held, float), own=np.asarray(own, float), parts=parts)
        if broken is not None:
            found.append(broken)
    return tuple(found)


def _broken(bins: Bins, held: Floats, *, own: Floats, parts: Ints | None) -> Break | None:
    rows, known = own.sum(), held.sum()
    if rows < _LEAST_ROWS or not known:
        return None
    missing, was_missing = own[-1] / rows, held[-1] / known
    if missing >= _ALL:
        if was_missing > 0.5 or _some_part(parts, -1):
            return None
        all_rows = f"all {rows:.0f}" if missing == 1.0 else f"{own[-1]:.0f} of {rows:.0f}"
        return Break(
            bins.name, "all_null", f"{all_rows} values are missing; in the reference {was_missing:.0%} were".replace("%", " %")
        )  # fmt: skip
    if bins.kind == "categorical":
        unseen = own[-2] / rows
        if unseen >= _NEW:
            share = f"{unseen:.0%}".replace("%", " %")
            return Break(
                bins.name, "categories", f"{share} of the values are categories that the reference never had"
            )
    return _constant(bins, held[:-1], own=own[:-1], parts=parts)


def _constant(bins: Bins, held: Floats, *, own: Floats, parts: Ints | None) -> Break | None:
    """All values in one bin, although the reference had several. In a wide bin, or above or below the range, they may still vary."""
    top = int(own.argmax())
    if _is_wide(bins, top) or own[top] < own.sum() or own.sum() < _LEAST_ROWS or not held.sum():
        return None
    if held.max() / held.sum() > _VARIED or _some_part(parts, top):
        return None
    before = int(np.count_nonzero(held))
    label = bins.labels[top]
    words = (
        f"every value is {label}"
        if bins.levels or bins.kind == "categorical"
        else f"every value lies in {label}"
    )
    return Break(bins.name, "constant", f"{words}; the reference had values in {before} bins")


def _is_wide(bins: Bins, place: int) -> bool:
    """Whether what lies in a bin need not be one value: a summer's temperatures, say, in the warmest bin of a winter."""
    if bins.kind == "categorical" or bins.levels or not bins.edges:
        return bins.kind == "numeric" and place in (0, len(bins.edges))
    if place == 0 or place > len(bins.edges) - 1:
        return True
    return bins.edges[place] - bins.edges[place - 1] > _WIDE * (bins.edges[-1] - bins.edges[0])


def _some_part(parts: Ints | None, place: int) -> bool:
    """Whether some contiguous part of the reference had nothing but this bin, too."""
    if parts is None:
        return False
    sums = parts.sum(axis=1)
    return bool((parts[:, place] >= _ALL * np.maximum(sums, 1)).any())
