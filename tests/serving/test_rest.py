from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import logging
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pytest
import zstandard

from predis import errors
from predis.access import Caller, Keys
from predis.clock import ManualClock
from predis.registry.signature import Field
from predis.serving import rest as rest_module
from predis.serving.observing import Observing
from predis.serving.plane import Admission, Plane
from predis.serving.protocol import MAX_ID, Limits
from predis.serving.rest import RestApp, error_body, status_of
from predis.serving.wire import decode_raw
from predis.state.records import Matrix, Status
from predis.telemetry import Access
from predis.tracing import Context
from tests.serving.helpers import (
    ONE,
    FakeRuntime,
    ListSink,
    Reply,
    applied,
    ask,
    binary_body,
    body,
    fetch,
    in_loop,
    known_keys,
    no_numbers,
    ready_plane,
    request,
    rest,
    rounds,
    served,
    signature,
    tensor,
)

MAX_BODY = 20_000
INFER = "/v2/models/e/infer"
GOOD = body(tensor("x", "FP64", [1.5, 2]), id="r")
X = tensor("x", "FP64", [1])
LIMITS = Limits(batch_rows=100, tensors=50, body_bytes=MAX_BODY)


def make(*, sink: ListSink | None = None, plane: Plane | None = None, **more: Any) -> RestApp:
    """An app whose endpoint ``e`` answers its version's number: 1 mostly, 2 when asked; ``empty`` and ``away`` have no version."""
    routes = (
        applied({1: 1.0, 2: 0.0}),
        applied({}, endpoint="empty"),
        applied({}, endpoint="away", config={"loaded": False}),
    )
    plane = plane or ready_plane(ManualClock(), *routes, sink=sink)
    return rest(plane, limits=LIMITS, **more)


def answering(runtime: FakeRuntime, **more: Any) -> RestApp:
    """An app whose endpoint ``e`` has one version."""
    return make(plane=ready_plane(ManualClock(), applied({1: 1.0}, [served(1, runtime)]), **more))


@pytest.fixture
def sink() -> ListSink:
    return ListSink()


@pytest.fixture
def app(sink: ListSink) -> RestApp:
    return make(sink=sink)


def is_error(reply: Reply, status: int, code: str) -> bool:
    """An error's whole shape: real clients decode the key ``error``."""
    assert reply.headers["content-type"] == "application/json"
    assert reply.json.keys() == {"error", "code"}
    assert reply.json["error"]
    assert isinstance(reply.json["error"], str)
    assert len(reply.json["error"]) < 600
    return (reply.status, reply.json["code"]) == (status, code)


class TestHealth:
    def test_answers_carry_json(self, app: RestApp) -> None:
        """kserve's client parses the body, and fails on an empty one."""
        for path, expected in (
            ("/v2/health/live", {"live": True}),
            ("/v2/health/ready", {"ready": True}),
            ("/v2/models/e/ready", {"name": "e", "ready": True}),
            ("/v2/models/e/versions/2/ready", {"name": "e", "ready": True}),
        ):
            for asked in (path, path + "/"):
                reply = ask(app, asked)
                assert (reply.status, reply.json) == (200, expected)
                assert reply.headers == {"content-type": "application/json"}

    def test_live_but_not_ready_before_the_routes_are_known(self, app: RestApp) -> None:
        plane = ready_plane(ManualClock())
        plane.following = False
        app = make(plane=plane)
        assert ask(app, "/v2/health/live").status == 200
        reply = ask(app, "/v2/health/ready")
        assert (reply.status, reply.json) == (503, {"ready": False})
        for path in (
            "/v2/models/e",
            "/v2/models/e/ready",
            "/v2/models/e/config",
            "/v2/models/e/stats",
            INFER,
        ):
            reply = ask(app, path, GOOD)
            assert is_error(reply, 503, "not_ready")
            assert reply.headers["retry-after"] == "1"

    @pytest.mark.parametrize(("name", "says"), [("empty", "no version yet"), ("away", "is unloaded")])
    def test_an_endpoint_without_a_version_is_not_ready(self, app: RestApp, name: str, says: str) -> None:
        reply = ask(app, f"/v2/models/{name}/ready")
        assert (reply.status, reply.json) == (503, {"name": name, "ready": False})
        for tail in ("", "/config", "/infer"):
            reply = ask(app, f"/v2/models/{name}{tail}", GOOD)
            assert is_error(reply, 503, "not_ready")
            assert says in reply.json["error"]

    def test_health_needs_no_key(self) -> None:
        app = make(keys=known_keys(ManualClock(), {"0" * 64: ["default", "somebody", "admin"]}))
        for path in ("/v2/health/live", "/v2/health/ready", "/v2"):
            assert ask(app, path).status == 200


class TestLooking:
    @pytest.mark.parametrize("path", ["/v2", "/v2/"])
    def test_at_the_server(self, app: RestApp, path: str) -> None:
        found = ask(app, path).json
        assert found["name"] == "predis"
        assert "binary_tensor_data" in found["extensions"]
        assert isinstance(found["version"], str)

    @pytest.mark.parametrize(
        ("path", "version"),
        [
            ("/v2/models/e", "1"),
            ("/v2/models/e/", "1"),
            ("/v2/models/e/versions/1", "1"),
            ("/v2/models/e/versions/2", "2"),
        ],
    )
    def test_at_an_endpoint(self, app: RestApp, path: str, version: str) -> None:
        assert ask(app, path).json == {
            "name": "e",
            "versions": ["1"],
            "platform": "predis_lightgbm",
            "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}],
            "outputs": [{"name": "score", "datatype": "FP64", "shape": [-1]}],
            "parameters": {"model": "m", "version": version},
        }

    @pytest.mark.parametrize("path", ["/v2/models/e/config", "/v2/models/e/versions/2/config"])
    def test_at_its_configuration(self, app: RestApp, path: str) -> None:
        found = ask(app, path).json
        assert (found["name"], found["max_batch_size"]) == ("e", 256)
        assert found["input"] == [{"name": "x", "data_type": "TYPE_FP64", "dims": [1]}]

    @pytest.mark.parametrize(
        ("path", "versions"),
        [
            ("/v2/models/stats", ["1", "2"]),
            ("/v2/models/e/stats", ["1", "2"]),
            ("/v2/models/e/versions/2/stats", ["2"]),
            ("/v2/models/empty/stats", []),
        ],
    )
    def test_at_its_statistics(self, app: RestApp, path: str, versions: list[str]) -> None:
        labels = (("tenant", "default"), ("endpoint", "e"), ("version", "1"))
        numbers = {**no_numbers(), "predis_rows_total": {labels: [7.0]}}
        observing = Observing(lambda tenant: b"", lambda: numbers)
        reply = ask(make(observing=observing), path)
        assert reply.status == 200
        found = {stats["version"]: stats["inference_count"] for stats in reply.json["model_stats"]}
        assert found == {version: 7 if version == "1" else 0 for version in versions}

    def test_at_the_metrics(self, app: RestApp) -> None:
        reply = ask(app, "/metrics")
        assert (reply.status, reply.body) == (200, b"metrics of default\n")
        assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")

    def test_at_the_description(self, app: RestApp) -> None:
        found = ask(app, "/openapi.json").json
        assert found["openapi"].startswith("3.")
        assert any(path.endswith("/infer") for path in found["paths"])

    def test_by_head(self, app: RestApp) -> None:
        """The server leaves the body out."""
        for path in ("/v2/models/e", "/v2", "/v2/health/ready", "/metrics"):
            assert ask(app, path, method="HEAD").status == 200

    @pytest.mark.parametrize("path", ["/metrics", "/v2/models/e/stats"])
    def test_at_numbers_that_cannot_be_read(self, path: str, caplog: pytest.LogCaptureFixture) -> None:
        def broken(*_given: Any) -> Any:
            raise OSError("the disk at /secret/path")

        with caplog.at_level(logging.ERROR):
            reply = ask(make(observing=Observing(broken, broken)), path)
        assert is_error(reply, 500, "internal")
        assert b"secret" not in reply.body
        assert "the disk at /secret/path" in caplog.text


class TestInfer:
    def test_a_prediction(self, app: RestApp, sink: ListSink) -> None:
        reply = ask(app, INFER, GOOD)
        assert reply.status == 200
        assert reply.headers == {"content-type": "application/json"}
        assert reply.json == {
            "model_name": "e",
            "model_version": "1",
            "id": "r",
            "outputs": [{"name": "score", "datatype": "FP64", "shape": [2], "data": [1.0, 1.0]}],
        }
        (record,) = sink.records
        assert (record.id, record.status, record.features.tolist()) == ("r", Status.OK, [[1.5], [2.0]])

    def test_of_a_version(self, app: RestApp) -> None:
        assert ask(app, "/v2/models/e/versions/2/infer", GOOD).json["model_version"] == "2"

    @pytest.mark.parametrize("path", [INFER + "/", INFER + "//", "/v2/models/e/versions/1/infer/"])
    def test_with_a_slash_behind_the_path(self, app: RestApp, path: str) -> None:
        reply = ask(app, path, GOOD, method="POST")
        assert (reply.status, reply.json["model_version"]) == (200, "1")

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            *(
                {"content-type": t}
                for t in ("application/json", "application/octet-stream", "text/plain", "", "é")
            ),
        ],
    )
    def test_content_type_is_not_relied_on(self, app: RestApp, headers: Mapping[str, str]) -> None:
        """tritonclient.http sends none, its asyncio sibling sends octet-stream."""
        assert ask(app, INFER, GOOD, headers=headers).status == 200

    def test_rows(self, app: RestApp) -> None:
        reply = ask(app, INFER, orjson.dumps({"rows": [{"x": 1}, {"x": 2}, {"x": 3}]}))
        assert reply.outputs == {"score": [1.0, 1.0, 1.0]}
        assert is_error(ask(app, INFER, orjson.dumps({"rows": [{"y": 1}]})), 400, "invalid_request")

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"null",
            b"{}",
            body(tensor("x", "FP64", ["a"])),
            body(tensor("x", "FP64", [None])),
            body(tensor("x", "FP64", [1], shape=[2])),
            body(tensor("x", "FP64", [1, 2], shape=[1, 2])),
            body(tensor("x", "FP64", [], shape=[0])),
            body(tensor("x", "BYTES", ["1"])),
            body(tensor("y", "FP64", [1])),
            body({**X, "datatype": []}),
            body(X, outputs=[{"name": "nothing"}]),
            body(X, outputs=[{"name": "score"}, {"name": "score"}]),
            body(X, parameters={"routing_key": 5}),
            body(X, parameters={"timeout": -5}),
            body(X, parameters={"binary_data_output": 5}),
        ],
    )
    def test_bad_input_is_the_callers_fault(self, app: RestApp, content: bytes) -> None:
        assert is_error(ask(app, INFER, content), 400, "invalid_request")

    def test_a_bad_moment(self, app: RestApp) -> None:
        content = body(X, parameters={"event_time": "soon"})
        assert is_error(ask(app, INFER, content), 400, "invalid_input")

    def test_a_batch_too_large(self, app: RestApp) -> None:
        assert is_error(ask(app, INFER, body(tensor("x", "FP64", [1] * 101))), 413, "too_large")

    def test_a_model_that_fails(self, sink: ListSink, caplog: pytest.LogCaptureFixture) -> None:
        broken = FakeRuntime(ONE)
        app = answering(broken, sink=sink)
        broken.answer = lambda features: 1 / 0  # type: ignore[assignment,return-value]
        with caplog.at_level(logging.WARNING):
            reply = ask(app, INFER, GOOD)
        assert is_error(reply, 422, "model_failure")
        assert reply.headers["x-request-id"] == "r"
        assert [r.status for r in sink.records] == [Status.FAILED]
        assert "ZeroDivisionError" in caplog.text

    def test_nan_in_the_answer_is_null(self) -> None:
        runtime = FakeRuntime(ONE, lambda features: [np.full(len(features), np.nan)])
        assert ask(answering(runtime), INFER, GOOD).outputs == {"score": [None, None]}

    @pytest.mark.parametrize(
        ("array", "status", "code"),
        [
            (np.array(["\ud800"], object), 422, "model_failure"),
            (np.array([b"\xff"], object), 422, "model_failure"),
            (np.array([7], object), 422, "model_failure"),
        ],
    )
    def test_an_answer_that_cannot_be_written(
        self, sink: ListSink, array: Any, status: int, code: str
    ) -> None:
        """It is found when the prediction is done, and is answered all the same."""
        wanted = signature(Field("x", "FP64"), outputs=(Field("score", "FP64"), Field("t", "BYTES")))
        app = answering(FakeRuntime(wanted, lambda f: [f[:, 0], np.resize(array, len(f))]), sink=sink)
        assert is_error(ask(app, INFER, body(X)), status, code)
        assert [r.status for r in sink.records] == [Status.FAILED]

    def test_one_that_nobody_foresaw(
        self, app: RestApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(*_given: Any) -> Any:
            raise RuntimeError("postgresql://predis:hunter2@db")

        monkeypatch.setattr("predis.serving.encoding.Encoder.encode", broken)
        with caplog.at_level(logging.ERROR):
            reply = ask(app, INFER, GOOD)
        assert is_error(reply, 500, "internal")
        assert b"hunter2" not in reply.body
        assert "hunter2" in caplog.text

    @in_loop
    async def test_many_at_once(self) -> None:
        runtime = FakeRuntime(ONE)
        app = answering(runtime)
        contents = [body(tensor("x", "FP64", [number]), id=f"r{number}") for number in range(20)]
        replies = await asyncio.gather(*(fetch(app, INFER, content) for content in contents))
        assert [(r.json["id"], r.outputs["score"]) for r in replies] == [(f"r{n}", [n]) for n in range(20)]
        assert len(runtime.asked) < 20


class TestHeaders:
    def test_the_routing_key(self) -> None:
        """In a header or in the request; the header counts."""
        app = make(plane=ready_plane(ManualClock(), applied({1: 0.5, 2: 0.5})))
        chosen = set()
        for number in range(40):
            key = f"customer-{number}-é"
            headers = {"X-Predis-Routing-Key": key.encode()}
            by_header = ask(app, INFER, GOOD, headers=headers).json["model_version"]
            by_body = body(X, parameters={"routing_key": key})
            assert ask(app, INFER, by_body).json["model_version"] == by_header
            also = body(X, parameters={"routing_key": "other"})
            assert ask(app, INFER, also, headers=headers).json["model_version"] == by_header
            chosen.add(by_header)
        assert chosen == {"1", "2"}

    def test_the_request_id(self, app: RestApp, sink: ListSink) -> None:
        """In a header or in the request; the request counts, for its answer has a place for it."""
        headers = {"X-Request-Id": "héader".encode()}
        assert ask(app, INFER, body(X), headers=headers).json["id"] == "héader"
        assert ask(app, INFER, body(X, id="body"), headers=headers).json["id"] == "body"
        assert [record.id for record in sink.records] == ["héader", "body"]
        made = ask(app, INFER, body(X)).json["id"]
        assert made
        assert made != ask(app, INFER, body(X)).json["id"]

    def test_is_told_where_the_request_is_refused(self, app: RestApp) -> None:
        refused = body(X, outputs=[{"name": "nothing"}])
        for headers in ({"X-Request-Id": "mine"}, {}):
            reply = ask(app, INFER, refused, headers=headers)
            assert reply.headers["x-request-id"] == headers.get("X-Request-Id", reply.headers["x-request-id"])
            assert reply.headers["x-request-id"]

    @pytest.mark.parametrize(
        "wrong", ["a" * (MAX_ID + 1), "a\x00b", "\x7f", "a\tb", "a\x85b".encode().decode("latin-1")]
    )
    def test_a_request_id_that_is_none(self, app: RestApp, wrong: str) -> None:
        reply = ask(app, INFER, body(X), headers={"X-Request-Id": wrong})
        assert is_error(reply, 400, "invalid_request")
        assert "x-request-id" not in reply.headers

    def test_a_deadline(self, app: RestApp) -> None:
        assert ask(app, INFER, GOOD, headers={"X-Request-Timeout-Ms": "60000"}).status == 200
        reply = ask(app, INFER, GOOD, headers={"X-Request-Timeout-Ms": "0"})
        assert is_error(reply, 504, "deadline_exceeded")
        assert "retry-after" not in reply.headers

    @pytest.mark.parametrize("wrong", ["", "-1", "1.5", "soon", "1e3", "²", "9" * 10, " 1"])
    def test_a_deadline_that_is_none(self, app: RestApp, wrong: str) -> None:
        assert is_error(
            ask(app, INFER, GOOD, headers={"X-Request-Timeout-Ms": wrong}), 400, "invalid_request"
        )

    @in_loop
    async def test_a_client_that_goes_away(self) -> None:
        runtime = FakeRuntime(ONE)
        plane = ready_plane(ManualClock(), applied({1: 1.0}, [served(1, runtime)]))
        app = make(plane=plane)
        asked, connection = request(INFER, GOOD)
        app.handle(asked)
        assert asked.on_gone is not None
        asked.cancelled = True
        asked.on_gone()
        await rounds()
        assert (runtime.asked, connection.replies, plane.pending) == ([], [], 0)


LENGTH = "Inference-Header-Content-Length"
WIDE = signature(
    Field("a", "FP32", (-1, 2)), Field("t", "BYTES"),
    outputs=(Field("p", "FP32", (-1, 2)), Field("label", "BYTES"), Field("n", "INT64")), score="n",
)  # fmt: skip


def wide_answer(tensors: Any) -> Sequence[Any]:
    return [tensors["a"] * 2, tensors["t"], np.arange(len(tensors["a"]), dtype=np.int64)]


class TestBinary:
    """What tritonclient does unless it is told otherwise."""

    def ask(self, *tensors: Any, headers: Mapping[str, str] | None = None, **more: Any) -> Reply:
        content, head = binary_body(*tensors, **more)
        app = answering(FakeRuntime(WIDE, wide_answer, takes="tensors"))
        return ask(app, INFER, content, headers={LENGTH: str(head), **(headers or {})})

    A = tensor("a", "FP32", np.array([[1, 2], [3, 4]], np.float32), shape=[2, 2])
    T = tensor("t", "BYTES", np.array(["é".encode(), b"b"], object), shape=[2])

    def test_in(self) -> None:
        reply = self.ask(self.A, self.T, id="r")
        assert (reply.status, reply.headers) == (200, {"content-type": "application/json"})
        assert reply.outputs == {"p": [2, 4, 6, 8], "label": ["é", "b"], "n": [0, 1]}
        assert reply.json["id"] == "r"

    def test_in_and_out(self) -> None:
        reply = self.ask(self.A, self.T, parameters={"binary_data_output": True})
        assert reply.headers["content-type"] == "application/octet-stream"
        raw = reply.outputs
        assert decode_raw("FP32", [2, 2], data=raw["p"]).tolist() == [[2, 4], [6, 8]]
        assert decode_raw("BYTES", [2], data=raw["label"]).tolist() == ["é".encode(), b"b"]
        assert decode_raw("INT64", [2], data=raw["n"]).tolist() == [0, 1]

    def test_out_only_as_asked_for(self) -> None:
        outputs = [{"name": "n"}, {"name": "p", "parameters": {"binary_data": True}}]
        reply = self.ask(self.A, {**self.T, "data": ["x", "y"]}, outputs=outputs)
        assert list(reply.outputs) == ["n", "p"]
        assert reply.outputs["n"] == [0, 1]
        assert len(reply.outputs["p"]) == 16

    def test_classes(self) -> None:
        outputs = [{"name": "p", "parameters": {"classification": 1}}]
        assert self.ask(self.A, self.T, outputs=outputs).outputs == {"p": ["4.000000:1", "8.000000:1"]}

    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
    def test_packed(self, encoding: str) -> None:
        """The length is that of the JSON before it was packed."""
        content, head = binary_body(self.A, self.T, parameters={"binary_data_output": True})
        packers: dict[str, Callable[[bytes], bytes]] = {
            "gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstandard.compress,
        }  # fmt: skip
        headers = {LENGTH: str(head), "Content-Encoding": encoding, "Accept-Encoding": encoding}
        app = answering(FakeRuntime(WIDE, wide_answer, takes="tensors"))
        reply = ask(app, INFER, packers[encoding](content), headers=headers)
        assert (reply.status, reply.headers["content-encoding"]) == (200, encoding)
        unpackers: dict[str, Callable[[bytes], bytes]] = {
            "gzip": gzip.decompress, "deflate": zlib.decompress, "zstd": zstandard.decompress,
        }  # fmt: skip
        plain = Reply(200, reply.headers, unpackers[encoding](reply.body))
        assert decode_raw("INT64", [2], data=plain.outputs["n"]).tolist() == [0, 1]

    @pytest.mark.parametrize("said", ["", "-1", "x", "1.0", "²", "9" * 13, "1, 2", " 5"])
    def test_a_length_that_is_none(self, said: str) -> None:
        reply = self.ask(self.A, self.T, headers={LENGTH: said})
        assert is_error(reply, 400, "invalid_request")

    @pytest.mark.parametrize("said", ["0", "1", "100000", "99999999999"])
    def test_a_wrong_one(self, said: str) -> None:
        assert is_error(self.ask(self.A, self.T, headers={LENGTH: said}), 400, "invalid_request")


class TestPacked:
    def test_in(self, app: RestApp) -> None:
        for encoding, packed in (
            ("gzip", gzip.compress(GOOD)),
            ("deflate", zlib.compress(GOOD)),
            ("zstd", zstandard.compress(GOOD)),
            ("identity", GOOD),
        ):
            reply = ask(app, INFER, packed, headers={"Content-Encoding": encoding})
            assert (reply.status, reply.outputs) == (200, {"score": [1.0, 1.0]})

    def test_in_what_is_not_known_or_not_so(self, app: RestApp) -> None:
        for encoding in ("br", "gzip, gzip", "gzip", "zstd"):
            reply = ask(app, INFER, GOOD, headers={"Content-Encoding": encoding})
            assert is_error(reply, 400, "invalid_request")

    def test_a_bomb(self, app: RestApp) -> None:
        for encoding, pack in (
            ("gzip", gzip.compress),
            ("deflate", zlib.compress),
            ("zstd", zstandard.compress),
        ):
            bomb = pack(b" " * (64 << 20))
            assert len(bomb) < MAX_BODY * 4
            tracemalloc.start()
            reply = ask(app, INFER, bomb, headers={"Content-Encoding": encoding})
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert is_error(reply, 413, "too_large")
            assert peak < 4 << 20

    def test_out(self, app: RestApp) -> None:
        content = body(tensor("x", "FP64", [1.0] * 100))
        plain = ask(app, INFER, content)
        assert "content-encoding" not in plain.headers
        reply = ask(app, INFER, content, headers={"Accept-Encoding": "br, gzip;q=0.5"})
        assert reply.headers["content-encoding"] == "gzip"
        assert orjson.loads(gzip.decompress(reply.body))["outputs"] == plain.json["outputs"]

    def test_small_answers_and_errors_stay_as_they_are(self, app: RestApp) -> None:
        headers = {"Accept-Encoding": "gzip"}
        assert "content-encoding" not in ask(app, INFER, GOOD, headers=headers).headers
        assert is_error(ask(app, INFER, b"{", headers=headers), 400, "invalid_request")


class TestPaths:
    @pytest.mark.parametrize(
        "path",
        [
            "/",
            "",
            "/v1/models/e",
            "/v2/health",
            "/v2/health/other",
            "/v2/models",
            "/v2/models/",
            "/v2/models//",
            "/v2/models/e/version/1",
            "/v2/models/e/versions",
            "/v2/models/e/versions/1/2",
            "/v2/models/ready",
            "/v2/models/config",
            "/api/v1/endpoints",
            "/v2/models/é",
            "/metrics/x",
            "/x" * 4000,
        ],
    )
    def test_nothing_there(self, app: RestApp, path: str) -> None:
        code = "endpoint_not_found" if path.endswith("é") else "not_found"
        assert is_error(ask(app, path), 404, code)

    @pytest.mark.parametrize(
        "path",
        ["/infer", "/v2/infer", "/v2/models/infer", "/v2/models//infer", "/x/y/e/infer", "/v2/model/e/infer", "v2/models/e/infer",
         "/v1/models/e/versions/1/infer", "/v2/models/e/versions/1/x/infer", "/v2/models/e/infer/infer"],
    )  # fmt: skip
    def test_nothing_to_infer_there(self, app: RestApp, path: str) -> None:
        assert is_error(ask(app, path, GOOD), 404, "not_found")

    @pytest.mark.parametrize("tail", ["", "/ready", "/config", "/stats", "/infer"])
    def test_unknown_names(self, app: RestApp, tail: str) -> None:
        assert is_error(ask(app, f"/v2/models/nobody{tail}", GOOD), 404, "endpoint_not_found")
        for version in ("3", "0", "-1", "x", "1.0", "²", "1 ", "9" * 30, "latest"):
            reply = ask(app, f"/v2/models/e/versions/{version}{tail}", GOOD)
            assert is_error(reply, 404, "version_not_found")
            assert "it serves 1, 2" in reply.json["error"]

    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("GET", INFER, "POST"),
            ("HEAD", INFER, "POST"),
            ("PUT", INFER, "POST"),
            ("GET", INFER + "/", "POST"),
            ("DELETE", "/v2/models/e/versions/1/infer", "POST"),
            ("DELETE", "/v2/models/e", "GET"),
            ("POST", "/v2/models/e", "GET"),
            ("POST", "/v2/models/e/ready", "GET"),
            ("POST", "/v2/models/e/config", "GET"),
            ("POST", "/v2/models/e/stats", "GET"),
            ("POST", "/v2/models/stats", "GET"),
            ("PATCH", "/v2/models/e/versions/1", "GET"),
            ("BREW", "/v2/models/nobody", "GET"),
            ("POST", "/v2", "GET"),
            ("POST", "/v2/health/live", "GET"),
            ("POST", "/v2/health/ready", "GET"),
            ("POST", "/metrics", "GET"),
            ("OPTIONS", "/openapi.json", "GET"),
            ("GET", "/v2/repository/index", "POST"),
            ("GET", "/v2/repository/models/e/load", "POST"),
            ("PUT", "/v2/repository/models/e/unload", "POST"),
        ],
    )
    def test_another_method(self, app: RestApp, method: str, path: str, allowed: str) -> None:
        reply = ask(app, path, GOOD, method=method)
        assert is_error(reply, 405, "method_not_allowed")
        assert reply.headers["allow"] == allowed

    def test_what_is_remembered_of_paths_is_bounded(
        self, app: RestApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rest_module, "_TARGETS_KEPT", 3)
        for number in range(10):
            ask(app, f"/v2/models/e{number}/infer", GOOD)
            assert ask(app, INFER, GOOD).status == 200
            assert len(app._targets) <= 3


def hashed(**callers: tuple[str, str]) -> dict[str, list[str]]:
    """Keys ``pk_NAME`` of these tenants and roles."""
    return {
        hashlib.sha256(f"pk_{name}".encode()).hexdigest(): [tenant, name, role]
        for name, (tenant, role) in callers.items()
    }


KEYS = hashed(
    ada=("default", "client"),
    vera=("default", "viewer"),
    otto=("default", "operator"),
    eve=("elsewhere", "admin"),
)


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer pk_{name}"}


class TestKeys:
    def app(self, **more: Any) -> RestApp:
        return make(keys=known_keys(ManualClock(), KEYS), **more)

    @pytest.mark.parametrize(
        "path", [INFER, "/v2/models/e", "/v2/models/e/ready", "/v2/models/stats", "/metrics"]
    )
    @pytest.mark.parametrize(
        "said", [None, "", "Bearer", "Bearer pk_nobody", "Basic pk_ada", "pk_ada", "Bearer é"]
    )
    def test_without_a_known_key(self, path: str, said: str | None) -> None:
        headers = {} if said is None else {"Authorization": said}
        reply = ask(self.app(), path, GOOD, headers=headers)
        assert is_error(reply, 401, "unauthenticated")
        assert reply.headers["www-authenticate"] == "Bearer"

    @pytest.mark.parametrize("said", ["Bearer pk_ada", "bearer pk_ada", "BEARER  pk_ada "])
    def test_with_one(self, said: str) -> None:
        for path in (INFER, "/v2/models/e", "/v2/models/e/ready", "/v2/models/e/config"):
            assert ask(self.app(), path, GOOD, headers={"Authorization": said}).status == 200

    def test_the_tenant_is_that_of_the_key(self) -> None:
        for path in (INFER, "/v2/models/e", "/v2/models/e/ready", "/v2/models/e/stats"):
            reply = ask(self.app(), path, GOOD, headers=bearer("eve"))
            assert is_error(reply, 404, "endpoint_not_found")
        assert ask(self.app(), "/v2/repository/index", headers=bearer("eve")).json == []
        assert ask(self.app(), "/metrics", headers=bearer("eve")).body == b"metrics of elsewhere\n"

    def test_a_caller_who_may_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("predis.access.keys.RIGHTS", ("nothing", "predict", "read", "operate", "admin"))
        monkeypatch.setattr("predis.access.keys.ROLES", {"client": "nothing"})
        reply = ask(self.app(), INFER, GOOD, headers=bearer("ada"))
        assert is_error(reply, 403, "access_denied")
        assert "www-authenticate" not in reply.headers

    @pytest.mark.parametrize(
        ("method", "path", "who"),
        [
            ("GET", "/metrics", {"vera", "otto"}),
            ("POST", "/v2/repository/index", {"ada", "vera", "otto"}),
            ("POST", "/v2/repository/models/e/load", {"otto"}),
            ("POST", "/v2/repository/models/e/unload", {"otto"}),
        ],
    )
    def test_who_may_what(self, method: str, path: str, who: set[str]) -> None:
        for name in ("ada", "vera", "otto"):
            reply = ask(self.app(repository=Moves()), path, method=method, headers=bearer(name))
            if name in who:
                assert reply.status == 200
            else:
                assert is_error(reply, 403, "access_denied")

    def test_nobody_is_told_what_exists(self) -> None:
        replies = {
            ask(self.app(), f"/v2/models/{name}{tail}", GOOD).body
            for name in ("e", "x")
            for tail in ("", "/infer")
        }
        assert len(replies) == 1

    def test_a_body_is_not_read_for_a_stranger(self) -> None:
        """Not even unpacked."""
        reply = ask(self.app(), INFER, b"\xff", headers={"Content-Encoding": "gzip", LENGTH: "x"})
        assert reply.status == 401

    def test_a_page_elsewhere_may_not_ask_without_keys(self, app: RestApp) -> None:
        for path in (INFER, "/v2/models/e", "/metrics", "/v2/repository/index"):
            for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
                assert is_error(ask(app, path, GOOD, headers=headers), 403, "access_denied")

    def test_any_host_may_be_asked_for_where_that_is_allowed(self) -> None:
        assert ask(make(insecure=True), INFER, GOOD, headers={"Host": "models.example"}).status == 200
        headers = {"Host": "models.example", **bearer("ada")}
        assert ask(self.app(), INFER, GOOD, headers=headers).status == 200


class Moves:
    """A repository that does as it is told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.moved: list[tuple[str, str, str]] = []

    async def load(self, caller: Caller, endpoint: str) -> None:
        await self._move(caller, endpoint, "load")

    async def unload(self, caller: Caller, endpoint: str) -> None:
        await self._move(caller, endpoint, "unload")

    async def _move(self, caller: Caller, endpoint: str, how: str) -> None:
        await asyncio.sleep(0)
        self.moved.append((caller.name, endpoint, how))
        if self.error is not None:
            raise self.error


class TestRepository:
    def test_the_index(self, app: RestApp) -> None:
        for content in (b"", b"{}", b'{"ready": false}', b"  "):
            reply = ask(app, "/v2/repository/index", content)
            assert [(row["name"], row["state"]) for row in reply.json] == [
                ("away", "UNAVAILABLE"),
                ("e", "READY"),
                ("e", "READY"),
                ("empty", "UNAVAILABLE"),
            ]
        reply = ask(app, "/v2/repository/index", b'{"ready": true}')
        assert {row["name"] for row in reply.json} == {"e"}

    @pytest.mark.parametrize("content", [b"{", b"[]", b"7", b"\xff"])
    def test_the_index_of_a_body_that_is_none(self, app: RestApp, content: bytes) -> None:
        assert is_error(ask(app, "/v2/repository/index", content), 400, "invalid_request")

    @pytest.mark.parametrize("how", ["load", "unload"])
    def test_moving(self, how: str) -> None:
        moves = Moves()
        for content in (b"", b"{}", b'{"parameters": {"unload_dependents": true}}', b'{"parameters": null}'):
            reply = ask(make(repository=moves), f"/v2/repository/models/e/{how}", content)
            assert (reply.status, reply.body) == (200, b"{}")
        assert moves.moved == [("local", "e", how)] * 4

    @pytest.mark.parametrize(
        "content",
        [
            b'{"parameters": {"config": "{}"}}',
            b'{"parameters": {"file:1/model.onnx": "AAAA"}}',
            b'{"parameters": [1]}',
            b'{"parameters": %b}' % (b"[" * 1000 + b"]" * 1000),
            b"[]",
            b"{",
        ],
    )
    def test_a_model_cannot_be_brought_along(self, content: bytes) -> None:
        """tritonclient.load_model(config=..., files=...) would have another model loaded than the registry's."""
        moves = Moves()
        reply = ask(make(repository=moves), "/v2/repository/models/e/load", content)
        assert is_error(reply, 400, "invalid_request")
        assert moves.moved == []

    @pytest.mark.parametrize(
        ("error", "status", "code"),
        [
            (errors.EndpointNotFound("no"), 404, "endpoint_not_found"),
            (errors.NotReady("no"), 503, "not_ready"),
            (errors.Unavailable("away"), 503, "unavailable"),
            (errors.AccessDenied("no"), 403, "access_denied"),
            (RuntimeError("hunter2"), 500, "internal"),
        ],
    )
    def test_what_does_not_work(
        self, error: Exception, status: int, code: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.ERROR):
            reply = ask(make(repository=Moves(error)), "/v2/repository/models/e/load")
        assert is_error(reply, status, code)
        assert b"hunter2" not in reply.body

    @pytest.mark.parametrize(
        "path",
        [
            "",
            "/",
            "/models",
            "/models/e",
            "/models/e/",
            "/models/e/reload",
            "/models/e/versions/1/load",
            "/index/x",
        ],
    )
    def test_nothing_there(self, app: RestApp, path: str) -> None:
        assert is_error(ask(app, f"/v2/repository{path}", method="POST"), 404, "not_found")


class TestOverload:
    """429 and 503 say when to come back; a deadline that has passed does not."""

    def gated(self, **limits: Any) -> tuple[RestApp, threading.Event]:
        """An app whose version waits in a thread."""
        gate = threading.Event()

        def wait(features: Matrix) -> list[Matrix]:
            assert gate.wait(30)
            return [features[:, 0]]

        gate.set()
        version = served(1, FakeRuntime(ONE, wait))
        version.cost.fixed_s = 0.5
        gate.clear()
        plane = ready_plane(ManualClock(), applied({1: 1.0}, [version]), admission=Admission(**limits))
        return make(plane=plane), gate

    @pytest.mark.parametrize(
        ("limits", "status", "code"),
        [
            ({"pending": 1}, 503, "overloaded"),
            ({"tenant_pending": 1}, 429, "tenant_overloaded"),
            ({"wait_s": 0.1}, 503, "overloaded"),
        ],
    )
    @in_loop
    async def test_too_much_at_once(self, limits: dict[str, Any], status: int, code: str) -> None:
        app, gate = self.gated(**limits)
        first = asyncio.ensure_future(fetch(app, INFER, GOOD))
        await rounds()
        reply = await fetch(app, INFER, GOOD)
        gate.set()
        assert is_error(reply, status, code)
        assert reply.headers["retry-after"] == "1"
        assert reply.headers["x-request-id"] == "r"
        assert (await first).status == 200
        assert (await fetch(app, INFER, GOOD)).status == 200

    @in_loop
    async def test_a_large_body_is_not_read_where_there_is_no_room(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Refusing has to be cheap when there is too much to do."""
        monkeypatch.setattr(rest_module, "_LARGE_BYTES", 1_000)
        large = b"{".ljust(1_001)
        app, gate = self.gated(pending=1)
        first = asyncio.ensure_future(fetch(app, INFER, GOOD))
        await rounds()
        assert is_error(await fetch(app, INFER, large), 503, "overloaded")
        assert is_error(await fetch(app, INFER, large[:-1]), 400, "invalid_request")
        assert is_error(await fetch(app, "/v2/models/nobody/infer", large), 400, "invalid_request")
        gate.set()
        assert (await first).status == 200
        assert is_error(await fetch(app, INFER, large), 400, "invalid_request")

    @in_loop
    async def test_a_deadline_that_would_pass(self) -> None:
        app, gate = self.gated()
        first = asyncio.ensure_future(fetch(app, INFER, GOOD))
        await rounds()
        reply = await fetch(app, INFER, GOOD, headers={"X-Request-Timeout-Ms": "100"})
        gate.set()
        assert is_error(reply, 504, "deadline_exceeded")
        assert (await first).status == 200


class TestStatus:
    @pytest.mark.parametrize("error", errors.all_errors().values(), ids=lambda e: e.__name__)
    def test_every_error_has_one(self, error: type[errors.PredisError]) -> None:
        status = status_of(error("what"))
        assert status == 500 if error is errors.PredisError else 400 <= status <= 504
        assert json.loads(error_body(error("what"))) == {"error": "what", "code": error.code}

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (errors.InvalidRequest, 400),
            (errors.TooLarge, 413),
            (errors.Unauthenticated, 401),
            (errors.AccessDenied, 403),
            (errors.EndpointNotFound, 404),
            (errors.AlreadyExists, 409),
            (errors.ModelFailure, 422),
            (errors.Untrusted, 422),
            (errors.NotReady, 503),
            (errors.Overloaded, 503),
            (errors.TenantOverloaded, 429),
            (errors.DeadlineExceeded, 504),
        ],
    )
    def test_the_nearest_ancestor_decides(self, error: type[errors.PredisError], status: int) -> None:
        assert status_of(type("Deeper", (error,), {})("what")) == status_of(error("what")) == status

    @pytest.mark.parametrize(
        "error", [errors.Overloaded, errors.NotReady, errors.Unavailable, errors.SetupError]
    )
    def test_503_says_when_to_come_back(
        self, app: RestApp, monkeypatch: pytest.MonkeyPatch, error: type[errors.PredisError]
    ) -> None:
        def refuse(*_given: Any) -> None:
            raise error("later")

        monkeypatch.setattr(Plane, "submit", refuse)
        reply = ask(app, INFER, GOOD)
        assert is_error(reply, 503, error.code)
        assert reply.headers["retry-after"] == str(rest_module.RETRY_AFTER_S)


class TestUnexpected:
    @pytest.mark.parametrize(
        ("path", "step"),
        [
            (INFER, "plane.Plane.submit"),
            ("/v2/models/e", "describe.model_metadata"),
            ("/v2", "describe.server_metadata"),
        ],
    )
    @in_loop
    async def test_goes_to_the_server_which_answers_500_and_logs(
        self, path: str, step: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """``HttpServer`` does; its tests show it. Nothing has been replied yet, so that it can."""

        def broken(*_given: Any, **_named: Any) -> None:
            raise RuntimeError("unforeseen")

        app = make()
        monkeypatch.setattr(f"predis.serving.{step}", broken)
        asked, connection = request(path, GOOD)
        with pytest.raises(RuntimeError, match="unforeseen"):
            app.handle(asked)
        assert connection.replies == []

    def test_a_record_that_cannot_be_kept_does_not_touch_the_answer(
        self, app: RestApp, sink: ListSink, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(*_given: Any) -> bool:
            raise RuntimeError("full")

        before = ask(app, INFER, GOOD).json
        monkeypatch.setattr(sink, "append", broken)
        with caplog.at_level(logging.ERROR):
            assert ask(app, INFER, GOOD).json == before
        assert "could not be kept" in caplog.text


class Spans:
    """Stands for a tracer: traces everything, and keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def begin(self, traceparent: str, tracestate: str) -> Context:
        assert tracestate == ""
        return Context(0xABC, 0xDEF, int(traceparent.split("-")[2], 16) if traceparent else 0, 1, tracestate)

    def request(self, context: Context, name: str, **told: Any) -> None:
        self.told.append({"context": context, "name": name, **told})


class Lines:
    """Stands for an access log."""

    def __init__(self) -> None:
        self.lines: list[Access] = []

    def add(self, line: Access) -> None:
        self.lines.append(line)


class TestObserving:
    def test_a_trace(self) -> None:
        spans: Any = Spans()
        app = make(observing=Observing(lambda tenant: b"", no_numbers, tracer=spans))
        reply = ask(app, INFER, GOOD, headers={"traceparent": f"00-{1:032x}-{7:016x}-01"})
        assert reply.headers["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-01"
        (told,) = spans.told
        assert (told["context"].parent_id, told["name"], told["error"]) == (7, "infer", "")
        assert told["attributes"] == {
            "predis.tenant": "default",
            "predis.endpoint": "e",
            "predis.version": 1,
            "predis.request_id": "r",
            "predis.rows": 2,
        }
        assert [name for name, _begin, _end in told["stages"]] == ["queue", "predict", "answer"]
        moments = [moment for _name, begin, end in told["stages"] for moment in (begin, end)]
        assert moments == sorted(moments)
        assert told["between"][0] <= moments[0]

    @pytest.mark.parametrize(
        ("path", "content", "code"),
        [
            (INFER, body(tensor("x", "FP64", ["a"]), id="r"), "invalid_request"),
            ("/v2/models/nobody/infer", GOOD, "endpoint_not_found"),
        ],
    )
    def test_of_what_was_refused(self, path: str, content: bytes, code: str) -> None:
        spans: Any = Spans()
        app = make(observing=Observing(lambda tenant: b"", no_numbers, tracer=spans))
        ask(app, path, content)
        (told,) = spans.told
        assert (told["error"], told["stages"], told["attributes"]["predis.request_id"]) == (code, [], "r")

    def test_the_access_log_has_a_line_of_every_request(self) -> None:
        log: Any = Lines()
        app = make(observing=Observing(lambda tenant: b"page", no_numbers, access_log=log))
        for path, content in (
            (INFER, GOOD),
            (INFER, b"{"),
            ("/v2", b""),
            ("/nothing", b""),
            ("/metrics", b""),
        ):
            ask(app, path, content)
        assert [(line.method, line.path, line.status, line.request_id) for line in log.lines] == [
            ("POST", INFER, 200, "r"),
            ("POST", INFER, 400, ""),
            ("GET", "/v2", 200, ""),
            ("GET", "/nothing", 404, ""),
            ("GET", "/metrics", 200, ""),
        ]
        assert {line.remote for line in log.lines} == {"127.0.0.9"}
        assert log.lines[0].tenant == "default"
        assert log.lines[4].size_bytes == 4
        assert all(line.seconds >= 0 for line in log.lines)


def test_keys_that_are_not_known_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that starts while the database is away."""

    def away(_keys: Keys, _header: str) -> Caller:
        raise errors.Unavailable("away")

    monkeypatch.setattr(Keys, "recognise", away)
    reply = ask(make(), INFER, GOOD)
    assert is_error(reply, 503, "unavailable")
    assert reply.headers["retry-after"] == "1"
