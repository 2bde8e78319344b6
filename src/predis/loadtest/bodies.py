"""Encodings of inference requests: JSON, binary tensors, protobuf messages; each whole and ready to be sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from predis.errors import InvalidInput
from predis.loadtest.values import DTYPES, Column, Input


def json_body(inputs: Sequence[Input], columns: Mapping[str, Column]) -> bytes:
    """A request with its values as JSON."""
    tensors = [{**_head(each, columns), "data": _plain(columns[each.name])} for each in inputs]
    return _dumps({"inputs": tensors})


def binary_body(inputs: Sequence[Input], columns: Mapping[str, Column]) -> tuple[bytes, int]:
    """A request with its values as binary tensors after the JSON, and the length of the JSON."""
    raw = [raw_values(each, columns[each.name]) for each in inputs]
    tensors = [
        {**_head(each, columns), "parameters": {"binary_data_size": len(part)}}
        for each, part in zip(inputs, raw, strict=True)
    ]
    head = _dumps({"inputs": tensors, "parameters": {"binary_data_output": True}})
    return head + b"".join(raw), len(head)


def grpc_message(
    inputs: Sequence[Input], columns: Mapping[str, Column], *, model: str, version: str = ""
) -> bytes:
    """An encoded ``ModelInferRequest`` with raw contents."""
    parts = [_lengthy(1, model.encode()), _lengthy(2, version.encode())]
    for each in inputs:
        shape = b"".join(_varint(size) for size in _shape(each, columns))
        tensor = _lengthy(1, each.name.encode()) + _lengthy(2, each.datatype.encode()) + _lengthy(3, shape)
        parts.append(_lengthy(5, tensor))
    parts += [_lengthy(7, raw_values(each, columns[each.name])) for each in inputs]
    return b"".join(parts)


def http_request(path: str, body: bytes, *, headers: Mapping[str, str]) -> bytes:
    """A whole HTTP/1.1 request."""
    lines = [
        f"POST {path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in headers.items()),
        f"content-length: {len(body)}",
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def raw_values(each: Input, column: Column) -> bytes:
    """Values as the protocol's binary form: little-endian, row-major; texts each after their length in four bytes.

    Raises:
        InvalidInput: a value is missing, which this form cannot say, or does not fit the datatype.
    """
    values = column.reshape(-1)
    if each.datatype == "BYTES":
        texts = [value.encode() if isinstance(value, str) else value for value in values.tolist()]
        if any(not isinstance(text, bytes) for text in texts):
            raise InvalidInput(
                f"input {each.name!r} must hold texts, none of them missing, to be sent as binary tensors"
            )
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    try:
        if any(value is None for value in values.tolist()) and each.datatype.startswith("FP"):
            values = np.array([np.nan if value is None else value for value in values.tolist()])
        return values.astype(DTYPES[each.datatype], casting="unsafe").tobytes()
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"input {each.name!r} cannot be sent as {each.datatype}: {error}") from None


def _head(each: Input, columns: Mapping[str, Column]) -> dict[str, Any]:
    return {"name": each.name, "datatype": each.datatype, "shape": _shape(each, columns)}


def _shape(each: Input, columns: Mapping[str, Column]) -> list[int]:
    return [len(columns[each.name]), *(max(size, 1) for size in each.shape[1:])]


def _plain(column: Column) -> list[Any]:
    return [None if value != value else value for value in column.reshape(-1).tolist()]


def _dumps(document: Any) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError as error:
        raise InvalidInput(f"a value of the file cannot be sent as JSON: {error}") from None


def _lengthy(number: int, content: bytes) -> bytes:
    """A protobuf field of the length-delimited kind."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
