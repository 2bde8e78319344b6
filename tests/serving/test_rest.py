from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from predis import errors
from predis.access import Keys
from predis.clock import ManualClock
from predis.registry.signature import Field
from predis.serving import rest
from predis.serving.plane import Plane
from predis.serving.rest import RestApp, error_body, status_of
from predis.state.records import Status
from tests.serving.helpers import (
    ONE,
    FakeRuntime,
    ListSink,
    Reply,
    applied,
    ask,
    body,
    known_keys,
    ready_plane,
    served,
    signature,
    tensor,
)

MAX_BODY = 2000
INFER = "/v2/models/e/infer"
GOOD = body(tensor("x", "FP64", [1.5, 2]), id="r")


def make(*, sink: ListSink | None = None, keys: Keys | None = None, plane: Plane | None = None) -> RestApp:
    """An app whose endpoint ``e`` answers its version's number: 1 mostly, 2 when asked; ``empty`` has no version."""
    clock = ManualClock()
    routes = applied({1: 1.0, 2: 0.0}), applied({}, endpoint="empty")
    plane = plane or ready_plane(clock, *routes, sink=sink or ListSink())
    return RestApp(plane, keys or known_keys(clock), max_body_bytes=MAX_BODY)


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
            reply = ask(app, path)
            assert (reply.status, reply.json) == (200, expected)
            assert reply.headers["content-type"] == "application/json"

    def test_live_but_not_ready_before_the_routes_are_known(self, app: RestApp) -> None:
        clock = ManualClock()
        plane = ready_plane(clock)
        plane.following = False
        app = make(plane=plane)
        assert ask(app, "/v2/health/live").status == 200
        reply = ask(app, "/v2/health/ready")
        assert (reply.status, reply.json) == (503, {"ready": False})
        for path in ("/v2/models/e", "/v2/models/e/ready", INFER):
            reply = ask(app, path, GOOD)
            assert is_error(reply, 503, "not_ready")
            assert reply.headers["retry-after"] == "1"

    def test_an_endpoint_without_a_version_is_not_ready(self, app: RestApp) -> None:
        reply = ask(app, "/v2/models/empty/ready")
        assert (reply.status, reply.json) == (503, {"name": "empty", "ready": False})
        assert is_error(ask(app, "/v2/models/empty"), 503, "not_ready")
        assert is_error(ask(app, "/v2/models/empty/infer", GOOD), 503, "not_ready")

    def test_health_needs_no_key(self) -> None:
        app = make(keys=known_keys(ManualClock(), {"0" * 64: ["default", "somebody", "admin"]}))
        assert ask(app, "/v2/health/live").status == ask(app, "/v2/health/ready").status == 200


class TestMetadata:
    @pytest.mark.parametrize("path", ["/v2", "/v2/"])
    def test_of_the_server(self, app: RestApp, path: str) -> None:
        found = ask(app, path).json
        assert found["name"] == "predis"
        assert found["extensions"] == []
        assert isinstance(found["version"], str)

    @pytest.mark.parametrize(
        ("path", "version"),
        [("/v2/models/e", "1"), ("/v2/models/e/versions/1", "1"), ("/v2/models/e/versions/2", "2")],
    )
    def test_of_an_endpoint(self, app: RestApp, path: str, version: str) -> None:
        assert ask(app, path).json == {
            "name": "e",
            "versions": ["1"],
            "platform": "predis_lightgbm",
            "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}],
            "outputs": [{"name": "score", "datatype": "FP64", "shape": [-1]}],
            "parameters": {"model": "m", "version": version},
        }

    def test_head(self, app: RestApp) -> None:
        assert ask(app, "/v2/models/e", method="HEAD").status == 200


class TestInfer:
    def test_a_prediction(self, app: RestApp, sink: ListSink) -> None:
        reply = ask(app, INFER, GOOD)
        assert reply.status == 200
        assert reply.headers["content-type"] == "application/json"
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

    def test_a_body_in_pieces(self, app: RestApp) -> None:
        pieces = [GOOD[:5], b"", GOOD[5:20], GOOD[20:], b""]
        assert ask(app, INFER, pieces).json == ask(app, INFER, GOOD).json

    def test_the_routing_key_in_a_header_or_in_the_request(self) -> None:
        plane = ready_plane(ManualClock(), applied({1: 0.5, 2: 0.5}))
        app = make(plane=plane)
        chosen = set()
        for number in range(40):
            key = f"customer-{number}"
            by_header = ask(app, INFER, GOOD, headers={"X-Predis-Routing-Key": key}).json["model_version"]
            by_body = body(tensor("x", "FP64", [1]), parameters={"routing_key": key})
            assert ask(app, INFER, by_body).json["model_version"] == by_header
            also = body(tensor("x", "FP64", [1]), parameters={"routing_key": "other"})
            assert (
                ask(app, INFER, also, headers={"X-Predis-Routing-Key": key}).json["model_version"]
                == by_header
            )
            chosen.add(by_header)
        assert chosen == {"1", "2"}

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
            body({**tensor("x", "FP64", [1]), "datatype": []}),
            body(tensor("x", "FP64", [1]), outputs=[{"name": "nothing"}]),
            body(tensor("x", "FP64", [1]), parameters={"routing_key": 5}),
        ],
    )
    def test_bad_input_is_the_callers_fault(self, app: RestApp, content: bytes) -> None:
        assert is_error(ask(app, INFER, content), 400, "invalid_request")

    def test_a_bad_moment(self, app: RestApp) -> None:
        content = body(tensor("x", "FP64", [1]), parameters={"event_time": "soon"})
        assert is_error(ask(app, INFER, content), 400, "invalid_input")

    def test_a_batch_too_large(self, app: RestApp) -> None:
        assert is_error(ask(app, INFER, body(tensor("x", "FP64", [1] * 101))), 413, "too_large")

    def test_a_model_that_fails(self, sink: ListSink) -> None:
        broken = FakeRuntime(ONE)
        plane = ready_plane(ManualClock(), applied({1: 1.0}, [served(1, broken)]), sink=sink)
        broken.answer = lambda features: 1 / 0  # type: ignore[assignment,return-value]
        assert is_error(ask(make(plane=plane), INFER, GOOD), 422, "model_failure")
        assert [r.status for r in sink.records] == [Status.FAILED]

    def test_nan_in_the_answer_is_null(self) -> None:
        runtime = FakeRuntime(ONE, lambda features: [np.full(len(features), np.nan)])
        plane = ready_plane(ManualClock(), applied({1: 1.0}, [served(1, runtime)]))
        assert ask(make(plane=plane), INFER, GOOD).json["outputs"][0]["data"] == [None, None]


class TestBodySize:
    LARGEST = GOOD[:-1] + b" " * (MAX_BODY - len(GOOD)) + b"}"

    def test_the_largest(self, app: RestApp) -> None:
        headers = {"content-length": str(MAX_BODY)}
        assert ask(app, INFER, self.LARGEST, headers=headers).status == 200
        assert ask(app, INFER, [self.LARGEST[:700], self.LARGEST[700:]]).status == 200

    @pytest.mark.parametrize("said", [str(MAX_BODY + 1), str(10**15), "9" * 18, "9" * 19, "9" * 5000])
    def test_too_large_by_what_the_header_says_is_not_read(self, app: RestApp, said: str) -> None:
        reply = ask(app, INFER, [], headers={"content-length": said})
        assert is_error(reply, 413, "too_large")
        assert reply.headers["connection"] == "close"

    def test_too_large_in_one_piece(self, app: RestApp) -> None:
        assert is_error(ask(app, INFER, self.LARGEST + b" "), 413, "too_large")

    def test_too_large_by_streaming_stops_reading(self, app: RestApp) -> None:
        """The header may be missing, or lie. A stream that went on being read would end in an IndexError here, so in a 500."""
        pieces = [self.LARGEST[:1000], self.LARGEST[1000:], b" ", b"never read"]
        for headers in ({}, {"content-length": "10"}):
            reply = ask(app, INFER, pieces, headers=headers)
            assert is_error(reply, 413, "too_large")
            assert reply.headers["connection"] == "close"

    @pytest.mark.parametrize("said", ["", "-1", "ten", "²", "1e3", "0x10", " 5 "])
    def test_a_header_that_is_no_number(self, app: RestApp, said: str) -> None:
        assert ask(app, INFER, GOOD, headers={"content-length": said}).status == 200


class TestPaths:
    @pytest.mark.parametrize(
        "path",
        [
            "/",
            "",
            "/v1/models/e",
            "/v2/health",
            "/v2/models",
            "/v2/models/",
            "/v2/models//",
            "/v2/models/e/",
            "/v2/models/e/version/1",
            "/v2/models/e/versions",
            "/v2/models/e/versions/1/2",
            "/v2/models/ready",
            "/api/v1/endpoints",
            "/v2/models/é",
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

    @pytest.mark.parametrize("tail", ["", "/ready", "/infer"])
    def test_unknown_names(self, app: RestApp, tail: str) -> None:
        assert is_error(ask(app, f"/v2/models/nobody{tail}", GOOD), 404, "endpoint_not_found")
        for version in ("3", "0", "-1", "x", "1.0", "²", "1 ", "9" * 30, "latest"):
            reply = ask(app, f"/v2/models/e/versions/{version}{tail}", GOOD)
            assert is_error(reply, 404, "version_not_found")
            assert "it serves 1, 2" in reply.json["error"]

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", INFER),
            ("PUT", INFER),
            ("DELETE", "/v2/models/e"),
            ("POST", "/v2/models/e"),
            ("POST", "/v2/models/e/ready"),
            ("PATCH", "/v2/models/e/versions/1"),
            ("BREW", "/v2/models/nobody"),
        ],
    )
    def test_another_method(self, app: RestApp, method: str, path: str) -> None:
        assert is_error(ask(app, path, GOOD, method=method), 405, "method_not_allowed")

    def test_other_protocols_are_left_alone(self, app: RestApp) -> None:
        with pytest.raises(StopIteration):
            app({"type": "lifespan"}, None, None).__await__().__next__()  # type: ignore[arg-type]


class TestKeys:
    def app(self) -> RestApp:
        known = {
            hashlib.sha256(f"pk_{name}".encode()).hexdigest(): [tenant, name, role]
            for name, tenant, role in (("ada", "default", "client"), ("eve", "elsewhere", "admin"))
        }
        return make(keys=known_keys(ManualClock(), known))

    @pytest.mark.parametrize("path", [INFER, "/v2/models/e", "/v2/models/e/ready"])
    @pytest.mark.parametrize(
        "said", [None, "", "Bearer", "Bearer pk_nobody", "Basic pk_ada", "pk_ada", "Bearer é"]
    )
    def test_without_a_known_key(self, path: str, said: str | None) -> None:
        headers = {} if said is None else {"Authorization": said}
        assert is_error(ask(self.app(), path, GOOD, headers=headers), 401, "unauthenticated")

    @pytest.mark.parametrize("said", ["Bearer pk_ada", "bearer pk_ada", "BEARER  pk_ada "])
    def test_with_one(self, said: str) -> None:
        for path in (INFER, "/v2/models/e", "/v2/models/e/ready"):
            assert ask(self.app(), path, GOOD, headers={"Authorization": said}).status == 200

    def test_the_tenant_is_that_of_the_key(self) -> None:
        headers = {"Authorization": "Bearer pk_eve"}
        for path in (INFER, "/v2/models/e", "/v2/models/e/ready"):
            assert is_error(ask(self.app(), path, GOOD, headers=headers), 404, "endpoint_not_found")

    def test_a_caller_who_may_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("predis.access.keys.RIGHTS", ("nothing", "predict", "read", "operate", "admin"))
        monkeypatch.setattr("predis.access.keys.ROLES", {"client": "nothing"})
        reply = ask(self.app(), INFER, GOOD, headers={"Authorization": "Bearer pk_ada"})
        assert is_error(reply, 403, "access_denied")

    def test_nobody_is_told_what_exists(self) -> None:
        replies = {
            ask(self.app(), f"/v2/models/{name}{tail}", GOOD).body
            for name in ("e", "x")
            for tail in ("", "/infer")
        }
        assert len(replies) == 1

    def test_a_body_is_not_read_for_a_stranger(self) -> None:
        assert ask(self.app(), INFER, []).status == 401


class TestStatus:
    @pytest.mark.parametrize("error", errors.all_errors().values(), ids=lambda e: e.__name__)
    def test_every_error_has_one(self, error: type[errors.PredisError]) -> None:
        status = status_of(error("what"))
        assert status == 500 if error is errors.PredisError else 400 <= status <= 503
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
            (errors.NotReady, 503),
            (errors.Overloaded, 503),
        ],
    )
    def test_the_nearest_ancestor_decides(self, error: type[errors.PredisError], status: int) -> None:
        assert status_of(type("Deeper", (error,), {})("what")) == status_of(error("what")) == status

    @pytest.mark.parametrize("error", [errors.Overloaded, errors.NotReady, errors.Unavailable])
    def test_503_says_when_to_come_back(
        self, app: RestApp, monkeypatch: pytest.MonkeyPatch, error: type[errors.PredisError]
    ) -> None:
        async def refuse(*_given: Any, **_named: Any) -> None:
            raise error("later")

        monkeypatch.setattr(Plane, "infer", refuse)
        reply = ask(app, INFER, GOOD)
        assert is_error(reply, 503, error.code)
        assert reply.headers["retry-after"] == str(rest.RETRY_AFTER_S)


class TestUnexpected:
    SECRET = "postgresql://predis:hunter2@db"

    def broken(self, *_given: Any, **_named: Any) -> None:
        raise RuntimeError(self.SECRET)

    @pytest.mark.parametrize(
        ("path", "step"), [(INFER, "infer"), ("/v2/models/e", "model_metadata"), ("/v2", "metadata")]
    )
    def test_is_a_500_logged_and_not_leaked(
        self,
        app: RestApp,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        path: str,
        step: str,
    ) -> None:
        monkeypatch.setattr(Plane, step, self.broken)
        with caplog.at_level(logging.ERROR):
            reply = ask(app, path, GOOD)
        assert is_error(reply, 500, "internal")
        assert self.SECRET not in reply.body.decode()
        (record,) = caplog.records
        assert path in record.getMessage()
        assert self.SECRET in (record.exc_text or "")

    def test_a_record_that_cannot_be_kept_does_not_touch_the_answer(
        self, app: RestApp, sink: ListSink, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        before = ask(app, INFER, GOOD).json
        monkeypatch.setattr(sink, "append", self.broken)
        with caplog.at_level(logging.ERROR):
            assert ask(app, INFER, GOOD).json == before
        assert "could not be captured" in caplog.text


# --- anything at all --------------------------------------------------------------------------------------------------------

WIDE = signature(
    Field("x", "FP32", (-1, 2)), Field("k", "BYTES", nullable=True, levels=("a", "b")), Field("n", "INT8")
)
FUZZED = make(plane=ready_plane(ManualClock(), applied({1: 0.5, 2: 0.5}, [served(1, FakeRuntime(WIDE))])))
junk = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([1, "a", [1], [2]])
)
values = st.recursive(junk, lambda inner: st.lists(inner, max_size=4), max_leaves=8)
documents = st.fixed_dictionaries(
    {
        "inputs": st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from(["x", "k", "n", "y"]),
                    "datatype": st.sampled_from(["FP32", "BYTES", "INT8", "UINT8", "BOOL"]) | values,
                    "shape": st.lists(st.integers(0, 3), min_size=1, max_size=2) | values,
                    "data": st.lists(values, max_size=4) | values,
                }
            ),
            max_size=4,
        )
        | values
    },
    optional={
        "id": values,
        "parameters": st.dictionaries(st.sampled_from(["event_time", "routing_key"]), values),
        "outputs": values,
    },
)
segments = st.sampled_from(
    ["v2", "models", "e", "versions", "1", "2", "infer", "ready", "health", "live", "", "²", "%00", ".."]
)
paths = st.lists(segments | st.text(max_size=4), max_size=8).map(lambda parts: "/" + "/".join(parts))


class TestAnything:
    """What comes from outside is never a 500, and always answered in the same shape."""

    def check(self, reply: Reply) -> None:
        assert reply.status in {200, 400, 404, 405, 413, 503}
        assert reply.status == 200 or is_error(reply, reply.status, reply.json["code"])

    @settings(max_examples=200)
    @given(documents)
    def test_documents(self, document: Any) -> None:
        self.check(ask(FUZZED, INFER, json.dumps(document).encode("utf-8", "surrogatepass")))

    @given(st.lists(st.binary(), max_size=4).map(lambda pieces: pieces or [b""]))
    def test_bytes_in_pieces(self, pieces: list[bytes]) -> None:
        self.check(ask(FUZZED, INFER, pieces))

    @settings(max_examples=200)
    @given(paths, st.sampled_from(["GET", "POST", "HEAD", "DELETE", "OPTIONS"]))
    @example("/v2/models/e/versions/²/infer", "POST")
    @example("/v2/models/e/versions/²", "GET")
    @example("/v2/models/e/versions/" + "9" * 5000, "GET")
    @example("/" * 5000, "GET")
    def test_paths(self, path: str, method: str) -> None:
        self.check(ask(FUZZED, path, GOOD, method=method))

    @given(st.dictionaries(st.sampled_from(["authorization", "content-length", "x-predis-routing-key", "accept"]),
                           st.binary(max_size=20).map(lambda b: b.decode("latin-1"))))  # fmt: skip
    def test_headers(self, headers: dict[str, str]) -> None:
        content = orjson.dumps(
            {
                "inputs": [
                    tensor("x", "FP32", [1, 2], shape=[1, 2]),
                    tensor("k", "BYTES", ["z"]),
                    tensor("n", "INT8", [1]),
                ]
            }
        )
        self.check(ask(FUZZED, INFER, content, headers=headers))
