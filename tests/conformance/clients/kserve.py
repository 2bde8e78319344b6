"""What kserve's clients do, over REST and over gRPC."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from tests.conformance.clients.triton import TYPES, A, B, array_of
from tests.conformance.suite import Suite, Target, refused

SUITE = Suite(("rest", "grpc"))
check = SUITE.check


class KServe:
    """One of the two clients, asked the same way."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.is_rest = target.flavour == "rest"
        self.kserve: Any = importlib.import_module("kserve")
        self.protocol: Any = importlib.import_module("kserve.protocol.infer_type")
        if self.is_rest:
            self.client = self.kserve.InferenceRESTClient(self.kserve.RESTConfig(protocol="v2", retries=0))
            self.error: type[Exception] = importlib.import_module("httpx").HTTPStatusError
        else:
            self.client = self.kserve.InferenceGRPCClient(target.grpc, retries=0)
            self.error = importlib.import_module("grpc").RpcError
        self._base = [f"http://{target.http}"] if self.is_rest else []

    async def __aenter__(self) -> KServe:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    async def ask(self, name: str, *arguments: Any, **more: Any) -> Any:
        return await getattr(self.client, name)(*self._base, *arguments, **more)

    def tensor(self, name: str, datatype: str, array: Any, *, binary: bool = True) -> Any:
        found = self.protocol.InferInput(name, list(array.shape), datatype)
        found.set_data_from_numpy(array, binary_data=binary)
        return found

    def simple(self, a: Any = A, b: Any = B, *, binary: bool = True) -> list[Any]:
        return [
            self.tensor("INPUT0", "INT32", a, binary=binary),
            self.tensor("INPUT1", "INT32", b, binary=binary),
        ]

    async def infer(
        self, inputs: Any = None, *, model: str = "simple", headers: Any = None, **more: Any
    ) -> Any:
        more.setdefault("request_id", "r")
        request = self.protocol.InferRequest(model, self.simple() if inputs is None else inputs, **more)
        if self.is_rest:
            return await self.ask("infer", request, model_name=model, headers=headers)
        return await self.ask("infer", request, headers=None if headers is None else tuple(headers.items()))

    def output(self, name: str, *, binary: bool) -> Any:
        return self.protocol.RequestedOutput(name, {"binary_data": binary})


def values_of(response: Any, name: str) -> Any:
    return response.get_output_by_name(name).as_numpy()


@check("server live and ready")
async def _(target: Target) -> None:
    async with KServe(target) as k:
        assert await k.ask("is_server_live") is True
        assert await k.ask("is_server_ready") is True


@check("model ready")
async def _(target: Target) -> None:
    async with KServe(target) as k:
        assert await k.ask("is_model_ready", "simple") is True
        assert await k.ask("is_model_ready", "nowhere") is False


def _combination(binary: bool) -> None:
    @check("binary tensors in" if binary else "typed tensors in")
    async def _(target: Target) -> None:
        async with KServe(target) as k:
            found = await k.infer(k.simple(binary=binary))
            np.testing.assert_array_equal(values_of(found, "OUTPUT0"), A + B)
            np.testing.assert_array_equal(values_of(found, "OUTPUT1"), A - B)
            assert found.model_name == "simple"
            assert found.id == "r"

    @check("binary in, either out" if binary else "typed in, either out")
    async def _(target: Target) -> None:
        async with KServe(target) as k:
            for out in (True, False):
                found = await k.infer(
                    k.simple(binary=binary), request_outputs=[k.output("OUTPUT1", binary=out)]
                )
                assert [o.name for o in found.outputs] == ["OUTPUT1"]
                np.testing.assert_array_equal(values_of(found, "OUTPUT1"), A - B)
            found = await k.infer(k.simple(binary=binary), parameters={"binary_data_output": True})
            np.testing.assert_array_equal(values_of(found, "OUTPUT0"), A + B)


for _binary in (True, False):
    _combination(_binary)


@check("both forms in one request")
async def _(target: Target) -> None:
    async with KServe(target) as k:
        inputs = [k.tensor("INPUT0", "INT32", A, binary=False), k.tensor("INPUT1", "INT32", B)]
        np.testing.assert_array_equal(values_of(await k.infer(inputs), "OUTPUT0"), A + B)


@check("every datatype, raw")
async def _(target: Target) -> None:
    async with KServe(target) as k:
        found = await k.infer([k.tensor(name, name, array_of(name)) for name in TYPES], model="types")
        for name in TYPES:
            wanted = array_of(name)
            values = values_of(found, f"out_{name}")
            if name == "BYTES":
                values = np.array(
                    [t if isinstance(t, bytes) else str(t).encode() for t in values.flat], object
                ).reshape(1, 2)
            np.testing.assert_array_equal(values, wanted, name)


@check("every datatype that has a typed form")
async def _(target: Target) -> None:
    """FP16 has none, neither in JSON as this client writes it nor in gRPC's contents: it goes raw beside the others."""
    async with KServe(target) as k:
        inputs = [k.tensor(name, name, array_of(name), binary=name == "FP16") for name in TYPES]
        found = await k.infer(
            inputs,
            model="types",
            request_outputs=[k.output(f"out_{n}", binary=False) for n in TYPES if n != "FP16"],
        )
        for name in TYPES:
            if name not in ("FP16", "BYTES"):
                np.testing.assert_array_equal(values_of(found, f"out_{name}"), array_of(name), name)


@check("parameters")
async def _(target: Target) -> None:
    async with KServe(target) as k:
        found = await k.infer(parameters={"text": "x", "number": 3, "flag": True, "timeout": 10_000_000})
        np.testing.assert_array_equal(values_of(found, "OUTPUT0"), A + B)


@check("a table model: columns of numbers and of levels")
async def _(target: Target) -> None:
    async with KServe(target) as k:
        kinds = np.array([b"a", b"b", b"never seen"], object)
        for binary in (True, False):
            inputs = [
                k.tensor("x", "FP64", np.array([-1.0, 0.1, 1.0]), binary=binary), k.tensor("z", "FP64", np.zeros(3), binary=binary),
                k.tensor("kind", "BYTES", kinds, binary=binary),
            ]  # fmt: skip
            scores = values_of(await k.infer(inputs, model="toy-endpoint"), "probability")
            assert scores.shape == (3,)
            assert 0 < scores[0] < scores[1] < scores[2] < 1


@check("the document of the protocol, as a dictionary", "rest")
async def _(target: Target) -> None:
    async with KServe(target) as k:
        document = {
            "id": "d",
            "inputs": [
                {"name": "INPUT0", "datatype": "INT32", "shape": [1, 16], "data": A.tolist()},
                {"name": "INPUT1", "datatype": "INT32", "shape": [1, 16], "data": B.flatten().tolist()},
            ],
        }
        found = await k.ask("infer", document, model_name="simple")
        np.testing.assert_array_equal(values_of(found, "OUTPUT0"), A + B)


@check("errors tell what was wrong")
async def _(target: Target) -> None:
    async with KServe(target) as k:
        with refused(k.error, "there is no endpoint 'nowhere'", "404" if k.is_rest else "NOT_FOUND"):
            await k.infer(model="nowhere")
        bad = "400" if k.is_rest else "INVALID_ARGUMENT"
        for binary in (True, False):
            with refused(k.error, "'INPUT0'", bad):
                await k.infer(k.simple(A[:, :15], binary=binary))
            with refused(k.error, "INT32", bad):
                await k.infer(
                    [k.tensor("INPUT0", "FP32", A.astype(np.float32), binary=binary), *k.simple()[1:]]
                )
        with refused(k.error, "missing", bad):
            await k.infer(k.simple()[:1])
        with refused(k.error, "unknown output", bad):
            await k.infer(request_outputs=[k.output("OUTPUT9", binary=True)])


@check("load and unload, by the client's own messages", "grpc")
async def _(target: Target) -> None:
    """The client has no method for them, its protocol has: with the model's name in another field than Triton's."""
    messages: Any = importlib.import_module("kserve.protocol.grpc.grpc_predict_v2_pb2")
    async with KServe(target) as k:
        stub = k.client._client_stub
        found = await stub.RepositoryModelUnload(messages.RepositoryModelUnloadRequest(model_name="spare"))
        assert (found.model_name, found.isUnloaded) == ("spare", True)
        assert await k.ask("is_model_ready", "spare") is False
        found = await stub.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name="spare"))
        assert (found.model_name, found.isLoaded) == ("spare", True)
        assert await k.ask("is_model_ready", "spare") is True


@check("metadata, by the client's own messages", "grpc")
async def _(target: Target) -> None:
    messages: Any = importlib.import_module("kserve.protocol.grpc.grpc_predict_v2_pb2")
    async with KServe(target) as k:
        stub = k.client._client_stub
        assert (await stub.ServerMetadata(messages.ServerMetadataRequest())).name == "predis"
        found = await stub.ModelMetadata(messages.ModelMetadataRequest(name="simple"))
        assert next((i.name, i.datatype, list(i.shape)) for i in found.inputs) == (
            "INPUT0",
            "INT32",
            [-1, 16],
        )


@check("an API key", keyed=True)
async def _(target: Target) -> None:
    async with KServe(target) as k:
        assert await k.ask("is_server_live") is True
        found = await k.infer(headers=target.headers)
        np.testing.assert_array_equal(values_of(found, "OUTPUT0"), A + B)
        with refused(k.error, "API key", "401" if k.is_rest else "UNAUTHENTICATED"):
            await k.infer()
