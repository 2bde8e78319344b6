"""The encodings, read back as a server reads them."""

from __future__ import annotations

import json
from typing import Any

import httptools
import numpy as np
import pytest

from predis.errors import InvalidInput
from predis.loadtest.bodies import binary_body, grpc_message, http_request, json_body, raw_values
from predis.loadtest.values import DTYPES, Input

INPUTS = [Input("x", "FP64"), Input("pair", "INT32", (-1, 2)), Input("kind", "BYTES")]
COLUMNS: dict[str, Any] = {
    "x": np.array([[0.5], [np.nan]]),
    "pair": np.array([[1, 2], [3, 4]], np.int32),
    "kind": np.array([["a"], ["é"]], np.object_),
}
RAW = {
    "x": np.array([0.5, np.nan]).tobytes(),
    "pair": np.array([1, 2, 3, 4], "<i4").tobytes(),
    "kind": b"\x01\x00\x00\x00a\x02\x00\x00\x00\xc3\xa9",
}


def decoded(message: bytes) -> Any:
    from google.protobuf.message_factory import GetMessageClass

    from predis.serving.grpc_messages import POOL

    return GetMessageClass(POOL.FindMessageTypeByName("inference.ModelInferRequest")).FromString(message)


def test_json() -> None:
    assert json.loads(json_body(INPUTS, COLUMNS)) == {
        "inputs": [
            {"name": "x", "datatype": "FP64", "shape": [2], "data": [0.5, None]},
            {"name": "pair", "datatype": "INT32", "shape": [2, 2], "data": [1, 2, 3, 4]},
            {"name": "kind", "datatype": "BYTES", "shape": [2], "data": ["a", "é"]},
        ]
    }


def test_binary_tensors_follow_the_json() -> None:
    body, length = binary_body(INPUTS, COLUMNS)
    head = json.loads(body[:length])
    assert head["parameters"] == {"binary_data_output": True}
    at = length
    for tensor in head["inputs"]:
        size = tensor["parameters"]["binary_data_size"]
        assert body[at : at + size] == RAW[tensor["name"]]
        at += size
    assert at == len(body)


def test_a_grpc_message_is_what_protobuf_reads() -> None:
    request = decoded(grpc_message(INPUTS, COLUMNS, model="toy", version="3"))
    assert (request.model_name, request.model_version) == ("toy", "3")
    assert [(t.name, t.datatype, list(t.shape)) for t in request.inputs] == [
        ("x", "FP64", [2]),
        ("pair", "INT32", [2, 2]),
        ("kind", "BYTES", [2]),
    ]
    assert list(request.raw_input_contents) == list(RAW.values())


def test_long_fields_have_long_lengths() -> None:
    columns = {"x": np.zeros((300, 1))}
    request = decoded(grpc_message(INPUTS[:1], columns, model="m" * 200))
    assert (len(request.model_name), list(request.inputs[0].shape), len(request.raw_input_contents[0])) == (
        200,
        [300],
        2_400,
    )


@pytest.mark.parametrize("datatype", DTYPES)
def test_raw_values_are_little_endian_and_row_major(datatype: str) -> None:
    column = np.array([[0, 1], [1, 0]], np.object_)
    expected = np.array([0, 1, 1, 0]).astype(DTYPES[datatype]).tobytes()
    assert raw_values(Input("x", datatype, (-1, 2)), column) == expected


def test_missing_numbers_are_nan_and_missing_texts_cannot_be_sent() -> None:
    assert (
        raw_values(Input("x", "FP32"), np.array([[None], [1.5]], np.object_))
        == np.array([np.nan, 1.5], "<f4").tobytes()
    )
    with pytest.raises(InvalidInput, match="none of them missing"):
        raw_values(Input("kind", "BYTES"), np.array([["a"], [None]], np.object_))
    with pytest.raises(InvalidInput, match="'x' cannot be sent as INT64"):
        raw_values(Input("x", "INT64"), np.array([["a"]], np.object_))


def test_a_value_that_json_cannot_hold_is_told() -> None:
    with pytest.raises(InvalidInput, match="cannot be sent as JSON"):
        json_body(INPUTS[:1], {"x": np.array([[object()]], np.object_)})


def test_a_request_is_whole() -> None:
    class Seen:
        body = b""
        done = False

        def on_url(self, url: bytes) -> None:
            self.url = url

        def on_body(self, body: bytes) -> None:
            self.body += body

        def on_message_complete(self) -> None:
            self.done = True

    seen = Seen()
    parser = httptools.HttpRequestParser(seen)
    parser.feed_data(http_request("/v2/models/a/infer", b"12345", headers={"host": "h", "x": "y"}))
    assert (seen.done, seen.url, seen.body, parser.get_method()) == (
        True,
        b"/v2/models/a/infer",
        b"12345",
        b"POST",
    )
