"""Whatever comes from outside is answered, once, and is never the server's fault: random and mutated requests to real small models."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from typing import Any

import numpy as np
import orjson
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from predis.clock import ManualClock
from predis.errors import EndpointNotFound
from predis.metrics import Metrics
from predis.registry.signature import NUMPY_OF, Field
from predis.serving import runtimes
from predis.serving.protocol import Limits
from predis.serving.rest import RestApp
from predis.serving.served import ServedVersion
from tests.serving.helpers import (
    LIMITS,
    Reply,
    applied,
    binary_body,
    body,
    booster_text,
    fetch,
    ready_plane,
    rest,
    rounds,
    signature,
    tensor,
    text_graph,
    version,
)

SMALL = Limits(batch_rows=20, tensors=10, body_bytes=50_000, capture_columns=LIMITS.capture_columns)
# What a request may bring about. 504 is a deadline that the request itself set.
ANSWERS = {200, 400, 403, 404, 405, 413, 503, 504}
NAMES = ["a", "b", "kind", "c", "x", "color"]


class Errors(logging.Handler):
    """What was logged as an error while it listens."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage())


def app() -> RestApp:
    """Two real models: ``lgb`` takes a matrix, of which ``kind`` is a text with levels; ``onnx`` takes tensors and answers two outputs."""
    table = signature(
        Field("a", "FP64", nullable=True), Field("b", "FP32"), Field("kind", "BYTES", nullable=True, levels=tuple("vwxyz")),
        Field("c", "INT64"), outputs=(Field("probability", "FP64"),),
    )  # fmt: skip
    loaded = [
        ("lgb", runtimes.load("lightgbm", {"m": booster_text()}, signature=table)),
        ("onnx", runtimes.load("onnx", {"m": text_graph()})),
    ]
    plane = ready_plane(ManualClock())
    for name, runtime in loaded:
        made = ServedVersion(
            version(1, runtime.signature), runtime, endpoint=name, limits=SMALL, metrics=Metrics(None, "fuzz")
        )
        plane.apply(applied({1: 1.0}, [made], endpoint=name))
    return rest(plane, limits=SMALL, repository=Nowhere())


class Nowhere:
    """A repository that has no endpoint."""

    async def load(self, caller: Any, endpoint: str) -> None:
        raise EndpointNotFound("no")

    unload = load


APP = app()


def send(path: str, content: bytes = b"", **more: Any) -> Reply:
    """The one reply to a request; nothing may be raised, and nothing be logged as an error of ours."""

    async def story() -> Reply:
        reply = await fetch(APP, path, content, **more)
        await rounds(2)
        return reply

    errors, logger = Errors(), logging.getLogger("predis")
    logger.addHandler(errors)
    try:
        reply = asyncio.run(story())
    finally:
        logger.removeHandler(errors)
    assert errors.found == []
    assert reply.status in ANSWERS, reply
    assert APP._plane.pending == 0
    if reply.status not in (200, 503):
        assert reply.json.keys() == {"error", "code"}
        assert 0 < len(reply.json["error"]) < 2_000
    return reply


def infer(endpoint: str, content: bytes, **headers: Any) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return send(f"/v2/models/{endpoint}/infer", content, headers=named)


# --- requests that are good -------------------------------------------------------------------------------------------------

TABLE = [
    tensor("a", "FP64", [1.5, None]),
    tensor("b", "FP32", [2, 3]),
    tensor("kind", "BYTES", ["w", "other"]),
    tensor("c", "INT64", [-4, 2**53]),
]
GRAPH = [
    tensor("x", "FP32", [1, 2, 3, 4], shape=[2, 2]),
    tensor("color", "BYTES", ["red", "é"], shape=[2, 1]),
]
ROWS = [{"a": 1, "b": 2.5, "kind": "x", "c": 4}, {"b": 0, "c": -1}]
RAW = [
    tensor("x", "FP32", np.array([[1, 2], [3, 4]], np.float32), shape=[2, 2]),
    tensor("color", "BYTES", np.array([[b"red"], [b""]], object), shape=[2, 1]),
]
RAW_BODY, RAW_HEAD = binary_body(*RAW, parameters={"binary_data_output": True})
GOOD = [
    ("lgb", body(*TABLE, id="r", parameters={"event_time": "2013-04-01", "routing_key": "k"})),
    ("lgb", orjson.dumps({"rows": ROWS, "id": "r"})),
    ("onnx", body(*GRAPH, outputs=[{"name": "p", "parameters": {"classification": 1}}])),
    ("onnx", body(*GRAPH, outputs=[{"name": "label", "parameters": {"binary_data": True}}])),
]


@pytest.mark.parametrize(("endpoint", "content"), GOOD)
def test_the_good_ones_are_answered(endpoint: str, content: bytes) -> None:
    """Otherwise the rest of this file would show little."""
    assert infer(endpoint, content).status == 200
    assert infer(endpoint, content + b" " * 5000).status == 200
    assert infer("onnx", RAW_BODY, inference_header_content_length=str(RAW_HEAD)).status == 200


# --- requests that nearly are -----------------------------------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from([0, 1, 2, "w", "red", 1e308, [1], [2, 2], "FP32"])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


def or_else(likely: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What is expected, or now and then anything."""
    return st.one_of(likely, likely, likely, likely, anything)


flags = or_else(st.booleans())
parameters = or_else(
    st.fixed_dictionaries(
        {},
        optional={
            "event_time": anything,
            "routing_key": or_else(st.text(max_size=3)),
            "timeout": or_else(st.integers(0, 10**9)),
            "binary_data_output": flags,
        },
    )
)
outputs = or_else(
    st.lists(
        or_else(
            st.fixed_dictionaries(
                {"name": or_else(st.sampled_from(["probability", "label", "p"]))},
                optional={
                    "parameters": or_else(
                        st.fixed_dictionaries(
                            {}, optional={"binary_data": flags, "classification": or_else(st.integers(-1, 5))}
                        )
                    )
                },
            )
        ),
        max_size=3,
    )
)
common: dict[Any, Any] = {"id": or_else(st.text(max_size=4)), "parameters": parameters, "outputs": outputs}


def changed(tensors: list[dict[str, Any]]) -> st.SearchStrategy[list[Any]]:
    """These tensors, with a part or two of them replaced, and perhaps one left out or another one added."""
    parts = {
        "name": or_else(st.sampled_from(NAMES)),
        "datatype": or_else(st.sampled_from(list(NUMPY_OF))),
        "shape": or_else(st.lists(st.integers(0, 3), min_size=1, max_size=3)),
        "data": or_else(st.lists(scalars, max_size=4) | st.lists(st.lists(scalars, max_size=2), max_size=3)),
        "parameters": or_else(st.fixed_dictionaries({"binary_data_size": st.integers(-1, 40)})),
    }

    @st.composite
    def draw(draw: st.DrawFn) -> list[Any]:
        found: list[Any] = [dict(each) for each in tensors]
        for _change in range(draw(st.integers(0, 2))):
            at, part = draw(st.integers(0, len(found) - 1)), draw(st.sampled_from(sorted(parts)))
            found[at][part] = draw(parts[part])
        if draw(st.integers(0, 5)) == 0:
            found.pop(draw(st.integers(0, len(found) - 1)))
        if draw(st.integers(0, 5)) == 0:
            found.append(draw(anything))
        return found

    return draw()


class TestNearlyGood:
    def as_json(self, document: Any) -> bytes:
        """As Python writes it: NaN, Infinity, numbers of any length and lone surrogates are all in it."""
        return json.dumps(document).encode("utf-8", "surrogatepass")

    @settings(max_examples=150)
    @given(
        st.sampled_from([("lgb", TABLE), ("onnx", GRAPH)]).flatmap(
            lambda chosen: st.tuples(st.just(chosen[0]), changed(chosen[1]))
        ),
        st.fixed_dictionaries({}, optional=common),
        st.sampled_from([b"", b" " * 5000]),
    )
    def test_tensors(self, asked: tuple[str, list[Any]], more: dict[str, Any], padding: bytes) -> None:
        infer(asked[0], self.as_json({"inputs": asked[1], **more}) + padding)

    @given(
        or_else(
            st.lists(
                or_else(st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES[:4], scalars))), max_size=3
            )
        ),
        st.fixed_dictionaries({}, optional=common),
    )
    def test_rows(self, rows: Any, more: dict[str, Any]) -> None:
        infer("lgb", self.as_json({"rows": rows, **more}))

    @given(anything, st.sampled_from(["lgb", "onnx"]))
    def test_any_document(self, document: Any, endpoint: str) -> None:
        infer(endpoint, self.as_json(document))

    @settings(max_examples=150)
    @given(st.sampled_from([*GOOD, ("onnx", RAW_BODY)]), st.data())
    def test_bytes_changed(self, good: tuple[str, bytes], data: st.DataObject) -> None:
        endpoint, original = good
        content = bytearray(original)
        for _change in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        cut = bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
        headers = {"inference_header_content_length": str(RAW_HEAD)} if original is RAW_BODY else {}
        infer(endpoint, cut, **headers)

    @settings(max_examples=150)
    @given(
        changed([{k: v for k, v in each.items() if k != "data"} for each in RAW]),
        st.lists(st.integers(0, 20), min_size=2, max_size=2),
        st.binary(max_size=40),
        st.integers(-3, 3),
        st.fixed_dictionaries({}, optional=common),
    )
    def test_raw_tensors(
        self, tensors: list[Any], sizes: list[int], raw: bytes, off: int, more: dict[str, Any]
    ) -> None:
        for each, size in zip(tensors, sizes, strict=False):
            if isinstance(each, dict):
                each.setdefault("parameters", {"binary_data_size": size})
        head = self.as_json({"inputs": tensors, **more})
        infer("onnx", head + raw, inference_header_content_length=str(max(0, len(head) + off)))

    @given(st.binary(max_size=60), st.integers(0, 80))
    def test_any_bytes(self, content: bytes, head_bytes: int) -> None:
        assert infer("lgb", content).status == 400
        assert infer("lgb", content, inference_header_content_length=str(head_bytes)).status == 400

    @given(
        st.sampled_from(["gzip", "deflate", "zstd", "br", ""]),
        st.binary(max_size=80),
        st.sampled_from(["", "gzip", "zstd"]),
    )
    def test_any_packing(self, encoding: str, content: bytes, packed: str) -> None:
        if packed:
            content = (gzip.compress if packed == "gzip" else zstandard.compress)(GOOD[0][1])[
                : 40 + len(content)
            ] + content
        infer("lgb", content, content_encoding=encoding, accept_encoding=encoding)


# --- heads ------------------------------------------------------------------------------------------------------------------

# A header's value as the server hands it on: no control characters, any other bytes.
values = st.one_of(
    st.binary(max_size=20).map(lambda b: bytes(c for c in b if c >= 32 and c != 127).strip()),
    st.sampled_from(
        [
            b"0",
            b"1",
            b"5000",
            b"gzip",
            b"localhost",
            b"http://localhost",
            b"Bearer pk_x",
            b"*;q=0",
            b"\xc3\xa9",
        ]
    ),
)
headers = st.dictionaries(
    st.sampled_from(
        [
            "host", "origin", "authorization", "content-length", "content-type", "content-encoding", "accept-encoding",
            "inference-header-content-length", "x-predis-routing-key", "x-request-id", "x-request-timeout-ms", "accept",
            "traceparent", "tracestate",
        ]
    ),
    values,
    max_size=4,
)  # fmt: skip
segments = st.sampled_from(
    ["v2", "models", "lgb", "onnx", "versions", "1", "2", "infer", "ready", "config", "stats", "health", "live", "repository",
     "index", "load", "metrics", "openapi.json", "", "²", "\x00", "..", "%2f", "é"]
)  # fmt: skip
paths = st.one_of(
    st.lists(segments | st.text(max_size=4), max_size=8).map(lambda parts: "/" + "/".join(parts)),
    st.lists(segments, max_size=5).map(lambda parts: "/v2/models/lgb/" + "/".join(parts)),
    st.lists(segments, max_size=4).map(lambda parts: "/v2/repository/" + "/".join(parts)),
)


class TestHeads:
    @settings(max_examples=150)
    @given(headers, st.sampled_from(GOOD))
    def test_headers(self, given_headers: dict[str, bytes], good: tuple[str, bytes]) -> None:
        endpoint, content = good
        send(f"/v2/models/{endpoint}/infer", content, headers=given_headers)

    @settings(max_examples=200)
    @given(paths, st.sampled_from(["GET", "POST", "HEAD", "DELETE", "OPTIONS", "BREW"]))
    @example("/v2/models/lgb/versions/²/infer", "POST")
    @example("/v2/models/lgb/versions/²", "GET")
    @example("/v2/models/lgb/versions/" + "9" * 5000, "GET")
    @example("/" * 5000, "GET")
    @example("/v2/models/lgb/infer/", "POST")
    @example("/v2/models/\ud800/infer", "POST")
    def test_paths(self, path: str, method: str) -> None:
        send(path, GOOD[0][1], method=method)
