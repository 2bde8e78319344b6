"""The demo itself: told whole, and its beginnings."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from predis.demo import story
from predis.errors import HomeInUse, SetupError
from predis.settings import ENV_PREFIX
from predis.supervisor import claim_home
from tests.installation import free_ports


def test_an_earlier_demo_is_replaced_and_anything_else_is_not(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = story.demo_settings({"home": home})
    (first.home / "left-over").write_text("from the last demo")
    second = story.demo_settings({"home": home})
    assert not (second.home / "left-over").exists()

    other = tmp_path / "other"
    other.mkdir()
    (other / "state.sqlite").write_text("somebody's installation")
    with pytest.raises(SetupError, match="not a demo's"):
        story.demo_settings({"home": other})
    assert (other / "state.sqlite").exists()


def test_a_running_demo_is_not_replaced(tmp_path: Path) -> None:
    settings = story.demo_settings({"home": tmp_path / "home"})
    lock = claim_home(settings)
    try:
        with pytest.raises(HomeInUse, match="a demo runs"):
            story.demo_settings({"home": tmp_path / "home"})
    finally:
        os.close(lock)


def test_ports_in_use_are_avoided_unless_they_were_asked_for(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        asked = story.demo_settings({"home": tmp_path / "a", "control_port": port})
        assert asked.control_port == port
    free = story.demo_settings({"home": tmp_path / "b"})
    assert free.control_port != free.http_port


def test_a_report_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="report"):
        story.tell(
            {"home": tmp_path / "home"}, report=tmp_path / "no" / "such" / "r.json", keep=False, flights=None
        )
    assert not (tmp_path / "home").exists()


@pytest.mark.slow
def test_the_whole_story(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    control, http = free_ports(2)
    command = ["demo", "--home", str(tmp_path / "home"), "--report", str(report), "--flights", "110000"]
    told = subprocess.run(
        [sys.executable, "-m", "predis", *command, "--control-port", str(control), "--http-port", str(http)],
        env={name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert told.returncode == 0, told.stdout[-3_000:] + told.stderr[-3_000:]
    figures = json.loads(report.read_text())
    assert figures["failed_requests"] == 0
    assert figures["predictions_counted"] == figures["requests"] > 40_000
    assert figures["feedback_stored"] == figures["feedback_sent"] > 40_000
    assert figures["alert_severity"] == "critical"
    assert figures["promoted"]
    assert figures["retrained_version"] == 2
    assert figures["auc_after_retraining"] > figures["auc_frozen"] > 0.6
    assert figures["broken_version_aborted"]
    assert figures["abort_seconds"] is not None
    assert figures["restarts"] == 0
    assert "What happened" in told.stdout
