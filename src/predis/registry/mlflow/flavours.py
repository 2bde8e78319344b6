"""MLflow's flavours and Predis' formats: which file of an MLflow model is the model, and the ``MLmodel`` that describes one of ours.

https://mlflow.org/docs/latest/ml/model/. A flavour says how a library's own ``save`` was used; its file is what Predis loads. Models
that are Python code (``python_function`` alone) have no such file: register their code with the format ``python`` instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from predis.errors import InvalidInput, MissingExtra
from predis.registry.model import check_file_name
from predis.registry.signature import Field, Signature

MLMODEL = "MLmodel"
_BOOSTERS = ("lightgbm.basic.Booster", "xgboost.core.Booster")
_COLUMNS = {
    "boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64", "string": "BYTES", "binary": "BYTES",
}  # fmt: skip
_OF_DATATYPE = {
    "BOOL": "boolean", "UINT8": "integer", "UINT16": "integer", "INT8": "integer", "INT16": "integer", "INT32": "integer",
    "UINT32": "long", "UINT64": "long", "INT64": "long", "FP16": "float", "FP32": "float", "FP64": "double", "BYTES": "string",
}  # fmt: skip
_TENSORS = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8", "int16": "INT16",
    "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
_NUMPY = {datatype: name for name, datatype in _TENSORS.items()}


@dataclass(frozen=True)
class Model:
    """What an ``MLmodel`` says: the flavour that is taken, the format it is here, the files that may be it, and the inputs."""

    flavour: str
    format: str
    files: tuple[str, ...]
    inputs: tuple[Field, ...]


def read(content: bytes) -> Model:
    """
    Raises:
        InvalidInput: it is no MLmodel, has no flavour that can be taken, or its signature is of types that no tensor carries.
        MissingExtra: there is no reader of YAML.
    """
    try:
        import yaml
    except ImportError:
        raise MissingExtra.of("pyyaml", "mlflow") from None
    try:
        document = yaml.safe_load(content)
    except yaml.YAMLError:
        document = None
    flavours = document.get("flavors") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(flavours, dict):
        raise InvalidInput("MLflow's MLmodel is not what it should be: YAML with the flavours of a model")
    for flavour, find in _FILES.items():
        if isinstance(flavours.get(flavour), dict):
            kind, files = find(flavours[flavour])
            for file in files:
                check_file_name(file)
            return Model(flavour, kind, files, _inputs(document.get("signature")))
    raise InvalidInput(
        f"the MLflow model has the flavours {', '.join(map(str, flavours))}; Predis takes {', '.join(_FILES)}"
    )


def _data(conf: Mapping[str, Any], key: str = "data") -> str:
    found = conf.get(key)
    if not isinstance(found, str):
        raise InvalidInput(f"MLflow's MLmodel does not name the model's file ({key!r})")
    return found


def _booster(format: str) -> Any:
    """A library's own booster is its native file; its scikit-learn class is a pickle where MLflow wrote one."""

    def find(conf: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
        pickled = format == "lightgbm" and conf.get("model_class", _BOOSTERS[0]) not in _BOOSTERS
        return "sklearn" if pickled else format, (_data(conf),)

    return find


def _torch(conf: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    folder = _data(conf, "model_data")
    return "torch", (f"{folder}/model.pt2", f"{folder}/model.pth")


# In the order of preference, for a model may have several flavours.
_FILES: dict[str, Any] = {
    "lightgbm": _booster("lightgbm"),
    "xgboost": _booster("xgboost"),
    "catboost": lambda conf: ("catboost", (_data(conf),)),
    "onnx": lambda conf: ("onnx", (_data(conf),)),
    "sklearn": lambda conf: ("sklearn", (_data(conf, "pickled_model"),)),
    "pytorch": _torch,
}


def _inputs(signature: Any) -> tuple[Field, ...]:
    """The inputs of MLflow's signature; none where it has none."""
    text = signature.get("inputs") if isinstance(signature, dict) else None
    try:
        columns = json.loads(text) if text else []
    except (TypeError, ValueError):
        raise InvalidInput("the inputs of MLflow's signature are not JSON") from None
    if not isinstance(columns, list) or not all(isinstance(column, dict) for column in columns):
        raise InvalidInput("the inputs of MLflow's signature are not a list")
    return tuple(_input(column) for column in columns)


def _input(column: Mapping[str, Any]) -> Field:
    name, kind = str(column.get("name") or "features"), column.get("type")
    if kind == "tensor":
        spec = column.get("tensor-spec") or {}
        datatype, shape = _TENSORS.get(str(spec.get("dtype"))), tuple(spec.get("shape") or ())
        if datatype is None or not all(type(size) is int for size in shape):
            raise InvalidInput(
                f"input {name!r} of MLflow's signature is a tensor of {spec.get('dtype')}, which none here is"
            )
        return Field(name, datatype, shape)
    if kind not in _COLUMNS:
        raise InvalidInput(
            f"input {name!r} of MLflow's signature is of the type {kind!r}, which no tensor carries; import it with --reference"
        )
    # In a column of numbers MLflow takes NaN for missing without saying so.
    nullable = kind in ("float", "double") or not column.get("required", True)
    return Field(name, _COLUMNS[kind], nullable=nullable, raw=kind == "binary")


def file_of(format: str, name: str) -> str:
    """Where MLflow has a version's one file: as a flavour's ``save_model`` would have called it.

    Raises:
        InvalidInput: no flavour loads such a file.
    """
    ending = name.rpartition(".")[2]
    named = {
        "lightgbm": "model.lgb", "catboost": "model.cb", "onnx": "model.onnx", "xgboost": f"model.{ending}",
        "sklearn": f"model.{'pkl' if ending == 'pickle' else ending}",
        "torch": "data/model.pt2" if ending == "pt2" else "data/model.pth",
    }  # fmt: skip
    if format not in named or ending == "joblib":
        what = "joblib file" if ending == "joblib" else f"version of the format {format!r}"
        raise InvalidInput(f"MLflow has no flavour that loads a {what}")
    return named[format]


def describe(format: str, file: str, *, signature: Signature, python: str) -> dict[str, str]:
    """The text files of an MLflow model beside its one ``file``: MLmodel and what it needs to be served, by name."""
    flavour, conf, packages = _flavour(format, file)
    pyfunc = {
        "loader_module": f"mlflow.{flavour}",
        "python_version": python,
        "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
        **(
            {"model_path": file, "predict_fn": "predict"}
            if format == "sklearn"
            else {"data": file.partition("/")[0]}
        ),
    }
    document = {
        "flavors": {flavour: {"code": None, **conf}, "python_function": pyfunc},
        "signature": {
            "inputs": json.dumps(_columns(signature, flavour)),
            "outputs": json.dumps([_tensor(field) for field in signature.outputs]),
            "params": None,
        },
    }
    python_env = {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    conda = {
        "name": "mlflow-env",
        "dependencies": [f"python={python}", "pip", {"pip": ["mlflow", *packages]}],
    }
    # JSON is YAML, and this way no writer of YAML is needed.
    return {
        MLMODEL: json.dumps(document, indent=1),
        "requirements.txt": "\n".join(["mlflow", *packages, ""]),
        "python_env.yaml": json.dumps(python_env, indent=1),
        "conda.yaml": json.dumps(conda, indent=1),
    }


def _flavour(format: str, file: str) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """Name, configuration and packages of the flavour of a format."""
    if format == "sklearn":
        kind = "skops" if file.endswith(".skops") else "cloudpickle"
        conf = {
            "pickled_model": file,
            "serialization_format": kind,
            "sklearn_version": "",
            "skops_trusted_types": None,
        }
        return "sklearn", conf, ("scikit-learn", "skops" if kind == "skops" else "cloudpickle")
    if format == "torch":
        return "pytorch", {"model_data": "data", "pytorch_version": ""}, ("torch",)
    own: dict[str, dict[str, Any]] = {
        "lightgbm": {"model_class": _BOOSTERS[0]},
        "xgboost": {"model_class": _BOOSTERS[1], "model_format": file.rpartition(".")[2]},
        "catboost": {"model_type": "CatBoost", "save_format": "cbm"},
        "onnx": {"providers": ["CPUExecutionProvider"]},
    }
    return format, {"data": file, **own[format]}, ("onnx", "onnxruntime") if format == "onnx" else (format,)


def _columns(signature: Signature, flavour: str) -> list[dict[str, Any]]:
    """MLflow's inputs. A lone tensor that has a name comes to a flavour in a dictionary, and PyTorch's takes none."""
    found = [_column(field) for field in signature.inputs]
    if flavour == "pytorch" and len(found) == 1 and found[0]["type"] == "tensor":
        del found[0]["name"]
    return found


def _column(field: Field) -> dict[str, Any]:
    if field.width > 1:
        return _tensor(field)
    kind = "binary" if field.raw else _OF_DATATYPE[field.datatype]
    # A number that may be missing is a NaN to MLflow, and the column is there all the same.
    return {"name": field.name, "type": kind, "required": not field.nullable or kind in ("float", "double")}


def _tensor(field: Field) -> dict[str, Any]:
    spec = {"dtype": _NUMPY.get(field.datatype, "object"), "shape": list(field.shape)}
    return {"name": field.name, "type": "tensor", "tensor-spec": spec}
