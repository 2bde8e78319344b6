"""What the tests of serving share: a REST caller, models small enough to read, and runtimes that do as they are told."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import lightgbm
import numpy as np
import onnx
import orjson
from numpy.typing import NDArray
from onnx import TensorProto, helper

from predis.access import Keys
from predis.access.keys import LOCAL
from predis.clock import ManualClock
from predis.metrics import NOTHING, TABLE, Metrics, Numbers
from predis.registry.model import Version
from predis.registry.signature import Field, Signature
from predis.serving.capture import Capture
from predis.serving.config import ServingConfig
from predis.serving.http import Request
from predis.serving.http_messages import Head
from predis.serving.inputs import Inputs, Takes
from predis.serving.observing import Observing
from predis.serving.plane import AppliedRoute, Call, Plane
from predis.serving.protocol import InferRequest, Limits
from predis.serving.rest import RestApp
from predis.serving.route import Route
from predis.serving.served import ServedVersion
from predis.serving.wire import encode_raw
from predis.state.engine import Database
from predis.state.records import Arm, Block, Matrix, Status, decode

LIMITS = Limits(batch_rows=100, tensors=50, body_bytes=1 << 20)
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


def binary_body(*tensors: Mapping[str, Any], **more: Any) -> tuple[bytes, int]:
    """A body of the binary extension and the length of its JSON: tensors whose data is an array go raw, others stay in the JSON."""
    heads, raw = [], []
    for each in tensors:
        head = dict(each)
        if isinstance(each["data"], np.ndarray):
            raw.append(encode_raw(head.pop("data"), head["datatype"]))
            head["parameters"] = {"binary_data_size": len(raw[-1])}
        heads.append(head)
    text = json.dumps({"inputs": heads, **more}).encode()
    return text + b"".join(raw), len(text)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def outputs(self) -> dict[str, Any]:
        """Outputs by name: their data, or their raw bytes."""
        size = int(self.headers.get("inference-header-content-length", len(self.body)))
        found, at = {}, size
        for output in orjson.loads(self.body[:size])["outputs"]:
            if "data" in output:
                found[output["name"]] = output["data"]
            else:
                length = output["parameters"]["binary_data_size"]
                found[output["name"]] = self.body[at : at + length]
                at += length
        assert at == len(self.body)
        return found


class Connection:
    """Takes the answers to one request, in place of a connection."""

    remote = "127.0.0.9"

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.replied = asyncio.Event()

    def answer(self, _request: Request, status: int, *, body: bytes, headers: Any) -> None:
        found = {name.decode(): value.decode("latin-1") for name, value in headers}
        assert len(found) == len(headers)
        found.setdefault("content-type", "application/json")
        self.replies.append(Reply(status, found, body))
        self.replied.set()


def request(
    path: str,
    content: bytes = b"",
    *,
    method: str = "",
    headers: Mapping[str, str | bytes] | None = None,
    started: float = 0.0,
) -> tuple[Request, Connection]:
    """A request as the HTTP server hands it on. It is sent to ``localhost`` unless ``headers`` says otherwise."""
    method = method or ("POST" if path.endswith("/infer") or "/repository/" in path else "GET")
    given = {"host": "localhost", **(headers or {})}
    found = {k.lower().encode(): v if isinstance(v, bytes) else v.encode("latin-1") for k, v in given.items()}
    connection = Connection()
    head = Head(method, path, "", found, True, len(content), False)
    started = started or time.perf_counter()
    return Request(head, cast(Any, connection), body=content, started=started), connection


async def fetch(app: RestApp, path: str, content: bytes = b"", **more: Any) -> Reply:
    """One request's one reply."""
    asked, connection = request(path, content, **more)
    app.handle(asked)
    async with asyncio.timeout(30):
        await connection.replied.wait()
    (reply,) = connection.replies
    assert asked.replied
    return reply


def ask(app: RestApp, path: str, content: bytes = b"", **more: Any) -> Reply:
    return asyncio.run(fetch(app, path, content, **more))


def known_keys(clock: ManualClock, known: dict[str, list[str]] | None = None) -> Keys:
    """Keys that never ask a database."""
    keys = Keys(cast(Database, None), clock, refresh_s=float("inf"))
    keys.restore(known or {})
    return keys


def no_numbers() -> Numbers:
    """Of an installation that has counted nothing yet."""
    return {name: {} for name in TABLE}


class NoRepository:
    """Knows no endpoint to load."""

    async def load(self, caller: Any, endpoint: str) -> None:
        raise AssertionError(endpoint)

    unload = load


def rest(plane: Plane, *, limits: Limits = LIMITS, **more: Any) -> RestApp:
    """An application without keys, repository and numbers, unless given."""
    more.setdefault("repository", NoRepository())
    more.setdefault("observing", Observing(lambda tenant: b"metrics of %b\n" % tenant.encode(), no_numbers))
    keys = more.pop("keys", None) or known_keys(ManualClock())
    return RestApp(plane, keys, limits=limits, **more)


# --- versions ---------------------------------------------------------------------------------------------------------------

# What a fake runtime answers to features, or to tensors where it takes those.
Predict = Callable[[Any], Sequence[NDArray[Any]]]


def row_sums(features: Matrix) -> list[NDArray[Any]]:
    return [np.nansum(features, axis=1)]


@dataclass
class FakeRuntime:
    """Answers what ``answer`` makes of the features (or tensors), and remembers what it was asked."""

    signature: Signature
    answer: Predict = row_sums
    takes: Takes = "matrix"
    asked: list[Inputs] = field(default_factory=list)
    closed: int = 0

    def predict(self, inputs: Inputs) -> Sequence[NDArray[Any]]:
        self.asked.append(inputs)
        assert (inputs.tensors is None) is (self.takes == "matrix")
        return self.answer(inputs.features if inputs.tensors is None else inputs.tensors)

    def close(self) -> None:
        self.closed += 1


ONE = signature(Field("x", "FP64"))


def version(number: int, signature: Signature = ONE, *, model: str = "m", tenant: str = "default") -> Version:
    return Version(tenant, model, number, "lightgbm", f"{number:064x}", (), signature, {}, {}, 0, "test")


def served(
    number: int,
    runtime: FakeRuntime | None = None,
    *,
    endpoint: str = "e",
    tenant: str = "default",
    limits: Limits = LIMITS,
    metrics: Metrics = NOTHING,
) -> ServedVersion:
    """A version in memory; without a runtime it answers its own number. The runtime forgets that it was warmed."""
    runtime = runtime or FakeRuntime(ONE, lambda features: [np.full(len(features), float(number))])
    found = ServedVersion(
        version(number, runtime.signature, tenant=tenant),
        runtime,
        endpoint=endpoint,
        limits=limits,
        metrics=metrics,
    )
    runtime.asked.clear()
    return found


def applied(
    weights: Mapping[int, float],
    versions: Iterable[ServedVersion] = (),
    *,
    endpoint: str = "e",
    tenant: str = "default",
    config: Mapping[str, Any] | None = None,
    **split: Any,
) -> AppliedRoute:
    """A Route and its versions; those not given answer their own numbers. ``split``: segments, shadows, salt."""
    found = {v.number: v for v in versions}
    route = Route(endpoint, 1, weights, **split)
    for number in route.versions():
        found.setdefault(number, served(number, endpoint=endpoint, tenant=tenant))
    settings = ServingConfig.from_dict(config or {})
    return AppliedRoute(tenant, route, "m", found, settings)


@dataclass(frozen=True)
class Record:
    """One request of a block."""

    tenant: str
    endpoint: str
    version: int
    id: str
    status: Status
    received_at: int
    event_at: int
    latency_us: int
    scores: list[float]
    features: Matrix
    extra: list[list[Any]]
    arm: Arm
    answers: list[float]


class ListSink:
    """Keeps the journal's records."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def append(self, payload: bytes, count: int = 1) -> bool:
        assert len(decode(payload).ids) == count
        self.payloads.append(payload)
        return True

    @property
    def blocks(self) -> list[Block]:
        return [decode(payload) for payload in self.payloads]

    @property
    def records(self) -> list[Record]:
        """The requests, one by one; rows of ``extra`` are those of the request."""
        return [record for block in self.blocks for record in _records(block)]


def _records(block: Block) -> Iterable[Record]:
    start = 0
    texts = json.loads(block.extra) if block.extra else []
    for at, name in enumerate(block.ids):
        stop = start + int(block.rows[at])
        yield Record(
            block.tenant, block.endpoint, block.version, name, Status(block.status[at]), int(block.received_at[at]),
            int(block.event_at[at]), int(block.latency_us[at]), block.scores[start:stop].tolist(), block.features[start:stop],
            [[row - start, column, text] for row, column, text in texts if start <= row < stop], Arm(block.arms[at]),
            block.answers[start:stop].tolist(),
        )  # fmt: skip
        start = stop


def ready_plane(
    clock: ManualClock, *routes: AppliedRoute, sink: ListSink | None = None, **more: Any
) -> Plane:
    """A plane that follows these Routes."""
    plane = Plane(Capture(sink or ListSink(), clock), **more)
    for route in routes:
        plane.apply(route)
    plane.following = True
    return plane


def call(wanted: InferRequest, endpoint: str = "e", **more: Any) -> Call:
    return Call(more.pop("caller", LOCAL), endpoint, request=wanted, **more)


async def rounds(count: int = 3) -> None:
    """Let the event loop go round, so that what is due is done."""
    for _round in range(count):
        await asyncio.sleep(0)


def in_loop(story: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Makes a plain test of a coroutine."""

    @functools.wraps(story)
    def run(*args: Any, **named: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30):
                await story(*args, **named)

        asyncio.run(bounded())

    return run


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
