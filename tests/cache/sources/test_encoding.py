"""How values of sources are kept, and what is bound when one is written."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from predis.cache.sources.encoding import decoded, encode
from predis.cache.sources.source import Source


def source(encoding: str, **more: Any) -> Source:
    document = {"pattern": "user:{id}", "kind": "python", "function": "a:b", "encoding": encoding, **more}
    return Source.of("users", document)


@pytest.mark.parametrize(
    ("encoding", "value", "kept"),
    [
        ("json", {"b": 1, "a": "é"}, '{"b":1,"a":"é"}'.encode()),
        ("json", [1, None, True], b"[1,null,true]"),
        ("json", "text", b'"text"'),
        ("json", 0, b"0"),
        ("json", "", b'""'),
        ("json", {"d": Decimal("1.10"), "b": b"x", "s": {1}}, b'{"d":"1.10","b":"x","s":[1]}'),
        ("json", {7: date(2026, 1, 2)}, b'{"7":"2026-01-02"}'),
        ("json", {"at": datetime(2026, 1, 2, tzinfo=UTC)}, b'{"at":"2026-01-02T00:00:00+00:00"}'),
        ("json", math.nan, b"null"),
        ("text", "é", "é".encode()),
        ("text", b"\x00\xff", b"\x00\xff"),
        ("text", memoryview(b"x"), b"x"),
        ("text", "", b""),
        ("text", True, b"1"),
        ("text", False, b"0"),
        ("text", 1.5, b"1.5"),
        ("text", Decimal("1.10"), b"1.10"),
        ("text", UUID(int=7), b"00000000-0000-0000-0000-000000000007"),
        ("hash", {"a": 1, "b": None, "c": {"d": [2]}, "e": "x"}, {b"a": b"1", b"c": b'{"d":[2]}', b"e": b"x"}),
    ],
)  # fmt: skip
def test_kept(encoding: str, value: Any, kept: Any) -> None:
    assert encode(source(encoding), value) == kept


@pytest.mark.parametrize("encoding", ["json", "text", "hash"])
def test_no_value_is_none(encoding: str) -> None:
    assert encode(source(encoding), None) is None


@pytest.mark.parametrize(
    ("encoding", "value", "message"),
    [
        ("json", object(), "no JSON"),
        ("json", b"\xff", "no JSON"),
        ("json", 1 << 70, "no JSON"),
        ("text", {"a": 1}, "one value, got dict"),
        ("text", [1], "one value, got list"),
        ("hash", "x", "an object or a row, got str"),
        ("hash", {}, "at least one field"),
        ("hash", {"a": None}, "at least one field"),
        ("hash", {"a": [object()]}, "no JSON"),
        ("json", "x" * 99, "101 bytes, more than max_value_bytes, 100"),
        ("text", "é" * 51, "102 bytes, more than"),
        ("hash", {"a": "x" * 60, "b": "x" * 60}, "122 bytes, more than"),
    ],
)
def test_what_cannot_be_kept(encoding: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(source(encoding, max_value_bytes=100), value)


@pytest.mark.parametrize(
    ("encoding", "raw", "fields"),
    [
        ("json", b'{"a": 1, "b": [1, 2], "c": null}', {"a": 1, "b": "[1,2]", "c": None}),
        ("json", b"[1]", {}),
        ("json", b"no JSON", {}),
        ("json", b"\xff", {}),
        ("text", b'{"a": 1}', {}),
    ],
)
def test_what_is_bound(encoding: str, raw: bytes, fields: dict[str, Any]) -> None:
    assert decoded(source(encoding), raw) == fields
