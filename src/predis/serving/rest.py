"""The Open Inference Protocol V2 over HTTP: translation only.

Health answers carry JSON, errors are ``{"error": "...", "code": "..."}``, and nothing relies on Content-Type: real clients of the
protocol send none, or a wrong one. An inference request is handled without a task or a coroutine; what asks the database
(repository calls) is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import orjson

from predis import errors
from predis.access import Caller, Keys
from predis.serving import describe, openapi
from predis.serving.compression import compressed, decompressed
from predis.serving.guard import Guard
from predis.serving.http import Request
from predis.serving.observing import Observing
from predis.serving.plane import Call, Plane
from predis.serving.protocol import Limits, checked_id, decode_request
from predis.telemetry import Access

log = logging.getLogger(__name__)

# The only place that knows both errors and HTTP; looked up by walking an error's class order.
HTTP_STATUS: dict[type[errors.PredisError], int] = {
    errors.TooLarge: 413,
    errors.InvalidInput: 400,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Unauthenticated: 401,
    errors.AccessDenied: 403,
    errors.TenantOverloaded: 429,
    errors.DeadlineExceeded: 504,
    errors.Unavailable: 503,
    errors.IntegrityFailure: 422,
    errors.ModelFailure: 422,
    errors.SetupError: 503,
    errors.PredisError: 500,
}
RETRY_AFTER_S = 1
_RETRY_AFTER = (b"retry-after", str(RETRY_AFTER_S).encode())
_CHALLENGE = (b"www-authenticate", b"Bearer")
_JSON = b"application/json"
_PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"
_INTERNAL = "an internal error; the server's log has it"
_TARGETS_KEPT = 4_096
_LARGE_BYTES = 4_096  # from here on it is worth a look whether there is room, before a body is decoded
Headers = Sequence[tuple[bytes, bytes]]


class Repository(Protocol):
    """Loads and unloads endpoints, on every worker."""

    async def load(self, caller: Caller, endpoint: str) -> None: ...

    async def unload(self, caller: Caller, endpoint: str) -> None: ...


def status_of(error: errors.PredisError) -> int:
    """The HTTP status of an error: its own class's, or that of its nearest ancestor."""
    return next(HTTP_STATUS[cls] for cls in type(error).__mro__ if cls in HTTP_STATUS)


def error_body(error: errors.PredisError) -> bytes:
    return orjson.dumps({"error": error.message, "code": error.code})


class RestApp:
    """Handles the requests of one worker.

    Args:
        insecure: listen beyond loopback without keys; then any Host may be asked for.
    """

    def __init__(
        self,
        plane: Plane,
        keys: Keys,
        *,
        limits: Limits,
        repository: Repository,
        observing: Observing,
        insecure: bool = False,
    ) -> None:
        self._plane = plane
        self._keys = keys
        self._limits = limits
        self._repository = repository
        self._observing = observing
        self._log = observing.access_log
        self._guard = Guard(keys, insecure=insecure)
        self._targets: dict[str, tuple[str, str | None]] = {}
        self._pages: dict[str, Callable[[Request], None]] = {
            "/v2/health/live": self._live,
            "/v2/health/ready": self._ready,
            "/v2": self._metadata,
            "/v2/models/stats": lambda request: self._statistics(request, (None, None)),
            "/metrics": self._exposition,
            "/openapi.json": self._openapi,
        }
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, request: Request) -> None:
        """Answer a request, now or later. Whatever goes wrong becomes a typed answer."""
        try:
            if request.method == "POST" and request.path.endswith("/infer"):
                self._infer(request)
            else:
                self._look(request)
        except errors.PredisError as error:
            self._refuse(request, error)
        except _MethodNotAllowed as error:
            allowed = str(error)
            body = orjson.dumps({"error": f"this path takes {allowed}", "code": "method_not_allowed"})
            self._reply(request, 405, body=body, headers=[(b"allow", allowed.encode())])

    # -- inference -------------------------------------------------------------------------------------------------------

    def _infer(self, request: Request) -> None:
        headers = request.headers
        caller = self._caller(request, "predict")
        target = self._targets.get(request.path) or self._target(request.path)
        body = request.body
        if len(body) > _LARGE_BYTES:
            self._plane.check_room(caller.tenant, target[0], version=target[1])
        if b"content-encoding" in headers:
            body = decompressed(body, request.header(b"content-encoding"), most=self._limits.body_bytes)
        asked = decode_request(body, self._limits, head_bytes=_head_bytes(request))
        if b"x-predis-routing-key" in headers:
            asked.parameters["routing_key"] = headers[b"x-predis-routing-key"].decode("utf-8", "replace")
        if not asked.id and b"x-request-id" in headers:
            asked.id = checked_id(headers[b"x-request-id"].decode("utf-8", "replace"))
        call = Call(caller, target[0], version=target[1], request=asked, started=request.started)
        if b"x-request-timeout-ms" in headers:
            call.deadline = request.started + _milliseconds(request) / 1000
        if self._observing.tracer is not None:
            call.trace = self._observing.begin(request.header(b"traceparent"), request.header(b"tracestate"))
        call.reply = self._answer
        call.context = request
        call.headers = headers
        request.on_gone = call.cancel
        try:
            self._plane.submit(call)
        except errors.PredisError as error:
            call.error = error
            self._refuse(request, error, call=call)

    def _answer(self, call: Call) -> None:
        request: Request = call.context
        if call.error is None and call.outputs is not None:
            try:
                body, head_bytes = call.served.encoder.encode(call.request, call.outputs)
            except errors.PredisError as error:
                call.error = error
            except Exception:
                log.exception("an answer of %s cannot be written", request.path[:200])
                call.error = errors.PredisError(_INTERNAL)
            else:
                headers: list[tuple[bytes, bytes]] = []
                if head_bytes is not None:
                    headers.append((b"content-type", b"application/octet-stream"))
                    headers.append((b"inference-header-content-length", str(head_bytes).encode()))
                if b"accept-encoding" in request.headers:
                    body = compressed(body, request.header(b"accept-encoding"), headers=headers)
                if call.trace is not None:
                    headers.append((b"traceparent", call.trace.traceparent.encode()))
                self._reply(request, 200, body=body, headers=headers, call=call)
                return
        assert call.error is not None
        self._refuse(request, call.error, call=call)

    def _target(self, path: str) -> tuple[str, str | None]:
        """Endpoint and version of an infer path, remembered."""
        found = _model(path.rstrip("/").removesuffix("/infer"))
        if len(self._targets) >= _TARGETS_KEPT:
            self._targets.clear()
        self._targets[path] = found
        return found

    # -- everything else -------------------------------------------------------------------------------------------------

    def _look(self, request: Request) -> None:
        path = request.path.rstrip("/")
        page = self._pages.get(path)
        if page is not None:
            _allow(request, "GET")
            return page(request)
        if path.startswith("/v2/repository/"):
            return self._repository_call(request, path)
        if not path.startswith("/v2/models/"):
            raise errors.NotFound(f"there is nothing at {path[:200]!r}; the protocol's paths start with /v2")
        if path.endswith("/infer"):
            _allow(request, "POST")
            return self._infer(request)  # with a slash behind it
        return self._look_at_model(request, path)

    def _live(self, request: Request) -> None:
        self._reply(request, 200, body=b'{"live":true}')

    def _ready(self, request: Request) -> None:
        ready = self._plane.ready()
        self._reply(request, 200 if ready else 503, body=orjson.dumps({"ready": ready}))

    def _metadata(self, request: Request) -> None:
        self._reply(request, 200, body=orjson.dumps(describe.server_metadata()))

    def _openapi(self, request: Request) -> None:
        self._reply(request, 200, body=orjson.dumps(openapi.document()))

    def _exposition(self, request: Request) -> None:
        caller = self._caller(request, "read")
        self._later(request, asyncio.to_thread(self._observing.exposition, caller.tenant), kind=_PROMETHEUS)

    def _look_at_model(self, request: Request, path: str) -> None:
        _allow(request, "GET")
        caller = self._caller(request, "predict")
        name, _, kind = path.rpartition("/")
        if kind == "ready":
            endpoint, version = _model(name)
            ready = describe.model_ready(self._plane, caller, endpoint=endpoint, version=version)
            return self._reply(
                request, 200 if ready else 503, body=orjson.dumps({"name": endpoint, "ready": ready})
            )
        if kind == "stats":
            return self._statistics(request, _model(name))
        tell = describe.model_config if kind == "config" else describe.model_metadata
        endpoint, version = _model(name if kind == "config" else path)
        return self._reply(
            request, 200, body=orjson.dumps(tell(self._plane, caller, endpoint=endpoint, version=version))
        )

    def _statistics(self, request: Request, target: tuple[str | None, str | None]) -> None:
        endpoint, version = target
        caller = self._caller(request, "predict")

        async def told() -> bytes:
            numbers = await asyncio.to_thread(self._observing.numbers)
            return orjson.dumps(
                describe.statistics(self._plane, caller, endpoint=endpoint, version=version, numbers=numbers)
            )

        self._later(request, told())

    def _repository_call(self, request: Request, path: str) -> None:
        _allow(request, "POST")
        parts = path.split("/")
        if path == "/v2/repository/index":
            caller = self._caller(request, "predict")
            wanted = _json_object(request.body)
            found = describe.index(self._plane, caller, ready_only=wanted.get("ready") is True)
            return self._reply(request, 200, body=orjson.dumps(found))
        if len(parts) == 6 and parts[3] == "models" and parts[5] in ("load", "unload"):
            caller = self._caller(request, "operate")
            _check_parameters(_json_object(request.body))
            move = self._repository.load if parts[5] == "load" else self._repository.unload
            return self._later(request, _done(move(caller, parts[4])))
        raise errors.NotFound(
            f"there is nothing at {path[:200]!r}; the repository has index and models/NAME/load or unload"
        )

    def _later(self, request: Request, work: Coroutine[Any, Any, bytes], *, kind: bytes = _JSON) -> None:
        """Answer when work is done that has to wait for something."""

        async def run() -> None:
            try:
                body = await work
            except errors.PredisError as error:
                self._refuse(request, error)
            except Exception:
                log.exception("%s failed", request.path[:200])
                self._refuse(request, errors.PredisError(_INTERNAL))
            else:
                self._reply(request, 200, body=body, headers=[(b"content-type", kind)])

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _caller(self, request: Request, right: str) -> Caller:
        self._guard.check(request)
        caller = self._keys.recognise(request.header(b"authorization"))
        caller.require(right)
        return caller

    def _reply(
        self, request: Request, status: int, *, body: bytes, headers: Headers = (), call: Call | None = None
    ) -> None:
        """Every answer goes through here; then it is told of to those who observe."""
        remote = request.remote if self._log is not None else ""
        request.reply(status, body, headers=headers)
        if call is not None and call.trace is not None:
            self._observing.traced(call, call.trace)
        if self._log is not None:
            self._log.add(
                Access(
                    request.method,
                    request.path,
                    status,
                    time.perf_counter() - request.started,
                    len(body),
                    call.request.id if call is not None else "",
                    call.caller.tenant if call is not None else "",
                    remote,
                )
            )

    def _refuse(self, request: Request, error: errors.PredisError, *, call: Call | None = None) -> None:
        status = status_of(error)
        request_id = call.request.id if call is not None else ""
        if (status >= 500 and not isinstance(error, errors.Unavailable)) or isinstance(
            error, errors.ModelFailure
        ):
            log.warning("%s: %s", request.path[:200], error, extra={"request_id": request_id})
        headers: list[tuple[bytes, bytes]] = []
        if status in (429, 503):
            headers.append(_RETRY_AFTER)
        elif status == 401:
            headers.append(_CHALLENGE)
        if request_id:
            headers.append((b"x-request-id", request_id.encode("utf-8", "replace")))
        self._reply(request, status, body=error_body(error), headers=headers, call=call)


class _MethodNotAllowed(Exception):
    """A path that exists was asked with another method; carries the one it takes."""


def _allow(request: Request, method: str) -> None:
    if request.method != method and not (method == "GET" and request.method == "HEAD"):
        raise _MethodNotAllowed(method)


def _model(path: str) -> tuple[str, str | None]:
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


def _check_parameters(document: dict[str, Any]) -> None:
    """Refuse what a client would bring along to a load: models come from the registry.

    Raises:
        InvalidRequest
    """
    parameters = document.get("parameters") or {}
    if type(parameters) is not dict:
        raise errors.InvalidRequest("'parameters' must be an object")
    for name in parameters:
        if name != "unload_dependents":
            raise errors.InvalidRequest(
                f"the parameter {name!r:.80} is not taken here; register a version with: predis register"
            )


async def _done(work: Coroutine[Any, Any, None]) -> bytes:
    """Nothing to tell but that it is done."""
    await work
    return b"{}"


def _head_bytes(request: Request) -> int | None:
    if b"inference-header-content-length" not in request.headers:
        return None
    text = request.header(b"inference-header-content-length")
    if not text.isdecimal() or len(text) > 12:
        raise errors.InvalidRequest(
            f"Inference-Header-Content-Length must be a number of bytes, got {text!r:.40}"
        )
    return int(text)


def _milliseconds(request: Request) -> float:
    text = request.header(b"x-request-timeout-ms")
    if not text.isdecimal() or len(text) > 9:
        raise errors.InvalidRequest(f"X-Request-Timeout-Ms must be whole milliseconds, got {text!r:.40}")
    return float(text)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as error:
        raise errors.InvalidRequest(f"the body is not JSON: {error}") from None
    if type(found) is not dict:
        raise errors.InvalidRequest("the body must be a JSON object, or empty")
    return found
