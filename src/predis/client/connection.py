"""How the client speaks HTTP: kept connections to one server, bodies as they come, errors by their code. The standard library alone."""

from __future__ import annotations

import http.client
import json
import select
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any
from urllib.parse import urlsplit

from predis.errors import InvalidInput, PredisError, Unreachable, all_errors

ARTIFACTS = "/api/v1/artifacts"


class Archive:
    """A version's archive on its way: its ``size`` in bytes, and what is read of it."""

    def __init__(self, response: http.client.HTTPResponse, *, url: str) -> None:
        self._response = response
        self._url = url
        self.size = self._left = int(response.getheader("content-length") or 0)

    def read(self, size: int = -1, /) -> bytes:
        """At most so many bytes, none at the end.

        Raises:
            Unreachable: the server ended it before its end.
        """
        try:
            found = self._response.read(min(size, self._left) if size >= 0 else self._left)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self._url} stopped in the middle of the archive: {error}") from error
        self._left -= len(found)
        if not found and self._left and size:
            raise Unreachable(
                f"{self._url} stopped in the middle of the archive; `predis model verify` there says whether a file is damaged"
            )
        return found


Sent = bytes | IO[bytes] | Archive | None


class Server:
    """Kept connections to one server: as many as were ever in use at once."""

    def __init__(self, url: str, timeout_s: float) -> None:
        try:
            parts = urlsplit(url)
            self._address = (parts.hostname or "", parts.port)
        except ValueError as error:
            raise InvalidInput(f"{url!r} is not a URL: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInput(f"{url!r} is not an http or https URL")
        self.url = url
        self._make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._prefix = parts.path.rstrip("/")
        self._timeout_s = timeout_s
        self._idle: deque[http.client.HTTPConnection] = deque()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def __del__(self) -> None:
        if hasattr(self, "_idle"):
            self.close()

    def exchange(
        self, method: str, path: str, *, body: Sent, headers: Mapping[str, str], size: int
    ) -> tuple[int, bytes]:
        """
        Raises:
            Unreachable: no answer; its second argument is "unsent" where the request cannot have arrived whole.
        """
        extra = {"content-length": str(size)} if size else {}
        if isinstance(body, bytes):
            extra["content-type"] = "application/json" if path != ARTIFACTS else "application/octet-stream"
        connection = self._connection()
        sent = False
        try:
            if connection.sock is None:
                connection.connect()
            sent = _send(
                connection, method, path=self._prefix + path, body=body, headers={**headers, **extra}
            )
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            problem = Unreachable(
                f"no answer from {self.url}: {error or type(error).__name__}; is `predis up` running?"
            )
            if not sent:
                problem.args = (problem.args[0], "unsent")
            raise problem from error
        except PredisError:  # of the archive that was being sent on
            connection.close()
            raise
        if response.will_close or not sent:
            connection.close()
        else:
            self._idle.append(connection)
        return response.status, content

    @contextmanager
    def stream(self, path: str, *, headers: Mapping[str, str]) -> Iterator[Archive]:
        """What is at a path, read as it comes, over a connection of its own.

        Raises:
            Unreachable: no answer.
            PredisError: the server's.
        """
        connection = self._make(*self._address, timeout=self._timeout_s)
        try:
            try:
                connection.request("GET", self._prefix + path, headers=dict(headers))
                response = connection.getresponse()
                refusal = response.read() if response.status >= 400 else b""
            except (OSError, http.client.HTTPException) as error:
                raise Unreachable(
                    f"no answer from {self.url}: {error or type(error).__name__}; is `predis up` running?"
                ) from error
            if response.status >= 400:
                raise error_of(_document(refusal), response.status)
            yield Archive(response, url=self.url)
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        """A kept connection that the server has not ended meanwhile, or a new one."""
        while self._idle:
            connection = self._idle.pop()
            if not _is_readable(connection):
                return connection
            connection.close()
        return self._make(*self._address, timeout=self._timeout_s)


def _send(
    connection: http.client.HTTPConnection,
    method: str,
    *,
    path: str,
    body: Sent,
    headers: Mapping[str, str],
) -> bool:
    """Whether the whole request was sent. A server may answer before it has read all, and close: it is too large, say."""
    try:
        connection.request(method, path, body, headers)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _is_readable(connection: http.client.HTTPConnection) -> bool:
    """Whether there is something to read. Where nothing was asked that can only be the connection's end."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _document(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def error_of(document: Any, status: int) -> PredisError:
    """The error that a server's answer names."""
    if not isinstance(document, dict):
        document = {}
    cls = all_errors().get(str(document.get("code")), PredisError)
    return cls(str(document.get("error") or f"the server answered with status {status}"))
