from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from predis import telemetry

log = logging.getLogger("predis.test")


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    """Logging is the process's: put back what the tests change."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("key pk_abcdEFGH-ijkl_mn is bad", "key pk_abcd*** is bad"),
        ("postgresql+psycopg://predis:hunter2@db:5432/x", "postgresql+psycopg://predis:***@db:5432/x"),
        ("redis://:hunter2@cache:6379/0", "redis://:***@cache:6379/0"),
        ("https://u:p%40ss/word@host", "https://u:***@host"),
        ("two: s3://a:b@c and s3://d:e@f", "two: s3://a:***@c and s3://d:***@f"),
        ("http://127.0.0.1:8000/health", "http://127.0.0.1:8000/health"),
        ("sqlite:///home/state.sqlite", "sqlite:///home/state.sqlite"),
        ("write to a@b.example", "write to a@b.example"),
    ],
)
def test_secrets_are_cut_out(text: str, redacted: str) -> None:
    assert telemetry.redact(text) == redacted


def test_text_is_one_line_with_level_and_role(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("control")
    log.warning("route %d of %s", 3, "pk_abcdEFGHijkl")
    line = capsys.readouterr().err
    assert line.endswith("warning control   route 3 of pk_abcd***\n")
    assert line.count("\n") == 1


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("serving", style="json")
    try:
        raise ValueError("postgresql://u:hunter2@db")
    except ValueError:
        log.exception("two\nlines, redis://:hunter2@c")
    log.info("next")
    output = capsys.readouterr().err
    assert "hunter2" not in output
    first, second = map(json.loads, output.splitlines())
    assert first["time"].endswith("Z")
    assert (first["level"], first["role"], first["logger"]) == ("error", "serving", "predis.test")
    assert first["message"] == "two\nlines, redis://:***@c"
    assert first["exception"].endswith("ValueError: postgresql://u:***@db")
    assert second["message"] == "next"
    assert "exception" not in second


def test_an_exception_follows_in_text_without_its_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("control")
    try:
        raise ValueError("postgresql://u:hunter2@db")
    except ValueError:
        log.exception("failed")
    output = capsys.readouterr().err
    assert "ValueError: postgresql://u:***@db" in output
    assert "hunter2" not in output


def test_levels(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("control", level="warning")
    log.info("quiet")
    log.warning("heard")
    telemetry.configure("control", level="debug")
    log.debug("heard too")
    logging.getLogger("sqlalchemy.engine").info("never")
    messages = [line.split()[-1] for line in capsys.readouterr().err.splitlines()]
    assert messages == ["heard", "too"]


def test_configuring_twice_writes_once(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("control")
    telemetry.configure("control")
    log.info("once")
    assert capsys.readouterr().err.count("once") == 1
