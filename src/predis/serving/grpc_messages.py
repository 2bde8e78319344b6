"""The messages of the protocol's gRPC service, and their translation to and from ``InferRequest`` and arrays.

Message classes come from ``open_inference.binpb`` in a descriptor pool of their own. The process-wide pool allows a name once, and every
client of the protocol registers ``inference.ModelInferRequest`` and its kin there: a program may use Predis and any one of them together.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from numpy.typing import NDArray

from predis.errors import InvalidRequest, TooLarge
from predis.registry.signature import Field
from predis.serving.protocol import (
    InferRequest,
    Limits,
    RequestedOutput,
    Tensor,
    checked_id,
    requested_output,
)
from predis.serving.wire import decode_raw, elements, encode_raw, texts

SERVICE = "inference.GRPCInferenceService"
POOL = DescriptorPool()
for _file in FileDescriptorSet.FromString(Path(__file__).with_name("open_inference.binpb").read_bytes()).file:
    POOL.Add(_file)

# By datatype: the field of InferTensorContents, and what numpy calls its values. FP16 has none.
_CONTENTS: dict[str, tuple[str, Any]] = {
    "BOOL": ("bool_contents", np.bool_),
    **dict.fromkeys(("INT8", "INT16", "INT32"), ("int_contents", np.int32)),
    "INT64": ("int64_contents", np.int64),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), ("uint_contents", np.uint32)),
    "UINT64": ("uint64_contents", np.uint64),
    "FP32": ("fp32_contents", np.float32),
    "FP64": ("fp64_contents", np.float64),
    "BYTES": ("bytes_contents", np.object_),
}
# Readers of one value: a row of a table comes as many tensors of one, and an array of each would cost more than all else.
_SCALARS = {"INT32": Struct("<i"), "INT64": Struct("<q"), "FP32": Struct("<f"), "FP64": Struct("<d")}
_ONE_ROW = ([1], [1, 1])
# An empty tensor takes two bytes on the wire and eighty once parsed. Longer messages have their tensors counted first.
_COUNTED_BYTES = 64 << 10
_MOST_OTHERS = 1_000  # fields of a request that are no tensors, parameters above all
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5


def message_class(name: str) -> Any:
    """The class of a message of the service, by its name without the package."""
    return GetMessageClass(POOL.FindMessageTypeByName(f"inference.{name}"))


_ModelInferRequest = message_class("ModelInferRequest")
_ModelInferResponse = message_class("ModelInferResponse")
_TENSORS = tuple(
    _ModelInferRequest.DESCRIPTOR.fields_by_name[name].number
    for name in ("inputs", "outputs", "raw_input_contents")
)


@dataclass(slots=True)
class Asked:
    """An inference request and what it is for. ``raw``: how its outputs are to be sent, as bytes or as typed contents."""

    endpoint: str
    version: str | None
    request: InferRequest
    raw: bool


def parse(cls: Any, data: bytes) -> Any:
    """A message from its bytes.

    Raises:
        InvalidRequest: they are not such a message.
    """
    try:
        return cls.FromString(data)
    except DecodeError:
        raise InvalidRequest(f"these bytes are no {cls.DESCRIPTOR.full_name} message") from None


def message_of(name: str, document: Mapping[str, Any]) -> Message:
    """A message from what REST would answer as JSON; what gRPC has no field for is left out."""
    found: Message = ParseDict(document, message_class(name)(), ignore_unknown_fields=True)
    return found


def decode_infer(data: bytes, limits: Limits) -> Asked:
    """An inference request from the bytes of a ``ModelInferRequest``.

    Raises:
        InvalidRequest: no such message, or one that contradicts itself.
        TooLarge: more tensors than allowed.
    """
    if len(data) > _COUNTED_BYTES:
        _check_count(data, limits)
    message = parse(_ModelInferRequest, data)
    if not message.inputs:
        raise InvalidRequest("'inputs' must hold at least one tensor")
    if max(len(message.inputs), len(message.outputs), len(message.raw_input_contents)) > limits.tensors:
        raise _too_many(limits)
    inputs = _inputs(message)
    parameters = _parameters(message.parameters)
    outputs = [requested_output(o.name, _parameters(o.parameters)) for o in message.outputs]
    request = InferRequest(inputs, checked_id(message.id), parameters, outputs or None)
    return Asked(message.model_name, message.model_version or None, request, _wants_raw(message, request))


def encode_infer(
    asked: Asked, outputs: Sequence[tuple[Field, NDArray[Any], RequestedOutput]], *, version: int
) -> Message:
    """The ``ModelInferResponse``: raw where the request came raw, for tritonclient reads nothing else; typed where it came typed.

    Raises:
        ModelFailure: the model answered an object that is no text.
    """
    response = _ModelInferResponse(model_name=asked.endpoint, model_version=str(version), id=asked.request.id)
    raw = asked.raw or any(spec.datatype == "FP16" for spec, _values, _output in outputs)
    for spec, values, _output in outputs:
        tensor = response.outputs.add(name=spec.name, datatype=spec.datatype, shape=values.shape)
        if raw:
            response.raw_output_contents.append(encode_raw(values, spec.datatype))
        else:
            field, _kind = _CONTENTS[spec.datatype]
            flat = texts(values) if spec.datatype == "BYTES" else values.reshape(-1).tolist()
            getattr(tensor.contents, field).extend(flat)
    return response


def _inputs(message: Any) -> dict[str, Tensor]:
    """Inputs by name. One without contents takes the next of the raw ones."""
    raw = list(message.raw_input_contents)
    found: dict[str, Tensor] = {}
    used = 0
    for tensor in message.inputs:
        name, datatype, shape = tensor.name, tensor.datatype, tensor.shape[:]
        try:
            if used < len(raw) and not (tensor.HasField("contents") and tensor.contents.ByteSize()):
                data = _decode_raw(datatype, shape, content=raw[used])
                used += 1
            else:
                data = _decode_typed(datatype, shape, contents=tensor.contents)
        except InvalidRequest as error:
            raise InvalidRequest(f"input {name!r:.80}: {error}") from None
        found[name] = {"name": name, "datatype": datatype, "shape": shape, "data": data}
    if len(found) != len(message.inputs):
        raise InvalidRequest("two of 'inputs' have the same name")
    if used != len(raw):
        raise InvalidRequest(
            f"'raw_input_contents' has {len(raw)} entries; the inputs without contents need {used}"
        )
    return found


def _decode_raw(datatype: str, shape: list[int], *, content: bytes) -> list[Any] | NDArray[Any]:
    single = _raw_scalar(datatype, content) if shape in _ONE_ROW else None
    return decode_raw(datatype, shape, data=content) if single is None else single


def _raw_scalar(datatype: str, content: bytes) -> list[Any] | None:
    """The value of a tensor of one, as JSON would have it; None where anything is unusual, for the general way to accept or refuse."""
    if datatype == "BYTES":
        whole = int.from_bytes(content[:4], "little") == len(content) - 4
        return _scalar(content[4:]) if whole else None
    reader = _SCALARS.get(datatype)
    if reader is None or len(content) != reader.size:
        return None
    return _scalar(reader.unpack(content)[0])


def _scalar(value: float | bytes) -> list[Any] | None:
    """What JSON can hold: no text that is not UTF-8, no infinity, no NaN."""
    if type(value) is bytes:
        try:
            return [value.decode()]
        except UnicodeDecodeError:
            return None
    return [value] if value - value == 0 else None  # type: ignore[operator]


def _decode_typed(datatype: str, shape: list[int], *, contents: Any) -> list[Any] | NDArray[Any]:
    if datatype not in _CONTENTS:
        problem = (
            "travels in raw_input_contents only" if datatype == "FP16" else "is no datatype of the protocol"
        )
        raise InvalidRequest(f"{reprlib.repr(datatype)} {problem}")
    field, kind = _CONTENTS[datatype]
    values = getattr(contents, field)
    if shape in _ONE_ROW and len(values) == 1 and (datatype in _SCALARS or datatype == "BYTES"):
        single = _scalar(values[0])
        if single is not None:
            return single
    count = elements(shape)
    if len(values) != count:
        raise InvalidRequest(f"{len(values)} values in {field}; its shape {shape} needs {count}")
    if datatype == "BYTES":
        found = np.empty(count, object)
        found[:] = values
        return found.reshape(shape)
    array: NDArray[Any] = np.fromiter(values, kind, count)
    if datatype not in ("BOOL", "FP32", "FP64"):
        array = _narrowed(array, datatype)
    return array.reshape(shape)


def _narrowed(array: NDArray[Any], datatype: str) -> NDArray[Any]:
    """Whole numbers as their own datatype: those below 32 bits travel in wider fields."""
    wanted: Any = np.dtype(datatype.lower())
    if array.dtype == wanted:
        return array
    limits = np.iinfo(wanted)
    if array.size and (array.min() < limits.min or array.max() > limits.max):
        raise InvalidRequest(f"a value does not fit {datatype}, which goes from {limits.min} to {limits.max}")
    return array.astype(wanted)


def _parameters(found: Any) -> dict[str, Any]:
    if not found:
        return {}
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in found.items()}
    for name, choice in chosen.items():
        if choice is None:
            raise InvalidRequest(f"the parameter {name!r:.80} has no value")
    return {name: getattr(found[name], choice) for name, choice in chosen.items()}


def _wants_raw(message: Any, request: InferRequest) -> bool:
    """Answer as asked for (by ``binary_data`` of an output or ``binary_data_output``), else the way the request came."""
    asked = [o.parameters["binary_data"].bool_param for o in message.outputs if "binary_data" in o.parameters]
    if asked:
        return any(asked)
    found = request.parameters.get("binary_data_output", bool(message.raw_input_contents))
    return bool(found)


def _check_count(data: bytes, limits: Limits) -> None:
    """Count the fields of a long message without parsing it. Bytes that are no message are left for the parser to refuse."""
    counts = dict.fromkeys(_TENSORS, 0)
    fields = at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        fields += 1
        if number in counts:
            counts[number] += 1
            if counts[number] > limits.tensors:
                raise _too_many(limits)
        elif fields > 4 * limits.tensors + _MOST_OTHERS:
            raise TooLarge(f"a request of more than {fields} parts")
        if kind == _DELIMITED:
            length, at = _varint(data, at)
            at += length
        elif kind == _VARINT:
            _value, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            return


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length number, and the place behind it; the end of the data stands for what is cut off or too long."""
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    return 0, len(data)


def _too_many(limits: Limits) -> TooLarge:
    return TooLarge(f"more than {limits.tensors} tensors in one request (setting max_tensors)")
