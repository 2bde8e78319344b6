"""One column of both tables: its kind, its bins on the reference, its counts, and what is broken about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from predis.errors import InvalidInput
from predis.stats import Bins, categorical_bins, numeric_bins
from predis.stats.drift import Break

Kind = Literal["numeric", "categorical", "time", "none", "nested"]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_LEVELS = 500  # of a category; rarer ones share the place of unseen ones
_IDENTIFIER = 0.5  # distinct values per row from which a text is a name and not a category
_LEAST_DISTINCT = 200
_NEW_SHARE = 0.2
_NEW_TIMES, _LEAST_NEW = 10, 100
_LEAST_ROWS = 100
_ALL_NULL = 0.995


@dataclass(frozen=True)
class Column:
    """A column that can be compared: bins fixed on the reference, and the values of both tables as those bins take them, float64."""

    bins: Bins
    kind: Kind
    reference: Floats
    current: Floats


def kind_of(given: pa.DataType) -> Kind:
    """What a type is for a comparison."""
    if pa.types.is_dictionary(given):
        return kind_of(given.value_type)
    if pa.types.is_null(given):
        return "none"
    if pa.types.is_temporal(given) and not pa.types.is_interval(given):
        return "time"
    if pa.types.is_integer(given) or pa.types.is_floating(given) or pa.types.is_decimal(given):
        return "numeric"
    if pa.types.is_boolean(given):
        return "numeric"
    if pa.types.is_nested(given):
        return "nested"
    return "categorical"


def type_break(name: str, reference: pa.DataType, *, current: pa.DataType) -> Break | None:
    """A change of kind; a column of nothing but nulls has any kind."""
    was, now = kind_of(reference), kind_of(current)
    if was == now or "none" in (was, now):
        return None
    return Break(name, "type", f"the type changed from {reference} to {current}")


def column_of(name: str, reference: pa.Array, *, current: pa.Array) -> Column | Break | str:
    """The column, or what is broken about it, or in words why it cannot be compared."""
    broken = _all_null(name, reference, current=current)
    if broken is not None:
        return broken
    kind = kind_of(reference.type) if reference.null_count < len(reference) else "none"
    if kind == "none":
        return "the reference has no value of it"
    if kind == "nested":
        return f"values of the type {reference.type} are not compared"
    if kind == "categorical":
        return _categorical(name, _plain(reference), current=_plain(current))
    before, after = numbers(reference), numbers(current)
    return _constant(name, before, after=after) or Column(
        numeric_bins(name, before), kind, reference=before, current=after
    )


def numbers(column: pa.Array) -> Floats:
    """float64[n] with NaN where there is no value; times as seconds."""
    column = _plain(column)
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.int64() if column.type.bit_width == 64 else pa.int32())
    try:
        found = column.cast(pa.float64(), safe=False)
    except pa.ArrowException as error:
        raise InvalidInput(f"cannot read {column.type} as numbers: {error}") from error
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.float64)


def _all_null(name: str, reference: pa.Array, *, current: pa.Array) -> Break | None:
    before, after = _missing(reference), _missing(current)
    if after < _ALL_NULL or before > 0.5:
        return None
    what = "all" if after == 1.0 else f"{after:.1%} of the"
    return Break(name, "all_null", f"{what} values are missing; in the reference {before:.1%} were")


def _missing(column: pa.Array) -> float:
    missing = column.null_count
    if pa.types.is_floating(column.type):
        missing += int(pc.sum(pc.is_nan(column)).as_py() or 0)
    return float(missing / max(len(column), 1))


def _constant(name: str, before: Floats, *, after: Floats) -> Break | None:
    known = after[~np.isnan(after)]
    if known.size < _LEAST_ROWS or known.min() != known.max():
        return None
    # What is constant for as long a time in the reference, too, is not broken.
    size = min(known.size, max(before.size // 8, 1))
    for start in range(0, before.size - size + 1, size):
        part = before[start : start + size]
        part = part[~np.isnan(part)]
        if part.size and part.min() == part.max():
            return None
    distinct = len(np.unique(before[~np.isnan(before)]))
    return Break(
        name, "constant", f"every value is {known[0]:g}; the reference had {distinct:,} different values"
    )


def _categorical(name: str, reference: pa.Array, *, current: pa.Array) -> Column | Break | str:
    table = pc.value_counts(reference.drop_null())
    levels, held = table.field("values"), table.field("counts").to_numpy()
    known = len(reference) - reference.null_count
    if len(levels) > max(_LEAST_DISTINCT, _IDENTIFIER * known):
        return f"it looks like an identifier: {len(levels):,} different values in {known:,} rows"
    broken = _new_levels(name, levels, current=current) or _one_level(
        name, levels, held=held, current=current
    )
    if broken is not None:
        return broken
    frequent = levels.take(pa.array(np.argsort(-held, kind="stable")[:MOST_LEVELS]))
    names = [str(value) for value in frequent.to_pylist()]
    bins = categorical_bins(name, names)
    return Column(
        bins, "categorical", reference=_codes(reference, frequent), current=_codes(current, frequent)
    )


def _new_levels(name: str, levels: pa.Array, *, current: pa.Array) -> Break | None:
    new = current.filter(pc.invert(pc.is_in(current, value_set=levels.cast(current.type)))).drop_null()
    rows = len(current) - current.null_count
    if not len(new) or rows < _LEAST_ROWS:
        return None
    distinct = pc.count_distinct(new).as_py()
    if len(new) / rows < _NEW_SHARE and distinct < max(_LEAST_NEW, _NEW_TIMES * len(levels)):
        return None
    few = "category is" if distinct == 1 else "categories are"
    return Break(
        name,
        "categories",
        f"{distinct:,} {few} new, in {len(new) / rows:.0%} of the rows; the reference had {len(levels):,}",
    )


def _one_level(name: str, levels: pa.Array, *, held: Any, current: pa.Array) -> Break | None:
    values = current.drop_null().unique()
    if len(values) != 1 or len(current) < _LEAST_ROWS or held.max() > 0.95 * held.sum():
        return None
    return Break(
        name,
        "constant",
        f"every value is {values[0].as_py()!r}; the reference had {len(levels):,} categories",
    )


def _codes(column: pa.Array, levels: pa.Array) -> Floats:
    """Level numbers, -1 for a level that is none of them, NaN for a missing value."""
    found = pc.index_in(column, value_set=levels.cast(column.type)).fill_null(-1)
    codes = np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.float64)
    if column.null_count:
        codes[np.asarray(column.is_null().to_numpy(zero_copy_only=False))] = np.nan
    return codes


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
