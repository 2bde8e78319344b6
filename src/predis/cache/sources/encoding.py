"""Values of sources as Valkey keeps them, and what is written as sources take it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson

from predis.cache.sources.source import Source

Payload = bytes | dict[bytes, bytes]
"""A string, or the fields of a hash."""


def encode(source: Source, value: Any) -> Payload | None:
    """A value of the source as it is kept; None for None.

    Raises:
        ValueError: it cannot be kept so, or is too large.
    """
    if value is None:
        return None
    payload: Payload
    if source.encoding == "hash":
        payload = _fields(value)
        size = sum(len(name) + len(text) for name, text in payload.items())
    else:
        payload = _json(value) if source.encoding == "json" else _text(value)
        size = len(payload)
    if size > source.max_value_bytes:
        raise ValueError(f"the value has {size} bytes, more than max_value_bytes, {source.max_value_bytes}")
    return payload


def decoded(source: Source, raw: bytes) -> dict[str, Any]:
    """The fields of a JSON object that is written, to be bound by name; none where it is no object or another encoding."""
    if source.encoding != "json":
        return {}
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(document, dict):
        return {}
    return {name: _scalar(value) for name, value in document.items()}


def _scalar(value: Any) -> Any:
    return orjson.dumps(value).decode() if isinstance(value, list | dict) else value


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=_other, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        raise ValueError(f"the value is no JSON: {error}") from None


def _other(value: Any) -> Any:
    """What orjson leaves to us: exact numbers keep their digits, bytes are text."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode()
    if isinstance(value, set | frozenset):
        return list(value)
    raise TypeError(type(value).__name__)


def _text(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, bool):
        return b"1" if value else b"0"
    if isinstance(value, str | int | float | Decimal):
        return str(value).encode()
    if isinstance(value, dict | list | tuple | set):
        raise ValueError(f"encoding text is for one value, got {type(value).__name__}")
    return str(value).encode()  # moments, UUIDs and the like


def _fields(value: Any) -> dict[bytes, bytes]:
    if not isinstance(value, Mapping):
        raise ValueError(f"encoding hash is for an object or a row, got {type(value).__name__}")
    fields = {
        str(name).encode(): _json(item) if isinstance(item, dict | list) else _text(item)
        for name, item in value.items()
        if item is not None
    }
    if not fields:
        raise ValueError("a hash needs at least one field that is not null")
    return fields
