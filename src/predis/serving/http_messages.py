"""HTTP/1.1 messages as bytes: heads of requests, chunked bodies, answers. No sockets and no clock in here.

A head is parsed by httptools (llhttp, strict): one new parser for each head, given the head's bytes and nothing else, so that
``read_head`` is a pure function and no state of a parser can get out of step with the connection. What a body's length is, is decided
here, from the parsed head alone; a head that leaves it in any doubt is refused, because two readers who disagree on it are what request
smuggling is made of.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import unquote

import httptools
import orjson

from predis import errors

BLANK_LINE = b"\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = -1
_CLOSING = b"connection: close\r\n"

# Fields of one head. A field repeated often would be joined in quadratic time, were there no such limit.
_MOST_FIELDS = 256
# Bytes of the first line beside the target: method, version, spaces.
_AROUND_TARGET = 64
# Digits of a chunk's size, and the longest line that gives one: extensions have no use here.
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_LONGEST_SIZE_LINE = 256
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*")
_EMPTY_LINES = re.compile(rb"(?:\r\n)*")

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_WITHOUT_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True)
class HttpLimits:
    """How much a peer may send, and how long it may take.

    Args:
        body_bytes: largest body of a request.
        header_bytes: largest head of a request; also the most bytes of trailers.
        keep_alive_s: how long a connection may stay without a request.
        read_timeout_s: how long a peer may take from the first byte of a request to its last, and how long it may take nothing of an
            answer.
        max_connections: connections open at once.
        target_bytes: longest request target, the part of the first line that holds path and query.
        held_bytes: bytes of requests in parts (not whole in one read) held at once, over all connections.
    """

    body_bytes: int = 16 << 20
    header_bytes: int = 64 << 10
    keep_alive_s: float = 75.0
    read_timeout_s: float = 30.0
    max_connections: int = 10_000
    target_bytes: int = 8 << 10
    held_bytes: int = 512 << 20


class Refused(Exception):  # never leaves the connection: it becomes an answer, and the connection closes
    """A request that is answered without asking the handler, because it cannot be read or is too much."""

    def __init__(self, status: int, message: str, *, code: str = errors.InvalidRequest.code) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


class Head(NamedTuple):
    """What a request says before its body.

    ``headers`` has lower-case names; fields that were repeated are joined with ``", "``. ``length`` is of the body in bytes, ``CHUNKED``
    where the body tells itself. ``expects_continue``: the client waits for a word before it sends the body.
    """

    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]
    keep_alive: bool
    length: int
    expects_continue: bool


def read_head(data: bytes, limits: HttpLimits) -> Head:
    """Parse one head, from its first byte to the blank line's last.

    Raises:
        Refused
    """
    check_size(data, limits)
    if data.count(b"\n") - 2 > _MOST_FIELDS:
        raise Refused(
            431, f"the request has more than {_MOST_FIELDS} header fields", code=errors.TooLarge.code
        )
    method, fields = _parse(data)
    if len(fields.target) > limits.target_bytes:
        raise _target_too_long(limits)
    recent = _is_recent(data)
    headers = fields.headers
    if recent and b"," in headers.get(b"host", b","):
        raise Refused(400, "HTTP/1.1 wants exactly one Host header")
    path, query = _split_target(fields.target)
    length = _body_length(headers, recent=recent, limits=limits)
    expects_continue = recent and b"expect" in headers and _expects_continue(headers[b"expect"])
    return Head(method, path, query, headers, recent and not _closes(headers), length, expects_continue)


def check_size(data: bytes | bytearray, limits: HttpLimits) -> None:
    """Refuse a head, whole or not, that is too long already, or begins as no request does.

    Raises:
        Refused
    """
    if (
        not 65 <= data[0] <= 90 and data != b"\r"
    ):  # A to Z begin a method, a line end the empty line before it, TLS neither
        raise Refused(400, "this is not an HTTP request; this port speaks HTTP/1.1 without TLS")
    room = limits.target_bytes + _AROUND_TARGET
    if len(data) > room and data.find(b"\r\n", 0, room) < 0:
        raise _target_too_long(limits)
    if len(data) > limits.header_bytes:
        raise Refused(
            431,
            f"the request's headers are larger than {limits.header_bytes} bytes (setting max_header_bytes)",
            code=errors.TooLarge.code,
        )


def empty_lines(data: bytearray) -> int:
    """Bytes of empty lines that a request begins with: some clients send one after a body."""
    found = _EMPTY_LINES.match(data)
    return found.end() if found else 0


class _Fields:
    """Takes what httptools finds in a head."""

    __slots__ = ("headers", "target", "whole")

    def __init__(self) -> None:
        self.target = b""
        self.headers: dict[bytes, bytes] = {}
        self.whole = 0

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        name, value = name.lower(), value.rstrip(b" \t")
        known = self.headers.get(name)
        self.headers[name] = value if known is None else known + b", " + value

    def on_headers_complete(self) -> None:
        self.whole += 1


def _parse(data: bytes) -> tuple[str, _Fields]:
    """Method and fields of a head."""
    fields = _Fields()
    parser = httptools.HttpRequestParser(fields)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # llhttp stops at the end of a head that asks for another protocol; here the wish is ignored
    except httptools.HttpParserError as error:
        raise Refused(400, f"this is not an HTTP/1.1 request: {error}") from None
    method = parser.get_method().decode("ascii")
    if fields.whole != 1:
        raise Refused(400, "this is not an HTTP/1.1 request: its head does not end where it should")
    if method == "CONNECT":
        raise Refused(501, "this server is no proxy: it does not know CONNECT")
    return method, fields


def _is_recent(data: bytes) -> bool:
    """Whether the head is HTTP/1.1, not 1.0. llhttp lets pass others, and protocols that look alike."""
    end = data.find(b"\r\n")
    if data.endswith(b" HTTP/1.1", 0, end):
        return True
    if data.endswith(b" HTTP/1.0", 0, end):
        return False
    raise Refused(505, "this server speaks HTTP/1.1 and HTTP/1.0")


def _split_target(target: bytes) -> tuple[str, str]:
    """Path and query of a request target; the path is percent-decoded, the query is not."""
    if not target.startswith(b"/") and target != b"*":  # http://host/path, as proxies are asked
        try:
            url = httptools.parse_url(target)
        except httptools.HttpParserError:
            raise Refused(400, "the request target is no path") from None
        target = (url.path or b"/") + (b"?" + url.query if url.query else b"")
    if b"#" in target:
        raise Refused(400, "the request target has a fragment (#); it must stay at the client")
    path, _, query = target.decode("latin-1").partition("?")
    return (unquote(path) if "%" in path else path), query


def _body_length(headers: dict[bytes, bytes], *, recent: bool, limits: HttpLimits) -> int:
    # llhttp has refused already: both of them, a length that is repeated or no number, codings after "chunked".
    coding = headers.get(b"transfer-encoding")
    if coding is not None:
        if not recent:
            raise Refused(400, "HTTP/1.0 has no Transfer-Encoding")
        if coding.lower() != b"chunked":
            raise Refused(501, "the only Transfer-Encoding known here is chunked")
        return CHUNKED
    length = int(headers.get(b"content-length", 0))
    if length > limits.body_bytes:
        raise too_large(limits)
    return length


def _target_too_long(limits: HttpLimits) -> Refused:
    return Refused(
        414, f"the request target is longer than {limits.target_bytes} bytes", code=errors.TooLarge.code
    )


def too_large(limits: HttpLimits) -> Refused:
    return Refused(
        413,
        f"the body is larger than {limits.body_bytes} bytes (setting max_body_bytes)",
        code=errors.TooLarge.code,
    )


def _expects_continue(expected: bytes) -> bool:
    if expected.lower() != b"100-continue":
        raise Refused(417, "the only expectation known here is 100-continue")
    return True


def _closes(headers: dict[bytes, bytes]) -> bool:
    """Whether the client says that this is the connection's last request."""
    value = headers.get(b"connection", b"").lower()
    return b"close" in value and b"close" in (token.strip() for token in value.split(b","))


class ChunkedBody:
    """A body that comes in chunks, as far as it has come. Its extensions and trailers are read and forgotten."""

    def __init__(self, limits: HttpLimits) -> None:
        self.body = bytearray()
        self.whole = False
        self._limits = limits
        self._left = 0  # bytes of the current chunk still to come, with its line end; 0: a size comes next
        self._trailers = -1  # bytes of trailers so far; -1: they have not begun

    def take(self, data: bytearray, *, most: int) -> bool:
        """Move what is there from ``data`` to the body, ``most`` chunks at once; whether more could be done with what is left.

        Raises:
            Refused: the chunks are malformed, or more than the limits allow.
        """
        for _turn in range(most):
            moved = self._take_data(data) if self._left else self._take_line(data)
            if not moved or self.whole:
                return False
        return True

    def _take_data(self, data: bytearray) -> bool:
        if self._left > 2:
            part = data[: self._left - 2]
            self.body += part
            self._left -= len(part)
            del data[: len(part)]
        if self._left > 2 or len(data) < 2:
            return False
        if data[:2] != b"\r\n":
            raise Refused(400, "a chunk of the body is longer than it says")
        del data[:2]
        self._left = 0
        return True

    def _take_line(self, data: bytearray) -> bool:
        """A line that gives a chunk's size, or one of the trailers."""
        longest = _LONGEST_SIZE_LINE if self._trailers < 0 else self._limits.header_bytes - self._trailers
        end = data.find(b"\r\n", 0, longest)
        if end < 0:
            if len(data) >= longest:
                raise Refused(400, "a line between the chunks of the body is too long")
            return False
        line = bytes(data[:end])
        del data[: end + 2]
        if self._trailers < 0:
            self._begin_chunk(line)
        elif not line:
            self.whole = True
        elif _TRAILER.fullmatch(line):
            self._trailers += end + 2
        else:
            raise Refused(400, "a trailer of the body cannot be read")
        return True

    def _begin_chunk(self, line: bytes) -> None:
        found = _CHUNK_SIZE.fullmatch(line)
        if found is None:
            raise Refused(400, "the size of a chunk of the body cannot be read")
        size = int(found[1], 16)
        if len(self.body) + size > self._limits.body_bytes:
            raise too_large(self._limits)
        if size:
            self._left = size + 2
        else:
            self._trailers = 0


def date_line(now: float) -> bytes:
    """The Date header of this second, with its line end.

    >>> date_line(784111777.6)
    b'date: Sun, 06 Nov 1994 08:49:37 GMT\\r\\n'
    """
    t = time.gmtime(now)
    return (
        f"date: {_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year} "
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT\r\n"
    ).encode()


def start_of_ok(date: bytes) -> bytes:
    """What an answer of status 200 in JSON begins with, up to the number of its bytes."""
    return b"HTTP/1.1 200 OK\r\n" + date + b"content-type: application/json\r\ncontent-length: "


def answer(status: int, body: bytes, *, headers: Headers, date: bytes, close: bool, bodiless: bool) -> bytes:
    """A whole answer. ``bodiless``: to HEAD, whose answer tells the length of a body that it does not have.

    Raises:
        ValueError: a header holds a line break; whatever it was made of must not be echoed.
    """
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, _REASONS.get(status, b"")), date]
    lines += [b"%b: %b\r\n" % header for header in headers]
    if status not in _WITHOUT_BODY:
        if not any(name == b"content-type" for name, _value in headers):
            lines.append(b"content-type: application/json\r\n")
        lines.append(b"content-length: %d\r\n" % len(body))
    if close:
        lines.append(_CLOSING)
    head = b"".join(lines)
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
        raise ValueError("a header of an answer holds a line break")
    return head + b"\r\n" + (b"" if bodiless or status in _WITHOUT_BODY else body)


def error_body(message: str, code: str) -> bytes:
    return orjson.dumps({"error": message, "code": code})
