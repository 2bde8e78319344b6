"""From rows of input to the tensors a graph takes. A table's columns may feed one wide tensor; a tensor may be an input of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.errors import InvalidInput
from predis.registry.signature import NUMPY_OF, Field, Signature
from predis.serving.inputs import Inputs, Tensors, form_of
from predis.serving.runtimes import check_order


@dataclass(frozen=True)
class Port:
    """One input of the graph, and what of the signature feeds it: the matrix' columns from ``at`` on, or the tensors of ``fields``."""

    spec: Field
    at: int
    fields: tuple[Field, ...]

    def of(self, inputs: Inputs) -> NDArray[Any]:
        """The graph's tensor, a copy: a graph may write into what it is given."""
        found = (
            inputs.features[:, self._columns].astype(self._dtype, order="C")
            if inputs.tensors is None
            else self._of_tensors(inputs.tensors, inputs.rows)
        )
        return found.reshape(inputs.rows, *self.spec.shape[1:])

    @cached_property
    def _columns(self) -> slice:
        return slice(self.at, self.at + self.spec.width)

    @cached_property
    def _dtype(self) -> np.dtype[Any]:
        return np.dtype(NUMPY_OF[self.spec.datatype])

    def _of_tensors(self, tensors: Tensors, rows: int) -> NDArray[Any]:
        parts = [tensors[field.name].reshape(rows, -1) for field in self.fields]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        if self.spec.datatype == "BYTES":
            return np.where(values == None, "", values)  # noqa: E711, of each value
        return values.astype(self._dtype, order="C")


def ports_of(specs: Sequence[Field], signature: Signature) -> tuple[Port, ...]:
    """Which inputs of the signature feed which input of the graph.

    Raises:
        InvalidInput: one cannot: another number of values, text for numbers, or a null for what has no way to say "missing".
    """
    graph_width, width = sum(spec.width for spec in specs), len(signature.feature_names)
    if graph_width != width:
        raise InvalidInput(f"the graph takes {graph_width} values per row, the signature gives {width}")
    check_order("inputs", [field.name for field in signature.inputs], own=[spec.name for spec in specs])
    matrix = form_of(specs) == "matrix"
    ports, at = [], 0
    for spec in specs:
        port = Port(spec, at, _fields_at(signature, at, width=spec.width))
        _check(port, matrix=matrix)
        ports.append(port)
        at += spec.width
    return tuple(ports)


def _fields_at(signature: Signature, at: int, *, width: int) -> tuple[Field, ...]:
    """The inputs that hold any of the columns from ``at`` to ``at + width``."""
    found, start = [], 0
    for field in signature.inputs:
        if start < at + width and start + field.width > at:
            found.append(field)
        start += field.width
    return tuple(found)


def _check(port: Port, *, matrix: bool) -> None:
    spec = port.spec
    if not matrix and sum(field.width for field in port.fields) != spec.width:
        raise InvalidInput(f"input {spec.name!r} of the graph must be made of whole inputs of the signature")
    for field in port.fields:
        if field.raw:
            raise InvalidInput(f"input {field.name!r} is raw; graphs take texts and numbers")
        if (field.datatype == "BYTES") != (spec.datatype == "BYTES") and not (matrix and field.levels):
            raise InvalidInput(
                f"input {spec.name!r} is {spec.datatype} in the graph; {field.name!r} is {field.datatype}"
            )
        if field.nullable and not spec.datatype.startswith(("FP", "BYTES")):
            raise InvalidInput(
                f"input {spec.name!r} is {spec.datatype} and cannot hold the nulls of its reference or signature"
            )
