"""What tritonclient does: its four clients have nearly one interface, so that they share their checks."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import itertools
import queue
import threading
import urllib.request
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any

import numpy as np

from tests.conformance.suite import Suite, Target, refused

HTTP, GRPC = ("http", "http.aio"), ("grpc", "grpc.aio")
SUITE = Suite((*HTTP, *GRPC))
check = SUITE.check

A = np.arange(16, dtype=np.int32).reshape(1, 16)
B = np.ones((1, 16), np.int32)
TYPES: dict[str, Any] = {
    "BOOL": [[True, False]], "UINT8": [[0, 255]], "UINT16": [[0, 65535]], "UINT32": [[0, 2**32 - 1]], "UINT64": [[0, 2**64 - 1]],
    "INT8": [[-128, 127]], "INT16": [[-32768, 32767]], "INT32": [[-(2**31), 2**31 - 1]], "INT64": [[-(2**63), 2**63 - 1]],
    "FP16": [[-1.5, 65504]], "FP32": [[-1.5, 3.25e38]], "FP64": [[-1.5, 1e300]], "BYTES": [["plain", "später"]],
}  # fmt: skip
NUMPY = {"BOOL": np.bool_, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BYTES": np.object_}


def array_of(datatype: str) -> Any:
    found = np.array(TYPES[datatype], NUMPY.get(datatype) or np.dtype(datatype.lower()))
    return np.array([[t.encode() for t in row] for row in found], object) if datatype == "BYTES" else found


class Triton:
    """One of the four clients. What a call gives is awaited where it is to be awaited."""

    def __init__(self, target: Target, **options: Any) -> None:
        self.target = target
        self.options = options
        self.is_http = target.flavour in HTTP
        self.module: Any = importlib.import_module(f"tritonclient.{target.flavour}")
        self.error: type[Exception] = importlib.import_module("tritonclient.utils").InferenceServerException

    async def __aenter__(self) -> Triton:
        url = self.target.http if self.is_http else self.target.grpc
        self.client = self.module.InferenceServerClient(url=url, **self.options)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        closing = self.client.close()
        if inspect.isawaitable(closing):
            await closing

    async def call(self, name: str, *arguments: Any, **more: Any) -> Any:
        found = getattr(self.client, name)(*arguments, **more)
        return await found if inspect.isawaitable(found) else found

    async def look(self, name: str, *arguments: Any, **more: Any) -> Any:
        """A call that answers a document; of gRPC as JSON, as HTTP has it."""
        return await self.call(name, *arguments, **more, **({} if self.is_http else {"as_json": True}))

    def tensor(self, name: str, datatype: str, array: Any, *, binary: bool = True) -> Any:
        found = self.module.InferInput(name, list(array.shape), datatype)
        found.set_data_from_numpy(array, **({"binary_data": binary} if self.is_http else {}))
        return found

    def output(self, name: str, *, binary: bool = True, classes: int = 0) -> Any:
        more = {"binary_data": binary} if self.is_http else {}
        return self.module.InferRequestedOutput(name, class_count=classes, **more)

    def simple(self, a: Any = A, b: Any = B, *, binary: bool = True) -> list[Any]:
        """The inputs of the model ``simple``."""
        return [
            self.tensor("INPUT0", "INT32", a, binary=binary),
            self.tensor("INPUT1", "INT32", b, binary=binary),
        ]

    async def infer(self, model: str = "simple", inputs: Any = None, **more: Any) -> Any:
        return await self.call("infer", model, self.simple() if inputs is None else inputs, **more)

    async def is_sum(self, inputs: Any = None, a: Any = A, b: Any = B, **more: Any) -> Any:
        """An answer of ``simple``, found right."""
        found = await self.infer(inputs=inputs, **more)
        np.testing.assert_array_equal(found.as_numpy("OUTPUT0"), a + b)
        np.testing.assert_array_equal(found.as_numpy("OUTPUT1"), a - b)
        assert found.as_numpy("OUTPUT0").dtype == np.int32
        return found

    def response(self, result: Any) -> Any:
        """The response as a document, whose id, names and shapes are the same in both."""
        return result.get_response() if self.is_http else result.get_response(as_json=True)


# -- health, metadata, configuration, statistics -----------------------------------------------------------------------------------


@check("server live and ready")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        assert await t.call("is_server_live") is True
        assert await t.call("is_server_ready") is True


@check("model ready, with and without version")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        assert await t.call("is_model_ready", "simple") is True
        assert await t.call("is_model_ready", "simple", "1") is True
        assert await t.call("is_model_ready", "simple", "7") is False
        assert await t.call("is_model_ready", "nowhere") is False


@check("server metadata")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        found = await t.look("get_server_metadata")
        assert found["name"] == "predis"
        assert found["version"]
        assert {"model_configuration", "statistics"} <= set(found["extensions"])


@check("model metadata, with and without version")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        for version in ("", "1"):
            found = await t.look("get_model_metadata", "simple", version)
            assert (found["name"], found["versions"]) == ("simple", ["1"])
            assert [(i["name"], i["datatype"], [int(d) for d in i["shape"]]) for i in found["inputs"]] == [
                ("INPUT0", "INT32", [-1, 16]),
                ("INPUT1", "INT32", [-1, 16]),
            ]
            assert [o["name"] for o in found["outputs"]] == ["OUTPUT0", "OUTPUT1"]
        with refused(t.error, "nowhere"):
            await t.look("get_model_metadata", "nowhere")


@check("model configuration")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        found = await t.look("get_model_config", "simple", "1")
        found = found if t.is_http else found["config"]
        assert found["name"] == "simple"
        assert found["max_batch_size"] >= 1
        assert [(i["name"], i["data_type"], [int(d) for d in i["dims"]]) for i in found["input"]] == [
            ("INPUT0", "TYPE_INT32", [16]),
            ("INPUT1", "TYPE_INT32", [16]),
        ]
        with refused(t.error, "nowhere"):
            await t.look("get_model_config", "nowhere")


@check("statistics of one model, of one version, of all")
async def _(target: Target) -> None:
    async with Triton(target) as t:

        async def inferences(*arguments: str) -> dict[str, int]:
            found = (await t.look("get_inference_statistics", *arguments))["model_stats"]
            return {s["name"]: int(s.get("inference_count", 0)) for s in found}

        before = (await inferences("simple"))["simple"]
        await t.infer()
        await t.infer()
        after = await inferences("simple", "1")
        assert after["simple"] >= before + 2
        everything = await inferences()
        assert {"simple", "types", "toy-endpoint"} <= set(everything)
        with refused(t.error, "nowhere"):
            await inferences("nowhere")


@check("statistics tell what a request took")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        await t.infer()
        found = (await t.look("get_inference_statistics", "simple"))["model_stats"][0]
        for part in ("success", "compute_infer"):
            assert int(found["inference_stats"][part]["count"]) >= 1
            assert int(found["inference_stats"][part]["ns"]) > 0
        assert int(found["execution_count"]) >= 1
        assert int(found["last_inference"]) > 1_600_000_000_000


# -- repository ----------------------------------------------------------------------------------------------------------------------


@check("repository index")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        found = await t.look("get_model_repository_index")
        models = {m["name"]: m for m in (found if t.is_http else found["models"])}
        assert {"simple", "simple_string", "types", "classes", "spare", "toy-endpoint"} <= set(models)
        assert (models["simple"]["state"], models["simple"]["version"]) == ("READY", "1")


@check("unload a model, and load it again")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        await t.infer("spare")
        await t.call("unload_model", "spare")
        assert await t.call("is_model_ready", "spare") is False
        with refused(t.error, "unloaded"):
            await t.infer("spare")
        await t.call("load_model", "spare")
        assert await t.call("is_model_ready", "spare") is True
        await t.infer("spare")
        await t.call("unload_model", "spare", unload_dependents=True)
        await t.call("load_model", "spare")


@check("loading what is not there, or what a client would bring along, is refused")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        with refused(t.error, "nowhere"):
            await t.call("load_model", "nowhere")
        with refused(t.error, "nowhere"):
            await t.call("unload_model", "nowhere")
        with refused(t.error, "config"):
            await t.call("load_model", "spare", config='{"backend": "onnxruntime"}')


# -- inference -----------------------------------------------------------------------------------------------------------------------


@check("binary in, binary out; all outputs unasked")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        found = await t.is_sum()
        assert t.response(found)["model_name"] == "simple"
        assert t.response(found)["model_version"] == "1"


def _combination(binary_in: bool, binary_out: bool) -> None:
    words = {True: "binary", False: "JSON"}

    @check(f"{words[binary_in]} in, {words[binary_out]} out", *HTTP)
    async def _(target: Target) -> None:
        async with Triton(target) as t:
            outputs = [t.output(name, binary=binary_out) for name in ("OUTPUT0", "OUTPUT1")]
            found = await t.is_sum(t.simple(binary=binary_in), outputs=outputs)
            assert ("data" in found.get_output("OUTPUT0")) is not binary_out


for _in, _out in itertools.product((True, False), repeat=2):
    _combination(_in, _out)


@check("inputs and outputs in both forms in one request", *HTTP)
async def _(target: Target) -> None:
    async with Triton(target) as t:
        inputs = [t.tensor("INPUT0", "INT32", A, binary=False), t.tensor("INPUT1", "INT32", B)]
        found = await t.is_sum(inputs, outputs=[t.output("OUTPUT1"), t.output("OUTPUT0", binary=False)])
        assert [o["name"] for o in found.get_response()["outputs"]] == ["OUTPUT1", "OUTPUT0"]


@check("one named output")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        found = await t.infer(outputs=[t.output("OUTPUT1")])
        np.testing.assert_array_equal(found.as_numpy("OUTPUT1"), A - B)
        assert found.as_numpy("OUTPUT0") is None


@check("outputs in the order asked for")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        found = await t.is_sum(outputs=[t.output("OUTPUT1"), t.output("OUTPUT0")])
        assert [o["name"] for o in t.response(found)["outputs"]] == ["OUTPUT1", "OUTPUT0"]


@check("several rows")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        a, b = np.arange(160, dtype=np.int32).reshape(10, 16), np.full((10, 16), -3, np.int32)
        await t.is_sum(t.simple(a, b), a, b)


@check("every datatype, raw")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        found = await t.infer("types", [t.tensor(name, name, array_of(name)) for name in TYPES])
        for name in TYPES:
            np.testing.assert_array_equal(found.as_numpy(f"out_{name}"), array_of(name), name)


@check("every datatype, as JSON", *HTTP)
async def _(target: Target) -> None:
    async with Triton(target) as t:
        inputs = [t.tensor(name, name, array_of(name), binary=False) for name in TYPES]
        outputs = [t.output(f"out_{name}", binary=False) for name in TYPES]
        found = await t.infer("types", inputs, outputs=outputs)
        for name in TYPES:
            wanted = np.array(TYPES["BYTES"], object) if name == "BYTES" else array_of(name)
            np.testing.assert_array_equal(found.as_numpy(f"out_{name}"), wanted, name)


@check("texts as numbers")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        texts = [np.array([[str(v).encode() for v in row] for row in array], object) for array in (A, B)]
        inputs = [t.tensor(f"INPUT{at}", "BYTES", array) for at, array in enumerate(texts)]
        found = await t.infer("simple_string", inputs)
        assert [int(v) for v in found.as_numpy("OUTPUT0").flat] == (A + B).flatten().tolist()
        assert [int(v) for v in found.as_numpy("OUTPUT1").flat] == (A - B).flatten().tolist()


@check("the highest classes")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        scores = np.array([[0.1, 0.5, 0.4, 0.0], [0.7, 0.1, 0.1, 0.1]], np.float32)
        wanted = t.output("probabilities", classes=2)
        found = (await t.infer("classes", [t.tensor("scores", "FP32", scores)], outputs=[wanted])).as_numpy(
            "probabilities"
        )
        pairs = [[text.decode().split(":") for text in row] for row in found]
        assert [[int(index) for _value, index in row] for row in pairs] == [[1, 2], [0, 1]]
        np.testing.assert_allclose(
            [[float(value) for value, _index in row] for row in pairs], [[0.5, 0.4], [0.7, 0.1]], 1e-5
        )


@check("a table model: columns of numbers and of levels")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        kinds = np.array([b"a", b"b", b"never seen"], object)
        inputs = [
            t.tensor("x", "FP64", np.array([-1.0, 0.1, 1.0])), t.tensor("z", "FP64", np.zeros(3)), t.tensor("kind", "BYTES", kinds),
        ]  # fmt: skip
        scores = (await t.infer("toy-endpoint", inputs)).as_numpy("probability")
        assert scores.shape == (3,)
        assert 0 < scores[0] < scores[1] < scores[2] < 1


@check("a narrower datatype, where nothing is lost")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        inputs = [
            t.tensor("x", "FP32", np.array([0.5], np.float32)), t.tensor("z", "INT32", np.array([0], np.int32)),
            t.tensor("kind", "BYTES", np.array([b"a"], object)),
        ]  # fmt: skip
        assert (await t.infer("toy-endpoint", inputs)).as_numpy("probability").shape == (1,)


@check("request id")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        assert t.response(await t.infer(request_id="my-id"))["id"] == "my-id"
        assert t.response(await t.infer())["id"]


@check("a version")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        assert t.response(await t.is_sum(model_version="1"))["model_version"] == "1"
        with refused(t.error, "does not serve version '7'"):
            await t.infer(model_version="7")


@check("parameters of the client's own, priority, sequence and timeout")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        own: Mapping[str, Any] = {
            "text": "x",
            "number": 3,
            "flag": True,
            **({} if t.is_http else {"ratio": 0.5}),
        }
        await t.is_sum(parameters=own, priority=1, timeout=10_000_000)
        await t.is_sum(sequence_id=7, sequence_start=True, sequence_end=True)


@check("a timeout that has passed")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        with refused(t.error, "deadline"):
            await t.infer(timeout=1)  # a microsecond


@check("the client's own deadline", *GRPC)
async def _(target: Target) -> None:
    async with Triton(target) as t:
        await t.is_sum(client_timeout=30.0)


@check("compressed requests and answers", *HTTP)
async def _(target: Target) -> None:
    async with Triton(target) as t:
        for algorithm in ("gzip", "deflate"):
            await t.is_sum(request_compression_algorithm=algorithm)
            a = np.zeros((500, 16), np.int32)
            await t.is_sum(t.simple(a, a), a, a, response_compression_algorithm=algorithm)
            await t.is_sum(request_compression_algorithm=algorithm, response_compression_algorithm=algorithm)


@check("compressed messages", *GRPC)
async def _(target: Target) -> None:
    async with Triton(target) as t:
        for algorithm in ("gzip", "deflate"):
            await t.is_sum(compression_algorithm=algorithm)


@check("headers: routing key and trace context")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        headers = {"x-predis-routing-key": "customer-7", "traceparent": f"00-{'4b' * 16}-{'a1' * 8}-01"}
        await t.is_sum(headers=headers)


@check("many requests in flight", "http")
async def _(target: Target) -> None:
    module = importlib.import_module("tritonclient.http")
    t = Triton(target)
    t.client = module.InferenceServerClient(url=target.http, concurrency=8)
    waiting = [t.client.async_infer("simple", t.simple(A + n, B), request_id=f"r{n}") for n in range(50)]
    for number, request in enumerate(waiting):
        found = request.get_result()
        assert found.get_response()["id"] == f"r{number}"
        np.testing.assert_array_equal(found.as_numpy("OUTPUT0"), A + number + B)
    t.client.close()


@check("many requests in flight", "http.aio", "grpc.aio")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        await asyncio.gather(*(t.is_sum(t.simple(A + n, B), A + n, B) for n in range(50)))


@check("many requests in flight", "grpc")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        answers: queue.Queue[Any] = queue.Queue()
        for number in range(50):
            t.client.async_infer(
                "simple",
                t.simple(A + number, B),
                lambda result, error: answers.put((result, error)),
                request_id=str(number),
            )
        for _number in range(50):
            result, error = answers.get(timeout=30)
            assert error is None
            np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), A + int(result.get_response().id) + B)


@check("an asynchronous request can be called back", "grpc")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        answered = threading.Event()
        errors: list[Any] = []
        context = t.client.async_infer(
            "simple", t.simple(), lambda result, error: (errors.append(error), answered.set())
        )
        context.cancel()
        assert answered.wait(30)
        await t.is_sum()


@check("a body made and read by the client's helpers", *HTTP)
def _(target: Target) -> None:
    t = Triton(target)
    client = t.module.InferenceServerClient
    body, head_bytes = client.generate_request_body(t.simple(), outputs=[t.output("OUTPUT0")])
    headers = {"Inference-Header-Content-Length": str(head_bytes)}
    request = urllib.request.Request(f"http://{target.http}/v2/models/simple/infer", body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        found = client.parse_response_body(
            answer.read(), header_length=int(answer.headers["Inference-Header-Content-Length"])
        )
    np.testing.assert_array_equal(found.as_numpy("OUTPUT0"), A + B)


@check("the same input objects again, with other values")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        inputs = t.simple()
        await t.is_sum(inputs)
        inputs[0].set_data_from_numpy(A * 3)
        await t.is_sum(inputs, A * 3)


@check("channel arguments and keep-alive options", *GRPC)
async def _(target: Target) -> None:
    options = Triton(target).module.KeepAliveOptions(
        keepalive_time_ms=10_000, keepalive_permit_without_calls=True
    )
    arguments: tuple[dict[str, Any], ...] = (
        {"keepalive_options": options},
        {"channel_args": [("grpc.lb_policy_name", "round_robin")]},
    )
    for more in arguments:
        async with Triton(target, **more) as t:
            await t.is_sum()


# -- streams -------------------------------------------------------------------------------------------------------------------------


@check("a stream answers in order", "grpc")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        answers: queue.Queue[Any] = queue.Queue()
        t.client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(100):
            t.client.async_stream_infer("simple", t.simple(A + number, B), request_id=str(number))
        for number in range(100):
            result, error = answers.get(timeout=30)
            assert error is None, error
            assert result.get_response().id == str(number)
            np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), A + number + B)
        t.client.stop_stream()


@check("a stream goes on after a bad request", "grpc")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        answers: queue.Queue[Any] = queue.Queue()
        t.client.start_stream(
            lambda result, error: answers.put((result, error)), compression_algorithm="gzip"
        )
        for model in ("simple", "nowhere", "simple"):
            t.client.async_stream_infer(model, t.simple(), enable_empty_final_response=True)
        found = [answers.get(timeout=30) for _ in range(3)]
        assert [error is None for _result, error in found] == [True, False, True]
        assert "no endpoint 'nowhere'" in str(found[1][1])
        t.client.stop_stream()


@check("a stream answers in order", "grpc.aio")
async def _(target: Target) -> None:
    async with Triton(target) as t:

        async def requests() -> AsyncIterator[dict[str, Any]]:
            for number in range(100):
                yield {"model_name": "simple", "inputs": t.simple(A + number, B), "request_id": str(number)}

        number = 0
        async for result, error in t.client.stream_infer(requests()):
            assert error is None, error
            assert result.get_response().id == str(number)
            np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), A + number + B)
            number += 1
        assert number == 100


@check("a stream goes on after a bad request", "grpc.aio")
async def _(target: Target) -> None:
    async with Triton(target) as t:

        async def requests() -> AsyncIterator[dict[str, Any]]:
            for model in ("simple", "nowhere", "simple"):
                yield {"model_name": model, "inputs": t.simple()}

        found = [error async for _result, error in t.client.stream_infer(requests())]
        assert [error is None for error in found] == [True, False, True]
        assert "no endpoint 'nowhere'" in str(found[1])


# -- errors --------------------------------------------------------------------------------------------------------------------------


async def _is_refused(
    t: Triton, inputs: Any, *fragments: str, model: str = "simple", status: str = "", **more: Any
) -> None:
    """A request that is the client's fault: our words in the client's error, with a status that says so."""
    caught: Any = None
    try:
        await t.infer(model, inputs, **more)
    except t.error as error:
        caught = error
    assert caught is not None, "it was not refused"
    for fragment in fragments:
        assert fragment in caught.message(), caught.message()
    wanted = status or ("400" if t.is_http else "StatusCode.INVALID_ARGUMENT")
    assert caught.status() == wanted, caught.status()


@check("an unknown model")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        status = "404" if t.is_http else "StatusCode.NOT_FOUND"
        await _is_refused(t, t.simple(), "there is no endpoint 'nowhere'", model="nowhere", status=status)


@check("a wrong datatype")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        for binary in (True, False):
            inputs = [
                t.tensor("INPUT0", "FP32", A.astype(np.float32), binary=binary),
                t.tensor("INPUT1", "INT32", B),
            ]
            await _is_refused(t, inputs, "'INPUT0'", "INT32", "FP32")


@check("a wrong shape")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        for binary in (True, False):
            inputs = [t.tensor("INPUT0", "INT32", A[:, :15], binary=binary), t.tensor("INPUT1", "INT32", B)]
            await _is_refused(t, inputs, "'INPUT0'", "16")
            inputs = [t.tensor("INPUT0", "INT32", A[0], binary=binary), t.tensor("INPUT1", "INT32", B)]
            await _is_refused(t, inputs, "'INPUT0'")


@check("different numbers of rows")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        await _is_refused(t, t.simple(np.concatenate([A, A]), B), "'INPUT1'")


@check("no rows")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        await _is_refused(t, t.simple(A[:0], B[:0]), "row")


@check("a missing, an unknown and a doubled input")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        await _is_refused(t, t.simple()[:1], "missing", "INPUT1")
        await _is_refused(t, [*t.simple(), t.tensor("INPUT2", "INT32", A)], "unknown", "INPUT2")
        await _is_refused(t, [*t.simple(), t.tensor("INPUT1", "INT32", A)], "same name")


@check("an unknown output")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        await _is_refused(t, t.simple(), "unknown output 'OUTPUT9'", outputs=[t.output("OUTPUT9")])


@check("texts that are not UTF-8")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        inputs = [t.tensor(f"INPUT{at}", "BYTES", np.full((1, 16), b"\xff", object)) for at in range(2)]
        await _is_refused(t, inputs, "UTF-8", model="simple_string")


@check("what the model itself cannot do")
async def _(target: Target) -> None:
    """Texts of no number: the model's failure, told as such."""
    async with Triton(target) as t:
        inputs = [t.tensor(f"INPUT{at}", "BYTES", np.full((1, 16), b"x", object)) for at in range(2)]
        status = "422" if t.is_http else "StatusCode.FAILED_PRECONDITION"
        await _is_refused(t, inputs, "the model failed", model="simple_string", status=status)


@check("a request over the size limit")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        a = np.zeros((200_000, 16), np.int32)
        status = "413" if t.is_http else "StatusCode.RESOURCE_EXHAUSTED"
        await _is_refused(t, t.simple(a, a), model="simple", status=status)


@check("what has no meaning here says so: shared memory, trace and log settings")
async def _(target: Target) -> None:
    async with Triton(target) as t:
        for method in ("get_system_shared_memory_status", "get_trace_settings", "get_log_settings"):
            with refused(t.error):
                await t.call(method)


@check("an API key", keyed=True)
async def _(target: Target) -> None:
    async with Triton(target) as t:
        assert await t.call("is_server_live") is True
        await t.is_sum(headers=target.headers)
        status = "401" if t.is_http else "StatusCode.UNAUTHENTICATED"
        await _is_refused(t, t.simple(), "API key", status=status)
        await _is_refused(
            t, t.simple(), "API key", status=status, headers={"authorization": "Bearer pk_wrong"}
        )
        found = await t.look("get_model_repository_index", headers=target.headers)
        assert found
        with refused(t.error, "may not operate"):
            await t.call("unload_model", "spare", headers=target.headers)
