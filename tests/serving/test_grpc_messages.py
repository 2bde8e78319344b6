from __future__ import annotations

import contextlib
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import InvalidRequest, ModelFailure, TooLarge
from predis.registry.signature import NUMPY_OF, Field
from predis.serving import grpc_messages
from predis.serving.grpc_messages import POOL, decode_infer, encode_infer, message_class, message_of
from predis.serving.protocol import Limits, RequestedOutput
from scripts import protobuf

LIMITS = Limits(tensors=50)
Request, Response = message_class("ModelInferRequest"), message_class("ModelInferResponse")
CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def typed(name: str, datatype: str, values: list[Any], *, shape: list[int] | None = None) -> Any:
    contents = {CONTENTS[datatype]: values}
    return Request.InferInputTensor(
        name=name, datatype=datatype, shape=[len(values)] if shape is None else shape, contents=contents
    )


def raw(name: str, datatype: str, shape: list[int]) -> Any:
    return Request.InferInputTensor(name=name, datatype=datatype, shape=shape)


def request(*inputs: Any, **more: Any) -> bytes:
    found: bytes = Request(model_name="e", inputs=inputs, **more).SerializeToString()
    return found


def refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        decode_infer(data, LIMITS)


class TestDescriptors:
    def test_they_are_what_the_proto_file_says(self, tmp_path: Path) -> None:
        """If this fails: .venv/bin/python scripts/protobuf.py"""
        assert protobuf.main(tmp_path / "now.binpb") == 0
        now, kept = (
            FileDescriptorSet.FromString(path.read_bytes())
            for path in (tmp_path / "now.binpb", protobuf.TARGET)
        )
        assert now == kept

    def test_another_copy_of_the_same_names_may_live_beside_ours(self) -> None:
        """As in a program that uses a client of the protocol: all of them register these names in the process-wide pool."""
        other = DescriptorPool()
        other.Add(FileDescriptorSet.FromString(protobuf.TARGET.read_bytes()).file[0])
        theirs = GetMessageClass(other.FindMessageTypeByName("inference.ModelInferRequest"))
        assert theirs is not Request
        assert theirs.FromString(request(typed("x", "FP64", [1.5]))).model_name == "e"
        with pytest.raises(KeyError):
            from google.protobuf import descriptor_pool

            descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")

    def test_the_service_is_complete(self) -> None:
        service = POOL.FindServiceByName(grpc_messages.SERVICE)
        assert {m.name for m in service.methods} >= {
            "ModelInfer",
            "ModelStreamInfer",
            "RepositoryIndex",
            "ModelConfig",
        }


class TestInputs:
    @given(st.data(), st.sampled_from(sorted(CONTENTS)))
    def test_typed_and_raw_mean_the_same(self, data: st.DataObject, datatype: str) -> None:
        if datatype == "BYTES":
            array = np.array(
                [*data.draw(st.lists(st.binary(max_size=9), min_size=1, max_size=9)), b""], object
            )
        else:
            kind: Any = np.dtype(NUMPY_OF[datatype])
            size = data.draw(st.integers(1, 9)) * kind.itemsize
            bits = data.draw(st.binary(min_size=size, max_size=size))
            array = np.frombuffer(bits, np.uint8).reshape(-1, kind.itemsize)
            array = array[:, 0] % 2 == 0 if datatype == "BOOL" else np.frombuffer(bits, kind)
        shape = [len(array)]
        as_typed = decode_infer(request(typed("x", datatype, array.tolist())), LIMITS)
        content = grpc_messages.encode_raw(array, datatype)
        as_raw = decode_infer(request(raw("x", datatype, shape), raw_input_contents=[content]), LIMITS)
        for asked in (as_typed, as_raw):
            tensor = asked.request.inputs["x"]
            assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("x", datatype, shape)
            if isinstance(tensor["data"], list):  # one value, as JSON would have it
                assert len(array) == 1
                text = isinstance(tensor["data"][0], str)
                tensor["data"] = np.array(
                    [tensor["data"][0].encode() if text else tensor["data"][0]], array.dtype
                )
            assert tensor["data"].dtype == array.dtype
            np.testing.assert_array_equal(tensor["data"], array)
        assert (as_typed.raw, as_raw.raw) == (False, True)

    def test_half_floats_travel_raw_only(self) -> None:
        content = np.array([1.5, -2], np.float16).tobytes()
        asked = decode_infer(request(raw("x", "FP16", [2]), raw_input_contents=[content]), LIMITS)
        assert asked.request.inputs["x"]["data"].tolist() == [1.5, -2]
        refused(request(raw("x", "FP16", [2])), "input 'x': 'FP16' travels in raw_input_contents only")

    def test_raw_inputs_belong_to_those_without_contents_in_their_order(self) -> None:
        inputs = raw("a", "UINT8", [1]), typed("b", "FP64", [2.5]), raw("c", "UINT8", [2])
        asked = decode_infer(request(*inputs, raw_input_contents=[b"\1", b"\2\3"]), LIMITS)
        assert {n: list(t["data"]) for n, t in asked.request.inputs.items()} == {
            "a": [1],
            "b": [2.5],
            "c": [2, 3],
        }

    def test_what_contradicts_itself_is_refused(self) -> None:
        x = typed("x", "FP64", [1.0])
        refused(request(), "at least one tensor")
        refused(request(x, x), "same name")
        refused(request(x, raw_input_contents=[b"1"]), "has 1 entries; the inputs without contents need 0")
        refused(
            request(raw("x", "FP64", [2]), raw_input_contents=[b"1"]), "input 'x': 1 bytes of raw data; FP64"
        )
        refused(
            request(typed("x", "FP64", [1.0], shape=[2])), "1 values in fp64_contents; its shape .* needs 2"
        )
        refused(request(raw("x", "FP64", [1])), "0 values in fp64_contents")
        refused(request(typed("x", "FP64", [], shape=[-1])), "whole numbers from 0 on")
        refused(request(typed("x", "FP64", [], shape=[2**62, 2**62, 0])), "no tensor has the shape")
        refused(request(typed("x", "INT8", [-129])), "INT8, which goes from -128 to 127")
        refused(request(typed("x", "UINT16", [65_536])), "UINT16, which goes from 0 to 65535")
        refused(request(raw("x", "FLOAT", [1])), "'FLOAT' is no datatype")
        refused(request(x, id="a\nb"), "'id' must be")
        refused(request(x, parameters={"p": {}}), "'p' has no value")
        refused(b"\xff\xff", "these bytes are no inference.ModelInferRequest message")

    def test_the_rest_of_a_request(self) -> None:
        parameters = {
            "a": {"bool_param": True}, "b": {"int64_param": -1}, "c": {"string_param": "x"}, "d": {"double_param": 1.5},
            "e": {"uint64_param": 2**64 - 1},
        }  # fmt: skip
        outputs = [{"name": "o", "parameters": {"classification": {"int64_param": 2}}}, {"name": "p"}]
        asked = decode_infer(
            request(
                typed("x", "FP64", [1.0]), model_version="3", id="r", parameters=parameters, outputs=outputs
            ),
            LIMITS,
        )
        assert (asked.endpoint, asked.version, asked.request.id) == ("e", "3", "r")
        assert asked.request.parameters == {"a": True, "b": -1, "c": "x", "d": 1.5, "e": 2**64 - 1}
        assert asked.request.outputs == [RequestedOutput("o", classes=2), RequestedOutput("p")]
        assert decode_infer(request(typed("x", "FP64", [1.0])), LIMITS).version is None

    @pytest.mark.parametrize("field", ["inputs", "outputs", "raw_input_contents"])
    @pytest.mark.parametrize("count", [51, 100_000])
    def test_more_tensors_than_allowed_are_refused_before_they_take_memory(
        self, field: str, count: int
    ) -> None:
        number = Request.DESCRIPTOR.fields_by_name[field].number
        data = request(typed("x", "FP64", [1.0])) + bytes([number << 3 | 2, 0]) * count
        tracemalloc.start()
        try:
            with pytest.raises(TooLarge, match="more than 50 tensors"):
                decode_infer(data, LIMITS)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()

    def test_a_long_message_is_counted_by_its_top_fields_only(self) -> None:
        data = request(typed("x", "INT64", list(range(40_000))), parameters={"p": {"int64_param": 1}}, id="r")
        assert len(data) > 1 << 16
        asked = decode_infer(
            data + b"\x98\x06\x01\xa1\x06" + bytes(8) + b"\xad\x06" + bytes(4), LIMITS
        )  # unknown fields
        assert asked.request.inputs["x"]["data"].sum() == 799_980_000

    def test_a_long_message_has_few_parts(self) -> None:
        data = request(typed("x", "FP64", [1.0])) + b"\x1a\x00" * 1_000_000  # a million times the id
        with pytest.raises(TooLarge, match="a request of more than 1201 parts"):
            decode_infer(data, LIMITS)

    @given(st.binary(max_size=200), st.sampled_from([0, 1 << 16]))
    def test_any_bytes_are_a_request_or_refused(self, data: bytes, padding: int) -> None:
        with contextlib.suppress(InvalidRequest, TooLarge):
            decode_infer(
                data + b"\xa2\x06" + bytes([128, 128, 4]) + bytes(padding) if padding else data, LIMITS
            )


class TestOutputs:
    FIELDS = (Field("n", "INT32", (-1, 2)), Field("t", "BYTES"))
    ARRAYS = (np.array([[1, 2]], np.int32), np.array(["ö"], object))

    def encoded(self, data: bytes, *fields: tuple[Field, Any]) -> Any:
        chosen = fields or zip(self.FIELDS, self.ARRAYS, strict=True)
        outputs = [(field, array, RequestedOutput(field.name)) for field, array in chosen]
        return Response.FromString(
            encode_infer(decode_infer(data, LIMITS), outputs, version=7).SerializeToString()
        )

    def is_raw(self, data: bytes) -> bool:
        found = self.encoded(data)
        assert bool(found.raw_output_contents) is not any(o.HasField("contents") for o in found.outputs)
        return bool(found.raw_output_contents)

    def test_an_answer(self) -> None:
        found = self.encoded(request(typed("x", "FP64", [1.0]), id="r"))
        assert (found.model_name, found.model_version, found.id) == ("e", "7", "r")
        assert [(o.name, o.datatype, list(o.shape)) for o in found.outputs] == [
            ("n", "INT32", [1, 2]),
            ("t", "BYTES", [1]),
        ]
        assert list(found.outputs[0].contents.int_contents) == [1, 2]
        assert list(found.outputs[1].contents.bytes_contents) == ["ö".encode()]
        found = self.encoded(request(raw("x", "UINT8", [1]), raw_input_contents=[b"1"]))
        assert list(found.raw_output_contents) == [b"\1\0\0\0\2\0\0\0", b"\2\0\0\0\xc3\xb6"]

    @pytest.mark.parametrize("datatype", sorted(CONTENTS))
    def test_every_datatype_has_typed_contents(self, datatype: str) -> None:
        values = [b"a", b"b"] if datatype == "BYTES" else [True, False] if datatype == "BOOL" else [1, 0]
        array = np.array(values, NUMPY_OF[datatype])
        found = self.encoded(request(typed("x", "FP64", [1.0])), (Field("y", datatype), array))
        assert list(getattr(found.outputs[0].contents, CONTENTS[datatype])) == values

    def test_they_come_as_the_request_came_unless_it_says_otherwise(self) -> None:
        x, r = typed("x", "FP64", [1.0]), {"raw_input_contents": [b"1"]}

        def wanted(flag: bool) -> dict[str, Any]:
            return {
                "outputs": [{"name": "n", "parameters": {"binary_data": {"bool_param": flag}}}, {"name": "t"}]
            }

        def overall(flag: bool) -> dict[str, Any]:
            return {"parameters": {"binary_data_output": {"bool_param": flag}}}

        assert not self.is_raw(request(x))
        assert self.is_raw(request(raw("x", "UINT8", [1]), **r))
        assert self.is_raw(request(x, **wanted(True)))
        assert self.is_raw(request(x, **overall(True)))
        assert not self.is_raw(request(raw("x", "UINT8", [1]), **r, **wanted(False)))
        assert not self.is_raw(request(raw("x", "UINT8", [1]), **r, **overall(False)))

    def test_half_floats_make_all_outputs_raw(self) -> None:
        half = Field("h", "FP16"), np.array([1.5], np.float16)
        found = self.encoded(request(typed("x", "FP64", [1.0])), half, (self.FIELDS[0], self.ARRAYS[0]))
        assert list(found.raw_output_contents) == [b"\x00\x3e", b"\1\0\0\0\2\0\0\0"]

    def test_a_text_that_is_none_is_the_models_failure(self) -> None:
        with pytest.raises(ModelFailure, match="promises BYTES"):
            self.encoded(request(typed("x", "FP64", [1.0])), (self.FIELDS[1], np.array([None], object)))


def test_messages_come_from_what_rest_would_answer() -> None:
    """What gRPC has no field for is left out."""
    document = {
        "config": {
            "name": "e", "max_batch_size": 8, "new": [1],
            "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [16]}],
            "version_policy": {"specific": {"versions": [1, 2]}},
        }
    }  # fmt: skip
    found: Any = message_of("ModelConfigResponse", document)
    assert found.config.input[0].data_type == 11
    assert list(found.config.version_policy.specific.versions) == [1, 2]
