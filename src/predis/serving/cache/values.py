"""Outputs as bytes, for a store outside the process.

No pickle: a value is arrays as datatype, shape and raw bytes, texts with their lengths. Before them stands a checksum over the key and
all that follows, so that a value which is damaged, of another key, or somebody else's reads as a miss. The checksum guards against
accidents. Who can write to the store can write answers: it is trusted as the database is.

Layout, little endian: magic(4) checksum(16) outputs(i64), then of each output: datatype(i64 length, text) dimensions(i64)
shape(i64 each) bytes(i64) data. Data of texts: of each its kind (``s``, ``b``, or ``n`` for None), length(i64) and bytes.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.registry.signature import NUMPY_OF
from predis.serving.cache.keys import pack_items

Outputs = Sequence[NDArray[Any]]

_MAGIC = b"PPC1"
_START = len(_MAGIC) + 16
_LENGTH = struct.Struct("<q")
_DTYPES = {np.dtype(kind).str: np.dtype(kind) for kind in NUMPY_OF.values()}


def encode(key: bytes, outputs: Outputs) -> bytes | None:
    """The value of a key; None where an output is of a datatype that no protocol carries."""
    parts = [_LENGTH.pack(len(outputs))]
    for output in outputs:
        name = output.dtype.str
        if name not in _DTYPES:
            return None
        data = pack_items(output) if output.dtype.hasobject else output.tobytes()
        parts.append(_LENGTH.pack(len(name)) + name.encode())
        parts.append(struct.pack(f"<{2 + output.ndim}q", output.ndim, *output.shape, len(data)))
        parts.append(data)
    content = b"".join(parts)
    return _MAGIC + _checksum(key, content) + content


def decode(key: bytes, value: bytes) -> list[NDArray[Any]] | None:
    """The outputs in a value, as read-only arrays; None where it is not the value of this key, whole and of this format."""
    content = value[_START:]
    if value[:_START] != _MAGIC + _checksum(key, content):
        return None
    try:
        reader = _Reader(content)
        return [_output(reader) for _ in range(reader.number())]
    except (ValueError, KeyError, struct.error):
        return None


class _Reader:
    """Takes one part after the other from the front of a value."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def number(self) -> int:
        return self.numbers(1)[0]

    def numbers(self, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}q", self.part(8 * count))

    def part(self, length: int) -> bytes:
        part = self._content[self._at : self._at + length]
        if length < 0 or len(part) != length:
            raise ValueError("a value ends before its last part")
        self._at += length
        return part

    def item(self) -> str | bytes | None:
        kind = self.part(1)
        if kind == b"n":
            return None
        data = self.part(self.number())
        return data if kind == b"b" else data.decode("utf-8", "surrogatepass")


def _output(reader: _Reader) -> NDArray[Any]:
    dtype = _DTYPES[reader.part(reader.number()).decode()]
    shape = reader.numbers(reader.number())
    data = reader.part(reader.number())
    if not dtype.hasobject:
        return np.frombuffer(data, dtype).reshape(shape)
    if math.prod(shape) > len(data):  # each takes a byte at least
        raise ValueError("a value has fewer texts than its shape says")
    items = _Reader(data)
    output = np.empty(shape, np.object_)
    output.ravel()[:] = [items.item() for _ in range(math.prod(shape))]
    output.flags.writeable = False
    return output


def _checksum(key: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16, key=key).digest()
