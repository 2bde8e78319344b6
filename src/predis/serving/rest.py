"""The Open Inference Protocol V2 over HTTP: translation only. A raw ASGI application, ahead of any framework.

Health answers carry JSON, errors are ``{"error": "...", "code": "..."}``, and nothing relies on Content-Type: real clients of the
protocol send none, or a wrong one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from predis import errors
from predis.access import Caller, Keys
from predis.serving.plane import Plane
from predis.serving.protocol import decode_request

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# The only place that knows both errors and HTTP; looked up by walking an error's class order.
HTTP_STATUS: dict[type[errors.PredisError], int] = {
    errors.TooLarge: 413,
    errors.InvalidInput: 400,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Unauthenticated: 401,
    errors.AccessDenied: 403,
    errors.Unavailable: 503,
    errors.IntegrityFailure: 422,
    errors.ModelFailure: 422,
    errors.SetupError: 503,
    errors.PredisError: 500,
}
RETRY_AFTER_S = 1
_JSON = (b"content-type", b"application/json")


def status_of(error: errors.PredisError) -> int:
    """The HTTP status of an error: its own class's, or that of its nearest ancestor."""
    return next(HTTP_STATUS[cls] for cls in type(error).__mro__ if cls in HTTP_STATUS)


def error_body(error: errors.PredisError) -> bytes:
    return orjson.dumps({"error": error.message, "code": error.code})


class RestApp:
    """ASGI application of one worker.

    Args:
        max_body_bytes: larger bodies are refused with 413 before they are read.
    """

    def __init__(self, plane: Plane, keys: Keys, *, max_body_bytes: int) -> None:
        self._plane = plane
        self._keys = keys
        self._max_body = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        try:
            if path.endswith("/infer") and scope["method"] == "POST":
                await self._infer(scope, receive, send)
                return
            status, body = self._look(scope["method"], path, authorization=_header(scope, b"authorization"))
        except errors.PredisError as error:
            if isinstance(error, errors.ModelFailure):
                log.warning("%s: %s", path, error)
            await _reply_error(send, error)
            return
        except Exception:
            log.exception("a request to %s failed", path)
            status, body = (
                500,
                orjson.dumps({"error": "an internal error; the server's log has it", "code": "internal"}),
            )
        await _reply(send, status, body=body)

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        caller = self._caller(_header(scope, b"authorization"), "predict")
        endpoint, version = _target(scope["path"].removesuffix("/infer"))
        body = await self._body(scope, receive)
        request = decode_request(body, self._plane.limits)
        key = _header(scope, b"x-predis-routing-key")
        if key:
            request.parameters["routing_key"] = key
        answer = await self._plane.infer(caller, endpoint, version=version, request=request)
        await _reply(send, 200, body=answer.body)
        try:
            self._plane.capture(answer, seconds=time.perf_counter() - started)
        except Exception:
            log.exception("a prediction could not be captured")

    def _look(self, method: str, path: str, *, authorization: str) -> tuple[int, bytes]:
        """Everything that only looks: health and metadata."""
        if path == "/v2/health/live":
            return 200, b'{"live":true}'
        if path == "/v2/health/ready":
            ready = self._plane.ready()
            return (200 if ready else 503), orjson.dumps({"ready": ready})
        if path.rstrip("/") == "/v2":
            return 200, orjson.dumps(self._plane.metadata())
        if not path.startswith("/v2/models/"):
            raise errors.NotFound(f"there is nothing at {path[:200]!r}; the protocol's paths start with /v2")
        if path.endswith("/infer") or method not in ("GET", "HEAD"):
            return 405, orjson.dumps(
                {"error": "infer takes POST, everything else GET", "code": "method_not_allowed"}
            )
        caller = self._caller(authorization, "predict")
        if path.endswith("/ready"):
            endpoint, version = _target(path.removesuffix("/ready"))
            ready = self._plane.model_ready(caller, endpoint, version=version)
            return (200 if ready else 503), orjson.dumps({"name": endpoint, "ready": ready})
        endpoint, version = _target(path)
        return 200, orjson.dumps(self._plane.model_metadata(caller, endpoint, version=version))

    def _caller(self, authorization: str, right: str) -> Caller:
        caller = self._keys.recognise(authorization)
        caller.require(right)
        return caller

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        length = _header(scope, b"content-length")
        if length.isdecimal() and (len(length) > 18 or int(length) > self._max_body):
            raise self._too_large()
        message = await receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            if len(body) > self._max_body:
                raise self._too_large()
            return body
        parts, size = [body], len(body)
        while message.get("more_body", False):
            message = await receive()
            part = message.get("body", b"")
            parts.append(part)
            size += len(part)
            if size > self._max_body:
                raise self._too_large()
        return b"".join(parts)

    def _too_large(self) -> errors.TooLarge:
        return errors.TooLarge(f"the body is larger than {self._max_body} bytes (setting max_body_bytes)")


def _target(path: str) -> tuple[str, str | None]:
    """Endpoint and version of ``/v2/models/NAME[/versions/V]``."""
    parts = path.split("/")
    if parts[:3] == ["", "v2", "models"]:
        if len(parts) == 4 and parts[3]:
            return parts[3], None
        if len(parts) == 6 and parts[4] == "versions":
            return parts[3], parts[5]
    raise errors.NotFound(
        f"there is nothing at {path[:200]!r}; use /v2/models/NAME or /v2/models/NAME/versions/VERSION"
    )


def _header(scope: Scope, name: bytes) -> str:
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return ""


async def _reply(
    send: Send, status: int, *, body: bytes, extra: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    headers = [_JSON, (b"content-length", str(len(body)).encode()), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _reply_error(send: Send, error: errors.PredisError) -> None:
    status = status_of(error)
    extra: tuple[tuple[bytes, bytes], ...] = ()
    if status == 503:
        extra = ((b"retry-after", str(RETRY_AFTER_S).encode()),)
    elif status == 413:
        extra = ((b"connection", b"close"),)  # the rest of the body is not read
    await _reply(send, status, body=error_body(error), extra=extra)
