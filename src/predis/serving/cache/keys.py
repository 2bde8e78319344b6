"""Which requests are the same: a BLAKE2b digest of 128 bits over who asks, which version, and the bound input.

The input is taken after binding, when names, order and datatypes are the signature's and the wire is forgotten. Every part is preceded
by its length, or has one that earlier parts fix: two different inputs never become the same bytes. In a matrix -0.0 counts as 0.0, and
every NaN as the one that means "missing"; tensors are taken bit by bit.

The requested outputs are not in the key: all are kept, and chosen from when an answer is written.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from predis.registry.model import Version
from predis.serving.inputs import Inputs, Tensors, Unseen

_SCHEME = b"predis prediction 1"
_HEAD = struct.Struct("<c2q")
_PLACE = struct.Struct("<3q")
_LENGTH = struct.Struct("<q")


class CacheKeys:
    """Makes the keys of one version of one tenant.

    The version's digest covers its files; the signature, which says what a column means, and the format are added to it. So the same
    artifact registered twice shares its predictions, unless it is to be read differently.
    """

    def __init__(self, version: Version) -> None:
        signature = orjson.dumps(version.signature.to_dict(), option=orjson.OPT_SORT_KEYS)
        named = (version.tenant, version.model, version.digest, version.format)
        parts = [_SCHEME, *(name.encode() for name in named), signature]
        self._start = hashlib.blake2b(b"".join(map(_sized, parts)), digest_size=16)

    def of(self, inputs: Inputs) -> bytes:
        """The key of these rows; 16 bytes."""
        state = self._start.copy()
        state.update(canonical(inputs))
        return state.digest()


def canonical(inputs: Inputs) -> bytes:
    """The rows as bytes: equal where the inputs mean the same, different where they do not."""
    if inputs.tensors is not None:  # the matrix beside them, if any, is drawn from them
        return b"".join((_HEAD.pack(b"t", inputs.rows, len(inputs.tensors)), *_tensors(inputs.tensors)))
    matrix = inputs.features + 0.0  # a copy, and -0.0 + 0.0 is 0.0
    matrix[matrix != matrix] = np.nan
    head = _HEAD.pack(b"m", *matrix.shape) + matrix.tobytes()
    return b"".join((head, *_texts(inputs.unseen))) if inputs.unseen else head


def _texts(unseen: Unseen) -> Iterable[bytes]:
    for (row, column), text in sorted(unseen.items()):
        encoded = text.encode("utf-8", "surrogatepass")
        yield _PLACE.pack(row, column, len(encoded)) + encoded


def _tensors(tensors: Tensors) -> Iterable[bytes]:
    for name in sorted(tensors):
        tensor = tensors[name]
        yield _sized(name.encode("utf-8", "surrogatepass"))
        yield _sized(tensor.dtype.str.encode())
        yield struct.pack(f"<{1 + tensor.ndim}q", tensor.ndim, *tensor.shape)
        yield pack_items(tensor) if tensor.dtype.hasobject else tensor.tobytes()


def pack_items(tensor: NDArray[Any]) -> bytes:
    """The texts of an object tensor one after the other, each with its kind and length: ``str``, ``bytes`` or None."""
    return b"".join(map(_item, tensor.ravel().tolist()))


def _item(item: str | bytes | None) -> bytes:
    if isinstance(item, bytes):
        return b"b" + _sized(item)
    if item is None:
        return b"n"
    return b"s" + _sized(item.encode("utf-8", "surrogatepass"))


def _sized(part: bytes) -> bytes:
    return _LENGTH.pack(len(part)) + part
