"""Spans of calls: what they say, and that a call is what it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from predis.cache.sources.calling import Change
from predis.cache.sources.pattern import Arguments
from predis.cache.sources.source import Source
from predis.cache.sources.traced import Traced

SOURCE = Source.of(
    "users",
    {
        "pattern": "user:{id:int}",
        "kind": "sql",
        "url": "sqlite://",
        "statement": "SELECT id FROM users WHERE id IN :id",
    },
)


class Spans:
    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def call(
        self, name: str, *, between: tuple[float, float], attributes: Mapping[str, Any], error: str = ""
    ) -> None:
        assert between[0] <= between[1]
        self.told.append({"name": name, "attributes": dict(attributes), "error": error})


class Users:
    closed = False

    def fetch(self, batch: Sequence[Arguments]) -> list[Any]:
        return [dict(arguments) for arguments in batch]

    def write(self, changes: Sequence[Change]) -> None:
        raise ConnectionError("postgresql://predis:hunter2@db/users does not answer")

    def explain(self, arguments: Arguments) -> str:
        return "SELECT"

    def close(self) -> None:
        self.closed = True


def test_a_call_is_a_span_without_its_keys_and_without_passwords() -> None:
    spans, users = Spans(), Users()
    traced = Traced(users, SOURCE, tracer=spans)  # type: ignore[arg-type]
    assert traced.fetch([{"id": 1}, {"id": 2}]) == [{"id": 1}, {"id": 2}]
    with pytest.raises(ConnectionError):
        traced.write([Change({"id": 1}, deleted=True)])
    assert traced.explain({}) == "SELECT"
    traced.close()
    assert users.closed
    about = {"predis.source": "users", "predis.tenant": "default", "predis.kind": "sql"}
    assert spans.told == [
        {"name": "load users", "attributes": {**about, "predis.keys": 2}, "error": ""},
        {
            "name": "write users",
            "attributes": {**about, "predis.keys": 1},
            "error": "ConnectionError: postgresql://predis:***@db/users does not answer",
        },
    ]
