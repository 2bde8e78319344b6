"""What a team does with MLflow, run by MLflow's own interpreter: ``team.py log URI`` or ``team.py predict URI MODEL...``.

Both print one line of JSON last: the predictions for ``ROWS`` by model.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import lightgbm
import mlflow
import numpy as np
import onnx
import pandas as pd
import sklearn.linear_model
import xgboost
from mlflow.models import infer_signature
from onnx import TensorProto, helper

RNG = np.random.default_rng(0)
TABLE = pd.DataFrame({"x": RNG.normal(size=300), "z": RNG.normal(size=300)})
LABELS = (TABLE.x > 0).astype(int)
ROWS = TABLE.head(5)


def log() -> dict[str, Any]:
    """One run, four models of it in the registry."""
    mlflow.set_experiment("churn")
    with mlflow.start_run():
        mlflow.log_params({"eta": 0.1, "depth": 3})
        mlflow.log_metric("auc", 0.75)
        mlflow.log_metric("auc", 0.9, step=1)
        mlflow.set_tags({"team": "risk", "mlflow.source.git.commit": "abc123"})
        booster = lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(TABLE, LABELS), 5)
        signature = infer_signature(TABLE, booster.predict(TABLE))
        mlflow.lightgbm.log_model(booster, name="lgb", registered_model_name="lgb", signature=signature)
        forest = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(TABLE, LABELS), 3)
        mlflow.xgboost.log_model(forest, name="xgb", registered_model_name="xgb", signature=signature)
        linear = sklearn.linear_model.LogisticRegression().fit(TABLE, LABELS)
        mlflow.sklearn.log_model(linear, name="skl", registered_model_name="skl", signature=signature)
        mlflow.onnx.log_model(graph(), name="onnx", registered_model_name="onnx")
    client = mlflow.MlflowClient()
    client.set_model_version_tag("lgb", "1", "stage", "review")
    client.set_registered_model_alias("lgb", "champion", "1")
    return predict(["lgb", "xgb", "skl"])


def graph() -> onnx.ModelProto:
    """y = x + z"""
    given = helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, 2])
    made = helper.make_tensor_value_info("sum", TensorProto.FLOAT, [None, 1])
    node = helper.make_node("ReduceSum", ["rows", "axes"], ["sum"], keepdims=1)
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    found = helper.make_graph([node], "sum", [given], [made], [axes])
    return helper.make_model(found, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def predict(names: list[str]) -> dict[str, Any]:
    """Through ``pyfunc``, as whoever serves them would."""
    found = {}
    for name in names:
        model = mlflow.pyfunc.load_model(f"models:/{name}/1")
        rows = ROWS if "onnx" not in name else ROWS.to_numpy(np.float32)
        answer = model.predict(rows)
        answer = next(iter(answer.values())) if isinstance(answer, dict) else answer
        found[name] = np.asarray(answer, float).reshape(-1).tolist()
    return found


if __name__ == "__main__":
    mlflow.set_tracking_uri(sys.argv[2])
    found = log() if sys.argv[1] == "log" else predict(sys.argv[3:])
    sys.stdout.write(json.dumps(found) + "\n")
