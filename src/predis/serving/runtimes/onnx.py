"""ONNX Runtime, on one thread per call: workers are the parallelism."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.errors import InvalidInput, MissingExtra, ModelFailure
from predis.registry.signature import Field, Signature
from predis.serving.inputs import Inputs, form_of
from predis.serving.runtimes import check_order, only_file, told, trim
from predis.serving.runtimes.ports import Port, ports_of

_DATATYPES = {
    "tensor(float)": "FP32", "tensor(double)": "FP64", "tensor(float16)": "FP16", "tensor(int64)": "INT64",
    "tensor(int32)": "INT32", "tensor(int16)": "INT16", "tensor(int8)": "INT8", "tensor(uint64)": "UINT64",
    "tensor(uint32)": "UINT32", "tensor(uint16)": "UINT16", "tensor(uint8)": "UINT8", "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
}  # fmt: skip


class Onnx:
    """A session and the way from a row to its inputs.

    ``single``: the graph was exported for one row at a time; then several rows are as many runs.
    """

    def __init__(self, session: Any, ports: Sequence[Port], *, signature: Signature, single: bool) -> None:
        self._session = session
        self._ports = ports
        self._single = single
        self._outputs = [node.name for node in session.get_outputs()]
        self.signature = signature
        self.takes = form_of([port.spec for port in ports])

    def predict(self, inputs: Inputs) -> Sequence[NDArray[Any]]:
        if self._session is None:
            raise ModelFailure("the model was closed")
        feed = {port.spec.name: port.of(inputs) for port in self._ports}
        if not self._single or inputs.rows == 1:
            return self._run(feed)
        rows = [self._run({k: v[at : at + 1] for k, v in feed.items()}) for at in range(inputs.rows)]
        return [np.concatenate(output) for output in zip(*rows, strict=True)]

    def _run(self, feed: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        outputs: Sequence[NDArray[Any]] = self._session.run(self._outputs, feed)
        return outputs

    def close(self) -> None:
        if self._session is not None:
            self._session = None
            trim()


def load(contents: Mapping[str, bytes], *, signature: Signature | None, inputs: tuple[Field, ...]) -> Onnx:
    """A session from the graph's bytes.

    Raises:
        ModelFailure: the bytes are not an ONNX graph that ONNX Runtime accepts.
        InvalidInput: the graph's inputs or outputs are not tensors Predis carries, or do not fit the signature.
    """
    session = _session(only_file(contents, "ONNX"))
    graph_inputs = tuple(_field(node, "input") for node in session.get_inputs())
    graph_outputs = tuple(_field(node, "output") for node in session.get_outputs())
    full = signature or _signature(graph_inputs, graph_outputs, inputs=inputs)
    ports = ports_of(graph_inputs, full)
    _check_outputs(graph_outputs, full)
    single = any(node.shape and node.shape[0] == 1 for node in session.get_inputs())
    return Onnx(session, ports, signature=full, single=single)


def _session(content: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra.of("onnxruntime", "onnx") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Weights in a file of their own would be read from wherever the graph says; a version is one file, so there is none.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelFailure(f"the file is not an ONNX graph that can be run: {told(error)}") from error


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
