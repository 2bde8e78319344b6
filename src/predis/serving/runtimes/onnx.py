"""ONNX Runtime, on one thread per call: workers are the parallelism."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.errors import InvalidInput, MissingExtra, ModelFailure
from predis.registry.signature import NUMPY_OF, Field, Signature
from predis.serving.runtimes import Unseen, check_order, only_file
from predis.state.records import Matrix

_DATATYPES = {
    "tensor(float)": "FP32", "tensor(double)": "FP64", "tensor(float16)": "FP16", "tensor(int64)": "INT64",
    "tensor(int32)": "INT32", "tensor(int16)": "INT16", "tensor(int8)": "INT8", "tensor(uint64)": "UINT64",
    "tensor(uint32)": "UINT32", "tensor(uint16)": "UINT16", "tensor(uint8)": "UINT8", "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
}  # fmt: skip


class Onnx:
    """A session and the way from matrix columns to its inputs."""

    def __init__(
        self, session: Any, graph: tuple[tuple[Field, ...], tuple[Field, ...]], *, signature: Signature
    ) -> None:
        self._session = session
        self.signature = signature
        self._inputs = graph[0]
        self._outputs = [field.name for field in graph[1]]
        self._levels = _levels(signature)

    def predict(self, features: Matrix, unseen: Unseen) -> Sequence[NDArray[Any]]:
        feed: dict[str, NDArray[Any]] = {}
        at = 0
        for spec in self._inputs:
            block = features[:, at : at + spec.width]
            texts = spec.datatype == "BYTES"
            values = self._texts(block, at, unseen=unseen) if texts else block.astype(NUMPY_OF[spec.datatype])
            feed[spec.name] = values.reshape(len(features), *spec.shape[1:])
            at += spec.width
        outputs: list[NDArray[Any]] = self._session.run(self._outputs, feed)
        return [
            output[:, 0] if f.shape == (-1,) and output.ndim == 2 else output
            for f, output in zip(self.signature.outputs, outputs, strict=True)
        ]

    def _texts(self, block: Matrix, at: int, *, unseen: Unseen) -> NDArray[Any]:
        levels = self._levels[at, block.shape[1]]
        texts = [
            unseen.get((row, column), "") if code < 0 else "" if code != code else levels[int(code)]
            for row, codes in enumerate(block.tolist())
            for column, code in enumerate(codes, at)
        ]
        return np.array(texts, np.object_)


def load(contents: Mapping[str, bytes], *, signature: Signature | None, inputs: tuple[Field, ...]) -> Onnx:
    """A session from the graph's bytes.

    Raises:
        ModelFailure: the bytes are not an ONNX graph that ONNX Runtime accepts.
        InvalidInput: the graph's inputs or outputs are not tensors Predis carries, or do not fit the signature.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra.of("onnxruntime", "onnx") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            only_file(contents, "ONNX"), options, providers=["CPUExecutionProvider"]
        )
    except InvalidInput:
        raise
    except Exception as error:
        raise ModelFailure(f"the file is not an ONNX graph that can be run: {error}") from error
    graph_inputs = tuple(_field(node, "input") for node in session.get_inputs())
    graph_outputs = tuple(_field(node, "output") for node in session.get_outputs())
    full = signature or _signature(graph_inputs, graph_outputs, inputs=inputs)
    graph_width, width = sum(f.width for f in graph_inputs), len(full.feature_names)
    if graph_width != width:
        raise InvalidInput(f"the graph takes {graph_width} values per row, the signature gives {width}")
    check_order("inputs", [f.name for f in full.inputs], own=[f.name for f in graph_inputs])
    _check_inputs(graph_inputs, full)
    _check_outputs(graph_outputs, full)
    return Onnx(session, (graph_inputs, graph_outputs), signature=full)


def _levels(signature: Signature) -> dict[tuple[int, int], tuple[str, ...]]:
    """Levels of the text inputs, by the first column and the width of each."""
    starts = accumulate((f.width for f in signature.inputs), initial=0)
    return {(at, f.width): f.levels for at, f in zip(starts, signature.inputs, strict=False) if f.levels}


def _check_inputs(graph_inputs: tuple[Field, ...], signature: Signature) -> None:
    """Every text needs its levels, and whole numbers and truth values have no way to say "missing"."""
    levels, at = _levels(signature), 0
    nullable = [f.nullable for f in signature.inputs for _ in range(f.width)]
    for spec in graph_inputs:
        if spec.datatype == "BYTES" and (at, spec.width) not in levels:
            raise InvalidInput(
                f"text input {spec.name!r} needs its levels: register with a reference data set, or list them in the signature"
            )
        if not spec.datatype.startswith(("FP", "BYTES")) and any(nullable[at : at + spec.width]):
            raise InvalidInput(
                f"input {spec.name!r} is {spec.datatype} and cannot hold the nulls of its reference or signature"
            )
        at += spec.width


def _check_outputs(graph_outputs: tuple[Field, ...], signature: Signature) -> None:
    names = [f.name for f in graph_outputs]
    if len(signature.outputs) != len(names):
        raise InvalidInput(f"the graph has the outputs {', '.join(names)}; the signature must list them all")
    check_order("outputs", [f.name for f in signature.outputs], own=names)
    for own, said in zip(graph_outputs, signature.outputs, strict=True):
        if (own.datatype == "BYTES") != (said.datatype == "BYTES"):
            raise InvalidInput(f"output {said.name!r} is {own.datatype} in the graph, not {said.datatype}")


def _signature(
    graph_inputs: tuple[Field, ...], outputs: tuple[Field, ...], *, inputs: tuple[Field, ...]
) -> Signature:
    """The graph's own fields; a table's columns instead where the graph takes them as inputs, or as one matrix."""
    score = next((f for f in outputs if f.datatype.startswith("FP")), outputs[0])
    chosen = graph_inputs
    if inputs and sum(f.width for f in graph_inputs) == len(inputs):
        by_name = {f.name: f for f in inputs}
        if len(graph_inputs) == 1:
            chosen = inputs
        elif set(by_name) == {f.name for f in graph_inputs}:
            chosen = tuple(
                Field(
                    f.name,
                    f.datatype,
                    f.shape if f.width > 1 else (-1,),
                    by_name[f.name].nullable,
                    by_name[f.name].levels,
                )
                for f in graph_inputs
            )
    return Signature(chosen, outputs, score.name)


def _field(node: Any, side: str) -> Field:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        raise InvalidInput(
            f"{side} {node.name!r} is a {node.type}, not a tensor; export the model without maps (zipmap=False)"
        )
    dimensions = [d if isinstance(d, int) and d > 0 else -1 for d in (node.shape or [-1])]
    if any(d == -1 for d in dimensions[1:]):
        raise InvalidInput(
            f"{side} {node.name!r} has the shape {node.shape}: only the first dimension may be open"
        )
    if dimensions[0] not in (-1, 1):
        raise InvalidInput(
            f"{side} {node.name!r} has the shape {node.shape}: the first dimension must be the rows, and open"
        )
    return Field(node.name, datatype, (-1, *dimensions[1:]))
