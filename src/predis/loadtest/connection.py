"""One HTTP/1.1 connection of a load generator: bytes out, status in. No object per request.

A generator must cost less than what it measures. Requests are written as they were prepared; the response is parsed by httptools (llhttp),
of which only the end of the message is asked for, and the body is looked at only where the status is an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import httptools


class Connection(Protocol):
    """One place for one request at a time."""

    started: float
    """The moment the request in flight counts from."""
    busy: bool
    """Whether a request is in flight."""
    closing: bool
    """Whether no other request may be sent."""

    def send(self, request: bytes, started: float) -> None:
        """Send a whole request."""

    def abort(self) -> None:
        """End the connection now; the driver is told."""


class Driver(Protocol):
    """Who sends through a connection, and is told what becomes of it."""

    def opened(self, connection: Connection) -> None:
        """The connection is there."""

    def answered(self, connection: Connection, error: str, *, body: bytes) -> None:
        """The answer is complete. ``error`` is empty where it is a success; else its kind, and ``body`` is what the server said."""

    def broken(self, connection: Connection, reason: str) -> None:
        """The connection has ended. Where it is ``busy``, without the answer."""


class HttpConnection(asyncio.Protocol):
    """A connection over HTTP/1.1."""

    __slots__ = (
        "_body",
        "_driver",
        "_error",
        "_parser",
        "_transport",
        "_write",
        "busy",
        "closing",
        "started",
    )

    _transport: asyncio.Transport
    _write: Callable[[bytes], None]

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self._error = ""
        self.busy = self.closing = False
        self.started = 0.0

    def send(self, request: bytes, started: float) -> None:
        self.busy, self.started = True, started
        self._write(request)

    def abort(self) -> None:
        self.closing = True
        self._transport.abort()

    # -- called by the event loop --------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport, self._write = transport, transport.write
        self._driver.opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._error = f"not HTTP: {error}"
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        reason = "connection reset" if isinstance(exc, ConnectionError) else "connection closed"
        self._driver.broken(self, self._error or reason)

    # -- called by the parser ------------------------------------------------------------------------------------------

    def on_body(self, body: bytes) -> None:
        if self._parser.get_status_code() >= 300:
            self._body += body

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # an interim answer; the answer follows
            return
        if not self._parser.should_keep_alive():
            self.closing = True
            self._transport.close()
        body, self._body, self.busy = self._body, b"", False
        self._driver.answered(self, "" if status < 300 else f"HTTP {status}", body=body)
