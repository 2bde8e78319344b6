"""From metadata to requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from predis.errors import InvalidInput
from predis.loadtest import preparation
from predis.loadtest.preparation import Source, Wanted, prepare
from predis.loadtest.values import Input

INPUTS = [Input("x", "FP64"), Input("kind", "BYTES", levels=("a", "b"))]


def bodies(requests: tuple[bytes, ...]) -> list[dict[str, Any]]:
    return [json.loads(request.partition(b"\r\n\r\n")[2]) for request in requests]


def test_random_requests_differ_and_come_out_the_same_again() -> None:
    wanted = Wanted(endpoint="churn", distinct=10)
    first, again = (
        prepare("http://host:81/", wanted, source=Source(INPUTS, 3, seed=2)).requests for _ in range(2)
    )
    assert first == again
    assert len(set(first)) == 10
    assert all(tensor["shape"] == [3] for body in bodies(first) for tensor in body["inputs"])


def test_a_target_is_where_the_url_says() -> None:
    source = Source(INPUTS, 1)
    plain = prepare("http://host:81/prefix", Wanted(endpoint="a b", distinct=1), source=source)
    assert (plain.host, plain.port, plain.tls) == ("host", 81, False)
    assert plain.requests[0].startswith(b"POST /prefix/v2/models/a%20b/infer HTTP/1.1\r\nhost: host:81\r\n")
    secure = prepare("https://host", Wanted(endpoint="a", version="3", key="pk_1", distinct=1), source=source)
    assert (secure.port, secure.tls) == (443, True)
    assert b"/v2/models/a/versions/3/infer" in secure.requests[0]
    assert b"\r\nauthorization: Bearer pk_1\r\n" in secure.requests[0]
    assert "pk_1" not in repr(secure)


@pytest.mark.parametrize("url", ["ftp://host", "host:80", "http://", "http://host:port"])
def test_a_url_that_is_none_is_told(url: str) -> None:
    with pytest.raises(InvalidInput, match="is not a"):
        prepare(url, Wanted(endpoint="a"), source=Source(INPUTS, 1))


def test_rows_of_a_file_are_taken_in_order_and_over_again() -> None:
    source = Source(INPUTS, 2, table={"x": [1.0, 2.0, 3.0], "kind": ["a", "b", "a"]})
    found = prepare("http://h", Wanted(endpoint="a", distinct=3), source=source)
    assert [body["inputs"][0]["data"] for body in bodies(found.requests)] == [
        [1.0, 2.0],
        [3.0, 1.0],
        [2.0, 3.0],
    ]


def test_binary_requests_say_how_long_their_json_is() -> None:
    wanted = Wanted(endpoint="a", encoding="binary", distinct=1)
    request = prepare("http://h", wanted, source=Source(INPUTS, 1)).requests[0]
    head, _, body = request.partition(b"\r\n\r\n")
    length = int(head.partition(b"inference-header-content-length: ")[2].split(b"\r\n")[0])
    assert json.loads(body[:length])["inputs"][0]["parameters"] == {"binary_data_size": 8}


def test_grpc_requests_are_messages_alone() -> None:
    wanted = Wanted(endpoint="a", encoding="grpc", key="pk_1", distinct=1)
    found = prepare("http://h:8081", wanted, source=Source(INPUTS, 1))
    assert (found.grpc, found.port, found.key) == (True, 8081, "pk_1")
    assert found.requests[0].startswith(b"\x0a\x01a")


def test_requests_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "_MOST_BYTES", 10_000)
    requests = prepare("http://h", Wanted(endpoint="a", distinct=10_000), source=Source(INPUTS, 1)).requests
    assert 1 < len(requests) < 100
    assert sum(map(len, requests)) <= 10_000
