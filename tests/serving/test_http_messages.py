from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httptools
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis import errors
from predis.serving.http_messages import (
    CHUNKED,
    ChunkedBody,
    Head,
    HttpLimits,
    Refused,
    answer,
    check_size,
    date_line,
    error_body,
    read_head,
    start_of_ok,
)

LIMITS = HttpLimits(body_bytes=1000, header_bytes=2000, target_bytes=100)
DATE = date_line(784111777)


def head(first: str = "GET / HTTP/1.1", *fields: str, host: bool = True) -> Head:
    lines = [first, *(["Host: here"] if host else []), *fields]
    return read_head(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), LIMITS)


def refused(first: str = "GET / HTTP/1.1", *fields: str, host: bool = True) -> int:
    with pytest.raises(Refused) as caught:
        head(first, *fields, host=host)
    assert caught.value.code in errors.all_errors()
    assert str(caught.value) == caught.value.message
    return caught.value.status


class TestHeads:
    def test_everything_in_it(self) -> None:
        found = head(
            "POST /v2/models/m/infer?a=%201&b HTTP/1.1",
            "Content-Length:  12 ",
            "X-Thing: \t a  b\t ",
            "Empty:",
        )
        assert found == Head(
            method="POST",
            path="/v2/models/m/infer",
            query="a=%201&b",
            headers={b"host": b"here", b"content-length": b"12", b"x-thing": b"a  b", b"empty": b""},
            keep_alive=True,
            length=12,
            expects_continue=False,
        )

    def test_repeated_fields_are_joined(self) -> None:
        found = head("GET / HTTP/1.1", "Accept: a", "X: 1", "accept: b", "ACCEPT: c")
        assert found.headers[b"accept"] == b"a, b, c"

    @pytest.mark.parametrize(
        ("target", "path", "query"),
        [
            ("/", "/", ""),
            ("/a%20b%2Fc", "/a b/c", ""),
            ("/caf%C3%A9?%C3%A9", "/café", "%C3%A9"),
            ("/%ff", "/\ufffd", ""),
            ("/100%", "/100%", ""),
            ("//a", "//a", ""),
            ("/a?", "/a", ""),
            ("/a?b?c", "/a", "b?c"),
            ("http://there:80/a?b", "/a", "b"),
            ("http://there", "/", ""),
            ("*", "*", ""),
        ],
    )
    def test_targets(self, target: str, path: str, query: str) -> None:
        found = head(f"OPTIONS {target} HTTP/1.1")
        assert (found.path, found.query) == (path, query)

    @pytest.mark.parametrize(
        ("version", "fields", "kept"),
        [
            ("1.1", [], True),
            ("1.1", ["Connection: keep-alive"], True),
            ("1.1", ["Connection: Close"], False),
            ("1.1", ["Connection: foo, close"], False),
            ("1.1", ["Connection: foo", "Connection: close"], False),
            ("1.1", ["Connection: enclosed"], True),
            ("1.0", [], False),
            ("1.0", ["Connection: keep-alive"], False),
        ],
    )
    def test_keep_alive(self, version: str, fields: list[str], kept: bool) -> None:
        assert head(f"GET / HTTP/{version}", *fields).keep_alive is kept

    def test_chunks(self) -> None:
        assert head("POST / HTTP/1.1", "Transfer-Encoding: Chunked").length == CHUNKED

    def test_expectations(self) -> None:
        assert head("POST / HTTP/1.1", "Content-Length: 1", "Expect: 100-Continue").expects_continue
        assert not head("POST / HTTP/1.0", "Content-Length: 1", "Expect: 100-continue").expects_continue
        assert refused("POST / HTTP/1.1", "Expect: a miracle") == 417

    @pytest.mark.parametrize("upgrade", ["h2c", "websocket", "TLS/1.3"])
    def test_wishes_for_another_protocol_are_ignored(self, upgrade: str) -> None:
        found = head("POST / HTTP/1.1", "Connection: Upgrade", f"Upgrade: {upgrade}", "Content-Length: 3")
        assert (found.length, found.keep_alive) == (3, True)
        chunked = head(
            "POST / HTTP/1.1", "Connection: Upgrade", f"Upgrade: {upgrade}", "Transfer-Encoding: chunked"
        )
        assert chunked.length == CHUNKED

    def test_http_1_0_needs_no_host(self) -> None:
        assert head("GET / HTTP/1.0", host=False).path == "/"

    @pytest.mark.parametrize("fields", [[], ["Host: a", "Host: b"]])
    def test_http_1_1_wants_one_host(self, fields: list[str]) -> None:
        assert refused("GET / HTTP/1.1", *fields, host=False) == 400


class TestRefusals:
    @pytest.mark.parametrize(
        "fields",
        [
            ["Content-Length: 4", "Transfer-Encoding: chunked"],
            ["Transfer-Encoding: chunked", "Content-Length: 4"],
            ["Content-Length: 4", "Content-Length: 4"],
            ["Content-Length: 4", "Content-Length: 5"],
            ["Content-Length: 4, 4"],
            ["Content-Length: +4"],
            ["Content-Length: -4"],
            ["Content-Length: 0x4"],
            ["Content-Length: 4 4"],
            ["Content-Length: 4_0"],
            ["Content-Length: ٤".encode().decode("latin-1")],
            ["Content-Length:"],
            ["Content-Length: " + "9" * 40],
            ["Content-Length : 4"],
            ["Content_Length: 4", " Content-Length: 5"],
            ["Transfer-Encoding: chunked, gzip"],
            ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
            ["Transfer-Encoding: xchunked"],
            ["Transfer-Encoding: identity"],
            ["Transfer-Encoding : chunked"],
            ["Transfer-Encoding: \x0bchunked"],
        ],
    )
    def test_a_length_in_doubt(self, fields: list[str]) -> None:
        assert refused("POST / HTTP/1.1", *fields) == 400

    def test_codings_that_are_not_known(self) -> None:
        assert refused("POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked") == 501
        assert refused("POST / HTTP/1.0", "Transfer-Encoding: chunked") == 400

    @pytest.mark.parametrize("size", [1001, 2**31, 2**63, 2**64 - 1])
    def test_bodies_that_are_too_large(self, size: int) -> None:
        assert refused("POST / HTTP/1.1", f"Content-Length: {size}") == 413

    @pytest.mark.parametrize(
        "line",
        [
            "GET / HTTP/1.1 ",
            "GET /",
            "GET /\x01 HTTP/1.1",
            "GET /\xe9 HTTP/1.1",
            "GET a HTTP/1.1",
            "GET ?a HTTP/1.1",
            "GET /#a HTTP/1.1",
            "get / HTTP/1.1",
            "FETCH / HTTP/1.1",
            "G\x00T / HTTP/1.1",
            "PRI * HTTP/2.0",
            "GET / HTTP/1.2",
            "GET / http/1.1",
            "GET /\tHTTP/1.1",
            "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        ],
    )
    def test_first_lines(self, line: str) -> None:
        assert refused(line) in (400, 505)

    def test_other_versions_and_protocols(self) -> None:
        assert refused("GET / HTTP/2.0") == 505
        assert refused("GET / HTTP/0.9") == 505
        assert refused("SOURCE / ICE/1.0") == 505
        assert refused("CONNECT there:80 HTTP/1.1") == 501

    @pytest.mark.parametrize(
        "field",
        [
            "X",
            ": a",
            "X : a",
            "X\xff: a",
            "X: a\x00b",
            "X: a\x7fb",
            "X: a\r b",
            "X: a\n b",
            "X: a\r\n folded",
            "X: a\rY: b",
            "X: a\nY: b",
            "X: a\r\r",
        ],
    )
    def test_fields(self, field: str) -> None:
        assert refused("GET / HTTP/1.1", field) == 400

    def test_too_much(self) -> None:
        assert head(f"GET /{'a' * 99} HTTP/1.1").path == "/" + "a" * 99
        assert refused(f"GET /{'a' * 100} HTTP/1.1") == 414
        assert refused(f"GET /{'a' * 300} HTTP/1.1") == 414
        assert refused("GET / HTTP/1.1", "X: " + "a" * 2000) == 431
        assert len(head("GET / HTTP/1.1", *["X:"] * 255).headers) == 2
        assert refused("GET / HTTP/1.1", *["X:"] * 256) == 431

    def test_too_much_is_seen_before_the_end(self) -> None:
        check_size(b"GET /" + b"a" * 150, LIMITS)
        check_size(b"GET / HTTP/1.1\r\n" + b"a" * 1900, LIMITS)
        for data, status in (
            (b"GET /" + b"a" * 170, 414),
            (b"GET / HTTP/1.1\r\n" + b"a" * 2000, 431),
            (b"\x16\x03\x01", 400),
            (b"get", 400),
        ):
            with pytest.raises(Refused) as caught:
                check_size(data, LIMITS)
            assert caught.value.status == status

    @given(st.binary(min_size=1, max_size=60), st.booleans())
    def test_any_bytes(self, data: bytes, beginning: bool) -> None:
        start = b"POST / HTTP/1.1\r\nHost: a\r\n" if beginning else b"G"
        try:
            found: Head | int = read_head(start + data + b"\r\n\r\n", LIMITS)
        except Refused as error:
            found = error.status
        assert 400 <= found <= 599 if isinstance(found, int) else found.length >= CHUNKED


class TestChunks:
    def body(self, data: bytes, *, step: int = 10_000, most: int = 1000) -> tuple[bytes, bytes]:
        """The body, and what was left."""
        chunks, waiting = ChunkedBody(LIMITS), bytearray()
        for at in range(0, len(data), step):
            waiting += data[at : at + step]
            while not chunks.whole and chunks.take(waiting, most=most):
                pass
        assert chunks.whole
        return bytes(chunks.body), bytes(waiting)

    @pytest.mark.parametrize("step", [1, 2, 3, 7, 10_000])
    @pytest.mark.parametrize("most", [1, 1000])
    def test_all_forms(self, step: int, most: int) -> None:
        data = (
            b"3\r\nabc\r\n"
            b'A;name=value;quoted="; \t"\r\n0123456789\r\n'
            b"0000001 ;x\r\n\n\r\n"
            b"00;last\r\n"
            b"Trailer: this\r\nAnother:\r\n\r\n"
        )
        assert self.body(data, step=step, most=most) == (b"abc0123456789\n", b"")

    def test_what_follows_is_left(self) -> None:
        assert self.body(b"1\r\na\r\n0\r\n\r\nGET /", step=10_000) == (b"a", b"GET /")

    def test_most_at_once(self) -> None:
        chunks, data = ChunkedBody(LIMITS), bytearray(b"1\r\na\r\n" * 10)
        assert chunks.take(data, most=4)
        assert bytes(chunks.body) == b"aa"
        assert not chunks.take(data, most=1000)
        assert bytes(chunks.body) == b"a" * 10

    @pytest.mark.parametrize(
        "data",
        [
            b"x\r\n",
            b"\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b" 1\r\n",
            b"1_0\r\n",
            b"1 1\r\n",
            b"1\n\r\n",
            b"1;a\nb\r\n",
            b"1;a\rb\r\n",
            b"1;a\x00b\r\n",
            b"1111111111111111\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n\n",
            b"1\r\na\r\r",
            b"1" * 257,
            b"1;" + b"a" * 300,
            b"0\r\na\r\n",
            b"0\r\n: b\r\n",
            b"0\r\na : b\r\n",
            b"0\r\na: b\nc\r\n",
            b"0\r\n\n\r\n",
            b"0\r\n" + b"a" * 2001,
            b"0\r\n" + b"a: b\r\n" * 400,
        ],
    )
    @pytest.mark.parametrize("step", [1, 10_000])
    def test_malformed(self, data: bytes, step: int) -> None:
        with pytest.raises(Refused) as caught:
            self.body(data, step=step)
        assert caught.value.status == 400

    def test_too_large_is_seen_before_it_comes(self) -> None:
        assert len(self.body(b"3e8\r\n" + b"a" * 1000 + b"\r\n0\r\n\r\n")[0]) == 1000
        for data in (b"3e9\r\n", b"3e8\r\n" + b"a" * 1000 + b"\r\n1\r\n", b"fffffffffffffff\r\n"):
            with pytest.raises(Refused) as caught:
                self.body(data)
            assert caught.value.status == 413

    @given(st.lists(st.binary(min_size=1, max_size=40), max_size=20), st.integers(1, 30), st.integers(1, 5))
    def test_any_chunks_cut_anywhere(self, parts: list[bytes], step: int, most: int) -> None:
        data = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        assert self.body(data, step=step, most=most) == (b"".join(parts), b"")

    @given(st.binary(max_size=60), st.integers(1, 60))
    def test_any_bytes(self, data: bytes, step: int) -> None:
        chunks, waiting = ChunkedBody(LIMITS), bytearray()
        try:
            for at in range(0, len(data), step):
                waiting += data[at : at + step]
                while not chunks.whole and chunks.take(waiting, most=3):
                    pass
            status = 200
        except Refused as error:
            status = error.status
        assert status in (200, 400, 413)
        assert len(chunks.body) <= LIMITS.body_bytes


class _Taken:
    """Reads an answer as a client does."""

    def __init__(self, data: bytes) -> None:
        self.headers: dict[str, str] = {}
        self.body = b""
        self.whole = False
        parser = httptools.HttpResponseParser(self)
        parser.feed_data(data)
        self.status = parser.get_status_code()

    def on_header(self, name: bytes, value: bytes) -> None:
        assert name.decode() not in self.headers
        self.headers[name.decode()] = value.decode()

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.whole = True


class TestAnswers:
    def test_with_nothing_special(self) -> None:
        data = answer(200, b"{}", headers=(), date=DATE, close=False, bodiless=False)
        found = _Taken(data)
        assert (found.status, found.body, found.whole) == (200, b"{}", True)
        assert found.headers == {
            "date": "Sun, 06 Nov 1994 08:49:37 GMT",
            "content-type": "application/json",
            "content-length": "2",
        }
        assert data == start_of_ok(DATE) + b"2\r\n\r\n{}"

    def test_headers_of_the_handler(self) -> None:
        headers = [(b"content-type", b"text/plain"), (b"x-id", b"7")]
        found = _Taken(answer(404, b"no", headers=headers, date=DATE, close=True, bodiless=False))
        assert found.status == 404
        assert found.headers == {
            "date": "Sun, 06 Nov 1994 08:49:37 GMT",
            "content-type": "text/plain",
            "x-id": "7",
            "content-length": "2",
            "connection": "close",
        }

    def test_without_a_body(self) -> None:
        to_head = answer(200, b"{}", headers=(), date=DATE, close=False, bodiless=True)
        assert to_head.endswith(b"content-length: 2\r\n\r\n")
        for status in (204, 304):
            data = answer(status, b"ignored", headers=(), date=DATE, close=False, bodiless=False)
            assert b"content" not in data
            assert data.endswith(b"\r\n\r\n")

    @pytest.mark.parametrize("status", [*(s.value for s in HTTPStatus if s >= 200), 299, 599])
    def test_every_status(self, status: int) -> None:
        found = _Taken(answer(status, b"", headers=(), date=DATE, close=False, bodiless=False))
        assert found.status == status

    @pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\r\n\r\nb"])
    def test_line_breaks_do_not_leave(self, value: bytes) -> None:
        for header in ((b"x", value), (value, b"x")):
            with pytest.raises(ValueError, match="line break"):
                answer(200, b"", headers=[header], date=DATE, close=False, bodiless=False)

    def test_errors(self) -> None:
        assert orjson.loads(error_body('what "it" says', "a_code")) == {
            "error": 'what "it" says',
            "code": "a_code",
        }

    def test_the_date(self) -> None:
        now = int(time.time())
        for moment in (0, now, now + 86_400 * 200, 2**31):
            text = date_line(moment + 0.9).decode().removeprefix("date: ").removesuffix("\r\n")
            assert parsedate_to_datetime(text).timestamp() == moment
