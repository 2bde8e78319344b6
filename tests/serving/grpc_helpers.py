"""What the tests of gRPC share: a plane of echoes, and a server in a thread of its own with a client."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import numpy as np
import pytest
import uvloop
from numpy.typing import NDArray

from predis import errors
from predis.access import Caller, Keys
from predis.clock import ManualClock
from predis.metrics import NOTHING, TABLE, Numbers
from predis.registry.model import Version
from predis.registry.signature import Field, Signature
from predis.serving.capture import Capture
from predis.serving.grpc import Service
from predis.serving.grpc_messages import SERVICE, message_class
from predis.serving.grpc_server import GrpcServer, Health
from predis.serving.inputs import Inputs, Takes
from predis.serving.observing import Observing
from predis.serving.plane import Admission, AppliedRoute, Plane
from predis.serving.protocol import Limits
from predis.serving.route import Route
from predis.serving.served import ServedVersion
from predis.state.engine import Database

LIMITS = Limits(batch_rows=100, tensors=50)
MAX_BODY = 200_000
PATIENCE_S = 30.0
ALL = {  # what the model "e" takes: every datatype at once
    "BOOL": [True], "INT8": [-1], "INT16": [-2], "INT32": [-3], "INT64": [-4], "UINT8": [1], "UINT16": [2], "UINT32": [3],
    "UINT64": [2**64 - 1], "FP32": [1.5], "FP64": [2.5], "BYTES": ["ö".encode()],
}  # fmt: skip


# --- a plane ----------------------------------------------------------------------------------------------------------------


@dataclass
class Echo:
    """Answers its inputs, as ``out_NAME``; ``before`` may fail or wait."""

    signature: Signature
    before: Callable[[], None] = lambda: None
    takes: Takes = "tensors"

    def predict(self, inputs: Inputs) -> Sequence[NDArray[Any]]:
        self.before()
        assert inputs.tensors is not None
        return [inputs.tensors[name] for name in (f.name for f in self.signature.inputs)]

    def close(self) -> None: ...


def echo(*inputs: Field, before: Callable[[], None] = lambda: None) -> Echo:
    outputs = tuple(Field("out_" + f.name, f.datatype, f.shape) for f in inputs)
    score = next((f.name for f in outputs if f.datatype != "BYTES"), outputs[0].name)
    return Echo(Signature(inputs, outputs, score), before)


def applied(
    name: str, *runtimes: Echo, tenant: str = "default", weights: Mapping[int, float] | None = None
) -> AppliedRoute:
    versions = {}
    for number, runtime in enumerate(runtimes, 1):
        version = Version(tenant, "m", number, "onnx", "", (), runtime.signature, {}, {}, 0, "test")
        versions[number] = ServedVersion(version, runtime, endpoint=name, limits=LIMITS, metrics=NOTHING)
    return AppliedRoute(tenant, Route(name, 1, weights or dict.fromkeys(versions, 1.0)), "m", versions)


X = Field("x", "FP64")


def made_plane(*routes: AppliedRoute, **more: Any) -> Plane:
    plane = Plane(Capture(None, ManualClock()), **more)
    for route in routes or (
        applied("e", *(echo(X, Field("t", "BYTES")),) * 2, weights={1: 1.0, 2: 0.0}),
        applied("all", echo(*(Field(name, name) for name in ALL))),
        applied("half", echo(Field("h", "FP16", (-1, 2)))),
        applied("theirs", echo(X), tenant="other"),
        applied("empty"),
    ):
        plane.apply(route)
    plane.following = True
    return plane


class Gate:
    """A model that waits until it is let go on."""

    def __init__(self) -> None:
        self.waiting, self.go = threading.Semaphore(0), threading.Event()
        self.closed = False

    def __call__(self) -> None:
        if self.closed:
            self.waiting.release()
            assert self.go.wait(PATIENCE_S)


def gated() -> tuple[Gate, Plane]:
    """A plane whose endpoint ``e`` waits at a gate, in a thread."""
    gate = Gate()
    plane = made_plane(
        applied("e", echo(X, Field("t", "BYTES"), before=gate)), admission=Admission(pending=3)
    )
    served = plane.find("default", "e").versions[1]
    served.cost.fixed_s = 0.003  # dear enough for a thread, cheap enough not to be shed for its queue
    gate.closed = True
    return gate, plane


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until something holds; fail if it does not in time."""
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        threading.Event().wait(0.001)


def known_keys(known: dict[str, list[str]] | None = None) -> Keys:
    """Keys that never ask a database."""
    keys = Keys(cast(Database, None), ManualClock(), refresh_s=float("inf"))
    keys.restore(known or {})
    return keys


@dataclass
class FakeRepository:
    moves: list[tuple[str, str, str]] = field(default_factory=list)

    async def load(self, caller: Caller, endpoint: str) -> None:
        self.moves.append(("load", caller.tenant, endpoint))
        if endpoint == "nowhere":
            raise errors.EndpointNotFound("there is no endpoint 'nowhere'")

    async def unload(self, caller: Caller, endpoint: str) -> None:
        self.moves.append(("unload", caller.tenant, endpoint))


NOTHING_COUNTED: Numbers = {name: {} for name in TABLE}
SILENT = Observing(lambda _tenant: b"", lambda: NOTHING_COUNTED)


# --- a server in a thread, and a client ---------------------------------------------------------------------------------------


class Reply(Exception):
    """What a call came back with, good or bad."""

    def __init__(self, code: grpc.StatusCode, details: str, trailers: Any) -> None:
        super().__init__(f"{code}: {details}")
        self.code, self.details, self.trailers = code, details, dict(trailers or ())


class Running:
    """A server in a thread of its own, and a channel to it."""

    def __init__(
        self, plane: Plane, *, keys: Keys | None = None, port: int = 0, observing: Observing = SILENT
    ) -> None:
        self.plane, self.repository = plane, FakeRepository()
        self._observing = observing
        self._keys = keys or known_keys()
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        try:
            self.port = self.within(self._start(port))
        except BaseException:
            self._end()
            raise
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{self.port}",
            options=(("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)),
        )

    async def _start(self, port: int) -> int:
        self.health = Health(self.plane)
        service = Service(
            self.plane, self._keys, limits=LIMITS, repository=self.repository, observing=self._observing
        )
        self.server = GrpcServer(service, self.health, max_body_bytes=MAX_BODY, drain_s=PATIENCE_S)
        return await self.server.start("127.0.0.1", port)

    def within(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_S)

    def close(self) -> None:
        self.channel.close()
        self.within(self.server.stop())
        self._end()

    def _end(self) -> None:
        self.plane.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def send(self, method: str, data: bytes, *, timeout: float | None = PATIENCE_S, **more: Any) -> bytes:
        """The answer's bytes.

        Raises:
            Reply: it was refused.
        """
        call = self.channel.unary_unary(f"/{SERVICE}/{method}")
        more.setdefault("wait_for_ready", True)
        try:
            found: bytes = call(data, timeout=timeout, **more)
        except grpc.RpcError as error:
            raise Reply(error.code(), error.details(), error.trailing_metadata()) from None
        return found

    def call(self, method: str, request: Mapping[str, Any] | None = None, **more: Any) -> Any:
        data = message_class(f"{method}Request")(**(request or {})).SerializeToString()
        return message_class(f"{method}Response").FromString(self.send(method, data, **more))

    def refused(self, code: str, message: str, *, data: bytes | None = None, **more: Any) -> Reply:
        """An inference that comes back with this code and a message like this."""
        with pytest.raises(Reply, match=message) as caught:
            self.send("ModelInfer", infer() if data is None else data, **more)
        assert caught.value.code.name == code
        return caught.value


@contextlib.contextmanager
def running(plane: Plane | None = None, **more: Any) -> Iterator[Running]:
    found = Running(plane or made_plane(), **more)
    try:
        yield found
    finally:
        found.close()


def infer(
    x: float = 1.5, text: str = "ö", *, name: str = "e", raw: bool = True, id: str = "r", **more: Any
) -> bytes:
    """A request for the endpoint ``e``."""
    inputs: list[dict[str, Any]] = [
        {"name": "x", "datatype": "FP64", "shape": [1]},
        {"name": "t", "datatype": "BYTES", "shape": [1]},
    ]
    content = text.encode()
    if raw:
        more["raw_input_contents"] = [np.float64(x).tobytes(), len(content).to_bytes(4, "little") + content]
    else:
        inputs[0]["contents"], inputs[1]["contents"] = {"fp64_contents": [x]}, {"bytes_contents": [content]}
    request = message_class("ModelInferRequest")(model_name=name, id=id, inputs=inputs, **more)
    return cast(bytes, request.SerializeToString())


def answered(data: bytes) -> Any:
    return message_class("ModelInferResponse").FromString(data)
