"""Tensors as raw bytes, as gRPC's ``raw_*_contents`` and the binary extension of HTTP carry them.

Values are little-endian, row-major, without padding. An element of BYTES is its length (four bytes, unsigned) and then its bytes. What
arrives is untrusted: the number of elements that a shape promises is held against the bytes that came, before anything is allocated.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.errors import InvalidRequest, ModelFailure
from predis.registry.signature import NUMPY_OF

MAX_DIMENSIONS = 32
_MOST_ELEMENTS = 1 << 48
_DTYPES = {name: np.dtype(kind).newbyteorder("<") for name, kind in NUMPY_OF.items() if name != "BYTES"}
_LENGTH = Struct("<I")


def decode_raw(datatype: str, shape: Sequence[int], *, data: bytes | memoryview) -> NDArray[Any]:
    """The tensor [*shape] that these bytes hold, read-only; numbers are a view on ``data`` where it is aligned.

    Elements of BYTES are ``bytes`` objects.

    Raises:
        InvalidRequest: no such datatype, a shape that is none, or bytes that are not as many as the shape needs.
    """
    count = elements(shape)
    if datatype == "BYTES":
        return _decode_bytes(data, count).reshape(shape)
    dtype = _DTYPES.get(datatype)
    if dtype is None:
        raise InvalidRequest(f"datatype {reprlib.repr(datatype)} is none of {', '.join(NUMPY_OF)}")
    if len(data) != count * dtype.itemsize:
        raise InvalidRequest(
            f"{len(data)} bytes of raw data; {datatype} of shape {_shown(shape)} needs {count * dtype.itemsize}"
        )
    values = np.frombuffer(data, dtype)
    if datatype == "BOOL" and count and values.view(np.uint8).max() > 1:
        raise InvalidRequest("a byte of a raw BOOL tensor is 0 or 1")
    if not values.flags.aligned:  # a slice of a longer body; libraries of models may read words
        values = values.copy()
        values.flags.writeable = False
    return values.reshape(shape)


def encode_raw(array: NDArray[Any], datatype: str) -> bytes:
    """The bytes of a tensor. Elements of BYTES may be ``str`` or ``bytes``.

    Raises:
        ModelFailure: an element of a BYTES tensor is neither.
    """
    if datatype != "BYTES":
        return array.astype(_DTYPES[datatype], copy=False).tobytes()
    parts = []
    for text in texts(array):
        parts += [_LENGTH.pack(len(text)), text]
    return b"".join(parts)


def texts(array: NDArray[Any]) -> list[bytes]:
    """The elements of a BYTES tensor, which may be ``str`` or ``bytes``, in row-major order.

    Raises:
        ModelFailure: one is neither, or a ``str`` that UTF-8 cannot say.
    """
    try:
        found = [value.encode() if type(value) is str else value for value in array.reshape(-1).tolist()]
    except UnicodeEncodeError:
        raise ModelFailure("the model answered a text with half a character (a lone surrogate)") from None
    for value in found:
        if type(value) is not bytes:
            raise ModelFailure(f"the model answered {reprlib.repr(value)} where its signature promises BYTES")
    return found


def elements(shape: Sequence[int]) -> int:
    """How many elements a shape holds.

    Raises:
        InvalidRequest: it is not up to ``MAX_DIMENSIONS`` whole numbers from 0 on.
    """
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidRequest(f"a shape of {len(shape)} dimensions; at most {MAX_DIMENSIONS} are allowed")
    for dimension in shape:
        if type(dimension) is not int or not 0 <= dimension < 1 << 63:
            raise InvalidRequest(f"a shape holds whole numbers from 0 on, got {_shown(shape)}")
    if (
        math.prod(dimension or 1 for dimension in shape) > _MOST_ELEMENTS
    ):  # numpy refuses this even where one is 0
        raise InvalidRequest(f"no tensor has the shape {_shown(shape)}")
    return math.prod(shape)


def _decode_bytes(data: bytes | memoryview, count: int) -> NDArray[Any]:
    if count * _LENGTH.size > len(data):
        raise InvalidRequest(
            f"{len(data)} bytes of raw data; {count} elements of BYTES need at least {count * _LENGTH.size}"
        )
    content, length_at = bytes(data), _LENGTH.unpack_from
    values: list[bytes] = []
    at, end = 0, len(content)
    while len(values) < count:
        start = at + _LENGTH.size
        if start > end:
            raise InvalidRequest(f"raw BYTES end within the length of element {len(values)} of {count}")
        (length,) = length_at(content, at)
        at = start + length
        if at > end:
            raise InvalidRequest(
                f"element {len(values)} of raw BYTES says it has {length} bytes; {end - start} are left"
            )
        values.append(content[start:at])
    if at != end:
        raise InvalidRequest(f"{end - at} bytes are left over after the {count} elements of raw BYTES")
    found = np.empty(count, object)
    found[:] = values
    found.flags.writeable = False
    return found


def _shown(shape: Sequence[int]) -> str:
    return reprlib.repr(list(shape))
