from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from predis.errors import AccessDenied, InvalidInput, NotFound, SetupError, Unreachable
from predis.registry.mlflow import Tracking


class Handler(BaseHTTPRequestHandler):
    server: Scripted

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.seen.append((self.command, self.path, self.headers.get("authorization"), body))
        status, content = self.server.reply
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = _any  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


class Scripted(ThreadingHTTPServer):
    """An MLflow server that always answers the same."""

    reply: tuple[int, bytes] = (200, b"{}")

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str, str | None, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[Scripted]:
    found = Scripted()
    thread = threading.Thread(target=found.serve_forever, args=(0.005,), daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


@pytest.mark.parametrize("uri", ["", "databricks", "file:///tmp/mlruns", "http://", "sqlite:///x"])
def test_what_is_no_server(uri: str) -> None:
    with pytest.raises(InvalidInput, match="URL of an MLflow server"):
        Tracking(uri)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"MLFLOW_TRACKING_TOKEN": "t"}, "Bearer t"),
        (
            {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "pw"},
            "Basic " + base64.b64encode(b"ann:pw").decode(),
        ),
    ],
)
def test_credentials(server: Scripted, environ: dict[str, str], expected: str | None) -> None:
    Tracking(server.url + "/", environ=environ).get("runs/get", run_id="a b")
    assert server.seen == [("GET", "/api/2.0/mlflow/runs/get?run_id=a+b", expected, b"")]


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (404, "RESOURCE_DOES_NOT_EXIST", NotFound),
        (400, "INVALID_PARAMETER_VALUE", InvalidInput),
        (403, "PERMISSION_DENIED", AccessDenied),
        (500, "INTERNAL_ERROR", Unreachable),
    ],
)
def test_refusals(server: Scripted, status: int, code: str, expected: type[Exception]) -> None:
    server.reply = (status, json.dumps({"error_code": code, "message": "so it is"}).encode())
    with pytest.raises(expected, match="so it is"):
        Tracking(server.url, environ={}).post("runs/create")
    server.reply = (status, b"<html>")
    with pytest.raises(expected, match=f"status {status}"):
        Tracking(server.url, environ={}).patch("runs/create")


def test_no_answer_and_no_mlflow(server: Scripted) -> None:
    server.reply = (200, b"<html>")
    with pytest.raises(Unreachable, match="is it an MLflow server"):
        Tracking(server.url, environ={}).get("runs/get")
    with pytest.raises(Unreachable, match="no answer"):
        Tracking("http://127.0.0.1:1", environ={}).get("runs/get")


class TestArtifacts:
    def test_through_the_server(self, server: Scripted, tmp_path: Path) -> None:
        tracking = Tracking(server.url, environ={})
        server.reply = (200, b"content")
        tracking.download("mlflow-artifacts:/1/models/m-1/artifacts", "data/a b", to=tmp_path / "x" / "file")
        assert (tmp_path / "x" / "file").read_bytes() == b"content"
        tracking.upload("mlflow-artifacts://host:5000/1/x", "model.lgb", file=tmp_path / "x" / "file")
        assert [(method, path, body) for method, path, _, body in server.seen] == [
            ("GET", "/api/2.0/mlflow-artifacts/artifacts/1/models/m-1/artifacts/data/a%20b", b""),
            ("PUT", "/api/2.0/mlflow-artifacts/artifacts/1/x/model.lgb", b"content"),
        ]

    @pytest.mark.parametrize("scheme", ["", "file://"])
    def test_in_a_folder_of_this_machine(self, tmp_path: Path, scheme: str) -> None:
        (tmp_path / "file").write_bytes(b"content")
        tracking = Tracking("http://localhost:5000", environ={})
        tracking.upload(f"{scheme}{tmp_path}/store", "data/model", file=tmp_path / "file")
        tracking.download(f"{scheme}{tmp_path}/store", "data/model", to=tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == b"content"
        with pytest.raises(NotFound, match="keeps no file 'other'"):
            tracking.download(f"{scheme}{tmp_path}/store", "other", to=tmp_path / "none")

    def test_a_server_elsewhere_cannot_name_a_folder_here(self, tmp_path: Path) -> None:
        """It would have us read any file of this machine."""
        tracking = Tracking("https://mlflow.example.org", environ={})
        for uri in ("/etc", "file:///etc"):
            with pytest.raises(InvalidInput, match="--serve-artifacts"):
                tracking.download(uri, "passwd", to=tmp_path / "copy")

    @pytest.mark.parametrize(
        "uri",
        ["dbfs:/x", "local:///etc", "simplecache::file:///etc", "s3::file:///etc", "http://127.0.0.1/x"],
    )
    def test_what_is_not_asked_for(self, tmp_path: Path, uri: str) -> None:
        with pytest.raises(InvalidInput, match="MLflow keeps the artifacts at"):
            Tracking("https://mlflow.example.org", environ={}).download(uri, "passwd", to=tmp_path / "copy")

    def test_a_store_that_needs_a_package(self, tmp_path: Path) -> None:
        with pytest.raises(SetupError, match="need a package"):
            Tracking("http://localhost:5000", environ={}).download(
                "abfs://c/x", "MLmodel", to=tmp_path / "copy"
            )
