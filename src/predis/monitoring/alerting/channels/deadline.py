"""A limit on a whole exchange. A limit of a socket is for each wait: who sends a byte now and then keeps to it for hours."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.request
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any


class Deadline:
    """Cuts the connections that are made under it when it is over. A context: at its end nothing is watched any more.

    It holds a twin of each socket, which stays valid when TLS takes the socket over; to shut down the twin is to shut down the connection.
    """

    def __init__(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._twins: list[socket.socket] = []
        self._lock = threading.Lock()
        self.over = False

    def __enter__(self) -> Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._timer.cancel()
        with self._lock:
            for twin in self._twins:
                twin.close()
            self._twins.clear()

    def connect(self, *arguments: Any, **named: Any) -> socket.socket:
        """As ``socket.create_connection``."""
        made = socket.create_connection(*arguments, **named)
        with self._lock:
            if self.over:
                made.close()
                raise TimeoutError
            self._twins.append(made.dup())
        return made

    def _cut(self) -> None:
        with self._lock:
            self.over = True
            for twin in self._twins:
                with contextlib.suppress(OSError):
                    twin.shutdown(socket.SHUT_RDWR)


class WatchedHTTP(urllib.request.HTTPHandler):
    """HTTP over connections that a deadline cuts."""

    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(_made, HTTPConnection, self._deadline), req)


class WatchedHTTPS(urllib.request.HTTPSHandler):
    """The same over TLS."""

    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(_made, HTTPSConnection, self._deadline), req)


def _made(kind: type[HTTPConnection], deadline: Deadline, *arguments: Any, **named: Any) -> HTTPConnection:
    connection = kind(*arguments, **named)
    connection._create_connection = deadline.connect  # type: ignore[attr-defined]
    return connection
