"""``predis up`` as a person meets it: starting, refusing to start, stopping."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from predis.client import Client
from predis.settings import Settings
from predis.supervisor import environment
from tests import toys
from tests.installation import running, settings_of, wait_for

pytestmark = pytest.mark.slow


def predis(settings: Settings, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    client = {
        "PREDIS_CONTROL": f"http://127.0.0.1:{settings.control_port}",
        "PREDIS_SERVING": f"http://127.0.0.1:{settings.http_port}",
    }
    return subprocess.run(
        [sys.executable, "-m", "predis", *arguments],
        env={**os.environ, **environment(settings), **client},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **more,
    )


def one_line_error(result: subprocess.CompletedProcess[str], code: str) -> None:
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("predis: ")]
    assert len(lines) == 1, result.stderr
    assert lines[0].endswith(f"[{code}]")
    assert "Traceback" not in result.stderr


def test_up_greets_and_ctrl_c_ends_everything(home: Path) -> None:
    settings = settings_of(home)
    process = subprocess.Popen(
        [sys.executable, "-m", "predis", "up"],
        env={**os.environ, **environment(settings)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    client = Client(
        f"http://127.0.0.1:{settings.control_port}", f"http://127.0.0.1:{settings.http_port}", retry_s=20
    )
    wait_for(client.ready)
    client.models()
    children = _children(process.pid)
    assert len(children) == 3
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0, output
    assert time.monotonic() - asked < 20  # a guard for the test; the figure is measured in bench/
    assert "Predis is up" in output
    assert output.rstrip().endswith("stopped")
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_a_second_up_on_the_same_home_is_refused(home: Path) -> None:
    with running(settings_of(home)) as installation:
        other = settings_of(home)
        one_line_error(predis(other, "up"), "home_in_use")
        assert installation.ready()


def test_a_port_in_use_is_named(home: Path) -> None:
    settings = settings_of(home)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", settings.http_port))
        taken.listen()
        result = predis(settings, "up")
    one_line_error(result, "port_in_use")
    assert str(settings.http_port) in result.stderr


def test_a_home_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("a file where a folder should be")
    one_line_error(predis(settings_of(blocker / "home"), "up"), "home_not_writable")


def test_listening_for_everybody_needs_keys(home: Path) -> None:
    settings = settings_of(home, host="0.0.0.0")
    one_line_error(predis(settings, "up"), "unsafe_bind")
    key = predis(settings, "key", "create", "alice", "--role", "admin").stdout.strip()
    assert key.startswith("pk_")
    with running(settings) as installation:
        denied = predis(settings, "endpoint", "list")
        one_line_error(denied, "unauthenticated")
        assert Client(installation.control, installation.serving, key=key).endpoints() == []


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_commands_work_on_a_running_installation(
    dialect: str, home: Path, tmp_path: Path, database_url: Any
) -> None:
    state_url = "" if dialect == "sqlite" else database_url("postgresql", False)
    settings = settings_of(home, state_url=state_url)
    with running(settings) as installation:
        installation.deploy_toy(tmp_path)
        row = json.dumps({"x": 0.5, "z": 1.0, "kind": "b"})
        answer = json.loads(predis(settings, "predict", toys.ENDPOINT, row, "--id", "one", "--json").stdout)
        assert answer["version"] == 1
        assert "stored" in predis(settings, "feedback", toys.ENDPOINT, "one", "1").stdout
        wait_for(lambda: installation.counted()["labels"]["matured"] == 1)
        for command in (
            ["model", "list"], ["model", "list", toys.MODEL], ["model", "show", toys.MODEL], ["model", "verify", toys.MODEL],
            ["endpoint", "list"], ["endpoint", "show", toys.ENDPOINT], ["rollout", "list"], ["rollout", "show", "1"],
            ["monitor"], ["alerts"], ["retrain", "--list"], ["doctor"],
        ):  # fmt: skip
            shown = predis(settings, *command)
            assert shown.returncode == 0, (command, shown.stderr)
            assert shown.stdout.strip()
            json.loads(predis(settings, *command, "--json").stdout)
        assert predis(settings, "get", f"/v2/models/{toys.ENDPOINT}").returncode == 0
        assert json.loads(predis(settings, "get", "/api/v1/endpoints").stdout)[0]["name"] == toys.ENDPOINT
        one_line_error(predis(settings, "deploy", toys.ENDPOINT, "1"), "conflict")
        one_line_error(predis(settings, "predict", "nobody", row), "endpoint_not_found")
        missing = predis(settings, "get", "/v2/models/nobody")
        assert missing.returncode == 1
        assert json.loads(missing.stdout)["code"] == "endpoint_not_found"


def test_a_changed_artifact_is_refused_by_workers_and_named_by_verify(home: Path, tmp_path: Path) -> None:
    settings = settings_of(home)
    with running(settings) as installation:
        installation.deploy_toy(tmp_path)
        file = tmp_path / "second.txt"
        file.write_bytes(toys.booster(sign=-1.0))
        version = installation.client.register(
            toys.MODEL, file, format="lightgbm", signature=toys.SIGNATURE.to_dict()
        )
        digest = version["files"][0]["digest"]
        stored = home / "artifacts" / digest[:2] / digest
        stored.write_bytes(stored.read_bytes().replace(b"leaf_value=0.25", b"leaf_value=0.75", 1))

        report = predis(settings, "model", "verify", toys.MODEL, "2")
        assert report.returncode == 1
        ended = installation.finish(installation.client.deploy(toys.ENDPOINT, 2)["id"])
        assert ended["state"] == "failed"
        assert "digest" in ended["reason"]
        assert installation.client.predict(toys.ENDPOINT, {"x": 0.5, "z": 1.0, "kind": "b"}).version == 1


def _children(pid: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(line) for line in listed.stdout.split()]
