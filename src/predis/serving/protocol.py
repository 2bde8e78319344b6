"""The Open Inference Protocol V2 as data: a request as it was sent, before anything is known of the model it is meant for.

Three bodies mean the same: JSON; the binary tensor extension (a JSON head of ``Inference-Header-Content-Length`` bytes, and raw
tensors behind it); and ``{"rows": [{...}]}``, a convenience for whoever has records in hand. gRPC makes the same ``InferRequest``. A
tensor stays the protocol's own object (name, datatype, shape, data): which of them are needed, and as what, is for the version's
``Binder`` to say.
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, field
from typing import Any

import orjson

from predis.clock import parse_moment
from predis.errors import InvalidRequest, TooLarge
from predis.serving import bulk
from predis.serving.wire import decode_raw

MAX_ID = 128
MAX_CLASSES = 1_000
# From this size on it pays to turn the numbers of a body into arrays without making a Python object of each.
BULK_BYTES = 4_096
Tensor = dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    batch_rows: int = 10_000
    tensors: int = 4_096
    nesting: int = 8
    body_bytes: int = 16 << 20
    capture_columns: int = 1_024


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that the client names: whether it wants it as raw bytes, and of scores only the ``classes`` highest (0: all)."""

    name: str
    binary: bool = False
    classes: int = 0


@dataclass(slots=True)
class InferRequest:
    """A decoded request. ``data`` of a tensor is a list where it came as JSON, else an array of the datatype.

    ``rows`` stands in place of ``inputs`` where the client sent records. ``binary`` asks for all outputs as raw bytes.
    """

    inputs: dict[str, Tensor]
    id: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    outputs: list[RequestedOutput] | None = None
    rows: list[dict[str, Any]] | None = None
    binary: bool = False

    def event_time(self) -> int | None:
        """When what is asked about happens, if the client says so: a replay, a backfill, a queue."""
        found = self.parameters.get("event_time")
        return None if found is None else parse_moment(found, where="parameters.event_time")

    def routing_key(self) -> str:
        found = self.parameters.get("routing_key", "")
        if type(found) is not str:
            raise InvalidRequest(f"parameters.routing_key must be text, got {reprlib.repr(found)}")
        return found

    def timeout_s(self) -> float | None:
        """How long the client waits, by the protocol's ``timeout`` parameter (microseconds); None where it says nothing."""
        found = self.parameters.get("timeout")
        if found is None or found == 0:
            return None
        if type(found) is not int or found < 0:
            raise InvalidRequest(f"parameters.timeout must be microseconds, got {reprlib.repr(found)}")
        return float(found) / 1e6


def decode_request(body: bytes, limits: Limits, *, head_bytes: int | None = None) -> InferRequest:
    """An inference request from its body.

    Args:
        head_bytes: length of the JSON at the start of the body, where raw tensors follow it.

    Raises:
        InvalidRequest: the body is not such a request; the message says where.
        TooLarge: more tensors or rows than allowed.
    """
    if head_bytes is not None and head_bytes > len(body):
        raise InvalidRequest(f"the JSON head is said to have {head_bytes} bytes; the body has {len(body)}")
    document = _document(body if head_bytes is None else body[:head_bytes])
    tensors = document.get("inputs")
    if type(tensors) is not list or not tensors:
        if "rows" in document and "inputs" not in document:
            if head_bytes is not None and head_bytes < len(body):
                raise InvalidRequest("bytes follow the JSON; with 'rows' there are no raw tensors")
            return _of_rows(document, limits)
        raise InvalidRequest(
            "'inputs' must be a list of at least one tensor (or send 'rows', a list of objects)"
        )
    if len(tensors) > limits.tensors:
        raise TooLarge(
            f"{len(tensors)} input tensors; at most {limits.tensors} are allowed (setting max_tensors)"
        )
    inputs: dict[str, Tensor] = {}
    for tensor in tensors:
        if type(tensor) is not dict or type(tensor.get("name")) is not str:
            raise InvalidRequest(
                "each of 'inputs' must be an object with a 'name', 'datatype', 'shape' and 'data'"
            )
        inputs[tensor["name"]] = tensor
    if len(inputs) != len(tensors):
        raise InvalidRequest("two of 'inputs' have the same name")
    if head_bytes is not None:
        _attach(inputs, memoryview(body)[head_bytes:])
    request = InferRequest(inputs)
    if len(document) > 1:
        _optional_parts(document, request)
    return request


def checked_id(found: Any) -> str:
    """A request's id, if it can be one.

    Raises:
        InvalidRequest
    """
    if type(found) is not str or len(found) > MAX_ID or not found.isprintable():
        raise InvalidRequest(
            f"'id' must be a printable text of at most {MAX_ID} characters, got {reprlib.repr(found)}"
        )
    return found


def requested_output(name: str, parameters: dict[str, Any]) -> RequestedOutput:
    """An output with the parameters that clients send for it: ``binary_data`` and ``classification``.

    Raises:
        InvalidRequest
    """
    classes = parameters.get("classification", 0)
    if type(classes) is not int or not 0 <= classes <= MAX_CLASSES:
        raise InvalidRequest(
            f"output {name!r:.80}: 'classification' must be 0 to {MAX_CLASSES}, got {reprlib.repr(classes)}"
        )
    return RequestedOutput(name, _flag(parameters, "binary_data", where=f"output {name!r:.80}"), classes)


def _document(head: bytes) -> dict[str, Any]:
    if len(head) >= BULK_BYTES:
        document = bulk.parse(head)
        if document is not None:
            return document
    try:
        document = orjson.loads(head)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    if type(document) is not dict:
        raise InvalidRequest("the body must be a JSON object with 'inputs'")
    return document


def _of_rows(document: dict[str, Any], limits: Limits) -> InferRequest:
    rows = document["rows"]
    if type(rows) is not list or not rows or not all(type(row) is dict for row in rows):
        raise InvalidRequest("'rows' must be a list of at least one object of inputs by name")
    if len(rows) > limits.batch_rows:
        raise TooLarge(
            f"{len(rows)} rows; at most {limits.batch_rows} are allowed in one request (setting max_batch_rows)"
        )
    request = InferRequest({}, rows=rows)
    _optional_parts(document, request)
    return request


def _attach(inputs: dict[str, Tensor], raw: memoryview) -> None:
    """Give each binary tensor its part of the bytes behind the JSON; all of them must be used."""
    at = 0
    for name, tensor in inputs.items():
        parameters, datatype, shape = tensor.get("parameters"), tensor.get("datatype"), tensor.get("shape")
        size = parameters.get("binary_data_size") if type(parameters) is dict else None
        if size is None:
            continue
        if type(size) is not int or not 0 <= size <= len(raw) - at:
            raise InvalidRequest(
                f"input {name!r:.80}: 'binary_data_size' is {reprlib.repr(size)}, and {len(raw) - at} bytes are left"
            )
        if type(datatype) is not str or type(shape) is not list:
            raise InvalidRequest(f"input {name!r:.80} needs a 'datatype' and a 'shape'")
        tensor["data"] = decode_raw(datatype, shape, data=raw[at : at + size])
        at += size
    if at != len(raw):
        raise InvalidRequest(f"{len(raw) - at} bytes behind the JSON belong to no input")


def _optional_parts(document: dict[str, Any], request: InferRequest) -> None:
    request.id = checked_id(document.get("id", ""))
    parameters = document.get("parameters", {})
    if type(parameters) is not dict:
        raise InvalidRequest("'parameters' must be an object")
    request.parameters = parameters
    request.binary = _flag(parameters, "binary_data_output", where="parameters")
    outputs = document.get("outputs")
    if outputs is not None:
        if type(outputs) is not list or not all(
            type(o) is dict and type(o.get("name")) is str and type(o.get("parameters", {})) is dict
            for o in outputs
        ):
            raise InvalidRequest("'outputs' must be a list of objects with a 'name'")
        request.outputs = [requested_output(o["name"], o.get("parameters", {})) for o in outputs] or None


def _flag(parameters: dict[str, Any], name: str, *, where: str) -> bool:
    found = parameters.get(name, False)
    if type(found) is not bool:
        raise InvalidRequest(f"{where}: {name!r} must be true or false, got {reprlib.repr(found)}")
    return found
