from __future__ import annotations

from typing import Any

import pytest

from predis.cache.sources.source import Source, described, listed_as_in, typed
from predis.errors import InvalidInput

SQL = {
    "pattern": "user:{id}",
    "kind": "sql",
    "url": "sqlite:///x",
    "statement": "SELECT id, name FROM users WHERE id IN :id",
}
HTTP = {"pattern": "user:{id}", "kind": "http", "url": "https://host/users/{id}"}
CODE = {"pattern": "user:{id}", "kind": "python", "function": "shop:users"}


@pytest.mark.parametrize("document", [SQL, HTTP, CODE])
def test_the_document_comes_back(document: dict[str, Any]) -> None:
    source = Source.of("users", document)
    assert source.to_dict() == document
    assert Source.of("users", source.to_dict()) == source
    assert hash(source) == hash(Source.of("users", {**document, "ttl_s": 1}))


@pytest.mark.parametrize(
    ("statement", "listed"),
    [
        ("SELECT * FROM u WHERE id = :id", ""),
        ("SELECT * FROM u WHERE id IN :id", "id"),
        ("SELECT * FROM u WHERE id in (:id) LIMIT 3", "id"),
        ("SELECT * FROM u WHERE id = ANY(:id)", "id"),
        ("SELECT id::text FROM u WHERE id = :id", ""),
    ],
)
def test_whether_many_keys_are_one_query(statement: str, listed: str) -> None:
    assert Source.of("users", {**SQL, "statement": statement}).listed == listed


@pytest.mark.parametrize(
    ("statement", "asked"),
    [
        ("SELECT 1 WHERE id IN :id AND b", "SELECT 1 WHERE id IN :id AND b"),
        ("SELECT 1 WHERE (id IN :id)", "SELECT 1 WHERE (id IN :id)"),
        ("SELECT 1 WHERE (id in ( :id ) OR b)", "SELECT 1 WHERE (id IN :id OR b)"),
        ("SELECT 1 WHERE id = ANY(:id)\nAND b", "SELECT 1 WHERE id IN :id\nAND b"),
        ("SELECT 1 WHERE id = :id", "SELECT 1 WHERE id = :id"),
    ],
)
def test_a_list_as_it_is_asked_for(statement: str, asked: str) -> None:
    assert listed_as_in(statement) == asked


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "pattern"),
        ({"pattern": "user:{id}"}, "kind is missing"),
        ({**SQL, "colour": "red"}, "there is no 'colour'"),
        ({**SQL, "kind": "ftp"}, "must be one of sql, http, python"),
        ({**SQL, "ttl_s": 0}, "between 0.001"),
        ({**SQL, "ttl_s": float("nan")}, "between"),
        ({**SQL, "ttl_s": "1"}, "must be of type float"),
        ({**SQL, "batch": True}, "must be of type int"),
        ({**SQL, "url": ""}, "either url or url_env"),
        ({**SQL, "url_env": "X"}, "either url or url_env"),
        ({**SQL, "statement": ""}, "statement is missing"),
        ({**SQL, "statement": "SELECT :other"}, "binds :other"),
        ({**SQL, "statement": " delete FROM users WHERE id = :id"}, "statement reads"),
        ({**SQL, "statement": "SELECT 1 WHERE 1 IN :id AND 2 IN :id"}, "only one placeholder"),
        ({**SQL, "function": "a:b"}, "is for the kind python"),
        ({**SQL, "writes": "behind"}, "needs upsert, delete or both"),
        ({**SQL, "pattern": "user:{value}"}, "placeholder 'value'"),
        ({**HTTP, "writes": "through"}, "not written to"),
        ({**HTTP, "url": "ftp://host/{id}"}, "is not like https"),
        ({**HTTP, "url": "https://{id}/x"}, "is not like https"),
        ({**HTTP, "url": "https://host/{other}"}, "no placeholder 'other'"),
        ({**HTTP, "batch_url": "https://host/all"}, "patterns with one placeholder"),
        ({**HTTP, "headers": {"a": 1}}, "texts by name"),
        ({**CODE, "function": "nothing"}, "module:function"),
        ({**CODE, "writes": "through", "upsert": "DELETE"}, "module:function"),
    ],
)
def test_refused(document: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Source.of("users", document)


@pytest.mark.parametrize("name", ["", "Users", "a b", "x" * 65, "-x"])
def test_names(name: str) -> None:
    with pytest.raises(InvalidInput, match="name"):
        Source.of(name, SQL)


def test_secrets_are_not_shown() -> None:
    shown = Source.of("users", {**SQL, "url": "postgresql://me:hunter2@db/x"}).shown()
    assert "hunter2" not in str(shown)
    assert Source.of("users", {**HTTP, "headers": {"X-Key": "hunter2"}}).shown()["headers"] == {
        "X-Key": "***"
    }


def test_every_field_is_described() -> None:
    assert all(len(text) > 10 for _, _, text in described())


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [("ttl_s", "5", 5.0), ("batch", "7", 7), ("url", "x", "x"), ("headers", "a=1,b=2", {"a": "1", "b": "2"})],
)
def test_from_a_command_line(key: str, text: str, value: object) -> None:
    assert typed(key, text) == value


@pytest.mark.parametrize(
    ("key", "text"), [("ttl_s", "long"), ("colour", "red"), ("headers", "Accept"), ("headers", "=x")]
)
def test_not_from_a_command_line(key: str, text: str) -> None:
    with pytest.raises(InvalidInput):
        typed(key, text)
