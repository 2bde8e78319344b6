"""One small model of every kind that runtimes load, trained on the spot, and what its own library answers.

A ``Case`` is all that the contract of runtimes needs to know of one. Features are drawn from a seed: ``x`` of normal numbers (some of
them missing where the library takes that), ``kind`` of texts of which one is no level.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.registry.signature import Field, Signature
from predis.serving import runtimes
from predis.serving.inputs import Inputs
from predis.state.records import Matrix
from tests.serving.helpers import booster_text, logistic_graph, table, text_graph

Outputs = Sequence[NDArray[Any]]
NAMES = ("a", "b", "c")
KINDS = ("u", "v", "w")


@dataclass(frozen=True)
class Case:
    """A model: its files, what loading needs beside them, rows to ask it with, and what its library answers."""

    kind: str
    contents: Callable[[], dict[str, bytes]]
    rows: Callable[[int, int], Inputs]
    expected: Callable[[Inputs], Outputs]
    signature: Signature | None = None
    inputs: tuple[Field, ...] = ()
    tolerance: float = 0.0

    def load(self) -> runtimes.Runtime:
        return runtimes.load(self.kind, self.contents(), signature=self.signature, inputs=self.inputs)


def matrix(features: Any, unseen: Mapping[tuple[int, int], str] | None = None) -> Inputs:
    """Rows as a matrix."""
    found = np.asarray(features, np.float64)
    return Inputs(len(found), found, dict(unseen or {}))


def tensors(**given: Any) -> Inputs:
    """Rows as tensors; lists of texts become arrays of objects."""
    found = {name: _texts(v) if isinstance(v, list) else np.asarray(v) for name, v in given.items()}
    rows = len(next(iter(found.values())))
    return Inputs(rows, np.empty((rows, 0)), {}, found)


def _texts(values: list[Any]) -> NDArray[Any]:
    found = np.empty(len(values), np.object_)
    found[:] = values
    return found


def numbers(rows: int, *, seed: int = 0, missing: float = 0.0, columns: int = len(NAMES)) -> Matrix:
    random = np.random.default_rng(seed)
    found = random.normal(size=(rows, columns))
    found[random.random(found.shape) < missing] = np.nan
    return found


def kinds(rows: int, *, seed: int = 0, more: Sequence[str | None] = ("never seen",)) -> list[Any]:
    random = np.random.default_rng(seed + 1_000)
    return [(*KINDS, *more)[at] for at in random.integers(0, len(KINDS) + len(more), rows)]


def _labels(x: Matrix, texts: Sequence[str | None]) -> NDArray[Any]:
    return (np.nan_to_num(x[:, 0]) + np.array([text == "u" for text in texts]) > 0.3).astype(int)


# --- trees ------------------------------------------------------------------------------------------------------------------


def _lightgbm() -> Case:
    import lightgbm

    def expected(inputs: Inputs) -> Outputs:
        booster = lightgbm.Booster(model_str=booster_text().decode())
        return [np.asarray(booster.predict(inputs.features, num_threads=1))]

    return Case(
        "lightgbm",
        lambda: {"m.txt": booster_text()},
        lambda rows, seed: matrix(table(rows, seed=seed)),
        expected,
    )


@cache
def xgboost_model(objective: str = "binary:logistic", form: str = "ubj") -> bytes:
    """Three numbers, some missing, and then codes of a category."""
    import xgboost

    x = np.column_stack([numbers(300, missing=0.1), np.random.default_rng(1).integers(0, 3, 300)])
    labels = {
        "binary:logistic": _labels(x, ["u" if code == 0 else "v" for code in x[:, 3]]),
        "multi:softprob": np.digitize(np.nan_to_num(x[:, 0]), [-0.5, 0.5]),
        "reg:squarederror": np.nan_to_num(x[:, 1]) + x[:, 3],
    }[objective]
    data = xgboost.DMatrix(
        x,
        labels,
        feature_names=[*NAMES, "kind"],
        feature_types=["q", "q", "q", "c"],
        enable_categorical=True,
        nthread=1,
    )
    parameters = {
        "objective": objective,
        "max_depth": 3,
        "nthread": 1,
        **({"num_class": 3} if "multi" in objective else {}),
    }
    return bytes(xgboost.train(parameters, data, 10).save_raw(form))


def _xgboost(objective: str = "binary:logistic", form: str = "ubj") -> Case:
    def rows(count: int, seed: int) -> Inputs:
        codes = np.random.default_rng(seed).integers(
            -1, 4, count
        )  # -1: no level; 3: none that was trained with
        return matrix(np.column_stack([numbers(count, seed=seed, missing=0.1), codes]))

    def expected(inputs: Inputs) -> Outputs:
        import xgboost

        booster = xgboost.Booster({"nthread": 1}, model_file=bytearray(xgboost_model(objective, form)))
        return [booster.inplace_predict(inputs.features, validate_features=False).astype(np.float64)]

    return Case("xgboost", lambda: {"m": xgboost_model(objective, form)}, rows, expected)


@cache
def catboost_model(*, texts: bool, loss: str = "Logloss") -> bytes:
    import tempfile
    from pathlib import Path

    import catboost

    x, kind = numbers(300, missing=0.1), kinds(300, more=())
    columns = np.column_stack([x[:, :1], np.array(kind, np.object_), x[:, 1:]]) if texts else x
    names = ["a", "kind", "b", "c"] if texts else list(NAMES)
    labels = {
        "Logloss": _labels(x, kind),
        "MultiClass": np.digitize(np.nan_to_num(x[:, 0]), [-0.5, 0.5]),
    }.get(loss, np.exp(np.nan_to_num(x[:, 1])))
    model = catboost.CatBoost({
        "iterations": 10, "depth": 3, "loss_function": loss, "verbose": 0, "thread_count": 1, "allow_writing_files": False,
        "random_seed": 1,
    })  # fmt: skip
    model.fit(catboost.Pool(columns, labels, cat_features=[1] if texts else [], feature_names=names))
    with tempfile.TemporaryDirectory() as folder:
        model.save_model(f"{folder}/m.cbm")
        return Path(f"{folder}/m.cbm").read_bytes()


def catboost_rows(count: int, seed: int) -> Inputs:
    """In the form of the model that takes texts, one of which is missing now and then."""
    x, kind = numbers(count, seed=seed, missing=0.1), kinds(count, seed=seed, more=("never seen", None))
    return tensors(a=x[:, 0], kind=kind, b=x[:, 1], c=x[:, 2])


def _catboost(*, texts: bool, loss: str = "Logloss") -> Case:
    def expected(inputs: Inputs) -> Outputs:
        import catboost

        model = catboost.CatBoost().load_model(blob=catboost_model(texts=texts, loss=loss))
        data: Any = inputs.features
        if inputs.tensors is not None:
            kind = np.array([text or "" for text in inputs.tensors["kind"]], np.object_)
            data = np.column_stack([inputs.tensors["a"], kind, inputs.tensors["b"], inputs.tensors["c"]])
        answer = model.predict(data, prediction_type="Exponent" if loss == "Poisson" else "Probability")
        return [answer[:, 1] if loss == "Logloss" else answer]

    def rows(count: int, seed: int) -> Inputs:
        return catboost_rows(count, seed) if texts else matrix(numbers(count, seed=seed, missing=0.1))

    return Case("catboost", lambda: {"m.cbm": catboost_model(texts=texts, loss=loss)}, rows, expected)


# --- graphs -----------------------------------------------------------------------------------------------------------------

TEXT_SIGNATURE = Signature(
    (Field("x", "FP32", (-1, 2)), Field("color", "BYTES", (-1, 1), nullable=True, levels=("blue", "red"))),
    (Field("label", "INT64"), Field("p", "FP32", (-1, 2))),
    "p",
)


def _session(content: bytes) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def _onnx() -> Case:
    def expected(inputs: Inputs) -> Outputs:
        found: Outputs = _session(logistic_graph()).run(None, {"x": inputs.features.astype(np.float32)})
        return found

    return Case(
        "onnx", lambda: {"m.onnx": logistic_graph()}, lambda rows, seed: matrix(numbers(rows, seed=seed, missing=0.1)), expected,
        tolerance=1e-6,  # sums in another order for another number of rows
    )  # fmt: skip


def _onnx_of_texts() -> Case:
    def rows(count: int, seed: int) -> Inputs:
        texts = _texts(kinds(count, seed=seed, more=("red", "mauve", None))).reshape(count, 1)
        return tensors(x=numbers(count, seed=seed, columns=2).astype(np.float32), color=texts)

    def expected(inputs: Inputs) -> Outputs:
        assert inputs.tensors is not None
        color = np.array([[text or ""] for text in inputs.tensors["color"][:, 0]], np.object_)
        found: Outputs = _session(text_graph()).run(None, {"x": inputs.tensors["x"], "color": color})
        return found

    return Case("onnx", lambda: {"m.onnx": text_graph()}, rows, expected, signature=TEXT_SIGNATURE)


@cache
def torch_module(kind: str) -> Any:
    """``columns``: a float tensor of three columns; ``ids``: that and whole numbers, several outputs by name."""
    import torch

    class Columns(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(self.linear(x))[:, 0]

    class Ids(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.linear = torch.nn.Embedding(10, 2), torch.nn.Linear(5, 2)

        def forward(self, x: torch.Tensor, ids: torch.Tensor) -> dict[str, torch.Tensor]:
            found = torch.cat([x, self.embedding(ids)], 1)
            return {"p": torch.softmax(self.linear(found), 1), "total": x.sum(1)}

    torch.manual_seed(1)
    return (Columns() if kind == "columns" else Ids()).eval()


def saved(save: Callable[[Any, Any], None], thing: Any) -> bytes:
    sink = io.BytesIO()
    save(thing, sink)
    return sink.getvalue()


@cache
def torchscript() -> bytes:
    import torch

    return saved(torch.jit.save, torch.jit.trace(torch_module("columns"), torch.zeros(2, 3)))


@cache
def exported(kind: str = "ids", *, rows: int = 0) -> bytes:
    """A program of torch.export, for any number of rows or for as many as given."""
    import torch

    example = (torch.zeros(rows or 2, 3), torch.zeros(rows or 2, dtype=torch.int64))[
        : 2 if kind == "ids" else 1
    ]
    open_rows = {} if rows else {"dynamic_shapes": tuple({0: torch.export.Dim("rows")} for _part in example)}
    return saved(torch.export.save, torch.export.export(torch_module(kind), example, **open_rows))


COLUMNS = tuple(Field(name, "FP64") for name in NAMES)


def _torchscript() -> Case:
    def expected(inputs: Inputs) -> Outputs:
        import torch

        with torch.no_grad():
            return [torch_module("columns")(torch.tensor(inputs.features, dtype=torch.float32)).numpy()]

    return Case(
        "torch", lambda: {"m.pt": torchscript()}, lambda rows, seed: matrix(numbers(rows, seed=seed)), expected,
        inputs=COLUMNS, tolerance=1e-6,
    )  # fmt: skip


def _exported() -> Case:
    def rows(count: int, seed: int) -> Inputs:
        ids = np.random.default_rng(seed).integers(0, 10, count)
        return tensors(x=numbers(count, seed=seed).astype(np.float32), ids=ids)

    def expected(inputs: Inputs) -> Outputs:
        import torch

        assert inputs.tensors is not None
        with torch.no_grad():
            found = torch_module("ids")(*(torch.tensor(inputs.tensors[name]) for name in ("x", "ids")))
        return [part.numpy() for part in found.values()]

    return Case("torch", lambda: {"m.pt2": exported()}, rows, expected, tolerance=1e-6)


# --- scikit-learn -----------------------------------------------------------------------------------------------------------


@cache
def estimator(kind: str) -> Any:
    """``matrix``: three numbers, some missing; ``table``: those by name, and texts; ``classes``, ``regressor``: as they say."""
    import pandas
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    x, kind_texts = numbers(300), kinds(300, more=())
    labels = _labels(x, kind_texts)
    if kind == "matrix":
        return HistGradientBoostingClassifier(max_iter=5, random_state=1).fit(
            numbers(300, missing=0.1), labels
        )
    if kind == "classes":
        return LogisticRegression().fit(x, np.digitize(x[:, 0], [-0.5, 0.5]))
    if kind == "regressor":
        return RandomForestRegressor(5, max_depth=3, n_jobs=-1, random_state=1).fit(x, x[:, 1])
    prepared = ColumnTransformer([
        ("numbers", StandardScaler(), list(NAMES)),
        ("kind", OneHotEncoder(handle_unknown="ignore"), ["kind"]),
    ])  # fmt: skip
    frame = pandas.DataFrame({**dict(zip(NAMES, x.T, strict=True)), "kind": kind_texts})
    return make_pipeline(prepared, LogisticRegression()).fit(frame, labels)


@cache
def estimator_file(kind: str, form: str) -> bytes:
    import joblib
    import skops.io

    found = estimator(kind)
    if form == "skops":
        return bytes(skops.io.dumps(found))
    return pickle.dumps(found) if form == "pickle" else saved(joblib.dump, found)


TABLE = (*COLUMNS, Field("kind", "BYTES", nullable=True, levels=KINDS))


def _sklearn(kind: str, form: str) -> Case:
    def rows(count: int, seed: int) -> Inputs:
        x = numbers(count, seed=seed, missing=0.1 if kind == "matrix" else 0.0)
        if kind != "table":
            return matrix(x)
        return tensors(
            **dict(zip(NAMES, x.T, strict=True)), kind=kinds(count, seed=seed, more=("never seen", None))
        )

    def expected(inputs: Inputs) -> Outputs:
        import pandas

        found = estimator(kind)
        data = inputs.features if inputs.tensors is None else pandas.DataFrame(dict(inputs.tensors))
        if kind == "regressor":
            return [found.predict(data)]
        answer = found.predict_proba(data)
        return [answer if kind == "classes" else answer[:, 1]]

    return Case(
        "sklearn", lambda: {f"m.{form}": estimator_file(kind, form)}, rows, expected, inputs=TABLE if kind == "table" else (),
        tolerance=1e-12,
    )  # fmt: skip


# --- Python -----------------------------------------------------------------------------------------------------------------

FUNCTION = b"""
import numpy as np

SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 3]}, {"name": "id", "datatype": "UINT64"}],
    "outputs": [{"name": "sum", "datatype": "FP64"}, {"name": "id", "datatype": "UINT64"}],
}

def predict(inputs):
    return {"id": inputs["id"], "sum": inputs["x"].sum(axis=1)}
"""

CLASS = b"""
from . import words

class Model:
    def load(self, folder):
        self.suffix = (folder / "data" / "suffix.txt").read_text()

    def predict(self, inputs):
        return [float(len(words.joined(text, self.suffix))) for text in inputs["text"]]
"""
CLASS_FILES = {
    "model.py": CLASS,
    "words.py": b"def joined(a, b):\n    return (a or '') + b\n",
    "data/suffix.txt": b"!?",
}
CLASS_SIGNATURE = Signature((Field("text", "BYTES", nullable=True),), (Field("length", "FP64"),), "length")


def _python_function() -> Case:
    def rows(count: int, seed: int) -> Inputs:
        ids = np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)
        return tensors(x=numbers(count, seed=seed), id=ids)

    def expected(inputs: Inputs) -> Outputs:
        assert inputs.tensors is not None
        return [inputs.tensors["x"].sum(axis=1), inputs.tensors["id"]]

    return Case("python", lambda: {"model.py": FUNCTION}, rows, expected)


def _python_class() -> Case:
    def expected(inputs: Inputs) -> Outputs:
        assert inputs.tensors is not None
        return [np.array([len(text or "") + 2.0 for text in inputs.tensors["text"]])]

    return Case(
        "python", lambda: dict(CLASS_FILES), lambda rows, seed: tensors(text=kinds(rows, seed=seed, more=("ü", "", None))), expected,
        signature=CLASS_SIGNATURE,
    )  # fmt: skip


CASES: dict[str, Case] = {
    "lightgbm": _lightgbm(),
    "xgboost": _xgboost(),
    "xgboost in JSON": _xgboost(form="json"),
    "xgboost of classes": _xgboost("multi:softprob"),
    "xgboost regression": _xgboost("reg:squarederror"),
    "catboost": _catboost(texts=False),
    "catboost of texts": _catboost(texts=True),
    "catboost of classes": _catboost(texts=False, loss="MultiClass"),
    "catboost of counts": _catboost(texts=False, loss="Poisson"),
    "onnx": _onnx(),
    "onnx of texts": _onnx_of_texts(),
    "torchscript": _torchscript(),
    "torch.export": _exported(),
    "sklearn in skops": _sklearn("matrix", "skops"),
    "sklearn in joblib": _sklearn("classes", "joblib"),
    "sklearn in pickle": _sklearn("regressor", "pickle"),
    "sklearn of tables": _sklearn("table", "joblib"),
    "python function": _python_function(),
    "python class": _python_class(),
}
