"""Values: outputs as bytes and back, and whatever is not one as a miss."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from predis.registry.signature import NUMPY_OF
from predis.serving.cache import values

KEY = bytes(range(16))
OTHER = bytes(16)
TEXTS = st.one_of(st.none(), st.text(max_size=5), st.binary(max_size=5))


@st.composite
def outputs(draw: st.DrawFn) -> list[Any]:
    found = []
    for kind in draw(st.lists(st.sampled_from(sorted(NUMPY_OF)), max_size=3)):
        dtype = np.dtype(NUMPY_OF[kind])
        shape = draw(npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
        found.append(draw(npst.arrays(dtype, shape, elements=TEXTS if dtype.hasobject else None)))
    return found


def value_of(*arrays: Any) -> bytes:
    value = values.encode(KEY, arrays)
    assert value is not None
    return value


@hypothesis_settings(max_examples=200)
@given(outputs())
def test_comes_back_as_it_went(given_outputs: list[Any]) -> None:
    back = values.decode(KEY, value_of(*given_outputs))
    assert back is not None
    assert len(back) == len(given_outputs)
    for one, other in zip(back, given_outputs, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert not one.flags.writeable
        if one.dtype.hasobject:
            assert one.tolist() == other.tolist()
            assert [*map(type, one.ravel())] == [*map(type, other.ravel())]
        else:
            assert one.tobytes() == other.tobytes()


def test_slices_and_strides() -> None:
    batch = np.arange(24.0).reshape(6, 4)
    back = values.decode(KEY, value_of(batch[2:3, ::2], batch.T))
    assert back is not None
    assert back[0].tolist() == [[8.0, 10.0]]
    assert back[1].tolist() == batch.T.tolist()


GOOD = value_of(np.array([0.25, 0.75]), np.array(["a", None], np.object_))


@pytest.mark.parametrize("at", range(len(GOOD)))
def test_one_changed_bit_makes_a_miss(at: int) -> None:
    damaged = bytearray(GOOD)
    damaged[at] ^= 1
    assert values.decode(KEY, bytes(damaged)) is None


def test_what_is_cut_or_longer_is_a_miss() -> None:
    assert all(values.decode(KEY, GOOD[:length]) is None for length in range(len(GOOD)))
    assert values.decode(KEY, GOOD + b"\0") is None


def test_the_value_of_another_key_is_a_miss() -> None:
    assert values.decode(OTHER, GOOD) is None


@given(st.binary(max_size=200))
def test_somebody_elses_value_is_a_miss(value: bytes) -> None:
    assert values.decode(KEY, value) is None


def signed(content: bytes) -> bytes:
    return values._MAGIC + values._checksum(KEY, content) + content


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=8), st.binary(max_size=50))
def test_even_with_a_right_checksum_nonsense_is_a_miss(numbers: list[int], rest: bytes) -> None:
    content = struct.pack(f"<{1 + len(numbers)}q", 1, *numbers) + rest
    assert values.decode(KEY, signed(content)) is None


@pytest.mark.parametrize(
    "fields",
    [
        (b"<f8", 1, 2**40, 8),  # a shape that the data does not fill
        (b"|O", 1, 2**62, 0),  # as many texts as no memory holds
        (b"|O", 1, 2**33, 0),
        (b"|O", 1, -1, 0),
        (b"|O", 2, -1, -1, 8),
        (b"<f8", -1, 8),
        (b"<f8", 2**62, 8),  # so many dimensions
        (b"|V8", 1, 1, 8),
        (b"<U1", 1, 2, 8),
        (b"<f8", 1, 1, -8),
    ],
)
def test_forged_shapes_are_a_miss(fields: tuple[Any, ...]) -> None:
    name, *numbers = fields
    content = struct.pack("<2q", 1, len(name)) + name + struct.pack(f"<{len(numbers)}q", *numbers) + bytes(8)
    assert values.decode(KEY, signed(content)) is None


def test_a_datatype_that_no_protocol_carries_is_not_kept() -> None:
    assert values.encode(KEY, [np.array(["2026-01-01"], "datetime64[D]")]) is None
    assert values.encode(KEY, [np.array(["fixed width"])]) is None
