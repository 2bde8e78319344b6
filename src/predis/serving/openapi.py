"""The OpenAPI document of the data plane: what can be asked over HTTP, and what is answered. Served at ``/openapi.json``.

Written by hand, for no framework knows our paths; that it tells the truth is tested by asking a running worker everything it allows.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from predis import __version__
from predis.registry.signature import NUMPY_OF

Schema = dict[str, Any]

_MESSAGES = {
    400: "The request breaks the protocol or the signature.",
    401: "An API key is needed.",
    403: "The key's role may not do this, or a web page elsewhere asked.",
    404: "There is no such endpoint or version.",
    405: "The path takes another method.",
    413: "The body, its tensors or its rows are over a limit.",
    414: "The path is too long.",
    422: "The model failed on a valid input.",
    429: "One tenant asks too much at once.",
    431: "The head of the request is too large.",
    503: "Not ready, or too much is asked at once; try again after Retry-After.",
    504: "The caller's deadline passed.",
}
_ALWAYS = (400, 401, 403, 405, 414, 431)


def _object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


def _array(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT: Schema = {"type": "string"}
_NAME: Schema = {"type": "string", "minLength": 1}
_FLAG: Schema = {"type": "boolean"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_PARAMETERS: Schema = {"type": "object", "additionalProperties": True}
_DATATYPE: Schema = {"type": "string", "enum": list(NUMPY_OF)}
_SHAPE = _array({"type": "integer"})
_DATA = _array({"type": ["number", "string", "boolean", "null", "array"]})

_SCHEMAS: dict[str, Schema] = {
    "Error": _object(("error", "code"), error=_TEXT, code=_TEXT),
    "Live": _object(("live",), live=_FLAG),
    "Ready": _object(("ready",), ready=_FLAG),
    "ModelReady": _object(("name", "ready"), name=_TEXT, ready=_FLAG),
    "ServerMetadata": _object(("name", "version", "extensions"), name=_TEXT, version=_TEXT, extensions=_array(_TEXT)),
    "TensorMetadata": _object(
        ("name", "datatype", "shape"), name=_TEXT, datatype=_DATATYPE, shape=_SHAPE, nullable=_FLAG, levels=_array(_TEXT)
    ),
    "ModelMetadata": _object(
        ("name", "versions", "platform", "inputs", "outputs"), name=_TEXT, versions=_array(_TEXT), platform=_TEXT,
        inputs=_array(_ref("TensorMetadata")), outputs=_array(_ref("TensorMetadata")), parameters=_PARAMETERS,
    ),
    "ModelConfig": _object(
        ("name", "platform", "backend", "max_batch_size", "input", "output"), name=_TEXT, platform=_TEXT, backend=_TEXT,
        max_batch_size=_COUNT, input=_array(_PARAMETERS), output=_array(_PARAMETERS),
    ),
    "Statistics": _object(("model_stats",), model_stats=_array(_PARAMETERS)),
    "Index": _array(_object(("name", "version", "state", "reason"), name=_TEXT, version=_TEXT, state=_TEXT, reason=_TEXT)),
    "Nothing": _object(),
    "InputTensor": _object(
        ("name", "datatype", "shape"), name=_NAME, datatype=_DATATYPE, shape=_SHAPE, data=_DATA, parameters=_PARAMETERS
    ),
    "RequestedOutput": _object(("name",), name=_NAME, parameters=_PARAMETERS),
    "Tensors": _object(
        ("inputs",), inputs=_array(_ref("InputTensor"), minItems=1), outputs=_array(_ref("RequestedOutput")),
        id={"type": "string", "maxLength": 128}, parameters=_PARAMETERS,
    ),
    "Rows": _object(
        ("rows",), rows=_array(_PARAMETERS, minItems=1), outputs=_array(_ref("RequestedOutput")),
        id={"type": "string", "maxLength": 128}, parameters=_PARAMETERS,
    ),
    "OutputTensor": _object(
        ("name", "datatype", "shape"), name=_TEXT, datatype=_DATATYPE, shape=_SHAPE, data=_DATA, parameters=_PARAMETERS
    ),
    "Prediction": _object(
        ("model_name", "model_version", "id", "outputs"), model_name=_TEXT, model_version=_TEXT, id=_TEXT,
        outputs=_array(_ref("OutputTensor")),
    ),
}  # fmt: skip


@cache
def document() -> dict[str, Any]:
    """The document, in the form of OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Predis data plane",
            "version": __version__,
            "description": "Predictions in the form of the Open Inference Protocol V2, with its extensions.",
        },
        "paths": _paths(),
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key, pk_..."}
            },
        },
        "security": [{}, {"key": []}],
    }


def _paths() -> dict[str, Any]:
    model = "/v2/models/{endpoint}"
    found: dict[str, Any] = {
        "/v2": _get("Name, version and extensions of the server.", "ServerMetadata"),
        "/v2/health/live": _get("Whether the process lives.", "Live"),
        "/v2/health/ready": _get("Whether the worker knows its Routes.", "Ready", other="Ready"),
        "/v2/models/stats": _get("What every endpoint has done.", "Statistics"),
        "/v2/repository/index": _post("Endpoints and the versions in memory.", "Index", body=_object(ready=_FLAG), optional=True),
        "/openapi.json": _get("This document.", "Nothing"),
        "/metrics": {"get": _operation("Metrics of the installation, as Prometheus reads them.", _text_content())},
    }  # fmt: skip
    for move in ("load", "unload"):
        path = f"/v2/repository/models/{{endpoint}}/{move}"
        found[path] = _post(
            f"Have every worker {move} an endpoint.",
            "Nothing",
            body=_object(),
            optional=True,
            more=(404, 503),
        )
    for version in ("", "/versions/{version}"):
        base = model + version
        found |= {
            base: _get("Inputs, outputs and versions.", "ModelMetadata", more=(404, 503)),
            f"{base}/ready": _get(
                "Whether a request would be answered.", "ModelReady", more=(404,), other="ModelReady"
            ),
            f"{base}/config": _get("The model configuration extension.", "ModelConfig", more=(404, 503)),
            f"{base}/stats": _get("The statistics extension.", "Statistics", more=(404,)),
            f"{base}/infer": _infer(),
        }
    for path, item in found.items():
        names = [name for name in ("endpoint", "version") if f"{{{name}}}" in path]
        if names:
            item["parameters"] = [{"name": n, "in": "path", "required": True, "schema": _NAME} for n in names]
    return found


def _infer() -> dict[str, Any]:
    body = {"oneOf": [_ref("Tensors"), _ref("Rows")]}
    more = (404, 413, 422, 429, 503, 504)
    operation = _operation(
        "A prediction, by the version that the Route picks or the path names.", _json("Prediction"), more=more
    )
    operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return {"post": operation}


def _get(summary: str, schema: str, *, more: tuple[int, ...] = (), other: str = "") -> dict[str, Any]:
    """``other``: the schema of a 503 that is an answer like any other."""
    operation = _operation(summary, _json(schema), more=more)
    if other:
        either = {"oneOf": [_ref(other), _ref("Error")]}
        operation["responses"]["503"] = {
            "description": "Not now.",
            "content": {"application/json": {"schema": either}},
        }
    return {"get": operation}


def _post(
    summary: str, schema: str, *, body: Schema, optional: bool, more: tuple[int, ...] = ()
) -> dict[str, Any]:
    operation = _operation(summary, _json(schema), more=(413, *more))
    operation["requestBody"] = {"required": not optional, "content": {"application/json": {"schema": body}}}
    return {"post": operation}


def _operation(summary: str, content: dict[str, Any], *, more: tuple[int, ...] = ()) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": {"description": "OK", "content": content}}
    for status in sorted({*_ALWAYS, *more}):
        responses[str(status)] = {"description": _MESSAGES[status], "content": _json("Error")}
    return {"summary": summary, "responses": responses}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(schema)}}


def _text_content() -> dict[str, Any]:
    return {"text/plain": {"schema": _TEXT}}
