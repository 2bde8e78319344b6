"""Array types of this package, and the checks every public function makes on what it is given."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from predis.errors import InvalidInput

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def vector(values: ArrayLike, name: str) -> Floats:
    """`values` as float64[n], not copied when it is that already."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise InvalidInput(f"{name} must have one dimension, got shape {array.shape}; pass one value per row")
    return array


def matrix(values: ArrayLike, name: str, *, columns: int) -> Floats:
    """`values` as float64[n, columns]."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != columns:
        raise InvalidInput(f"{name} must have shape (rows, {columns}), got {array.shape}")
    return array


def ordered(values: ArrayLike, name: str) -> Floats:
    """float64[n] that can be ranked: NaN has no place in an order."""
    array = vector(values, name)
    if np.isnan(array).any():
        raise InvalidInput(f"{name} contains NaN, which cannot be ranked; drop those rows first")
    return array


def positives(label: ArrayLike, rows: int) -> Bools:
    """0/1 labels as bool[rows]."""
    array = np.asarray(label)
    if array.shape != (rows,):
        raise InvalidInput(f"label must have shape ({rows},) like score, got {array.shape}")
    if array.dtype == np.bool_:
        return array
    positive: Bools = array == 1
    if np.count_nonzero(positive) + np.count_nonzero(array == 0) != rows:
        raise InvalidInput("label must hold only 0 and 1; drop rows whose label is not known yet")
    return positive


def tallies(counts: ArrayLike, name: str) -> Floats:
    """Bin counts as float64[B], finite and not negative."""
    array = vector(counts, name)
    if array.size == 0 or not np.isfinite(array).all() or (array < 0).any():
        raise InvalidInput(f"{name} must be finite, not negative and not empty: one count per bin")
    return array


def fraction(value: float, name: str) -> float:
    """A number strictly between 0 and 1."""
    if not 0.0 < value < 1.0:
        raise InvalidInput(f"{name} must lie strictly between 0 and 1, got {value}")
    return float(value)


def at_least_zero(value: float, name: str) -> float:
    """A finite number >= 0."""
    if not (value >= 0.0 and math.isfinite(value)):
        raise InvalidInput(f"{name} must be a finite number >= 0, got {value}")
    return float(value)
