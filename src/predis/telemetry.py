"""Logs of every role: one line an event, text for people or JSON for collectors, never a secret in them."""

from __future__ import annotations

import json
import logging
import re
import sys
import time

_SECRET = re.compile(r"(pk_[A-Za-z0-9]{4})[A-Za-z0-9_\-]+|(://[^:/@\s]*:)[^@\s]+@")


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
    for noisy in ("alembic", "uvicorn.access", "dbos", "sqlalchemy", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
