"""Sources that answer over HTTP.

404 and 410 say that there is no value; 400, 414 and 422 that what was asked for is at fault; every other status but 200 is a failure.
Redirects are not followed: headers hold secrets, which are for the host that was named, and what a host says must not make this server
ask another. An answer is read up to ``limit`` and no further, and all of it must be there when ``timeout_s`` is over, however it trickles.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from predis import __version__
from predis.cache.sources.calling import Change, Refused, Unfit
from predis.cache.sources.pattern import Arguments
from predis.cache.sources.source import Source, check_template
from predis.errors import InvalidInput

_NOTHING = (404, 410)
_UNFIT = (400, 414, 422)
_MANY_BYTES = 16 << 20
"""An answer for many keys may be so large, where a value may not."""
_PIECE_BYTES = 1 << 18


class WebCaller:
    """Asks one host, over a connection that each thread keeps.

    Raises:
        InvalidInput: the URL is none that can be asked, or a header cannot be sent.
    """

    def __init__(self, source: Source, *, url: str, headers: Mapping[str, str]) -> None:
        where = f"source {source.name!r}"
        check_template(source, url, where=where)
        self._source = source
        self._url = url
        self._headers = {
            "Accept": "application/json",
            "User-Agent": f"predis/{__version__}",
            **_sendable(headers, where),
        }
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: list[_Connection] = []

    def fetch(self, batch: Sequence[Arguments]) -> list[Any]:
        if self._source.batch_url and len(batch) > 1:
            return self._many(batch)
        return [self._one(arguments) for arguments in batch]

    def write(self, changes: Sequence[Change]) -> None:
        raise Refused("a source of the kind http is not written to")

    def explain(self, arguments: Arguments) -> str:
        return f"GET {_filled(self._url, arguments)}"

    def close(self) -> None:
        with self._lock:
            for connection in self._open:
                connection.close()

    def _one(self, arguments: Arguments) -> Any:
        body = self._get(_filled(self._url, arguments), limit=self._source.max_value_bytes)
        if body is None or (self._source.encoding == "text" and not self._source.path):
            return body
        return self._picked(body)

    def _many(self, batch: Sequence[Arguments]) -> list[Any]:
        name = self._source.listed
        wanted = [str(arguments[name]) for arguments in batch]
        listed = ",".join(quote(value, safe="") for value in wanted)
        most = self._source.max_value_bytes
        limit = max(most, min(most * len(batch), _MANY_BYTES))
        body = self._get(self._source.batch_url.replace("{" + name + "}", listed), limit=limit)
        answer = {} if body is None else self._picked(body)
        if isinstance(answer, list):
            if not all(isinstance(item, dict) and name in item for item in answer):
                raise ValueError(f"the answer for many keys must be objects with {name!r}")
            answer = {str(item[name]): item for item in answer}
        if answer is not None and not isinstance(answer, dict):
            raise ValueError(
                f"the answer for many keys must be an object or a list, not {type(answer).__name__}"
            )
        return [(answer or {}).get(value) for value in wanted]

    def _get(self, url: str, *, limit: int) -> bytes | None:
        parts = urlsplit(url)
        if {".", ".."} & set(unquote(parts.path).split("/")):
            raise Unfit("a key with . or .. as a whole step of the URL's path is not asked for")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection = self._connection(parts.scheme, parts.netloc)
        was_kept = connection.sock is not None
        connection.until = time.monotonic() + self._source.timeout_s
        try:
            try:
                status, body = self._exchange(connection, target, limit=limit)
            except (ConnectionResetError, BrokenPipeError):  # RemoteDisconnected is one
                if not was_kept:
                    raise
                connection.close()  # the server had closed it meanwhile
                status, body = self._exchange(connection, target, limit=limit)
        except BaseException:
            connection.close()
            raise
        if status in _NOTHING:
            return None
        if status in _UNFIT:
            raise Unfit(f"{parts.hostname} answered {status}")
        if status != 200:
            raise ValueError(f"{parts.hostname} answered {status}{_PLACES.get(status // 100, '')}")
        return body

    def _exchange(self, connection: _Connection, target: str, *, limit: int) -> tuple[int, bytes]:
        connection.request("GET", target, headers={**self._headers, **connection.login})
        answer = connection.getresponse()
        pieces: list[bytes] = []
        size = 0
        too_large = (answer.length or 0) > limit
        while not too_large and (piece := answer.read(_PIECE_BYTES)):
            pieces.append(piece)
            size += len(piece)
            too_large = size > limit
        if too_large:
            raise ValueError(f"the answer is larger than {limit} bytes")
        if answer.length:  # None: its end was marked, or is the connection's
            raise ValueError(f"the answer ended {answer.length} bytes before its end")
        return answer.status, b"".join(pieces)

    def _connection(self, scheme: str, netloc: str) -> _Connection:
        kept: dict[str, _Connection] = self._local.__dict__.setdefault("kept", {})
        if (made := kept.get(scheme + netloc)) is None:
            made = kept[scheme + netloc] = _Connection(netloc, tls=scheme == "https")
            with self._lock:
                self._open.append(made)
        return made

    def _picked(self, body: bytes) -> Any:
        """What stands at ``path``; None where a step is not there, or is null."""
        try:
            found = json.loads(body)
        except ValueError as error:
            raise ValueError(f"the answer is no JSON: {error}") from None
        for step in filter(None, self._source.path.split(".")):
            if found is None:
                return None
            if isinstance(found, list) and step.isdigit():
                found = found[int(step)] if int(step) < len(found) else None
            elif isinstance(found, dict):
                found = found.get(step)
            else:
                raise ValueError(f"the answer has no {self._source.path!r}")
        return found


_PLACES = {3: "; redirects are not followed: name the address that answers"}


class _Connection(http.client.HTTPConnection):
    """A connection that ends ``until`` a moment, not some time after the last byte. ``login``: the header for the user its URL names."""

    def __init__(self, netloc: str, *, tls: bool) -> None:
        user, at, place = netloc.rpartition("@")
        secret = base64.b64encode(unquote(user).encode()).decode()
        self.login = {"Authorization": f"Basic {secret}"} if at else {}
        self.until = 0.0
        self._context = ssl.create_default_context() if tls else None
        if tls:
            self.default_port = 443
        super().__init__(place)

    def connect(self) -> None:
        made = socket.create_connection((self.host, self.port), timeout=self._left())
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            made = self._context.wrap_socket(made, server_hostname=self.host)
        self.sock = _Hurried(made, self._left)

    def _left(self) -> float:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer was not there in time")
        return left


class _Hurried:
    """A socket as ``http.client`` uses one, which waits no longer than is left."""

    def __init__(self, made: socket.socket, left: Any) -> None:
        self._made = made
        self._left = left

    def sendall(self, data: Any) -> None:
        self._made.settimeout(self._left())
        self._made.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_HurriedReader(self._made, self._left))

    def close(self) -> None:
        self._made.close()


class _HurriedReader(io.RawIOBase):
    """What is read of it; closing it leaves the socket to the connection, or ends it where that has let go of it."""

    def __init__(self, made: socket.socket, left: Any) -> None:
        self._made = made
        self._left = left
        self._raw = made.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._made.settimeout(self._left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _sendable(headers: Mapping[str, str], where: str) -> dict[str, str]:
    """
    Raises:
        InvalidInput: one cannot be sent. Its value, which may be a secret, is not told.
    """
    found = {name: value.strip() for name, value in headers.items()}
    for name, value in found.items():
        if not (name.isascii() and value.isascii() and name.isprintable() and value.isprintable()):
            raise InvalidInput(f"{where}: the header {name!r} has characters that cannot be sent")
        if not name or set(name) & set(" :"):
            raise InvalidInput(f"{where}: {name!r} is no name of a header")
    return found


def _filled(template: str, arguments: Arguments) -> str:
    for name, value in arguments.items():
        template = template.replace("{" + name + "}", quote(str(value), safe=""))
    return template
