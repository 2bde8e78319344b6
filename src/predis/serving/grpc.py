"""The Open Inference Protocol V2 over gRPC: translation only. ``plane.py`` answers; this reads and writes messages.

Handlers take and give bytes: gRPC's own parsing answers INTERNAL to bytes that are no message, and no limit can be held against them
before they are parsed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from copy import copy
from typing import Any, NoReturn
from urllib.parse import unquote

import grpc

from predis import errors
from predis.access import Caller, Keys
from predis.serving import describe
from predis.serving.grpc_messages import (
    SERVICE,
    decode_infer,
    encode_infer,
    message_class,
    message_of,
    parse,
)
from predis.serving.observing import Observing
from predis.serving.plane import Call, Plane
from predis.serving.protocol import Limits, checked_id
from predis.serving.rest import Repository
from predis.telemetry import Access

log = logging.getLogger(__name__)

Code = grpc.StatusCode
# The only place that knows both errors and gRPC; looked up by walking an error's class order.
GRPC_STATUS: dict[type[errors.PredisError], grpc.StatusCode] = {
    errors.InvalidInput: Code.INVALID_ARGUMENT,
    errors.NotFound: Code.NOT_FOUND,
    errors.AlreadyExists: Code.ALREADY_EXISTS,
    errors.Conflict: Code.FAILED_PRECONDITION,
    errors.Unauthenticated: Code.UNAUTHENTICATED,
    errors.AccessDenied: Code.PERMISSION_DENIED,
    errors.Overloaded: Code.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: Code.DEADLINE_EXCEEDED,
    errors.Unavailable: Code.UNAVAILABLE,
    errors.IntegrityFailure: Code.FAILED_PRECONDITION,
    errors.ModelFailure: Code.FAILED_PRECONDITION,
    errors.SetupError: Code.UNAVAILABLE,
    errors.PredisError: Code.INTERNAL,
}
RETRY_AFTER_S = 1
# A status message travels in the trailers, percent-encoded; clients take 8 KiB of them.
_DETAIL_BYTES = 2_000
# Requests of one stream that are worked on at once; more wait with the client.
_STREAM_IN_FLIGHT = 32
_ModelStreamInferResponse = message_class("ModelStreamInferResponse")

NOBODY = Caller("", "nobody", "client")  # who asks for health, and who has not shown a key yet
Answers = asyncio.Queue[asyncio.Task[bytes] | None]  # of a stream, in order; None is its end
Unary = Callable[[bytes, Any], Awaitable[bytes]]
# A method's request and caller to its response, as a dictionary in the protocol's JSON form.
Look = Callable[["Service", Any, Caller], Awaitable[dict[str, Any]]]


def status_of(error: errors.PredisError) -> grpc.StatusCode:
    """The gRPC status of an error: its own class's, or that of its nearest ancestor."""
    return next(GRPC_STATUS[cls] for cls in type(error).__mro__ if cls in GRPC_STATUS)


class _Rpc:
    """A call of a method on its way; of a stream, one of its requests."""

    __slots__ = ("call", "caller", "context", "deadline", "metadata", "method", "started")

    def __init__(self, method: str, context: Any) -> None:
        self.method = method
        self.context = context
        self.started = time.perf_counter()
        self.metadata: dict[str, Any] = dict(context.invocation_metadata())
        remaining = context.time_remaining()
        self.deadline = math.inf if remaining is None else self.started + remaining
        self.caller = NOBODY
        self.call: Call | None = None

    def next(self) -> _Rpc:
        """The same for the next request of the stream."""
        found = copy(self)
        found.started, found.call = time.perf_counter(), None
        return found


class Service:
    """The methods of ``inference.GRPCInferenceService``."""

    def __init__(
        self,
        plane: Plane,
        keys: Keys,
        *,
        limits: Limits,
        repository: Repository,
        observing: Observing,
    ) -> None:
        self._plane = plane
        self._keys = keys
        self._limits = limits
        self._repository = repository
        self._observing = observing

    def handler(self) -> grpc.GenericRpcHandler:
        """The methods, for a server to call."""
        methods = {
            name: grpc.unary_unary_rpc_method_handler(self._unary(name, right, answer=answer))
            for name, (right, answer) in _METHODS.items()
        }
        methods["ModelInfer"] = grpc.unary_unary_rpc_method_handler(self._infer)
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    # -- inference -------------------------------------------------------------------------------------------------------

    async def _infer(self, data: bytes, context: Any) -> bytes:
        rpc = _Rpc("ModelInfer", context)
        try:
            self._admit(rpc, "predict")
            found = (await self._answer(data, rpc)).SerializeToString()
        except Exception as error:
            await self._refuse(rpc, error)
        if rpc.call is not None and rpc.call.trace is not None:
            context.set_trailing_metadata((("traceparent", rpc.call.trace.traceparent),))
        self._tell(rpc, size=len(found))
        return bytes(found)

    async def _stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Answers in the order of the requests."""
        rpc = _Rpc("ModelStreamInfer", context)
        try:
            self._admit(rpc, "predict")
        except Exception as error:
            await self._refuse(rpc, error)
        rpc.metadata.pop("x-request-id", None)  # one id cannot be that of many requests
        answers: Answers = asyncio.Queue()
        room = asyncio.Semaphore(_STREAM_IN_FLIGHT)
        reader = asyncio.create_task(self._read(requests, rpc, answers=answers, room=room))
        try:
            while (answer := await answers.get()) is not None:
                yield await answer
                room.release()
        finally:
            reader.cancel()
            while not answers.empty():
                if (unread := answers.get_nowait()) is not None:
                    unread.cancel()

    async def _read(
        self, requests: AsyncIterator[bytes], rpc: _Rpc, *, answers: Answers, room: asyncio.Semaphore
    ) -> None:
        try:
            async for data in requests:
                await room.acquire()
                answers.put_nowait(asyncio.create_task(self._streamed(data, rpc.next())))
        finally:
            answers.put_nowait(None)

    async def _streamed(self, data: bytes, rpc: _Rpc) -> bytes:
        """The answer, or what was wrong with this request; the stream goes on either way."""
        response = _ModelStreamInferResponse()
        status = grpc.StatusCode.OK
        try:
            response.infer_response.CopyFrom(await self._answer(data, rpc))
        except Exception as error:
            known = _known(error, rpc)
            response.error_message, status = known.message, status_of(known)
        found: bytes = response.SerializeToString()
        self._tell(rpc, status, size=len(found))
        return found

    async def _answer(self, data: bytes, rpc: _Rpc) -> Any:
        """The response message to one request.

        Raises:
            PredisError
        """
        asked = decode_infer(data, self._limits)
        request, metadata = asked.request, rpc.metadata
        if "x-predis-routing-key" in metadata:
            request.parameters["routing_key"] = metadata["x-predis-routing-key"]
        if not request.id and "x-request-id" in metadata:
            request.id = checked_id(metadata["x-request-id"])
        call = rpc.call = Call(
            rpc.caller,
            asked.endpoint,
            request=request,
            version=asked.version,
            started=rpc.started,
            deadline=rpc.deadline,
        )
        call.headers = metadata
        if self._observing.tracer is not None:
            call.trace = self._observing.begin(
                metadata.get("traceparent", ""), metadata.get("tracestate", "")
            )
        try:
            await self._plane.infer(call)
        except errors.PredisError as error:
            call.error = error
            raise
        assert call.outputs is not None
        chosen = call.served.encoder.chosen(request, call.outputs)
        return encode_infer(asked, chosen, version=call.served.number)

    # -- all that is no inference ----------------------------------------------------------------------------------------

    def _unary(self, name: str, right: str, *, answer: Look) -> Unary:
        """One method for gRPC to call; ``right`` is empty where anybody may."""
        request_class, response_class = message_class(f"{name}Request"), f"{name}Response"

        async def call(data: bytes, context: Any) -> bytes:
            rpc = _Rpc(name, context)
            try:
                request = parse(request_class, data)
                if right:
                    self._admit(rpc, right)
                document = await answer(self, request, rpc.caller)
                found: bytes = message_of(response_class, document).SerializeToString()
            except Exception as error:
                await self._refuse(rpc, error)
            self._tell(rpc, size=len(found))
            return found

        return call

    def _admit(self, rpc: _Rpc, right: str) -> None:
        """Let a caller in who has the right.

        Raises:
            Unauthenticated, AccessDenied
        """
        rpc.caller = self._keys.recognise(rpc.metadata.get("authorization"))
        rpc.caller.require(right)

    async def _refuse(self, rpc: _Rpc, error: Exception) -> NoReturn:
        """End an RPC with what was wrong."""
        known = _known(error, rpc)
        status = status_of(known)
        trailers = [("predis-error", known.code)]
        if isinstance(known, errors.Unavailable):
            trailers.append(("retry-after", str(RETRY_AFTER_S)))
        if rpc.call is not None and rpc.call.request.id.isascii():  # metadata cannot hold others
            trailers.append(("x-request-id", rpc.call.request.id))
        self._tell(rpc, status)
        details = known.message.encode()[:_DETAIL_BYTES].decode(errors="ignore")
        await rpc.context.abort(status, details, tuple(trailers))
        raise AssertionError("an aborted RPC goes on")

    def _tell(self, rpc: _Rpc, status: grpc.StatusCode = grpc.StatusCode.OK, *, size: int = 0) -> None:
        """Tell those who observe of a request that is as good as answered."""
        call = rpc.call
        if call is not None and call.trace is not None:
            self._observing.traced(call, call.trace)
        if self._observing.access_log is not None:
            self._observing.access_log.add(
                Access(
                    "gRPC",
                    f"/{SERVICE}/{rpc.method}",
                    status.value[0],
                    time.perf_counter() - rpc.started,
                    size,
                    call.request.id if call is not None else "",
                    rpc.caller.tenant,
                    _address(rpc.context.peer()),
                )
            )

    async def server_live(self, _request: Any, _caller: Caller) -> dict[str, Any]:
        return {"live": self._plane.live()}

    async def server_ready(self, _request: Any, _caller: Caller) -> dict[str, Any]:
        return {"ready": self._plane.ready()}

    async def server_metadata(self, _request: Any, _caller: Caller) -> dict[str, Any]:
        return describe.server_metadata()

    async def model_ready(self, request: Any, caller: Caller) -> dict[str, Any]:
        """A model that is not here is not ready: clients ask this to see whether an unload has worked."""
        try:
            ready = describe.model_ready(
                self._plane, caller, endpoint=request.name, version=request.version or None
            )
        except (errors.NotFound, errors.NotReady):
            ready = False
        return {"ready": ready}

    async def model_metadata(self, request: Any, caller: Caller) -> dict[str, Any]:
        found = describe.model_metadata(
            self._plane, caller, endpoint=request.name, version=request.version or None
        )
        return {**found, "properties": found["parameters"]}

    async def model_config(self, request: Any, caller: Caller) -> dict[str, Any]:
        found = describe.model_config(
            self._plane, caller, endpoint=request.name, version=request.version or None
        )
        return {"config": found}

    async def model_statistics(self, request: Any, caller: Caller) -> dict[str, Any]:
        numbers = await asyncio.to_thread(self._observing.numbers)
        endpoint, version = request.name or None, request.version or None
        return describe.statistics(self._plane, caller, endpoint=endpoint, version=version, numbers=numbers)

    async def repository_index(self, request: Any, caller: Caller) -> dict[str, Any]:
        return {"models": describe.index(self._plane, caller, ready_only=request.ready)}

    async def repository_model_load(self, request: Any, caller: Caller) -> dict[str, Any]:
        name = _repository_name(request)
        await self._repository.load(caller, name)
        return {"model_name": name, "isLoaded": True}

    async def repository_model_unload(self, request: Any, caller: Caller) -> dict[str, Any]:
        name = _repository_name(request)
        await self._repository.unload(caller, name)
        return {"model_name": name, "isUnloaded": True}


# By name: the right it takes (none: health and the server's own metadata), and what answers.
_METHODS: dict[str, tuple[str, Look]] = {
    "ServerLive": ("", Service.server_live),
    "ServerReady": ("", Service.server_ready),
    "ServerMetadata": ("", Service.server_metadata),
    "ModelReady": ("predict", Service.model_ready),
    "ModelMetadata": ("predict", Service.model_metadata),
    "ModelConfig": ("predict", Service.model_config),
    "ModelStatistics": ("predict", Service.model_statistics),
    "RepositoryIndex": ("predict", Service.repository_index),
    "RepositoryModelLoad": ("operate", Service.repository_model_load),
    "RepositoryModelUnload": ("operate", Service.repository_model_unload),
}


def _repository_name(request: Any) -> str:
    """The endpoint to load or unload. Models come from the registry: a client cannot bring one along.

    Raises:
        InvalidRequest
    """
    for name in request.parameters:
        if name != "unload_dependents":
            raise errors.InvalidRequest(
                f"the parameter {name!r:.80} is not taken here; register a version with: predis register"
            )
    return str(request.model_name or request.repository_name)


def _known(error: Exception, rpc: _Rpc) -> errors.PredisError:
    """The error as one of the tree; one that is not is ours, and the log has it."""
    request_id = rpc.call.request.id if rpc.call is not None else ""
    if not isinstance(error, errors.PredisError):
        log.error("%s failed", rpc.method, exc_info=error, extra={"request_id": request_id})
        return errors.PredisError("an internal error; the server's log has it")
    if isinstance(error, errors.ModelFailure) or status_of(error) is Code.INTERNAL:
        log.warning("%s: %s", rpc.method, error, extra={"request_id": request_id})
    return error


def _address(peer: str) -> str:
    """The client's address of what gRPC calls a peer: ``ipv4:127.0.0.1:5000``, ``ipv6:%5B::1%5D:5000``."""
    return unquote(peer.partition(":")[2]).rpartition(":")[0].strip("[]")
