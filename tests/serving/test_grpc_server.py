from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from predis import errors
from predis.serving.grpc_messages import SERVICE
from tests.serving.grpc_helpers import (
    PATIENCE_S,
    Running,
    answered,
    gated,
    infer,
    made_plane,
    running,
)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as found:
        yield found


class TestHealth:
    def test_it_tells_whether_requests_are_taken(self) -> None:
        plane = made_plane()
        plane.following = False
        with running(plane) as server:
            stub = health_pb2_grpc.HealthStub(server.channel)
            status = health_pb2.HealthCheckResponse.ServingStatus.Name
            watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=PATIENCE_S)
            assert status(next(watch).status) == "NOT_SERVING"
            plane.following = True
            assert status(stub.Check(health_pb2.HealthCheckRequest()).status) == "SERVING"
            assert status(next(watch).status) == "SERVING"
            listed = stub.List(health_pb2.HealthListRequest()).statuses
            assert {name: status(s.status) for name, s in listed.items()} == {
                "": "SERVING",
                SERVICE: "SERVING",
            }
            with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
                stub.Check(health_pb2.HealthCheckRequest(service="other"))
            unknown = stub.Watch(health_pb2.HealthCheckRequest(service="other"), timeout=PATIENCE_S)
            assert status(next(unknown).status) == "SERVICE_UNKNOWN"
            unknown.cancel()
            server.within(server.server.stop())
            assert [status(found.status) for found in watch] == ["NOT_SERVING"]


class TestReflection:
    def test_a_client_that_knows_nothing_can_ask(self, server: Running) -> None:
        database = ProtoReflectionDescriptorDatabase(server.channel)
        assert set(database.get_services()) == {
            SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
        }  # fmt: skip
        pool = DescriptorPool(database)
        method = pool.FindServiceByName(SERVICE).FindMethodByName("ModelMetadata")
        request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        data = server.send("ModelMetadata", request(name="e").SerializeToString())
        assert [i.name for i in response.FromString(data).inputs] == ["x", "t"]
        assert pool.FindServiceByName("grpc.health.v1.Health").FindMethodByName("Check")


class TestPorts:
    def test_workers_share_one(self) -> None:
        with running() as first, running(port=first.port) as second:
            assert second.port == first.port
            assert second.call("ServerLive").live

    def test_one_of_another_program_is_not_shared(self) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            with (
                pytest.raises(errors.PortInUse, match=f"port {other.getsockname()[1]}"),
                running(port=other.getsockname()[1]),
            ):
                pass


class TestLimits:
    @pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
    def test_compressed_requests(self, server: Running, compression: grpc.Compression) -> None:
        found = server.send("ModelInfer", infer(text="a" * 5_000), compression=compression)
        assert found.count(b"a") >= 5_000

    @pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
    def test_a_message_over_the_limit_is_refused(
        self, server: Running, compression: grpc.Compression
    ) -> None:
        """A compressed one by what it unpacks to."""
        data = infer(text="a" * 20_000_000)
        server.refused("RESOURCE_EXHAUSTED", "larger than max", data=data, compression=compression)


class TestStopping:
    def test_stopping_finishes_what_was_accepted(self) -> None:
        gate, plane = gated()
        with running(plane) as server:
            future = server.channel.unary_unary(f"/{SERVICE}/ModelInfer").future(infer())
            assert gate.waiting.acquire(timeout=PATIENCE_S)
            stopping = asyncio.run_coroutine_threadsafe(server.server.stop(), server.loop)
            server.within(asyncio.sleep(0))  # it has begun
            with grpc.insecure_channel(f"127.0.0.1:{server.port}") as late, pytest.raises(grpc.RpcError):
                late.unary_unary(f"/{SERVICE}/ModelInfer")(infer(), timeout=PATIENCE_S)
            assert not stopping.done()
            gate.go.set()
            assert answered(future.result(PATIENCE_S)).id == "r"
            stopping.result(PATIENCE_S)
