from __future__ import annotations

import json
from typing import Any
from unittest import mock

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from predis.errors import PredisError
from predis.registry.signature import NUMPY_OF, Field
from predis.serving import bulk, protocol
from predis.serving.binding import Binder
from predis.serving.inputs import Inputs, Takes
from predis.serving.protocol import decode_request
from tests.serving.helpers import LIMITS, body, signature, tensor


def parsed(data: str, datatype: str = "FP64", **more: Any) -> Any:
    """What becomes of a tensor's data."""
    head = json.dumps({"name": "x", "datatype": datatype, "shape": [1], **more})
    found = bulk.parse(f'{{"inputs":[{head[:-1]},"data":{data}}}]}}'.encode())
    return None if found is None else found["inputs"][0]["data"]


class TestNumbers:
    @pytest.mark.parametrize(
        ("datatype", "data", "expected"),
        [
            ("FP64", "[1, 2.5, -3e2]", np.array([1, 2.5, -300.0])),
            ("FP32", "[0.1]", np.array([0.1])),
            ("INT8", "[-1, 300]", np.array([-1, 300])),
            ("INT64", "[-9223372036854775808, 9223372036854775807]", np.array([-(2**63), 2**63 - 1])),
            ("UINT64", "[0, 18446744073709551615]", np.array([0, 2**64 - 1], np.uint64)),
            ("FP64", "[[1, 2], [3, 4], [5, 6]]", np.array([[1.0, 2], [3, 4], [5, 6]])),
            ("INT32", "[[7]]", np.array([[7]])),
            ("FP64", "[]", np.empty(0)),
            ("FP64", "[[], []]", np.empty((2, 0))),
            ("FP64", " [ [ 1 ] , [ 2 ] ] ", np.array([[1.0], [2]])),
        ],
    )
    def test_become_an_array(self, datatype: str, data: str, expected: Any) -> None:
        found = parsed(data, datatype)
        np.testing.assert_array_equal(found, expected)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)

    @pytest.mark.parametrize(
        ("datatype", "data"),
        [
            ("FP64", "[1, null]"),
            ("FP64", "[1, true]"),
            ("FP64", '[1, "2"]'),
            ("FP64", "[1, {}]"),
            ("FP64", "[1, []]"),
            ("FP64", "[[1], 2]"),
            ("FP64", "[[1], [2, 3]]"),
            ("FP64", "[[[1]], [[2]]]"),
            ("INT64", "[1.0]"),
            ("INT64", "[9223372036854775808]"),
            ("UINT8", "[-1]"),
            ("BOOL", "[true]"),
            ("BYTES", '["a"]'),
            ("FLOAT", "[1]"),
        ],
    )
    def test_others_stay_lists(self, datatype: str, data: str) -> None:
        """They may be right all the same, or be refused: the binder says."""
        assert parsed(data, datatype) == json.loads(data)

    @pytest.mark.parametrize("data", ["[1, [2]]", "[[1], [[2]]]", "[[1, 2], [3, [4]]]", "[1, [[[2]]]]"])
    def test_what_flattening_would_hide_is_left_to_the_general_way(self, data: str) -> None:
        assert parsed(data) is None

    def test_so_are_brackets_in_texts(self) -> None:
        """They are counted with the others; texts rarely have any."""
        assert parsed("[1]", parameters={"unit": "[m]"}) is None
        assert parsed("[1]", parameters={"unit": "m]", "more": [[1], {"a": [2]}]}) is not None

    @pytest.mark.parametrize("data", ["null", "1", '"1"', "{}", "true"])
    def test_data_that_is_no_list(self, data: str) -> None:
        with mock.patch.object(protocol, "BULK_BYTES", 0):
            content = f'{{"inputs":[{{"name":"x","data":{data}}}]}}'.encode()
            assert decode_request(content, LIMITS).inputs["x"].get("data") == json.loads(data)


class TestDocuments:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"1",
            b"{}",
            b'{"inputs": 1}',
            b'{"inputs": {}}',
            b'{"rows": []}',
            b'{"inputs": [NaN]}',
            b'{"inputs": [1e999]}',
            b'{"inputs": []} x',
            b'{"inputs": ["\xff"]}',
            b'{"inputs": ["\\ud800"]}',
            b'{"inputs": [18446744073709551616]}',
            b'\xef\xbb\xbf{"inputs": []}',
            b'{"inputs": [], "inputs": [1]}',
            b'{"inputs": [{"data": [1], "data": [2]}]}',
            b'{"inputs": [], "a\\u0000b": 1}',
            b'{"inputs": [{"a": 1, "a\\u0000": 2}]}',
            b'{"inputs": [], "a": %b1%b}' % (b"[" * 1022, b"]" * 1022),
            b'{"inputs": [' + b"[" * 1030 + b"]" * 1030 + b"]}",
        ],
    )
    def test_left_to_the_general_way(self, content: bytes) -> None:
        assert bulk.parse(content) is None
        assert bulk.parse(b'{"inputs": [1]}') == {"inputs": [1]}  # the parser is free again

    def test_many_names_are(self) -> None:
        """simdjson looks through all names for each: a hundred thousand would take minutes."""
        names = {f"n{number}": 1 for number in range(100_000)}
        assert bulk.parse(orjson.dumps({"inputs": [], **names})) is None
        assert bulk.parse(orjson.dumps({"inputs": [{"name": "x", **names}]})) is None
        assert bulk.parse(orjson.dumps({"inputs": [], "parameters": names})) == {
            "inputs": [],
            "parameters": names,
        }

    def test_a_body_larger_than_the_parser_that_is_kept(self) -> None:
        numbers = list(range(200_000))
        found = bulk.parse(body(tensor("x", "FP64", numbers)))
        assert found is not None
        np.testing.assert_array_equal(found["inputs"][0]["data"], numbers)

    def test_what_is_found_outlives_the_parser(self) -> None:
        first = parsed("[1, 2]", parameters={"a": {"b": [1]}})
        parsed("[8, 9]", parameters={"a": {"b": [2]}})
        assert first.tolist() == [1, 2]


# --- the same as the general way --------------------------------------------------------------------------------------------

numbers = (
    st.integers(-(2**63), 2**64 - 1)
    | st.integers(-300, 300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.0, -0.0, 1e308, 65504, 65520, 2**53 + 1, 3.5e38, 5e-324])
)
values = st.one_of(
    numbers, numbers, numbers, numbers, st.none() | st.booleans() | st.sampled_from(["a", "b", "[", ""])
)
data = st.one_of(
    st.lists(values, max_size=6),
    st.lists(numbers, max_size=6),
    st.lists(st.lists(numbers, min_size=2, max_size=2), max_size=4),
    st.lists(st.lists(values, max_size=2), max_size=4),
    st.lists(values | st.lists(values, max_size=2), max_size=3),
    st.recursive(values, lambda inner: st.lists(inner, max_size=2), max_leaves=4),
)
tensors = st.fixed_dictionaries(
    {"name": st.just("x"), "datatype": st.sampled_from([*NUMPY_OF, "FP8"]), "data": data},
    optional={
        "shape": st.lists(st.integers(0, 4), min_size=1, max_size=2),
        "parameters": st.dictionaries(st.text(max_size=3), values | st.lists(values, max_size=2), max_size=2),
    },
)


def fitting(found: dict[str, Any]) -> dict[str, Any]:
    """With the shape that its data has, where it says none."""
    if "shape" not in found:
        values = found["data"]
        nested = type(values) is list and values and type(values[0]) is list
        count = len(values) if type(values) is list else 1
        found["shape"] = [count, len(values[0])] if nested else [count]
    return found


FIELDS = [
    *(Field("x", kind, nullable=nullable) for kind in NUMPY_OF for nullable in (False, True)),
    *(Field("x", kind, (-1, 2)) for kind in ("FP32", "FP64", "INT64", "BOOL", "BYTES")),
    Field("x", "BYTES", levels=("a", "b")),
    Field("x", "BYTES", raw=True),
]
FORMS: tuple[Takes, ...] = ("matrix", "tensors")
BINDERS = [Binder(signature(field), LIMITS, takes=takes) for field in FIELDS for takes in FORMS]


def bound(binder: Binder, content: bytes, bulk_bytes: int) -> Inputs | type[PredisError]:
    with mock.patch.object(protocol, "BULK_BYTES", bulk_bytes):
        try:
            return binder.bind(decode_request(content, LIMITS))
        except PredisError as error:
            return type(error)


def assert_same(one: Inputs | type[PredisError], other: Inputs | type[PredisError]) -> None:
    if not isinstance(one, Inputs) or not isinstance(other, Inputs):
        assert one == other
        return
    assert (one.rows, one.unseen) == (other.rows, other.unseen)
    np.testing.assert_array_equal(one.features, other.features)
    assert (one.tensors is None) is (other.tensors is None)
    for name, values in (one.tensors or {}).items():
        assert other.tensors is not None
        found = other.tensors[name]
        assert (found.dtype, found.shape) == (values.dtype, values.shape)
        np.testing.assert_array_equal(found, values)


@settings(max_examples=80)
@given(tensors.map(fitting))
@example({"name": "x", "datatype": "FP64", "shape": [2], "data": [1, [2]]})
@example({"name": "x", "datatype": "FP64", "shape": [2, 1], "data": [[1], [[2]]]})
@example({"name": "x", "datatype": "INT64", "shape": [1], "data": [2**63]})
@example({"name": "x", "datatype": "UINT64", "shape": [2], "data": [2**64 - 1, -1]})
@example({"name": "x", "datatype": "FP16", "shape": [1], "data": [65519.999]})
def test_a_tensor_means_the_same_either_way(tensor: dict[str, Any]) -> None:
    content = orjson.dumps({"inputs": [tensor]})
    for binder in BINDERS:
        assert_same(bound(binder, content, 0), bound(binder, content, 1 << 30))


anything = st.recursive(
    values,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["inputs", "data", "name", "datatype", "a"]), inner, max_size=3)
    ),
    max_leaves=12,
)


def plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list) else value


@given(st.fixed_dictionaries({"inputs": anything}, optional={"outputs": anything, "id": anything}))
def test_any_document_is_what_orjson_reads(document: Any) -> None:
    content = orjson.dumps(document)
    found = bulk.parse(content)
    assert found is None or plain(found) == orjson.loads(content)


@given(st.binary(max_size=80))
def test_any_bytes(content: bytes) -> None:
    for before in (b"", b'{"inputs":['):
        found = bulk.parse(before + content)
        assert found is None or plain(found) == orjson.loads(before + content)
