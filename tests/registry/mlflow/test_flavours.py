from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from predis.errors import InvalidInput
from predis.registry import Field, Signature
from predis.registry.mlflow import flavours
from predis.registry.mlflow.flavours import MLMODEL
from predis.registry.signature import PROBABILITY

PYFUNC = {"python_function": {"loader_module": "mlflow.sklearn"}}
SIGNATURE = Signature(
    (
        Field("x", "FP64", nullable=True),
        Field("hour", "INT64"),
        Field("carrier", "BYTES", levels=("AA", "UA")),
        Field("photo", "BYTES", raw=True),
        Field("embedding", "FP32", (-1, 4)),
    ),
    (PROBABILITY,),
    "probability",
)


def mlmodel(conf: dict[str, Any], inputs: Any = None) -> bytes:
    signature = (
        None if inputs is None else {"inputs": inputs if isinstance(inputs, str) else json.dumps(inputs)}
    )
    return yaml.safe_dump({"flavors": {**PYFUNC, **conf}, "signature": signature}).encode()


class TestRead:
    @pytest.mark.parametrize(
        ("flavour", "conf", "kind", "files"),
        [
            ("lightgbm", {"data": "model.lgb"}, "lightgbm", ("model.lgb",)),
            ("lightgbm", {"data": "model.lgb", "model_class": "lightgbm.basic.Booster"}, "lightgbm", ("model.lgb",)),
            ("lightgbm", {"data": "model.pkl", "model_class": "lightgbm.sklearn.LGBMClassifier"}, "sklearn", ("model.pkl",)),
            ("xgboost", {"data": "model.ubj", "model_class": "xgboost.sklearn.XGBClassifier"}, "xgboost", ("model.ubj",)),
            ("catboost", {"data": "model.cb", "save_format": "cbm"}, "catboost", ("model.cb",)),
            ("onnx", {"data": "model.onnx"}, "onnx", ("model.onnx",)),
            ("sklearn", {"pickled_model": "model.pkl"}, "sklearn", ("model.pkl",)),
            ("pytorch", {"model_data": "data"}, "torch", ("data/model.pt2", "data/model.pth")),
        ],
    )  # fmt: skip
    def test_flavours(self, flavour: str, conf: dict[str, Any], kind: str, files: tuple[str, ...]) -> None:
        found = flavours.read(mlmodel({flavour: conf}))
        assert (found.flavour, found.format, found.files, found.inputs) == (flavour, kind, files, ())

    def test_a_native_file_goes_before_a_pickle(self) -> None:
        both = {"sklearn": {"pickled_model": "model.pkl"}, "lightgbm": {"data": "model.lgb"}}
        assert flavours.read(mlmodel(both)).format == "lightgbm"

    def test_inputs(self) -> None:
        columns = [
            {"type": "double", "name": "x", "required": True},
            {"type": "long", "name": "hour", "required": True},
            {"type": "integer", "name": "day", "required": False},
            {"type": "string", "name": "carrier"},
            {"type": "boolean", "name": "late"},
            {"type": "binary", "name": "photo"},
            {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}},
        ]
        assert flavours.read(mlmodel({"onnx": {"data": "m"}}, columns)).inputs == (
            Field("x", "FP64", nullable=True), Field("hour", "INT64"), Field("day", "INT32", nullable=True), Field("carrier", "BYTES"),
            Field("late", "BOOL"), Field("photo", "BYTES", raw=True), Field("features", "FP32", (-1, 4)),
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"\x00", "YAML with the flavours"),
            (b"- 3", "YAML with the flavours"),
            (b"a: [", "YAML with the flavours"),
            (mlmodel({}), "has the flavours python_function; Predis takes lightgbm"),
            (mlmodel({"onnx": {}}), "does not name the model's file"),
            (mlmodel({"onnx": {"data": "../../etc/passwd"}}), "not leave its own"),
            (mlmodel({"onnx": {"data": "m"}}, "[{"), "not JSON"),
            (mlmodel({"onnx": {"data": "m"}}, {"type": "double"}), "not a list"),
            (
                mlmodel({"onnx": {"data": "m"}}, [{"type": "datetime", "name": "at"}]),
                "'datetime', which no tensor",
            ),
            (
                mlmodel({"onnx": {"data": "m"}}, [{"type": "tensor", "tensor-spec": {"dtype": "object"}}]),
                "a tensor of object",
            ),
        ],
    )
    def test_what_cannot_be_taken(self, content: bytes, message: str) -> None:
        with pytest.raises(InvalidInput, match=message):
            flavours.read(content)


class TestDescribe:
    @pytest.mark.parametrize(
        ("kind", "name", "file"),
        [
            ("lightgbm", "model.txt", "model.lgb"),
            ("xgboost", "trees.json", "model.json"),
            ("xgboost", "trees.ubj", "model.ubj"),
            ("catboost", "m.cbm", "model.cb"),
            ("onnx", "m.onnx", "model.onnx"),
            ("sklearn", "m.pickle", "model.pkl"),
            ("sklearn", "m.skops", "model.skops"),
            ("torch", "m.pt2", "data/model.pt2"),
            ("torch", "m.pt", "data/model.pth"),
        ],
    )
    def test_what_is_written_is_read_again(self, kind: str, name: str, file: str) -> None:
        assert flavours.file_of(kind, name) == file
        texts = flavours.describe(kind, file, signature=SIGNATURE, python="3.11.7")
        assert set(texts) == {MLMODEL, "requirements.txt", "python_env.yaml", "conda.yaml"}
        found = flavours.read(texts[MLMODEL].encode())
        assert found.format == kind
        assert file in found.files
        assert [field.name for field in found.inputs] == [field.name for field in SIGNATURE.inputs]
        assert [field.datatype for field in found.inputs] == [field.datatype for field in SIGNATURE.inputs]
        assert found.inputs[4].shape == (-1, 4)

    @pytest.mark.parametrize(("kind", "name"), [("python", "model.py"), ("sklearn", "model.joblib")])
    def test_what_no_flavour_loads(self, kind: str, name: str) -> None:
        with pytest.raises(InvalidInput, match="no flavour that loads"):
            flavours.file_of(kind, name)

    def test_a_lone_tensor_for_pytorch_has_no_name(self) -> None:
        rows = Signature((Field("rows", "FP32", (-1, 2)),), (PROBABILITY,), "probability")
        for kind, name in (("onnx", "rows"), ("torch", "features")):
            texts = flavours.describe(kind, flavours.file_of(kind, "m.pt2"), signature=rows, python="3.11.7")
            assert flavours.read(texts[MLMODEL].encode()).inputs == (Field(name, "FP32", (-1, 2)),)
