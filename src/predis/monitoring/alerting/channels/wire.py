"""What channels share: their fields, what they are given to send, and one careful HTTP request."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from predis import __version__
from predis.clock import Clock
from predis.errors import InvalidInput
from predis.monitoring.alerting.channels.deadline import Deadline, WatchedHTTP, WatchedHTTPS
from predis.monitoring.alerting.notices import Notice
from predis.monitoring.alerting.secrets import check_reference

TIMEOUT_S = 10.0  # for each wait
PATIENCE_S = 30.0  # for a whole exchange; a delivery's lease is longer
_ANSWER_BYTES = 2_048
# Statuses with which a receiver says that this very message will never be taken.
HOPELESS = frozenset((400, 405, 406, 413, 415, 422))
_LONGEST_FIELD = 2_000


class NotSent(Exception):
    """A receiver did not take a notice; between channels and the deliverer, nobody else sees it.

    ``hopeless``: it never will; ``retry_after_s``: when it wants to be asked again.
    """

    def __init__(self, message: str, *, hopeless: bool = False, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.hopeless = hopeless
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Field:
    """One value of a channel's configuration. ``kind``: text, url, secret, number, flag or texts."""

    kind: str
    help: str
    required: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Envelope:
    """One notice on its way. ``key`` is the same at every attempt; ``secret(field)`` reads a secret of the configuration."""

    notice: Notice
    key: str
    config: Mapping[str, Any]
    secret: Callable[[str], str]
    clock: Clock

    @property
    def incident(self) -> str:
        """The key under which a receiver keeps the incident: unique over installations."""
        return f"predis-{self.notice['incident']}"


def check_fields(config: Mapping[str, Any], fields: Mapping[str, Field], *, where: str) -> None:
    """
    Raises:
        InvalidInput: a field is missing, unknown, or cannot be used.
    """
    for name in config:
        if name not in fields:
            raise InvalidInput(f"{where} has the fields {', '.join(fields)}, not {name!r:.80}")
    for name, field in fields.items():
        if name in config:
            _check_value(config[name], field, where=f"{where}: {name}")
        elif field.required:
            raise InvalidInput(f"{where} needs {name}: {field.help}")


def _check_value(value: Any, field: Field, *, where: str) -> None:
    if field.kind == "number":
        if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
            raise InvalidInput(f"{where} is a number above 0")
        return
    if field.kind == "flag":
        if type(value) is not bool:
            raise InvalidInput(f"{where} is true or false")
        return
    for text in value if field.kind == "texts" and isinstance(value, list) and value else [value]:
        if not isinstance(text, str) or not 0 < len(text) <= _LONGEST_FIELD or not text.isprintable():
            raise InvalidInput(f"{where} is a printable text of at most {_LONGEST_FIELD} characters")
    if field.choices and value not in field.choices:
        raise InvalidInput(f"{where} is one of {', '.join(field.choices)}")
    if field.kind == "secret":
        check_reference(value, where)
    if field.kind == "url":
        check_url(value, where)


def check_url(url: str, where: str) -> None:
    """
    Raises:
        InvalidInput: it is no http or https URL, or holds a password, which would be stored and shown.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InvalidInput(f"{where} is no http or https URL")
    if parts.username or parts.password:
        raise InvalidInput(f"{where} must not hold a password, which would be stored")


def post(url: str, document: Any, *, headers: Mapping[str, str]) -> None:
    """POST JSON. Redirects are not followed: a receiver must not send us where no administrator did.

    Raises:
        NotSent: no answer, or not one of 2xx. The message does not name the URL, which may be a secret.
    """
    post_bytes(url, encode(document), headers=headers)


def encode(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def post_bytes(url: str, body: bytes, *, headers: Mapping[str, str]) -> None:
    """As ``post``, of what is encoded already."""
    given = {"content-type": "application/json", "user-agent": f"predis/{__version__}", **headers}
    request = urllib.request.Request(url, body, given, method="POST")  # noqa: S310 - check_url let only http and https pass
    with Deadline(PATIENCE_S) as deadline:
        _exchange(request, url, deadline=deadline)


def _exchange(request: urllib.request.Request, url: str, *, deadline: Deadline) -> None:
    try:
        with _opener(deadline).open(request, timeout=TIMEOUT_S) as response:
            response.read(_ANSWER_BYTES)
        if deadline.over:  # a head that was cut off reads like a whole one
            raise TimeoutError
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(error) from None
    except (OSError, HTTPException, ValueError) as error:
        if deadline.over:
            raise NotSent(f"no whole answer within {PATIENCE_S:g} s") from None
        reason = getattr(error, "reason", None) or error
        raise NotSent(f"no answer: {type(reason).__name__}: {reason}".replace(url, "the URL")) from None


def _refused(error: urllib.error.HTTPError) -> NotSent:
    try:
        said = error.read(_ANSWER_BYTES).decode("utf-8", "replace")
    except (OSError, HTTPException):
        said = ""
    text = " ".join("".join(c if c.isprintable() else " " for c in said).split())[:200]
    where = " (redirects are not followed)" if 300 <= error.code < 400 else ""
    return NotSent(
        f"status {error.code}{where}{': ' + text if text else ''}",
        hopeless=error.code in HOPELESS,
        retry_after_s=_seconds(error.headers.get("retry-after", "")),
    )


def _seconds(text: str) -> float:
    """A Retry-After header: seconds, or a date, of which only that it is not now matters here."""
    try:
        return min(max(float(text), 0.0), 3_600.0)
    except ValueError:
        pass
    try:
        parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return 60.0


def _opener(deadline: Deadline) -> urllib.request.OpenerDirector:
    """HTTP and HTTPS, by the proxies of the environment; no handler of redirects, so that they are errors like others."""
    made = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        WatchedHTTP(deadline),
        WatchedHTTPS(deadline),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        made.add_handler(handler)
    return made
