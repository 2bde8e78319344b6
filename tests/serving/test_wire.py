from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from predis.errors import InvalidRequest, ModelFailure
from predis.registry.signature import NUMPY_OF
from predis.serving.wire import decode_raw, elements, encode_raw, texts

NUMBERS = {name: np.dtype(kind) for name, kind in NUMPY_OF.items() if name != "BYTES"}
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
TEXTS = arrays.arrays(np.object_, SHAPES, elements=st.binary(max_size=20), fill=st.nothing())


def tensors(datatype: str) -> st.SearchStrategy[Any]:
    return TEXTS if datatype == "BYTES" else arrays.arrays(NUMBERS[datatype], SHAPES)


@given(st.data(), st.sampled_from(sorted(NUMPY_OF)))
def test_a_tensor_comes_back_as_it_went(data: st.DataObject, datatype: str) -> None:
    array = data.draw(tensors(datatype))
    found = decode_raw(datatype, list(array.shape), data=encode_raw(array, datatype))
    assert found.shape == array.shape
    assert found.dtype == array.dtype
    assert found.tobytes() == array.tobytes() if datatype != "BYTES" else found.tolist() == array.tolist()


@given(
    st.sampled_from([*sorted(NUMPY_OF), "BF16", "", "fp32"]),
    st.lists(st.one_of(st.integers(-2, 6), st.sampled_from([2**31, 2**62, 2**63, 2**70])), max_size=40),
    st.binary(max_size=64),
)
@example("FP32", [2**62, 2**62], b"")
@example("FP32", [0, 2**62, 2**62], b"")
@example("BYTES", [2**62, 0], b"")
@example("BYTES", [2], struct.pack("<I", 2**32 - 1))
@example("BOOL", [1], b"\x02")
def test_whatever_arrives_is_a_tensor_or_refused(datatype: str, shape: list[int], data: bytes) -> None:
    try:
        found = decode_raw(datatype, shape, data=data)
    except InvalidRequest:
        return
    assert found.shape == tuple(shape)
    assert encode_raw(found, datatype) == data


@pytest.mark.parametrize("shape", [[1.0], [True], ["1"], [None], [[1]], [-1], [2**63], [1] * 33])
def test_a_shape_is_a_few_whole_numbers(shape: list[Any]) -> None:
    with pytest.raises(InvalidRequest, match="shape"):
        elements(shape)


def test_messages_name_what_is_wrong() -> None:
    for datatype, shape, data, message in (
        ("FP32", [2, 3], b"1234", r"4 bytes of raw data; FP32 of shape \[2, 3\] needs 24"),
        ("BF16", [1], b"12", "'BF16' is none of BOOL, UINT8"),
        ("BOOL", [2], b"\x00\x03", "0 or 1"),
        ("BYTES", [3], b"12345", "3 elements of BYTES need at least 12"),
        ("BYTES", [1], b"\x05\0\0\0abc", "element 0 of raw BYTES says it has 5 bytes; 3 are left"),
        ("BYTES", [2], b"\x05\0\0\0abcde", "end within the length of element 1"),
        ("BYTES", [1], b"\x01\0\0\0ab", "1 bytes are left over after the 1 elements"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            decode_raw(datatype, shape, data=data)


def test_nothing_is_allocated_for_a_shape_that_the_data_cannot_fill() -> None:
    tracemalloc.start()
    try:
        for datatype in ("FP64", "BYTES"):
            with pytest.raises(InvalidRequest):
                decode_raw(datatype, [1 << 40], data=b"\0" * 64)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_numbers_are_a_view_and_never_written() -> None:
    data = np.arange(6, dtype="<f4").tobytes()
    found = decode_raw("FP32", [2, 3], data=data)
    assert np.shares_memory(found, np.frombuffer(data, np.uint8))
    for array in (
        found,
        decode_raw("BYTES", [1], data=b"\x01\0\0\0a"),
        decode_raw("INT64", [1], data=memoryview(b"x" * 9)[1:]),
    ):
        assert not array.flags.writeable


def test_a_part_of_a_body_that_begins_anywhere_is_aligned() -> None:
    body = b"head!" + np.arange(4, dtype="<f8").tobytes()
    found = decode_raw("FP64", [4], data=memoryview(body)[5:])
    assert found.flags.aligned
    assert found.tolist() == [0, 1, 2, 3]


def test_what_a_model_answers_is_written_as_its_signature_says() -> None:
    assert encode_raw(np.array([[1, 2], [3, 4]]).T, "FP32") == np.array([1, 3, 2, 4], "<f4").tobytes()
    assert encode_raw(np.array([1, 258], ">u2"), "UINT16") == b"\x01\x00\x02\x01"
    assert encode_raw(np.array(["ö", b"\xff"], object), "BYTES") == b"\x02\0\0\0\xc3\xb6\x01\0\0\0\xff"
    assert encode_raw(np.array(["ab"]), "BYTES") == b"\x02\0\0\0ab"
    assert texts(np.array(["a", b"b"], object)) == [b"a", b"b"]
    for wrong in (None, 1.5, ["a"]):
        array = np.empty(1, object)
        array[0] = wrong
        with pytest.raises(ModelFailure, match="where its signature promises BYTES"):
            encode_raw(array, "BYTES")
