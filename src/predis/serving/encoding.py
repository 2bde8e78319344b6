"""Encoding: a version's outputs as the protocol's response, in JSON or with raw tensors behind a JSON head.

Everything in a response that is the same for each request of a version is written once, in the constructor. Numbers go from the array
to JSON without becoming Python objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from predis.errors import InvalidRequest, ModelFailure
from predis.registry.signature import Field, Signature
from predis.serving.protocol import InferRequest, RequestedOutput
from predis.serving.wire import encode_raw, texts

Outputs = Sequence[NDArray[Any]]


class Encoder:
    """Writes the responses of one version of an endpoint."""

    def __init__(self, model_name: str, version: int, *, signature: Signature) -> None:
        self.model_name, self.version = model_name, str(version)
        self._fields = signature.outputs
        self._all = tuple(RequestedOutput(field.name) for field in signature.outputs)
        self._at = {field.name: position for position, field in enumerate(signature.outputs)}
        head = orjson.dumps({"model_name": model_name, "model_version": str(version)})
        self._start = head[:-1] + b',"id":'
        self._tensors = [
            orjson.dumps({"name": f.name, "datatype": f.datatype})[:-1] + b',"shape":['
            for f in signature.outputs
        ]
        self._numbers = len(signature.outputs) == 1 and signature.outputs[0].datatype != "BYTES"

    def check(self, wanted: list[RequestedOutput] | None) -> None:
        """Refuse outputs that the version does not have, before anything is computed.

        Raises:
            InvalidRequest
        """
        if wanted is None:
            return
        if len({output.name for output in wanted}) != len(wanted):
            raise InvalidRequest("two of 'outputs' have the same name")
        for output in wanted:
            at = self._at.get(output.name)
            if at is None:
                raise InvalidRequest(
                    f"unknown output {output.name!r:.80}; the outputs are {', '.join(sorted(self._at))}"
                )
            if output.classes and self._fields[at].datatype in ("BYTES", "BOOL"):
                raise InvalidRequest(
                    f"output {output.name!r} is {self._fields[at].datatype}; classes are of numbers"
                )

    def encode(self, request: InferRequest, outputs: Outputs) -> tuple[bytes, int | None]:
        """The response body, and the length of its JSON head where raw tensors follow it.

        Raises:
            ModelFailure: a text that the model answered is none.
        """
        if self._numbers and request.outputs is None and not request.binary:
            tensor = self._json(0, outputs[0])
            return b'%b%b,"outputs":[%b]}' % (self._start, orjson.dumps(request.id), tensor), None
        head, raw = [], []
        for field, values, output in self.chosen(request, outputs):
            if output.binary or (request.binary and request.outputs is None):
                content = encode_raw(values, field.datatype)
                head.append(_binary_head(field, values.shape, size=len(content)))
                raw.append(content)
            else:
                head.append(self._json(self._at[field.name], values, datatype=field.datatype))
        body = b'%b%b,"outputs":[%b]}' % (self._start, orjson.dumps(request.id), b",".join(head))
        return (body + b"".join(raw), len(body)) if raw else (body, None)

    def chosen(
        self, request: InferRequest, outputs: Outputs
    ) -> list[tuple[Field, NDArray[Any], RequestedOutput]]:
        """The outputs that the request wants, in the order it named them; of an output's classes the highest, where it asks for them."""
        if request.outputs is None:
            return list(zip(self._fields, outputs, self._all, strict=True))
        found = []
        for output in request.outputs:
            field, values = self._fields[self._at[output.name]], outputs[self._at[output.name]]
            if output.classes:
                values = top_classes(values, output.classes)
                field = Field(field.name, "BYTES", (-1, values.shape[1]))
            found.append((field, values, output))
        return found

    def _json(self, at: int, values: NDArray[Any], *, datatype: str = "") -> bytes:
        if datatype == "BYTES":
            return orjson.dumps(
                {
                    "name": self._fields[at].name,
                    "datatype": "BYTES",
                    "shape": list(values.shape),
                    "data": _texts(values),
                }
            )
        shape = b"%d" % len(values) if values.ndim == 1 else b",".join(b"%d" % d for d in values.shape)
        flat = np.ascontiguousarray(values).reshape(-1)
        return b'%b%b],"data":%b}' % (
            self._tensors[at],
            shape,
            orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY),
        )


def top_classes(values: NDArray[Any], count: int) -> NDArray[Any]:
    """The protocol's classification extension: per row the ``count`` highest values as texts ``value:index``, highest first."""
    flat = values.reshape(len(values), -1)
    falling = -flat if flat.dtype.kind == "f" else ~flat  # of whole numbers, some have no negative
    order = np.argsort(falling, axis=1, kind="stable")[:, :count]
    found = np.empty(order.shape, np.object_)
    for row, indices in enumerate(order):
        found[row] = [f"{flat[row, index]:f}:{index}" for index in indices]
    return found


def _binary_head(field: Field, shape: tuple[int, ...], *, size: int) -> bytes:
    return orjson.dumps(
        {
            "name": field.name,
            "datatype": field.datatype,
            "shape": list(shape),
            "parameters": {"binary_data_size": size},
        }
    )


def _texts(values: NDArray[Any]) -> list[str]:
    """Texts for JSON, flat.

    Raises:
        ModelFailure: the model answered something else, or bytes that are not UTF-8.
    """
    try:
        return [text.decode() for text in texts(values)]
    except UnicodeDecodeError:
        raise ModelFailure("an output holds bytes that are not UTF-8; ask for it as binary data") from None
