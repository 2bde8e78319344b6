"""What the clients generated from the protocol's own specification do: OpenAPI and proto."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.conformance.clients.triton import TYPES, A, B, array_of
from tests.conformance.suite import Suite, Target, refused

SUITE = Suite(("openapi", "grpc"))
check = SUITE.check
CONTENTS = {
    "BOOL": "bool_contents", "INT64": "int64_contents", "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents",
    "BYTES": "bytes_contents", **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
}  # fmt: skip

# -- over HTTP, by the client generated from the OpenAPI document -------------------------------------------------------------------


class OpenApi:
    """The client and the classes of its requests."""

    def __init__(self, target: Target) -> None:
        self.package: Any = importlib.import_module("open_inference.openapi")
        self.client_module: Any = importlib.import_module("open_inference.openapi.client")
        self.errors: Any = importlib.import_module("open_inference.openapi.errors")
        self.api_error: type[Exception] = importlib.import_module(
            "open_inference.openapi.core.api_error"
        ).ApiError
        httpx: Any = importlib.import_module("httpx")
        self.client = self.client_module.OpenInferenceClient(
            base_url=f"http://{target.http}", httpx_client=httpx.Client(timeout=30, headers=target.headers)
        )

    def request(self, inputs: dict[str, tuple[str, Any]], **more: Any) -> Any:
        tensors = [
            self.package.RequestInput(
                name=name, datatype=datatype, shape=list(array.shape), data=array.flatten().tolist()
            )
            for name, (datatype, array) in inputs.items()
        ]
        return self.package.InferenceRequest(inputs=tensors, **more)

    def table(self, **more: Any) -> Any:
        inputs = {
            "x": ("FP64", np.array([-1.0, 1.0])),
            "z": ("FP64", np.zeros(2)),
            "kind": ("BYTES", np.array(["a", "b"])),
        }
        return self.request(inputs, **more)


@check("server live and ready", "openapi")
def _(target: Target) -> None:
    api = OpenApi(target)
    api.client.check_server_liveness()
    api.client.check_server_readiness()


@check("model ready, with and without version", "openapi")
def _(target: Target) -> None:
    api = OpenApi(target)
    api.client.check_model_readiness("simple")
    api.client.check_model_version_readiness("simple", "1")
    with refused(api.api_error, "nowhere"):
        api.client.check_model_readiness("nowhere")


@check("server metadata", "openapi")
def _(target: Target) -> None:
    assert OpenApi(target).client.read_server_metadata().name == "predis"


@check("model metadata, with and without version", "openapi")
def _(target: Target) -> None:
    api = OpenApi(target)
    for found in (
        api.client.read_model_metadata("simple"),
        api.client.read_model_version_metadata("simple", "1"),
    ):
        assert (found.name, found.versions) == ("simple", ["1"])
        assert [(i.name, i.datatype, i.shape) for i in found.inputs] == [
            ("INPUT0", "INT32", [-1, 16]), ("INPUT1", "INT32", [-1, 16]),
        ]  # fmt: skip


@check("infer, with and without version", "openapi")
def _(target: Target) -> None:
    api = OpenApi(target)
    request = api.table(id="my-id", parameters={"text": "x"})
    for found in (
        api.client.model_infer("toy-endpoint", request=request),
        api.client.model_version_infer("toy-endpoint", "1", request=request),
    ):
        assert (found.model_name, found.model_version, found.id) == ("toy-endpoint", "1", "my-id")
        low, high = found.outputs[0].data.__root__
        assert 0 < low < high < 1


@check("whole numbers, which this client sends as fractions", "openapi")
def _(target: Target) -> None:
    api = OpenApi(target)
    found = api.client.model_infer(
        "simple", request=api.request({"INPUT0": ("INT32", A), "INPUT1": ("INT32", B)})
    )
    assert {o.name: o.data.__root__ for o in found.outputs} == {
        "OUTPUT0": (A + B).flatten().tolist(),
        "OUTPUT1": (A - B).flatten().tolist(),
    }


@check("a named output", "openapi")
def _(target: Target) -> None:
    api = OpenApi(target)
    request = api.table(outputs=[api.package.RequestOutput(name="probability")])
    assert [o.name for o in api.client.model_infer("toy-endpoint", request=request).outputs] == [
        "probability"
    ]


@check("errors tell what was wrong", "openapi")
def _(target: Target) -> None:
    api = OpenApi(target)
    with refused(api.errors.BadRequestError, "missing"):
        api.client.model_infer("simple", request=api.request({"INPUT0": ("INT32", A)}))
    with refused(api.errors.BadRequestError, "INPUT1"):
        api.client.model_infer(
            "simple", request=api.request({"INPUT0": ("INT32", A), "INPUT1": ("INT32", B[:, :3])})
        )
    with refused(api.api_error, "there is no endpoint 'nowhere'", "404"):
        api.client.model_infer("nowhere", request=api.table())


@check("the asynchronous client", "openapi")
async def _(target: Target) -> None:
    api = OpenApi(target)
    client = api.client_module.AsyncOpenInferenceClient(base_url=f"http://{target.http}")
    await client.check_server_liveness()
    found = await client.model_infer("toy-endpoint", request=api.table())
    assert len(found.outputs[0].data.__root__) == 2


@check("an API key", "openapi", keyed=True)
def _(target: Target) -> None:
    api = OpenApi(target)
    assert api.client.model_infer("toy-endpoint", request=api.table()).outputs
    api = OpenApi(Target(target.flavour, target.http, target.grpc))
    with refused(api.api_error, "API key", "401"):
        api.client.model_infer("toy-endpoint", request=api.table())


# -- over gRPC, by the stub generated from the proto file ---------------------------------------------------------------------------


@contextlib.contextmanager
def grpc_client(target: Target) -> Iterator[tuple[Any, Any]]:
    """The stub, and the module of its messages."""
    grpc: Any = importlib.import_module("grpc")
    protocol: Any = importlib.import_module("open_inference.grpc.protocol")
    service: Any = importlib.import_module("open_inference.grpc.service")
    with grpc.insecure_channel(target.grpc) as channel:
        yield service.GRPCInferenceServiceStub(channel), protocol


def rpc_error() -> type[Exception]:
    found: type[Exception] = importlib.import_module("grpc").RpcError
    return found


def typed(inputs: dict[str, tuple[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "datatype": datatype,
            "shape": array.shape,
            "contents": {CONTENTS[datatype]: array.flatten().tolist()},
        }
        for name, (datatype, array) in inputs.items()
    ]


SIMPLE = {"INPUT0": ("INT32", A), "INPUT1": ("INT32", B)}


@check("server live and ready", "grpc")
def _(target: Target) -> None:
    with grpc_client(target) as (stub, protocol):
        assert stub.ServerLive(protocol.ServerLiveRequest()).live
        assert stub.ServerReady(protocol.ServerReadyRequest()).ready


@check("model ready, with and without version", "grpc")
def _(target: Target) -> None:
    with grpc_client(target) as (stub, protocol):
        assert stub.ModelReady(protocol.ModelReadyRequest(name="simple")).ready
        assert stub.ModelReady(protocol.ModelReadyRequest(name="simple", version="1")).ready
        assert not stub.ModelReady(protocol.ModelReadyRequest(name="nowhere")).ready


@check("server metadata", "grpc")
def _(target: Target) -> None:
    with grpc_client(target) as (stub, protocol):
        assert stub.ServerMetadata(protocol.ServerMetadataRequest()).name == "predis"


@check("model metadata and its properties", "grpc")
def _(target: Target) -> None:
    with grpc_client(target) as (stub, protocol):
        found = stub.ModelMetadata(protocol.ModelMetadataRequest(name="simple", version="1"))
        assert next((i.name, i.datatype, list(i.shape)) for i in found.inputs) == (
            "INPUT0",
            "INT32",
            [-1, 16],
        )
        assert found.properties["version"] == "1"


@check("typed contents in, typed contents out", "grpc")
def _(target: Target) -> None:
    with grpc_client(target) as (stub, protocol):
        found = stub.ModelInfer(
            protocol.ModelInferRequest(
                model_name="simple", model_version="1", id="my-id", inputs=typed(SIMPLE)
            )
        )
        assert (found.model_name, found.model_version, found.id) == ("simple", "1", "my-id")
        assert not found.raw_output_contents
        assert list(found.outputs[0].contents.int_contents) == (A + B).flatten().tolist()
        assert list(found.outputs[1].contents.int_contents) == (A - B).flatten().tolist()


@check("raw contents in, raw contents out", "grpc")
def _(target: Target) -> None:
    with grpc_client(target) as (stub, protocol):
        inputs = [{"name": name, "datatype": "INT32", "shape": [1, 16]} for name in SIMPLE]
        found = stub.ModelInfer(
            protocol.ModelInferRequest(
                model_name="simple", inputs=inputs, raw_input_contents=[A.tobytes(), B.tobytes()]
            )
        )
        np.testing.assert_array_equal(
            np.frombuffer(found.raw_output_contents[0], np.int32), (A + B).flatten()
        )


@check("every datatype that has typed contents", "grpc")
def _(target: Target) -> None:
    """All but FP16, whose output makes the whole answer raw: the others are named."""
    with grpc_client(target) as (stub, protocol):
        inputs: list[Any] = typed({name: (name, array_of(name)) for name in TYPES if name != "FP16"})
        inputs.append({"name": "FP16", "datatype": "FP16", "shape": [1, 2]})
        outputs = [
            {"name": f"out_{name}", "parameters": {"binary_data": {"bool_param": False}}} for name in CONTENTS
        ]
        found = stub.ModelInfer(
            protocol.ModelInferRequest(
                model_name="types",
                inputs=inputs,
                raw_input_contents=[array_of("FP16").tobytes()],
                outputs=outputs,
            )
        )
        for output in found.outputs:
            wanted = array_of(output.datatype).flatten().tolist()
            assert list(getattr(output.contents, CONTENTS[output.datatype])) == wanted, output.datatype


@check("errors tell what was wrong", "grpc")
def _(target: Target) -> None:
    with grpc_client(target) as (stub, protocol):
        with refused(rpc_error(), "NOT_FOUND", "there is no endpoint 'nowhere'"):
            stub.ModelInfer(protocol.ModelInferRequest(model_name="nowhere", inputs=typed(SIMPLE)))
        with refused(rpc_error(), "INVALID_ARGUMENT", "'INPUT0'"):
            wrong = {**SIMPLE, "INPUT0": ("INT32", A[:, :3])}
            stub.ModelInfer(protocol.ModelInferRequest(model_name="simple", inputs=typed(wrong)))
        with refused(rpc_error(), "INVALID_ARGUMENT", "at least one tensor"):
            stub.ModelInfer(protocol.ModelInferRequest(model_name="simple"))


@check("an API key", "grpc", keyed=True)
def _(target: Target) -> None:
    with grpc_client(target) as (stub, protocol):
        request = protocol.ModelInferRequest(model_name="simple", inputs=typed(SIMPLE))
        assert stub.ModelInfer(request, metadata=tuple(target.headers.items())).outputs
        with refused(rpc_error(), "UNAUTHENTICATED", "API key"):
            stub.ModelInfer(request)
