"""The models that the clients ask: ONNX graphs of a few nodes, in the manner of Triton's own examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper

INT32, TEXT, FP32 = TensorProto.INT32, TensorProto.STRING, TensorProto.FLOAT
Port = tuple[str, int, list[int | str]]

DATATYPES = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16, "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16, "INT32": INT32, "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16, "FP32": FP32, "FP64": TensorProto.DOUBLE, "BYTES": TEXT,
}  # fmt: skip


def _graph(nodes: Sequence[Any], inputs: Sequence[Port], outputs: Sequence[Port]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*port) for port in inputs],
        [helper.make_tensor_value_info(*port) for port in outputs],
    )
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    return model.SerializeToString()


def simple() -> bytes:
    """OUTPUT0 = INPUT0 + INPUT1 and OUTPUT1 = INPUT0 - INPUT1, INT32 [N, 16] each."""
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    ports: list[Port] = [(name, INT32, ["N", 16]) for name in ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")]
    return _graph(nodes, ports[:2], ports[2:])


def simple_string() -> bytes:
    """As ``simple``, with the numbers as texts; SUM, INT32 [N, 16], is the sum as numbers."""
    nodes = [
        helper.make_node("Cast", ["INPUT0"], ["a"], to=INT32),
        helper.make_node("Cast", ["INPUT1"], ["b"], to=INT32),
        helper.make_node("Add", ["a", "b"], ["SUM"]),
        helper.make_node("Sub", ["a", "b"], ["difference"]),
        helper.make_node("Cast", ["SUM"], ["OUTPUT0"], to=TEXT),
        helper.make_node("Cast", ["difference"], ["OUTPUT1"], to=TEXT),
    ]
    texts: list[Port] = [(name, TEXT, ["N", 16]) for name in ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")]
    return _graph(nodes, texts[:2], [("SUM", INT32, ["N", 16]), *texts[2:]])


def types() -> bytes:
    """One input per datatype and its echo, ``out_NAME``: [N, 2] each."""
    nodes = [helper.make_node("Identity", [name], [f"out_{name}"]) for name in DATATYPES]
    inputs: list[Port] = [(name, kind, ["N", 2]) for name, kind in DATATYPES.items()]
    outputs: list[Port] = [(f"out_{name}", kind, ["N", 2]) for name, kind in DATATYPES.items()]
    return _graph(nodes, inputs, outputs)


def classes() -> bytes:
    """Four scores a row, as they came: for the classification extension."""
    return _graph(
        [helper.make_node("Identity", ["scores"], ["probabilities"])],
        [("scores", FP32, ["N", 4])],
        [("probabilities", FP32, ["N", 4])],
    )
