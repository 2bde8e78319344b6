"""Rows of model input, as they travel from a request to a runtime and on to the journal.

Two forms exist, chosen once per version. A *matrix* (float64 [rows, columns]; codes for levels, NaN for missing) is what tables of
numbers and categories become: one array, quick to stack, and the very thing monitors look at. *Tensors* (one array per input, in its
own datatype and shape) is what everything else keeps: free texts, whole numbers beyond 2^53, images. Tensors carry a matrix too where
they are narrow enough to be watched, so that monitors need to know one form only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from predis.registry.signature import NUMPY_OF, Field, Signature

if TYPE_CHECKING:
    from predis.state.records import Matrix

Unseen = dict[tuple[int, int], str]
Tensors = Mapping[str, NDArray[Any]]
Takes = Literal["matrix", "tensors"]  # the form a runtime asks for

WIDE = 1_024  # values per row from which on a matrix of float64 costs more than it saves


@dataclass(slots=True)
class Inputs:
    """The rows of one request, or of several that are predicted together.

    ``features`` is [rows, columns] (columns may be 0: too wide to be watched). ``unseen`` holds, by (row, column), the texts that are no
    level; their code is -1. ``tensors`` is None for a runtime that takes the matrix; else one array per input of the signature, each
    with ``rows`` as its first dimension and of ``tensor_dtype``; texts are ``str`` objects, or ``bytes`` where the field is raw; None
    where missing.
    """

    rows: int
    features: Matrix
    unseen: Unseen
    tensors: Tensors | None = None


def stack(parts: Sequence[Inputs]) -> Inputs:
    """Rows of several requests of one version, one after the other."""
    if len(parts) == 1:
        return parts[0]
    rows = 0
    unseen: Unseen = {}
    for part in parts:
        if part.unseen:
            unseen.update({(row + rows, column): text for (row, column), text in part.unseen.items()})
        rows += part.rows
    first = parts[0].tensors
    tensors = None
    if first is not None:
        tensors = {name: np.concatenate([part.tensors[name] for part in parts]) for name in first}  # type: ignore[index]
    return Inputs(rows, np.concatenate([part.features for part in parts]), unseen, tensors)


def form_of(fields: Sequence[Field]) -> Takes:
    """The form that loses nothing of these inputs, and costs least: a matrix for short rows of numbers that a float64 holds exactly."""
    exact = all(field.datatype not in ("BYTES", "INT64", "UINT64") for field in fields)
    return "matrix" if exact and sum(field.width for field in fields) <= WIDE else "tensors"


def tensor_dtype(field: Field) -> np.dtype[Any]:
    """The dtype of a field's tensor. Whole numbers and truth values that may be missing travel as float64, with NaN for missing."""
    if field.nullable and field.datatype != "BYTES" and not field.datatype.startswith("FP"):
        return np.dtype(np.float64)
    return np.dtype(NUMPY_OF[field.datatype])


def sample(signature: Signature, takes: Takes, *, rows: int = 1) -> Inputs:
    """Rows of zeros and of each text input's first level, to warm a model with."""
    features = np.zeros((rows, len(signature.feature_names) if takes == "matrix" else 0))
    if takes == "matrix":
        return Inputs(rows, features, {})
    tensors = {}
    for field in signature.inputs:
        tensor = np.zeros((rows, *field.shape[1:]), tensor_dtype(field))
        if field.datatype == "BYTES":
            tensor[...] = b"" if field.raw else field.levels[0] if field.levels else ""
        tensors[field.name] = tensor
    return Inputs(rows, features, {}, tensors)
