"""Fuzzes everything that reads bytes from outside, with atheris (libFuzzer): ``python -m tests.fuzz.decoders FOLDER``.

The first byte of an input says which decoder gets the rest. Whatever is not an error of ours, be it a warning, ends the run, and the input
is left in the working folder. FOLDER keeps inputs that reached new code, so that a later run goes on from there; ``seeds`` writes some to
begin with.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["predis.serving"]):
    from predis.serving import bulk, protocol
    from predis.serving.binding import Binder
    from predis.serving.compression import decompressed
    from predis.serving.encoding import Encoder
    from predis.serving.grpc_messages import decode_infer, message_class
    from predis.serving.http_messages import HttpLimits, Refused, read_head
    from predis.serving.protocol import InferRequest, Limits, decode_request
    from predis.serving.wire import decode_raw, encode_raw

from predis.errors import PredisError
from predis.registry.signature import NUMPY_OF, Field, Signature

LIMITS = Limits(batch_rows=100, tensors=20)
DATATYPES = sorted(NUMPY_OF)
SCORE = Field("score", "FP64")
FIELDS = [
    (Field("x", "FP64"),),
    (Field("x", "FP32", (-1, 2), nullable=True),),
    (Field("x", "INT64"), Field("k", "BYTES", nullable=True, levels=("a", "b"))),
    (Field("x", "BYTES", raw=True),),
    *((Field("x", datatype),) for datatype in DATATYPES),
]
BINDERS = [
    Binder(Signature(fields, (SCORE,), "score"), LIMITS, takes=takes)
    for fields in FIELDS
    for takes in ("matrix", "tensors")
]
ENCODER = Encoder("e", 1, signature=Signature(FIELDS[0], (SCORE,), "score"))


def use(request: InferRequest) -> None:
    """What becomes of a request that was decoded."""
    for step in (
        request.event_time,
        request.routing_key,
        request.timeout_s,
        lambda: ENCODER.check(request.outputs),
    ):
        with contextlib.suppress(PredisError):
            step()
    for binder in BINDERS:
        with contextlib.suppress(PredisError):
            binder.bind(request)


def json_small(data: bytes) -> None:
    use(decode_request(data, LIMITS))


def json_large(data: bytes) -> None:
    """By the way that large bodies take."""
    found = bulk.parse(data)
    if found is not None:
        use(decode_request(data.ljust(protocol.BULK_BYTES), LIMITS))


def binary(data: bytes) -> None:
    """Two bytes say how long the JSON is."""
    use(decode_request(data[2:], LIMITS, head_bytes=int.from_bytes(data[:2], "little")))


def raw(data: bytes) -> None:
    """A datatype, a number of dimensions, that many sizes, and the tensor."""
    if len(data) < 2:
        return
    datatype, dimensions = DATATYPES[data[0] % len(DATATYPES)], data[1] % 8
    shape = list(data[2 : 2 + dimensions])
    content = data[2 + dimensions :]
    if encode_raw(decode_raw(datatype, shape, data=content), datatype) != content:
        raise AssertionError("a tensor is not what it was")


def grpc(data: bytes) -> None:
    use(decode_infer(data, LIMITS).request)


def packed(data: bytes) -> None:
    """A byte says how."""
    found = decompressed(data[1:], ("gzip", "deflate", "zstd")[data[0] % 3] if data else "gzip", most=100_000)
    if len(found) > 100_000:
        raise AssertionError("more than is allowed")


def head(data: bytes) -> None:
    if data:
        with contextlib.suppress(Refused):
            read_head(data + b"\r\n\r\n", HttpLimits())


DECODERS: list[Callable[[bytes], None]] = [json_small, json_large, binary, raw, grpc, packed, head]


def one_input(data: bytes) -> None:
    if data:
        with contextlib.suppress(PredisError):
            DECODERS[data[0] % len(DECODERS)](data[1:])


def seeds(folder: Path) -> None:
    """Write an input or two for each decoder."""
    import gzip

    import zstandard

    text = (
        b'{"inputs":[{"name":"x","datatype":"FP64","shape":[2],"data":[1.5,2]}],"id":"r",'
        b'"parameters":{"event_time":"2013-04-01","timeout":5},"outputs":[{"name":"score"}]}'
    )
    nested = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[[1,2.5]]}]}'
    texts = b'{"inputs":[{"name":"k","datatype":"BYTES","shape":[1],"data":["a"]},{"name":"x","datatype":"INT64","shape":[1],"data":[7]}]}'
    rows = b'{"rows":[{"x":1},{"x":2.5}]}'
    tensor = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}]}'
    message = message_class("ModelInferRequest")(model_name="e", id="r", raw_input_contents=[bytes(8)])
    message.inputs.add(name="x", datatype="FP64", shape=[1])
    request_head = (
        b"POST /v2/models/e/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked"
    )
    inputs = [
        (json_small, text), (json_small, texts), (json_small, rows), (json_large, nested), (json_large, text),
        (binary, len(tensor).to_bytes(2, "little") + tensor + bytes(8)), (raw, b"\x05\x02\x01\x02" + bytes(8)),
        (raw, bytes([DATATYPES.index("BYTES"), 1, 2]) + b"\x01\0\0\0a\0\0\0\0"), (grpc, message.SerializeToString()),
        (packed, b"\0" + gzip.compress(text)), (packed, b"\2" + zstandard.compress(text)), (head, request_head),
    ]  # fmt: skip
    folder.mkdir(exist_ok=True)
    for number, (decoder, content) in enumerate(inputs):
        (folder / f"seed-{number:02}").write_bytes(bytes([DECODERS.index(decoder)]) + content)


if __name__ == "__main__":
    warnings.simplefilter("error")
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
