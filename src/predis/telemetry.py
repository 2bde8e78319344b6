"""Logs of every role: one line an event, text for people or JSON for collectors, never a secret in them.

A line about one request says which: give ``extra={"request_id": ...}`` to the call that logs it; JSON shows all of ``FIELDS``, text the
id. The access log has a line of its own for each request, and a thread of its own that writes them.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import orjson

from predis.metrics import NOTHING, Metrics

# What a log line may say beside its message, by the names that `extra` gives them.
FIELDS = ("request_id", "trace_id", "tenant", "endpoint", "version")
_SECRET = re.compile(r"(pk_[A-Za-z0-9]{4})[A-Za-z0-9_\-]+|(://[^:/@\s]*:)[^@\s]+@")
_QUIET = ("alembic", "uvicorn.access", "dbos", "sqlalchemy", "asyncio")
_QUEUE_LINES = 8_192
_PERIOD_S = 0.2
_LONGEST_PATH = 1_024
# Up to here a write to a pipe is one piece, whoever else writes to it (PIPE_BUF of Linux).
_PIECE_BYTES = 4_096


def redact(text: str) -> str:
    """The text with API keys and passwords in URLs cut out.

    >>> redact("postgresql://predis:hunter2@db/predis with pk_abcdEFGHijkl")
    'postgresql://predis:***@db/predis with pk_abcd***'
    """
    return _SECRET.sub(lambda m: f"{m.group(1)}***" if m.group(1) else f"{m.group(2)}***@", text)


class _Text(logging.Formatter):
    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{stamp} {record.levelname.lower():7} {self._role:9} {record.getMessage()}"
        request_id = getattr(record, "request_id", "")
        if request_id:
            line += f" [id {_printable(str(request_id))}]"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return redact(line)


class _Json(logging.Formatter):
    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "role": self._role,
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        entry |= {name: redact(str(vars(record)[name])) for name in FIELDS if vars(record).get(name)}
        if record.exc_info:
            entry["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(entry)


def configure(role: str, *, style: str = "text", level: str = "info") -> None:
    """Send this process's logs to standard error in the chosen style (``text`` or ``json``)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(role) if style == "json" else _Text(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in _QUIET:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # DBOS gives its logger a handler and a format of its own, unless it has a handler already.
    dbos = logging.getLogger("dbos")
    dbos.handlers[:] = [handler]
    dbos.propagate = False


class Access(NamedTuple):
    """A request as the access log tells it. ``path`` may have a query, which is left out; ``size_bytes``: of the answer."""

    method: str
    path: str
    status: int
    seconds: float
    size_bytes: int
    request_id: str
    tenant: str
    remote: str


class AccessLog:
    """One line a request, on standard error. ``add`` only puts it into a queue; a full queue drops, and counts what it dropped.

    Args:
        style: ``text`` or ``json``.
        stream: where to write instead, in pieces of whole lines.
    """

    def __init__(
        self, role: str, *, style: str = "text", metrics: Metrics = NOTHING, stream: BinaryIO | None = None
    ) -> None:
        self._role = role
        self._line = _json_line if style == "json" else _text_line
        self._dropped = metrics.counter("predis_access_log_dropped_total")
        self._stream = sys.stderr.buffer if stream is None else stream
        self._queue: deque[tuple[float, Access]] = deque()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    def add(self, access: Access) -> None:
        """Take a request that has been answered just now. Never waits and never raises."""
        if len(self._queue) >= _QUEUE_LINES:
            self._dropped.add()
        else:
            self._queue.append((time.time(), access))

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what waits, as far as the stream takes it in time."""
        self._ending.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        ending = False
        while not ending:
            ending = self._ending.wait(_PERIOD_S)
            taken = [self._queue.popleft() for _ in range(len(self._queue))]
            lines = [self._line(self._role, access, at=at) for at, access in taken]
            for piece, count in _pieces(lines):
                try:
                    self._stream.write(piece)
                    self._stream.flush()
                except (OSError, ValueError):  # nobody reads it any more, or it is closed
                    self._dropped.add(count)


def _text_line(role: str, access: Access, *, at: float) -> bytes:
    stamp = time.strftime("%H:%M:%S", time.localtime(at))
    remote, tenant, method, request_id = _outside(access)
    shown = f" [id {request_id}]" if request_id else ""
    return (
        f"{stamp} access  {role:9} {remote or '-'} {tenant or '-'} {method} {_path(access)} {access.status} "
        f"{access.seconds * 1e3:.2f} ms {access.size_bytes} B{shown}\n"
    ).encode()


def _json_line(role: str, access: Access, *, at: float) -> bytes:
    remote, tenant, method, request_id = _outside(access)
    entry = {
        "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at))}.{int(at * 1e3) % 1000:03d}Z",
        "level": "info",
        "role": role,
        "logger": "access",
        "method": method,
        "path": _path(access),
        "status": access.status,
        "ms": round(access.seconds * 1e3, 3),
        "bytes": access.size_bytes,
        "request_id": request_id,
        "tenant": tenant,
        "remote": remote,
    }
    return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)


def _outside(access: Access) -> tuple[str, ...]:
    """What stands there because somebody else sent it."""
    return tuple(map(_printable, (access.remote, access.tenant, access.method, access.request_id)))


def _path(access: Access) -> str:
    return redact(_printable(access.path.partition("?")[0][:_LONGEST_PATH]))


def _printable(text: str) -> str:
    """Text from outside, so that it cannot end the line it stands in or move the reader's cursor."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _pieces(lines: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Lines joined to pieces that are written whole, and how many are in each."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and size + len(line) > _PIECE_BYTES:
            yield b"".join(piece), len(piece)
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    if piece:
        yield b"".join(piece), len(piece)
