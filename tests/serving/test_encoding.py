from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from predis.errors import InvalidRequest, ModelFailure
from predis.registry.signature import NUMPY_OF, Field, Signature
from predis.serving.encoding import Encoder, top_classes
from predis.serving.protocol import InferRequest, RequestedOutput
from predis.serving.wire import decode_raw
from tests.serving.helpers import SCORE, signature

X = Field("x", "FP64")
TWO = signature(X, outputs=(Field("label", "INT64"), Field("p", "FP32", (-1, 2))), score="p")
OUTPUTS = (np.array([1, 0]), np.array([[0.25, 0.75], [1.0, np.nan]], np.float32))
ENCODER = Encoder("e", 3, signature=TWO)
TEXTS = signature(X, outputs=(SCORE, Field("text", "BYTES", (-1, 2))))


def one(datatype: str, shape: tuple[int, ...] = (-1,)) -> Signature:
    return Signature((X,), (Field("y", datatype, shape), SCORE), "score")


def wanted(*names: str, **how: Any) -> InferRequest:
    return InferRequest({}, "r", outputs=[RequestedOutput(name, **how) for name in names] or None)


def encoded(request: InferRequest, outputs: Any = OUTPUTS, encoder: Encoder = ENCODER) -> tuple[Any, bytes]:
    """The JSON of an answer and the bytes behind it."""
    body, head_bytes = encoder.encode(request, outputs)
    if head_bytes is None:
        return orjson.loads(body), b""
    assert head_bytes < len(body)
    return orjson.loads(body[:head_bytes]), body[head_bytes:]


class TestJson:
    def test_is_the_protocols_answer(self) -> None:
        assert encoded(wanted()) == (
            {
                "model_name": "e",
                "model_version": "3",
                "id": "r",
                "outputs": [
                    {"name": "label", "datatype": "INT64", "shape": [2], "data": [1, 0]},
                    {"name": "p", "datatype": "FP32", "shape": [2, 2], "data": [0.25, 0.75, 1.0, None]},
                ],
            },
            b"",
        )

    def test_of_a_single_output(self) -> None:
        encoder = Encoder("a-b.c", 12, signature=signature(X))
        assert encoded(InferRequest({}, 'q"\\é'), [np.array([1.5])], encoder)[0] == {
            "model_name": "a-b.c",
            "model_version": "12",
            "id": 'q"\\é',
            "outputs": [{"name": "score", "datatype": "FP64", "shape": [1], "data": [1.5]}],
        }

    @pytest.mark.parametrize("names", [["p"], ["label"], ["p", "label"], ["label", "p"]])
    def test_only_outputs_asked_for_in_that_order(self, names: list[str]) -> None:
        assert [o["name"] for o in encoded(wanted(*names))[0]["outputs"]] == names

    @pytest.mark.parametrize(
        ("datatype", "values", "expected"),
        [
            ("BOOL", [True, False], [True, False]),
            ("UINT8", [0, 255], [0, 255]),
            ("INT8", [-128, 127], [-128, 127]),
            ("INT64", [-(2**63), 2**63 - 1], [-(2**63), 2**63 - 1]),
            ("UINT64", [0, 2**64 - 1], [0, 2**64 - 1]),
            ("FP16", [0.5, 65504.0], [0.5, 65504.0]),
            ("FP16", [np.nan, np.inf], [None, None]),
            ("FP32", [0.1, -np.inf], [0.1, None]),
            ("FP64", [0.1, np.nan], [0.1, None]),
            ("BYTES", ["é", b"b\xc3\xbc"], ["é", "bü"]),
        ],
    )
    def test_every_datatype(self, datatype: str, values: list[Any], expected: list[Any]) -> None:
        """What JSON cannot say is null."""
        array = np.array(values, NUMPY_OF[datatype])
        for names in ((), ("y",)):
            encoder = Encoder("e", 1, signature=one(datatype))
            found, _raw = encoded(wanted(*names), [array, np.zeros(2)], encoder)
            assert found["outputs"][0] == {"name": "y", "datatype": datatype, "shape": [2], "data": expected}

    def test_data_is_flat_and_row_major_whatever_the_array_is(self) -> None:
        values = np.arange(12.0).reshape(2, 3, 2)
        for array in (values, np.asfortranarray(values), np.concatenate([values, values], axis=2)[:, :, :2]):
            encoder = Encoder("e", 1, signature=one("FP64", (-1, 3, 2)))
            found = encoded(wanted("y"), [array, np.zeros(2)], encoder)[0]["outputs"][0]
            assert found["shape"] == [2, 3, 2]
            assert found["data"] == values.reshape(-1).tolist()

    @given(st.lists(st.floats(), min_size=1, max_size=20))
    def test_floats_come_back_as_they_were(self, values: list[float]) -> None:
        content, _head = Encoder("e", 1, signature=signature(SCORE)).encode(
            InferRequest({}), [np.array(values)]
        )
        back = orjson.loads(content)["outputs"][0]["data"]
        assert back == [v if math.isfinite(v) else None for v in values]

    @pytest.mark.parametrize("wrong", [None, 1, 1.5, ["a"]])
    def test_a_text_that_is_none_is_the_models_failure(self, wrong: Any) -> None:
        texts = np.empty((1, 2), object)
        texts[0, 0], texts[0, 1] = "a", wrong
        with pytest.raises(ModelFailure, match="where its signature promises BYTES"):
            Encoder("e", 1, signature=TEXTS).encode(wanted(), [np.zeros(1), texts])

    @pytest.mark.parametrize(("wrong", "says"), [(b"\xff", "not UTF-8"), ("\ud800", "surrogate")])
    def test_so_is_one_that_cannot_be_written(self, wrong: Any, says: str) -> None:
        texts = np.array([["a", wrong]], object)
        with pytest.raises(ModelFailure, match=says):
            Encoder("e", 1, signature=TEXTS).encode(wanted(), [np.zeros(1), texts])


class TestBinary:
    def test_an_output_asked_for_as_bytes(self) -> None:
        request = InferRequest({}, "r", outputs=[RequestedOutput("p", binary=True), RequestedOutput("label")])
        head, raw = encoded(request)
        assert head["outputs"] == [
            {"name": "p", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": 16}},
            {"name": "label", "datatype": "INT64", "shape": [2], "data": [1, 0]},
        ]
        assert raw == OUTPUTS[1].tobytes()

    def test_all_of_them(self) -> None:
        head, raw = encoded(InferRequest({}, "r", binary=True))
        assert [o["parameters"]["binary_data_size"] for o in head["outputs"]] == [16, 16]
        assert raw == OUTPUTS[0].tobytes() + OUTPUTS[1].tobytes()

    def test_the_outputs_own_wish_counts(self) -> None:
        request = InferRequest({}, "r", outputs=[RequestedOutput("label")], binary=True)
        assert encoded(request)[1] == b""

    def test_texts_may_be_any_bytes(self) -> None:
        encoder = Encoder("e", 1, signature=TEXTS)
        values = np.array([["é", b"\xff\x00"]], object)
        head, raw = encoded(wanted("text", binary=True), [np.zeros(1), values], encoder)
        assert head["outputs"][0]["datatype"] == "BYTES"
        assert decode_raw("BYTES", [1, 2], data=raw).tolist() == [["é".encode(), b"\xff\x00"]]
        with pytest.raises(ModelFailure):
            encoder.encode(wanted("text", binary=True), [np.zeros(1), np.array([["a", None]], object)])

    @given(st.data(), st.sampled_from([name for name in NUMPY_OF if name != "BYTES"]))
    def test_is_what_the_array_held(self, data: st.DataObject, datatype: str) -> None:
        array = data.draw(arrays.arrays(NUMPY_OF[datatype], st.tuples(st.integers(1, 4), st.just(3))))
        encoder = Encoder("e", 1, signature=one(datatype, (-1, 3)))
        head, raw = encoded(wanted("y", binary=True), [array, np.zeros(len(array))], encoder)
        assert decode_raw(datatype, head["outputs"][0]["shape"], data=raw).tobytes() == array.tobytes()


class TestClasses:
    """The classification extension: the highest of an output's values, as ``value:index``."""

    def test_highest_first_and_of_equals_the_first(self) -> None:
        values = np.array([[0.1, 0.5, 0.2, 0.5], [0.9, 0.0, 0.05, 0.05]])
        assert top_classes(values, 3).tolist() == [
            ["0.500000:1", "0.500000:3", "0.200000:2"],
            ["0.900000:0", "0.050000:2", "0.050000:3"],
        ]

    @pytest.mark.parametrize(
        ("datatype", "values", "order"),
        [
            ("UINT8", [0, 255, 7], [1, 2, 0]),
            ("INT8", [-128, 127, 0], [1, 2, 0]),
            ("INT64", [-(2**63), 2**63 - 1, 2**63 - 2], [1, 2, 0]),
            ("UINT64", [2**64 - 2, 2**64 - 1, 0], [1, 0, 2]),
            ("FP16", [0.5, np.inf, -np.inf], [1, 0, 2]),
            ("FP64", [np.nan, 1.0, -1.0], [1, 2, 0]),
        ],
    )
    def test_of_every_kind_of_number(self, datatype: str, values: list[Any], order: list[int]) -> None:
        """Some whole numbers have no negative to sort by; NaN comes last."""
        (found,) = top_classes(np.array([values], NUMPY_OF[datatype]), 3).tolist()
        assert [int(text.partition(":")[2]) for text in found] == order

    @pytest.mark.parametrize(("count", "found"), [(1, 1), (4, 4), (1000, 4)])
    def test_as_many_as_there_are(self, count: int, found: int) -> None:
        assert top_classes(np.arange(8.0).reshape(2, 2, 2), count).shape == (2, found)

    def test_of_one_value_per_row(self) -> None:
        assert top_classes(np.array([0.25, 1.0]), 5).tolist() == [["0.250000:0"], ["1.000000:0"]]

    def test_in_an_answer(self) -> None:
        head, _raw = encoded(wanted("p", classes=1))
        assert head["outputs"] == [
            {"name": "p", "datatype": "BYTES", "shape": [2, 1], "data": ["0.750000:1", "1.000000:0"]}
        ]
        head, raw = encoded(wanted("p", classes=2, binary=True))
        assert head["outputs"][0] == {
            "name": "p", "datatype": "BYTES", "shape": [2, 2], "parameters": {"binary_data_size": len(raw)},
        }  # fmt: skip
        assert decode_raw("BYTES", [2, 2], data=raw)[0].tolist() == [b"0.750000:1", b"0.250000:0"]


class TestCheck:
    def test_unknown_outputs_are_refused_beforehand(self) -> None:
        ENCODER.check(None)
        ENCODER.check([RequestedOutput("p")])
        with pytest.raises(InvalidRequest, match="unknown output 'q'; the outputs are label, p"):
            ENCODER.check([RequestedOutput("p"), RequestedOutput("q")])

    def test_messages_stay_short(self) -> None:
        with pytest.raises(InvalidRequest) as caught:
            ENCODER.check([RequestedOutput("q" * 5000)])
        assert len(str(caught.value)) < 200

    def test_an_output_is_asked_for_once(self) -> None:
        """A small request might ask for an answer of any size otherwise."""
        with pytest.raises(InvalidRequest, match="two of 'outputs' have the same name"):
            ENCODER.check([RequestedOutput("p"), RequestedOutput("p", binary=True)])

    @pytest.mark.parametrize("datatype", ["BYTES", "BOOL"])
    def test_classes_are_of_numbers(self, datatype: str) -> None:
        encoder = Encoder("e", 1, signature=one(datatype))
        encoder.check([RequestedOutput("y"), RequestedOutput("score", classes=2)])
        with pytest.raises(InvalidRequest, match=f"output 'y' is {datatype}; classes are of numbers"):
            encoder.check([RequestedOutput("y", classes=2)])


def test_chosen_is_what_grpc_writes_too() -> None:
    found = ENCODER.chosen(InferRequest({}), OUTPUTS)
    assert [
        (field.name, output.name, values is own)
        for (field, values, output), own in zip(found, OUTPUTS, strict=True)
    ] == [
        ("label", "label", True),
        ("p", "p", True),
    ]
    ((field, values, output),) = ENCODER.chosen(wanted("p", classes=1, binary=True), OUTPUTS)
    assert (field.name, field.datatype, field.shape, values.shape) == ("p", "BYTES", (-1, 1), (2, 1))
    assert output == RequestedOutput("p", binary=True, classes=1)


@given(st.text(max_size=10))
def test_any_id_is_valid_json(text: str) -> None:
    content, _head = ENCODER.encode(InferRequest({}, text.encode("utf-8", "ignore").decode()), OUTPUTS)
    assert json.loads(content)["id"] == text.encode("utf-8", "ignore").decode()
