from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import InvalidInput, InvalidRequest, TooLarge
from predis.serving import protocol
from predis.serving.protocol import (
    MAX_CLASSES,
    MAX_ID,
    InferRequest,
    RequestedOutput,
    checked_id,
    decode_request,
)
from tests.serving.helpers import LIMITS, binary_body, body, tensor

X = tensor("x", "FP64", [1.5])


def decode(content: bytes, head_bytes: int | None = None) -> InferRequest:
    return decode_request(content, LIMITS, head_bytes=head_bytes)


class TestDecode:
    def test_the_parts_of_a_request(self) -> None:
        outputs = [{"name": "score", "parameters": {"binary_data": False}}]
        request = decode(body(X, id="r-1", parameters={"a": 1}, outputs=outputs))
        assert request == InferRequest({"x": X}, "r-1", {"a": 1}, [RequestedOutput("score")])

    def test_only_inputs_are_needed(self) -> None:
        assert decode(body(X)) == InferRequest({"x": X}, "", {}, None, None, False)

    @pytest.mark.parametrize("outputs", [None, []])
    def test_no_outputs_named_means_all(self, outputs: Any) -> None:
        assert decode(body(X, outputs=outputs)).outputs is None

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "not JSON"),
            (b"{", "not JSON"),
            (b"\xff\xfe", "not JSON"),
            (b'\xef\xbb\xbf{"inputs": [{"name": "x"}]}', "not JSON"),
            (b'{"inputs": [\x00]}', "not JSON"),
            (b'{"inputs": [NaN]}', "not JSON"),
            (b'{"inputs": [1e999]}', "not JSON"),
            (b'{"inputs": [{"name": "\\ud800"}]}', "not JSON"),
            (b"[" * 5000 + b"]" * 5000, "not JSON"),
            (b"null", "JSON object"),
            (b"[]", "JSON object"),
            (b'"inputs"', "JSON object"),
            (b"{}", "'inputs' must be a list"),
            (b'{"inputs": {}}', "'inputs' must be a list"),
            (b'{"inputs": []}', "at least one tensor"),
            (b'{"inputs": [1]}', "each of 'inputs'"),
            (b'{"inputs": [{}]}', "each of 'inputs'"),
            (b'{"inputs": [{"name": 3}]}', "each of 'inputs'"),
            (b'{"inputs": [{"name": "x"}, {"name": "x"}]}', "same name"),
            (b'{"inputs": [{"name": "x"}], "id": 7}', "'id'"),
            (b'{"inputs": [{"name": "x"}], "id": null}', "'id'"),
            (b'{"inputs": [{"name": "x"}], "id": "a\\nb"}', "'id'"),
            (b'{"inputs": [{"name": "x"}], "id": "%s"}' % (b"i" * (MAX_ID + 1)), "'id'"),
            (b'{"inputs": [{"name": "x"}], "parameters": []}', "'parameters'"),
            (b'{"inputs": [{"name": "x"}], "outputs": {}}', "'outputs'"),
            (b'{"inputs": [{"name": "x"}], "outputs": [{}]}', "'outputs'"),
            (b'{"inputs": [{"name": "x"}], "outputs": ["x"]}', "'outputs'"),
            (b'{"inputs": [{"name": "x"}], "outputs": [{"name": 1}]}', "'outputs'"),
            (b'{"inputs": [{"name": "x"}], "outputs": [{"name": "s", "parameters": 1}]}', "'outputs'"),
        ],
    )
    @pytest.mark.parametrize("bulk_bytes", [0, 1 << 30])
    def test_what_is_no_request_is_refused_and_told_why(
        self, content: bytes, says: str, bulk_bytes: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(protocol, "BULK_BYTES", bulk_bytes)
        with pytest.raises(InvalidRequest, match=says):
            decode(content)

    def test_more_tensors_than_allowed(self) -> None:
        tensors = [tensor(f"x{i}", "FP64", [1]) for i in range(LIMITS.tensors + 1)]
        assert len(decode(body(*tensors[:-1])).inputs) == LIMITS.tensors
        with pytest.raises(TooLarge, match="max_tensors"):
            decode(body(*tensors))

    def test_the_longest_id(self) -> None:
        longest = "é" * MAX_ID
        assert decode(body(X, id=longest)).id == longest

    @pytest.mark.parametrize(
        "wrong", ["a\x00", "a\r\nb: c", "\x7f", "\u2028", "a" * (MAX_ID + 1), 7, None, b"a"]
    )
    def test_what_is_no_id(self, wrong: Any) -> None:
        with pytest.raises(InvalidRequest, match="'id'"):
            checked_id(wrong)

    @pytest.mark.parametrize("part", ["id", "parameters", "outputs"])
    def test_deep_parts(self, part: str) -> None:
        """As deep as the JSON parser goes, which is deeper than Python's repr: a message about it must not fail either."""
        deep = b"[" * 1010 + b"]" * 1010
        with pytest.raises(InvalidRequest):
            decode(b'{"inputs":[{"name":"x"}],"%s":%s}' % (part.encode(), deep))

    def test_deep_parameters(self) -> None:
        deep = orjson.loads(b"[" * 1010 + b"]" * 1010)
        request = InferRequest({}, parameters={"routing_key": deep, "event_time": deep, "timeout": deep})
        for step in (request.routing_key, request.event_time, request.timeout_s):
            with pytest.raises(InvalidInput) as caught:
                step()
            assert len(str(caught.value)) < 300


class TestEventTime:
    @pytest.mark.parametrize(
        ("given_time", "nanoseconds"),
        [
            ("2013-04-01T05:00:00Z", 1_364_792_400_000_000_000),
            ("2013-04-01T05:00:00.250Z", 1_364_792_400_250_000_000),
            ("2013-04-01T07:00:00+02:00", 1_364_792_400_000_000_000),
            ("2013-04-01T05:00:00", 1_364_792_400_000_000_000),
            ("2013-04-01", 1_364_774_400_000_000_000),
            (1_364_792_400, 1_364_792_400_000_000_000),
            (1_364_792_400.5, 1_364_792_400_500_000_000),
            (0, 0),
        ],
    )
    def test_every_form(self, given_time: Any, nanoseconds: int) -> None:
        assert decode(body(X, parameters={"event_time": given_time})).event_time() == nanoseconds

    @pytest.mark.parametrize("parameters", [{}, {"event_time": None}])
    def test_none(self, parameters: dict[str, Any]) -> None:
        assert decode(body(X, parameters=parameters)).event_time() is None

    @pytest.mark.parametrize(
        "wrong",
        [
            "",
            "yesterday",
            "2013-13-01",
            -1,
            1e300,
            2**63,
            True,
            [],
            {},
            [1] * 5000,
            "9" * 5000,
            "0001-01-01T00:00:00+23:59",
        ],
    )
    def test_neither_is_refused_in_few_words(self, wrong: Any) -> None:
        request = decode(body(X, parameters={"event_time": wrong}))
        with pytest.raises(InvalidInput, match=r"parameters\.event_time") as caught:
            request.event_time()
        assert len(str(caught.value)) < 300


class TestRoutingKey:
    def test_text(self) -> None:
        assert InferRequest({}, parameters={"routing_key": "customer-7"}).routing_key() == "customer-7"
        assert InferRequest({}).routing_key() == ""

    @pytest.mark.parametrize("wrong", [7, None, ["a"], {"a": 1}])
    def test_other_is_refused(self, wrong: Any) -> None:
        with pytest.raises(InvalidRequest, match="routing_key"):
            InferRequest({}, parameters={"routing_key": wrong}).routing_key()


class TestTimeout:
    """The protocol's parameter, in microseconds; 0 is what clients send who set none."""

    @pytest.mark.parametrize(("sent", "seconds"), [(None, None), (0, None), (1, 1e-6), (2_500_000, 2.5)])
    def test_in_seconds(self, sent: Any, seconds: float | None) -> None:
        assert InferRequest({}, parameters={"timeout": sent}).timeout_s() == seconds
        assert InferRequest({}).timeout_s() is None

    @pytest.mark.parametrize("wrong", [-1, 1.5, "1", True, [], {}])
    def test_other_is_refused(self, wrong: Any) -> None:
        with pytest.raises(InvalidRequest, match=r"parameters\.timeout"):
            InferRequest({}, parameters={"timeout": wrong}).timeout_s()


class TestOutputs:
    def outputs(self, **parameters: Any) -> list[RequestedOutput] | None:
        return decode(body(X, outputs=[{"name": "score", "parameters": parameters}])).outputs

    def test_parameters_that_clients_send(self) -> None:
        assert self.outputs(binary_data=True) == [RequestedOutput("score", binary=True)]
        assert self.outputs(classification=3, binary_data=False) == [RequestedOutput("score", classes=3)]
        assert self.outputs(of="another server") == [RequestedOutput("score")]

    @pytest.mark.parametrize("wrong", [1, "true", None, []])
    def test_binary_data_is_a_flag(self, wrong: Any) -> None:
        with pytest.raises(InvalidRequest, match="'binary_data' must be true or false"):
            self.outputs(binary_data=wrong)

    @pytest.mark.parametrize("wrong", [-1, MAX_CLASSES + 1, 1.5, "3", None, True, 10**18])
    def test_classification_is_a_number_of_classes(self, wrong: Any) -> None:
        assert self.outputs(classification=MAX_CLASSES) == [RequestedOutput("score", classes=MAX_CLASSES)]
        with pytest.raises(InvalidRequest, match="'classification' must be 0 to"):
            self.outputs(classification=wrong)

    def test_all_as_binary(self) -> None:
        assert decode(body(X, parameters={"binary_data_output": True})).binary
        assert not decode(body(X, parameters={"binary_data_output": False})).binary
        with pytest.raises(InvalidRequest, match="parameters: 'binary_data_output' must be"):
            decode(body(X, parameters={"binary_data_output": 1}))


class TestBinary:
    """The binary tensor extension: a head of JSON and raw tensors behind it."""

    def test_tensors_take_their_bytes_in_order(self) -> None:
        a, b = np.arange(6, dtype=np.int32).reshape(2, 3), np.array([b"\xff\x00", b""], object)
        content, head = binary_body(
            tensor("a", "INT32", a, shape=[2, 3]),
            tensor("x", "FP64", [1, 2]),
            tensor("b", "BYTES", b, shape=[2]),
            id="r",
        )
        request = decode(content, head)
        assert request.id == "r"
        np.testing.assert_array_equal(request.inputs["a"]["data"], a)
        assert request.inputs["x"]["data"] == [1, 2]
        assert request.inputs["b"]["data"].tolist() == b.tolist()

    def test_a_head_without_raw_tensors(self) -> None:
        content = body(X)
        assert decode(content, len(content)) == decode(content)

    def test_an_empty_tensor(self) -> None:
        content, head = binary_body(tensor("x", "FP64", np.empty(0), shape=[0]))
        assert decode(content, head).inputs["x"]["data"].size == 0

    def head(self, raw: bytes, **x: Any) -> InferRequest:
        head = body({"name": "x", "datatype": "FP64", "shape": [1], **x})
        return decode(head + raw, len(head))

    @pytest.mark.parametrize("size", [-1, 1.0, 8.5, "8", None, [], 9, 2**70, True])
    def test_a_size_that_is_none(self, size: Any) -> None:
        assert self.head(b"12345678", parameters={"binary_data_size": 8})
        with pytest.raises(InvalidRequest, match=r"binary_data_size|belong to no input"):
            self.head(b"12345678", parameters={"binary_data_size": size})

    @pytest.mark.parametrize(
        ("x", "says"),
        [
            ({"shape": [2]}, "needs 16"),
            ({"shape": [-1]}, "whole numbers"),
            ({"shape": 1}, "'datatype' and a 'shape'"),
            ({"shape": None}, "'datatype' and a 'shape'"),
            ({"datatype": 7}, "'datatype' and a 'shape'"),
            ({"datatype": "FP8"}, "none of"),
            ({"datatype": "BYTES"}, "element 0"),
        ],
    )
    def test_what_does_not_fit(self, x: dict[str, Any], says: str) -> None:
        with pytest.raises(InvalidRequest, match=says):
            self.head(b"12345678", parameters={"binary_data_size": 8}, **x)

    def test_bytes_that_belong_to_no_input(self) -> None:
        with pytest.raises(InvalidRequest, match="8 bytes behind the JSON belong to no input"):
            self.head(b"12345678", data=[1])
        with pytest.raises(InvalidRequest, match="1 bytes behind the JSON belong to no input"):
            self.head(b"123456789", parameters={"binary_data_size": 8})

    def test_a_head_longer_than_the_body(self) -> None:
        content = body(X)
        with pytest.raises(
            InvalidRequest, match=f"said to have {len(content) + 1} bytes; the body has {len(content)}"
        ):
            decode(content, len(content) + 1)

    @pytest.mark.parametrize("head_bytes", [0, 1, 5])
    def test_a_head_cut_short(self, head_bytes: int) -> None:
        with pytest.raises(InvalidRequest, match="not JSON"):
            decode(body(X), head_bytes)

    def test_parameters_that_are_no_object_say_nothing_of_a_size(self) -> None:
        assert self.head(b"", data=[1], parameters=[1]).inputs["x"]["data"] == [1]


class TestRows:
    def test_records(self) -> None:
        rows = [{"a": 1, "b": "x"}, {"a": None}]
        request = decode(orjson.dumps({"rows": rows, "id": "r", "parameters": {"event_time": 5}}))
        assert (request.rows, request.inputs, request.id) == (rows, {}, "r")
        assert request.event_time() == 5 * 10**9

    @pytest.mark.parametrize("wrong", [None, [], {}, 7, "rows", [1], [{}, []], [[]]])
    def test_what_are_none(self, wrong: Any) -> None:
        with pytest.raises(InvalidRequest, match="'rows' must be a list of at least one object"):
            decode(orjson.dumps({"rows": wrong}))

    @pytest.mark.parametrize("inputs", [None, [], {}])
    def test_not_beside_inputs(self, inputs: Any) -> None:
        with pytest.raises(InvalidRequest, match="'inputs' must be a list"):
            decode(orjson.dumps({"rows": [{"a": 1}], "inputs": inputs}))
        assert decode(orjson.dumps({"rows": [{"a": 1}], "inputs": [X]})).rows is None

    def test_more_than_allowed(self) -> None:
        most = LIMITS.batch_rows
        assert len(decode(orjson.dumps({"rows": [{"a": 1}] * most})).rows or ()) == most
        with pytest.raises(TooLarge, match="max_batch_rows"):
            decode(orjson.dumps({"rows": [{"a": 1}] * (most + 1)}))

    def test_no_raw_tensors_behind_them(self) -> None:
        content = orjson.dumps({"rows": [{"a": 1}]})
        assert decode(content, len(content)).rows
        with pytest.raises(InvalidRequest, match="bytes follow the JSON"):
            decode(content + b"12345678", len(content))


def test_a_large_body_says_what_a_small_one_does() -> None:
    """Beyond ``BULK_BYTES`` the parser is another; only numbers come in another form."""
    small = body(X, tensor("k", "BYTES", ["a", None]), id="r", parameters={"a": [1]}, outputs=[{"name": "s"}])
    large = small[:-1] + b" " * protocol.BULK_BYTES + b"}"
    found = decode(large)
    assert type(found.inputs["x"]["data"]) is np.ndarray
    found.inputs["x"]["data"] = found.inputs["x"]["data"].tolist()
    assert found == decode(small)


@given(st.binary(max_size=60), st.integers(0, 70))
def test_any_bytes_with_any_head(content: bytes, head_bytes: int) -> None:
    with pytest.raises(InvalidRequest):
        decode(content, head_bytes)
