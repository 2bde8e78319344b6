"""What the tests of serving share: an ASGI caller, models small enough to read, and runtimes that do as they are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import lightgbm
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from predis.access import Keys
from predis.clock import ManualClock
from predis.registry.model import Version
from predis.registry.signature import Field, Signature
from predis.serving.plane import AppliedRoute, Plane, ServedVersion
from predis.serving.protocol import Limits
from predis.serving.rest import RestApp
from predis.serving.route import Route
from predis.state.engine import Database
from predis.state.records import Matrix, PredictionRecord, decode

LIMITS = Limits(batch_rows=100, tensors=50)
SCORE = Field("score", "FP64")


def signature(*inputs: Field, outputs: tuple[Field, ...] = (SCORE,), score: str = "") -> Signature:
    return Signature(inputs, outputs, score or outputs[0].name)


# --- requests ---------------------------------------------------------------------------------------------------------------


def tensor(name: str, datatype: str, data: Any, *, shape: Any = None) -> dict[str, Any]:
    """An input tensor; the shape is that of flat data unless given."""
    return {
        "name": name,
        "datatype": datatype,
        "shape": [len(data)] if shape is None else shape,
        "data": data,
    }


def body(*tensors: Mapping[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(tensors), **more}).encode()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    app: RestApp,
    path: str,
    content: bytes | Iterable[bytes] = b"",
    *,
    method: str = "",
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """One request to an ASGI application; several pieces of content come as a body streamed in as many messages."""
    pieces = [content] if isinstance(content, bytes) else list(content)
    incoming = [
        {"type": "http.request", "body": piece, "more_body": at < len(pieces) - 1}
        for at, piece in enumerate(pieces)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method or ("POST" if path.endswith("/infer") else "GET"),
        "path": path,
        "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in (headers or {}).items()],
    }
    asyncio.run(app(scope, receive, send))
    start, *bodies = sent
    assert start["type"] == "http.response.start"
    content = b"".join(message["body"] for message in bodies)
    found = {k.decode(): v.decode() for k, v in start["headers"]}
    assert found["content-length"] == str(len(content))
    return Reply(start["status"], found, content)


def known_keys(clock: ManualClock, known: dict[str, list[str]] | None = None) -> Keys:
    """Keys that never ask a database."""
    keys = Keys(cast(Database, None), clock, refresh_s=float("inf"))
    keys.restore(known or {})
    return keys


# --- versions ---------------------------------------------------------------------------------------------------------------

Predict = Callable[[Matrix], Sequence[NDArray[Any]]]


def row_sums(features: Matrix) -> list[NDArray[Any]]:
    return [np.nansum(features, axis=1)]


@dataclass
class FakeRuntime:
    """Answers what ``answer`` makes of the features, and remembers them."""

    signature: Signature
    answer: Predict = row_sums
    asked: list[Matrix] = field(default_factory=list)

    def predict(self, features: Matrix, unseen: Mapping[tuple[int, int], str]) -> Sequence[NDArray[Any]]:
        self.asked.append(features)
        return self.answer(features)


ONE = signature(Field("x", "FP64"))


def version(number: int, signature: Signature = ONE, *, model: str = "m", tenant: str = "default") -> Version:
    return Version(tenant, model, number, "lightgbm", "", (), signature, {}, {}, 0, "test")


def served(
    number: int,
    runtime: FakeRuntime | None = None,
    *,
    endpoint: str = "e",
    limits: Limits = LIMITS,
) -> ServedVersion:
    """A version in memory; without a runtime it answers its own number."""
    runtime = runtime or FakeRuntime(ONE, lambda features: [np.full(len(features), float(number))])
    return ServedVersion(version(number, runtime.signature), runtime, endpoint=endpoint, limits=limits)


def applied(
    weights: Mapping[int, float],
    versions: Iterable[ServedVersion] = (),
    *,
    endpoint: str = "e",
    tenant: str = "default",
) -> AppliedRoute:
    """A Route and its versions; those not given answer their own numbers."""
    found = {v.number: v for v in versions}
    for number in weights:
        found.setdefault(number, served(number, endpoint=endpoint))
    return AppliedRoute.of(tenant, Route(endpoint, 1, weights), model="m", versions=found)


class ListSink:
    """Keeps the records."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def append(self, payload: bytes) -> bool:
        self.payloads.append(payload)
        return True

    @property
    def records(self) -> list[PredictionRecord]:
        return [decode(payload) for payload in self.payloads]


def ready_plane(clock: ManualClock, *routes: AppliedRoute, limits: Limits = LIMITS, **more: Any) -> Plane:
    """A plane that follows these Routes; its sink is ``ListSink()`` unless given."""
    more.setdefault("sink", ListSink())
    plane = Plane(clock=clock, limits=limits, **more)
    for route in routes:
        plane.apply(route)
    plane.following = True
    return plane


# --- LightGBM ---------------------------------------------------------------------------------------------------------------

COLUMNS = ("a", "b", "kind", "c")
CATEGORIES = 5


def table(rows: int, *, seed: int = 0) -> Matrix:
    """Rows for the boosters: numbers, some missing, and in column 2 codes from -1 (unseen) on."""
    random = np.random.default_rng(seed)
    found = random.normal(size=(rows, len(COLUMNS)))
    found[:, 2] = random.integers(-1, CATEGORIES, rows)
    found[random.random(found.shape) < 0.1] = np.nan
    return found


@cache
def booster_text(objective: str = "binary", *, rounds: int = 12, leaves: int = 7, rows: int = 600) -> bytes:
    """A LightGBM model with a categorical column, as Booster.save_model writes it."""
    features = table(rows, seed=1)
    random = np.random.default_rng(2)
    signal = np.nansum(features[:, :2], axis=1) + (features[:, 2] == 3) + random.normal(scale=0.3, size=rows)
    labels = {
        "binary": (signal > 0).astype(float),
        "multiclass": np.digitize(signal, [-1, 1]).astype(float),
        "regression": signal,
        "poisson": np.exp(np.clip(signal, -2, 2)),
        "cross_entropy": 1 / (1 + np.exp(-signal)),
    }[objective]
    parameters = {
        "objective": objective, "num_leaves": leaves, "min_data_in_leaf": 2, "verbose": -1, "num_threads": 1, "seed": 3,
        "min_data_per_group": 5, **({"num_class": 3} if objective == "multiclass" else {}),
    }  # fmt: skip
    data = lightgbm.Dataset(features, labels, feature_name=list(COLUMNS), categorical_feature=["kind"])
    booster = lightgbm.train(parameters, data, num_boost_round=rounds)
    return cast(str, booster.model_to_string()).encode()


# --- ONNX -------------------------------------------------------------------------------------------------------------------

FP32, FP64, INT64, INT32, TEXT = (
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.INT64,
    TensorProto.INT32,
    TensorProto.STRING,
)
ML = "ai.onnx.ml"
Port = tuple[str, int, list[int | str | None]]


def graph(
    nodes: Sequence[onnx.NodeProto], inputs: Sequence[Port], outputs: Sequence[Any], **constants: Any
) -> bytes:
    """An ONNX model of these nodes; ports are (name, type, shape), constants numpy arrays."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*port) for port in inputs],
        [helper.make_tensor_value_info(*port) if isinstance(port, tuple) else port for port in outputs],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()


WEIGHTS = np.array([[0.5], [-1.0], [0.25]], np.float32)


def logistic_graph(outputs_name: str = "p") -> bytes:
    """p = sigmoid(x W), x [N, 3]."""
    return graph(
        [
            helper.make_node("MatMul", ["x", "W"], ["z"]),
            helper.make_node("Sigmoid", ["z"], [outputs_name]),
        ],
        [("x", FP32, ["N", 3])],
        [(outputs_name, FP32, ["N", 1])],
        W=WEIGHTS,
    )


def columns_graph() -> bytes:
    """y = a + 10 b, a and b tensors of their own."""
    return graph(
        [
            helper.make_node("Cast", ["b"], ["bf"], to=FP32),
            helper.make_node("Mul", ["bf", "ten"], ["b10"]),
            helper.make_node("Add", ["a", "b10"], ["y"]),
        ],
        [("a", FP32, ["N"]), ("b", INT64, ["N"])],
        [("y", FP32, ["N"])],
        ten=np.float32(10),
    )


def text_graph() -> bytes:
    """Two outputs from a matrix and then a text: label = 1 if red else 0, and p [N, 2] = (sum of x + points of color, minus it)."""
    return graph(
        [
            helper.make_node("LabelEncoder", ["color"], ["points"], domain=ML, keys_strings=["red", "blue", "", "mauve"],
                             values_floats=[100.0, 200.0, 300.0, 400.0], default_float=900.0),
            helper.make_node("ReduceSum", ["x", "axis"], ["sum"], keepdims=1),
            helper.make_node("Add", ["sum", "points"], ["p1"]),
            helper.make_node("Neg", ["p1"], ["p0"]),
            helper.make_node("Concat", ["p0", "p1"], ["p"], axis=1),
            helper.make_node("LabelEncoder", ["color"], ["l"], domain=ML, keys_strings=["red"], values_int64s=[1],
                             default_int64=0),
            helper.make_node("Squeeze", ["l", "axis"], ["label"]),
        ],
        [("x", FP32, ["N", 2]), ("color", TEXT, ["N", 1])],
        [("label", INT64, ["N"]), ("p", FP32, ["N", 2])],
        axis=np.array([1], np.int64),
    )  # fmt: skip
