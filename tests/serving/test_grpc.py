from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predis import errors
from predis.registry.signature import Field
from predis.serving.grpc import GRPC_STATUS, status_of
from predis.serving.grpc_messages import SERVICE, message_class
from predis.serving.plane import Admission, Call
from predis.telemetry import Access, AccessLog
from predis.tracing import Context, Tracer
from tests.serving.grpc_helpers import (
    ALL,
    PATIENCE_S,
    SILENT,
    Reply,
    Running,
    X,
    answered,
    applied,
    echo,
    gated,
    infer,
    known_keys,
    made_plane,
    running,
    wait_until,
)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as found:
        yield found


class TestErrors:
    def test_every_error_has_a_status(self) -> None:
        for cls in errors.all_errors().values():
            assert status_of(cls("x")) in GRPC_STATUS.values()

    @pytest.mark.parametrize(
        ("cls", "status"),
        [
            (errors.InvalidRequest, "INVALID_ARGUMENT"), (errors.TooLarge, "INVALID_ARGUMENT"),
            (errors.EndpointNotFound, "NOT_FOUND"), (errors.Unauthenticated, "UNAUTHENTICATED"),
            (errors.AccessDenied, "PERMISSION_DENIED"), (errors.Overloaded, "RESOURCE_EXHAUSTED"),
            (errors.TenantOverloaded, "RESOURCE_EXHAUSTED"), (errors.DeadlineExceeded, "DEADLINE_EXCEEDED"),
            (errors.NotReady, "UNAVAILABLE"), (errors.ModelFailure, "FAILED_PRECONDITION"),
            (errors.Untrusted, "FAILED_PRECONDITION"), (errors.PredisError, "INTERNAL"),
        ],
    )  # fmt: skip
    def test_statuses(self, cls: type[errors.PredisError], status: str) -> None:
        assert status_of(cls("x")).name == status


class TestLooking:
    def test_health_and_metadata(self, server: Running) -> None:
        assert server.call("ServerLive").live
        assert server.call("ServerReady").ready
        found = server.call("ServerMetadata")
        assert found.name == "predis"
        assert "model_repository" in found.extensions
        assert server.call("ModelReady", {"name": "e"}).ready
        assert server.call("ModelReady", {"name": "e", "version": "2"}).ready
        for missing in (
            {"name": "nowhere"},
            {"name": "e", "version": "9"},
            {"name": "empty"},
            {"name": "theirs"},
        ):
            assert not server.call("ModelReady", missing).ready

    def test_a_model(self, server: Running) -> None:
        found = server.call("ModelMetadata", {"name": "e"})
        assert (found.name, list(found.versions), found.platform) == ("e", ["1"], "predis_onnx")
        assert [(i.name, i.datatype, list(i.shape)) for i in found.inputs] == [
            ("x", "FP64", [-1]),
            ("t", "BYTES", [-1]),
        ]
        assert dict(found.properties) == {"model": "m", "version": "1"}
        assert server.call("ModelMetadata", {"name": "e", "version": "2"}).properties["version"] == "2"
        config = server.call("ModelConfig", {"name": "e"}).config
        assert (config.name, config.input[1].data_type, config.backend) == ("e", 13, "onnx")
        assert list(config.version_policy.specific.versions) == [1, 2]

    def test_the_repository(self, server: Running) -> None:
        found = [(m.name, m.version, m.state) for m in server.call("RepositoryIndex").models]
        assert ("e", "2", "READY") in found
        assert ("empty", "", "UNAVAILABLE") in found
        assert "theirs" not in {name for name, _version, _state in found}
        assert "empty" not in {m.name for m in server.call("RepositoryIndex", {"ready": True}).models}
        for request in (
            {"model_name": "e"},
            {"repository_name": "e"},
        ):  # as Triton's clients and as KServe's send it
            found = server.call("RepositoryModelUnload", request)
            assert (found.model_name, found.isUnloaded) == ("e", True)
            assert server.call("RepositoryModelLoad", request).isLoaded
        server.call(
            "RepositoryModelUnload",
            {"model_name": "e", "parameters": {"unload_dependents": {"bool_param": False}}},
        )
        assert server.repository.moves[-1] == ("unload", "default", "e")
        with pytest.raises(Reply, match=r"NOT_FOUND: there is no endpoint 'nowhere'"):
            server.call("RepositoryModelLoad", {"model_name": "nowhere"})
        with pytest.raises(Reply, match=r"INVALID_ARGUMENT: the parameter 'config' is not taken here"):
            server.call(
                "RepositoryModelLoad", {"model_name": "e", "parameters": {"config": {"string_param": "{}"}}}
            )

    def test_statistics(self, server: Running) -> None:
        found = server.call("ModelStatistics", {"name": "e"}).model_stats
        assert [(s.name, s.version) for s in found] == [("e", "1"), ("e", "2")]
        assert {s.name for s in server.call("ModelStatistics").model_stats} == {"e", "all", "half"}

    def test_what_is_not_there(self, server: Running) -> None:
        with pytest.raises(Reply, match=r"NOT_FOUND: there is no endpoint 'nowhere'"):
            server.call("ModelMetadata", {"name": "nowhere"})
        with pytest.raises(Reply, match=r"UNAVAILABLE: endpoint 'empty' has no version yet") as caught:
            server.call("ModelMetadata", {"name": "empty"})
        assert caught.value.trailers["retry-after"] == "1"
        assert caught.value.trailers["predis-error"] == "not_ready"
        with pytest.raises(Reply, match="UNIMPLEMENTED"):
            server.send("SystemSharedMemoryStatus", b"")


class TestInfer:
    def test_raw_in_raw_out(self, server: Running) -> None:
        found = answered(server.send("ModelInfer", infer()))
        assert (found.model_name, found.model_version, found.id) == ("e", "1", "r")
        assert [(o.name, o.datatype, list(o.shape)) for o in found.outputs] == [
            ("out_x", "FP64", [1]),
            ("out_t", "BYTES", [1]),
        ]
        assert list(found.raw_output_contents) == [np.float64(1.5).tobytes(), b"\2\0\0\0\xc3\xb6"]

    def test_typed_in_typed_out(self, server: Running) -> None:
        found = answered(server.send("ModelInfer", infer(raw=False)))
        assert not found.raw_output_contents
        assert list(found.outputs[0].contents.fp64_contents) == [1.5]
        assert list(found.outputs[1].contents.bytes_contents) == ["ö".encode()]

    def test_every_datatype(self, server: Running) -> None:
        typed = {
            "BOOL": "bool", "INT64": "int64", "UINT64": "uint64", "FP32": "fp32", "FP64": "fp64", "BYTES": "bytes",
            **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint"), **dict.fromkeys(("INT8", "INT16", "INT32"), "int"),
        }  # fmt: skip
        inputs = [
            {"name": n, "datatype": n, "shape": [1], "contents": {f"{typed[n]}_contents": v}}
            for n, v in ALL.items()
        ]
        found = server.call("ModelInfer", {"model_name": "all", "inputs": inputs})
        values = {
            o.name[4:]: list(getattr(o.contents, f"{typed[o.datatype]}_contents")) for o in found.outputs
        }
        assert values == ALL

    def test_half_floats(self, server: Running) -> None:
        content = np.array([1.5, -2], np.float16).tobytes()
        inputs = [{"name": "h", "datatype": "FP16", "shape": [1, 2]}]
        found = server.call(
            "ModelInfer", {"model_name": "half", "inputs": inputs, "raw_input_contents": [content]}
        )
        assert list(found.raw_output_contents) == [content]

    def test_a_version_and_a_named_output(self, server: Running) -> None:
        found = answered(server.send("ModelInfer", infer(model_version="2", outputs=[{"name": "out_t"}])))
        assert found.model_version == "2"
        assert [o.name for o in found.outputs] == ["out_t"]
        server.refused("NOT_FOUND", "does not serve version '3'", data=infer(model_version="3"))
        server.refused("INVALID_ARGUMENT", "unknown output 'o'", data=infer(outputs=[{"name": "o"}]))

    def test_ids(self, server: Running) -> None:
        assert answered(server.send("ModelInfer", infer(id=""))).id
        found = server.send("ModelInfer", infer(id=""), metadata=(("x-request-id", "from-metadata"),))
        assert answered(found).id == "from-metadata"
        found = server.send("ModelInfer", infer(id="own"), metadata=(("x-request-id", "from-metadata"),))
        assert answered(found).id == "own"

    def test_bad_input_is_the_clients(self, server: Running) -> None:
        for data, message in (
            (infer(name="nowhere"), "there is no endpoint 'nowhere'"),
            (infer(id="\n"), "'id' must be"),
            (b"\xff", "these bytes are no inference.ModelInferRequest message"),
            (b"", "at least one tensor"),
            (
                infer().replace(b"\2\0\0\0", b"\3\0\0\0"),
                "input 't': element 0 of raw BYTES says it has 3 bytes; 2 are left",
            ),
            (infer(parameters={"event_time": {"string_param": "never"}}), "event_time"),
        ):
            code = "NOT_FOUND" if "endpoint" in message else "INVALID_ARGUMENT"
            server.refused(code, message, data=data)

    def test_a_long_message_arrives_whole_as_far_as_trailers_go(self, server: Running) -> None:
        reply = server.refused("NOT_FOUND", "there is no endpoint", data=infer(name="ö" * 9_000))
        assert len(reply.details.encode()) <= 2_000


@pytest.fixture(scope="module")
def guarded() -> Iterator[Running]:
    def digest(key: str) -> str:
        return hashlib.sha256(key.encode()).hexdigest()

    keys = known_keys(
        {
            digest("pk_client"): ["default", "client", "client"],
            digest("pk_operator"): ["default", "operator", "operator"],
            digest("pk_other"): ["other", "client", "client"],
        }
    )
    with running(keys=keys) as found:
        yield found


class TestCallers:
    def key(self, name: str) -> dict[str, Any]:
        return {"metadata": (("authorization", f"Bearer pk_{name}"),)}

    def test_a_key_is_needed(self, guarded: Running) -> None:
        reply = guarded.refused("UNAUTHENTICATED", "needs an API key")
        assert reply.trailers["predis-error"] == "unauthenticated"
        guarded.refused("UNAUTHENTICATED", "needs an API key", **self.key("wrong"))
        assert guarded.send("ModelInfer", infer(), **self.key("client"))
        for method in ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex"):
            with pytest.raises(Reply, match="UNAUTHENTICATED"):
                guarded.call(method)

    def test_health_needs_none(self, guarded: Running) -> None:
        assert guarded.call("ServerLive").live
        assert guarded.call("ServerReady").ready
        assert guarded.call("ServerMetadata").name

    def test_only_operators_load_and_unload(self, guarded: Running) -> None:
        for method in ("RepositoryModelLoad", "RepositoryModelUnload"):
            with pytest.raises(Reply, match="PERMISSION_DENIED"):
                guarded.call(method, {"model_name": "e"}, **self.key("client"))
            guarded.call(method, {"model_name": "e"}, **self.key("operator"))
        assert guarded.repository.moves == [("load", "default", "e"), ("unload", "default", "e")]

    def test_tenants_see_their_own(self, guarded: Running) -> None:
        guarded.refused("NOT_FOUND", "no endpoint 'e'", **self.key("other"))
        assert [m.name for m in guarded.call("RepositoryIndex", **self.key("other")).models] == ["theirs"]

    def test_a_stream_without_a_key_ends(self, guarded: Running) -> None:
        stream = guarded.channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
            list(stream(iter([infer()]), timeout=PATIENCE_S))


class TestTime:
    def test_a_deadline_becomes_the_calls(self, server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[float] = []
        submit = server.plane.submit

        def spy(call: Call) -> None:
            seen.append(call.deadline - time.perf_counter())
            submit(call)

        monkeypatch.setattr(server.plane, "submit", spy)
        server.send("ModelInfer", infer(), timeout=1_000)
        server.send("ModelInfer", infer(), timeout=None)
        server.send("ModelInfer", infer(parameters={"timeout": {"int64_param": 2_000_000_000}}))
        assert 900 < seen[0] < 1_100  # gRPC sends three digits of it
        assert seen[1] == float("inf")

    def test_a_passed_deadline(self, server: Running) -> None:
        parameters = {"timeout": {"int64_param": 1}}  # a microsecond
        server.refused("DEADLINE_EXCEEDED", "deadline", data=infer(parameters=parameters))

    def test_more_than_can_be_waited_for_is_refused(self) -> None:
        gate, plane = gated()
        with running(plane) as server:
            call = server.channel.unary_unary(f"/{SERVICE}/ModelInfer")
            accepted = [call.future(infer(), timeout=PATIENCE_S) for _ in range(3)]
            assert gate.waiting.acquire(timeout=PATIENCE_S)
            wait_until(lambda: plane.pending == 3)
            reply = server.refused("RESOURCE_EXHAUSTED", "more than 3 requests")
            assert reply.trailers["retry-after"] == "1"
            gate.go.set()
            assert all(future.result(PATIENCE_S) for future in accepted)

    def test_a_client_that_goes_away_cancels_its_call(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gate, plane = gated()
        calls: list[Call] = []
        submit = plane.submit
        monkeypatch.setattr(plane, "submit", lambda call: (calls.append(call), submit(call)))
        with running(plane) as server:
            future = server.channel.unary_unary(f"/{SERVICE}/ModelInfer").future(infer())
            assert gate.waiting.acquire(timeout=PATIENCE_S)
            future.cancel()
            wait_until(lambda: calls[0].cancelled)
            gate.go.set()


class TestFailures:
    def test_a_model_that_fails(self, caplog: pytest.LogCaptureFixture) -> None:
        def fail() -> None:
            raise ValueError("no luck")

        runtime = echo(X, Field("t", "BYTES"))
        plane = made_plane(applied("e", runtime))
        runtime.before = fail
        with running(plane) as server, caplog.at_level(logging.WARNING):
            reply = server.refused("FAILED_PRECONDITION", "the model failed: ValueError: no luck")
        assert reply.trailers["predis-error"] == "model_failure"
        assert "no luck" in caplog.text

    def test_an_error_of_ours_is_told_to_the_log_only(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        plane = made_plane()
        monkeypatch.setattr(plane, "submit", lambda _call: 1 / 0)
        with running(plane) as server, caplog.at_level(logging.ERROR):
            server.refused("INTERNAL", "an internal error; the server's log has it$")
        assert "ZeroDivisionError" in caplog.text


class Collected(Tracer):
    """Keeps what it would send."""

    def __init__(self) -> None:
        self._bound = 1 << 64
        self.requests: list[tuple[Context, dict[str, Any]]] = []

    def request(self, context: Context, name: str, **more: Any) -> None:
        self.requests.append((context, {"name": name, **more}))


class Lines(AccessLog):
    """Keeps what it would write."""

    def __init__(self) -> None:
        self.found: list[Access] = []

    def add(self, access: Access) -> None:
        self.found.append(access)


class TestObserving:
    PARENT = f"00-{'4b' * 16}-{'a1' * 8}-01"

    def test_a_trace_goes_through(self) -> None:
        tracer = Collected()
        with running(observing=replace(SILENT, tracer=tracer)) as server:
            call = server.channel.unary_unary(f"/{SERVICE}/ModelInfer")
            metadata = (("traceparent", self.PARENT), ("tracestate", "a=b"))
            _answer, rpc = call.with_call(infer(), metadata=metadata, timeout=PATIENCE_S)
            answered = dict(rpc.trailing_metadata())["traceparent"]
            server.refused("NOT_FOUND", "does not serve", data=infer(model_version="9"), metadata=metadata)
        (context, first), (_context, second) = tracer.requests
        assert answered == context.traceparent
        assert f"{context.trace_id:032x}" == "4b" * 16
        assert (f"{context.parent_id:016x}", context.tracestate) == ("a1" * 8, "a=b")
        assert first["attributes"]["predis.endpoint"] == "e"
        assert [name for name, _begin, _end in first["stages"]] == ["queue", "predict", "answer"]
        assert (first["error"], second["error"]) == ("", "version_not_found")

    def test_requests_are_told_to_the_access_log(self) -> None:
        lines = Lines()
        with running(observing=replace(SILENT, access_log=lines)) as server:
            size = len(server.send("ModelInfer", infer()))
            server.refused("NOT_FOUND", "nowhere", data=infer(name="nowhere", id="n"))
            server.refused("INVALID_ARGUMENT", "no inference", data=b"\xff")
            server.call("ServerLive")
            stream = server.channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
            assert len(list(stream(iter([infer(id="s"), b"\xff"]), timeout=PATIENCE_S))) == 2
        path = f"/{SERVICE}/"
        assert [(a.method, a.path, a.status, a.request_id, a.tenant) for a in lines.found] == [
            ("gRPC", path + "ModelInfer", 0, "r", "default"),
            ("gRPC", path + "ModelInfer", 5, "n", "default"),
            ("gRPC", path + "ModelInfer", 3, "", "default"),
            ("gRPC", path + "ServerLive", 0, "", ""),
            ("gRPC", path + "ModelStreamInfer", 0, "s", "default"),
            ("gRPC", path + "ModelStreamInfer", 3, "", "default"),
        ]
        assert lines.found[0].size_bytes == size
        assert all(a.remote == "127.0.0.1" and a.seconds > 0 for a in lines.found)


class TestStreams:
    def stream(self, server: Running, requests: Iterator[bytes], **more: Any) -> Iterator[Any]:
        more.setdefault("timeout", PATIENCE_S)
        call = server.channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer",
            response_deserializer=message_class("ModelStreamInferResponse").FromString,
        )
        return cast(Iterator[Any], call(requests, **more))

    def test_answers_come_in_order(self, server: Running) -> None:
        answers = list(self.stream(server, iter([infer(x, id=f"r{x}") for x in range(300)])))
        assert [a.infer_response.id for a in answers] == [f"r{x}" for x in range(300)]
        assert [np.frombuffer(a.infer_response.raw_output_contents[0])[0] for a in answers] == list(
            range(300)
        )

    def test_one_bad_request_ends_nothing(self, server: Running) -> None:
        requests = [infer(id="a"), b"\xff", infer(name="nowhere"), infer(id="b")]
        answers = list(self.stream(server, iter(requests)))
        assert [a.infer_response.id for a in answers] == ["a", "", "", "b"]
        assert "these bytes are no" in answers[1].error_message
        assert "no endpoint 'nowhere'" in answers[2].error_message
        assert answers[3].error_message == ""

    def test_an_id_of_the_metadata_is_not_that_of_many(self, server: Running) -> None:
        requests = iter([infer(id=""), infer(id="")])
        ids = [a.infer_response.id for a in self.stream(server, requests, metadata=(("x-request-id", "r"),))]
        assert len(set(ids)) == 2

    def test_one_answer_comes_while_more_is_asked(self, server: Running) -> None:
        """As a chat would use it: the next request depends on the last answer."""
        answer = threading.Semaphore(1)

        def requests() -> Iterator[bytes]:
            for x in range(3):
                assert answer.acquire(timeout=PATIENCE_S)
                yield infer(x, id=f"r{x}")

        ids = []
        for found in self.stream(server, requests()):
            ids.append(found.infer_response.id)
            answer.release()
        assert ids == ["r0", "r1", "r2"]

    def test_few_are_worked_on_at_once_and_the_rest_waits_with_the_client(self) -> None:
        gate, plane = gated()
        plane._admission = Admission(pending=1_000)
        peak = 0
        submit = plane.submit

        def spy(call: Call) -> None:
            nonlocal peak
            submit(call)
            peak = max(peak, plane.pending)

        plane.submit = spy  # type: ignore[method-assign]
        with running(plane) as server:
            answers = self.stream(server, iter([infer(id=f"r{x}") for x in range(200)]))
            wait_until(lambda: plane.pending == 32)
            gate.go.set()
            assert [a.infer_response.id for a in answers] == [f"r{x}" for x in range(200)]
        assert peak == 32

    def test_a_stream_that_is_cancelled_cancels_its_calls(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gate, plane = gated()
        calls: list[Call] = []
        submit = plane.submit
        monkeypatch.setattr(plane, "submit", lambda call: (calls.append(call), submit(call)))
        with running(plane) as server:
            answers = self.stream(server, iter([infer()] * 3))
            assert gate.waiting.acquire(timeout=PATIENCE_S)
            wait_until(lambda: plane.pending == 3)
            answers.cancel()  # type: ignore[attr-defined]
            wait_until(lambda: [call.cancelled for call in calls] == [True] * 3)
            gate.go.set()


class TestFuzz:
    METHODS = (
        "ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics",
        "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload", "ModelInfer",
    )  # fmt: skip
    GOOD = ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNAVAILABLE")

    def code(self, server: Running, method: str, data: bytes) -> str:
        try:
            server.send(method, data)
        except Reply as reply:
            return cast(str, reply.code.name)
        return "OK"

    @settings(max_examples=150)
    @given(st.sampled_from(METHODS), st.binary(max_size=300))
    def test_any_bytes(self, server: Running, method: str, data: bytes) -> None:
        assert self.code(server, method, data) in self.GOOD

    @settings(max_examples=150)
    @given(st.data())
    def test_a_good_request_with_a_bad_part(self, server: Running, data: st.DataObject) -> None:
        good = infer(raw=data.draw(st.booleans()), id="")
        at = data.draw(st.integers(0, len(good) - 1))
        changed = good[:at] + data.draw(st.binary(max_size=8)) + good[at + data.draw(st.integers(0, 4)) :]
        assert self.code(server, "ModelInfer", changed) in self.GOOD

    @settings(max_examples=200)
    @given(st.data())
    def test_messages_that_may_mean_something(self, server: Running, data: st.DataObject) -> None:
        texts = st.sampled_from(
            ["", "e", "x", "t", "all", "FP64", "BYTES", "INT8", "FP16", "1", "out_x", "ö\n"]
        )
        numbers = st.one_of(st.integers(-2, 3), st.sampled_from([2**31, -(2**63), 2**63 - 1]))
        values = st.one_of(
            st.builds(lambda v: {"fp64_contents": v}, st.lists(st.floats(), max_size=3)),
            st.builds(lambda v: {"bytes_contents": v}, st.lists(st.binary(max_size=3), max_size=3)),
            st.builds(lambda v: {"int_contents": v}, st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3)),
        )
        parameter = st.one_of(
            st.builds(lambda v: {"int64_param": v}, numbers), st.builds(lambda v: {"string_param": v}, texts),
            st.builds(lambda v: {"bool_param": v}, st.booleans()), st.builds(lambda v: {"double_param": v}, st.floats()),
            st.just({}),
        )  # fmt: skip
        named = st.sampled_from(
            [
                "timeout",
                "priority",
                "event_time",
                "routing_key",
                "binary_data_output",
                "binary_data",
                "classification",
            ]
        )
        parameters = st.dictionaries(named, parameter, max_size=3)
        tensor = st.fixed_dictionaries(
            {"name": texts, "datatype": texts, "shape": st.lists(numbers, max_size=3)},
            optional={"contents": values, "parameters": parameters},
        )
        output = st.fixed_dictionaries({"name": texts}, optional={"parameters": parameters})
        request = st.fixed_dictionaries(
            {"model_name": st.sampled_from(["e", "all", "half", "empty", ""]), "inputs": st.lists(tensor, max_size=4)},
            optional={
                "model_version": texts, "id": texts, "parameters": parameters, "outputs": st.lists(output, max_size=3),
                "raw_input_contents": st.lists(st.binary(max_size=16), max_size=4),
            },
        )  # fmt: skip
        found = message_class("ModelInferRequest")(**data.draw(request)).SerializeToString()
        code = self.code(server, "ModelInfer", found)
        assert code in (*self.GOOD, "DEADLINE_EXCEEDED"), json.dumps(code)
