"""Versions from a real MLflow server to a real installation and back, by the commands that people use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from predis.errors import InvalidInput, NotFound
from predis.registry.mlflow import Tracking
from predis.registry.mlflow.exchange import find
from tests.installation import Installation, free_ports, running, settings_of, wait_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
TEAM = Path(__file__).parent / "team.py"


class MLflow:
    """A server, and the interpreter that has MLflow."""

    def __init__(self, python: Path, uri: str) -> None:
        self.python, self.uri = python, uri
        self.tracking = Tracking(uri, environ={})

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def team(self, what: str, *names: str) -> dict[str, list[float]]:
        done = subprocess.run(
            [self.python, TEAM, what, self.uri, *names],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3_000:]
        found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
        return found


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflow]:
    subprocess.run([ROOT / "scripts" / "setup-mlflow"], check=True)
    folder, port = tmp_path_factory.mktemp("mlflow"), free_ports(1)[0]
    python = ROOT / ".venv-mlflow" / "bin" / "python"
    arguments = [
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.sqlite", "--artifacts-destination", str(folder / "artifacts"),
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [python, "-m", "mlflow", "server", *arguments],
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    found = MLflow(python, f"http://127.0.0.1:{port}")
    try:
        wait_for(found.answers, patience_s=120)
        yield found
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.fixture(scope="module")
def logged(mlflow: MLflow) -> dict[str, list[float]]:
    """What MLflow's models predict, logged and registered there."""
    return mlflow.team("log")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with running(settings_of(tmp_path_factory.mktemp("predis") / "home", workers=1)) as found:
        yield found


def predis(installation: Installation, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "predis", "model", *arguments, "--json"],
        env={**os.environ, "PREDIS_CONTROL": installation.control},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("name", "kind"), [("lgb", "lightgbm"), ("xgb", "xgboost"), ("skl", "sklearn"), ("onnx", "onnx")]
)
def test_there_and_back(
    mlflow: MLflow, logged: dict[str, list[float]], installation: Installation, name: str, kind: str
) -> None:
    uri = ("--tracking-uri", mlflow.uri)
    version = predis(installation, "import-mlflow", f"models:/{name}/1", *uri, "--alias", "candidate")
    assert (version["model"], version["format"]) == (name, kind)
    origin = version["lineage"]["mlflow"]
    assert (origin["tracking_uri"], origin["model"], origin["version"]) == (mlflow.uri, name, "1")
    assert origin["metrics"] == {"auc": 0.9}
    assert origin["tags"]["team"] == "risk"
    assert origin["run_id"]
    assert version["lineage"]["parameters"] == {"eta": "0.1", "depth": "3"}
    assert version["lineage"]["revision"] == "abc123"
    assert version["metrics"] == {}  # none of them was measured here

    made = predis(installation, "export-mlflow", f"{name}@candidate", *uri, "--mlflow-name", f"{name}-back")
    assert (made["name"], made["version"]) == (f"{name}-back", "1")
    back = find(mlflow.tracking, f"models:/{name}-back/1")
    assert back.metrics == {"auc": 0.9}
    assert back.params == {"eta": "0.1", "depth": "3"}
    assert back.tags["predis.digest"] == version["digest"]
    assert back.tags["team"] == "risk"
    expected = {**logged, "onnx": mlflow.team("predict", "onnx")["onnx"]} if name == "onnx" else logged
    assert mlflow.team("predict", made["name"])[made["name"]] == pytest.approx(expected[name], rel=1e-6)


def test_it_serves_what_mlflow_would(
    mlflow: MLflow, logged: dict[str, list[float]], installation: Installation
) -> None:
    uri = ("--tracking-uri", mlflow.uri)
    predis(installation, "import-mlflow", "models:/lgb@champion", *uri, "--name", "served")
    client = installation.client
    assert [field["name"] for field in client.version("served", 1)["signature"]["inputs"]] == ["x", "z"]
    assert client.version("served", 1)["lineage"]["mlflow"]["tags"]["stage"] == "review"
    client.create_endpoint("served", "served")
    installation.finish(client.deploy("served", 1, strategy="direct")["id"])
    rows = json.loads(
        subprocess.run(
            [mlflow.python, "-c", f"import sys; sys.path.insert(0, {str(TEAM.parent)!r}); import team; print(team.ROWS.to_json(orient='records', double_precision=15))"],
            capture_output=True, text=True, check=True,
        ).stdout.splitlines()[-1]
    )  # fmt: skip
    answer = client.predict("served", rows)
    assert answer.outputs["probability"] == pytest.approx(logged["lgb"], rel=1e-9)


def test_what_mlflow_does_not_have(mlflow: MLflow, logged: dict[str, list[float]]) -> None:
    assert find(mlflow.tracking, "models:/lgb/latest").version == "1"
    with pytest.raises(NotFound, match="not found"):
        find(mlflow.tracking, "models:/lgb/9")
    with pytest.raises(NotFound, match="no version of 'nobody'"):
        find(mlflow.tracking, "models:/nobody/latest")
    for uri in ("lgb/1", "runs:/abc/model", "models:/lgb", "models:/lgb/Production"):
        with pytest.raises(InvalidInput, match="not a version in MLflow"):
            find(mlflow.tracking, uri)
