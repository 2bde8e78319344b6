from __future__ import annotations

import io
import json
import logging
import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis import telemetry
from predis.metrics import Metrics
from predis.telemetry import Access, AccessLog

log = logging.getLogger("predis.test")


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    """Logging is the process's: put back what the tests change."""
    root, dbos = logging.getLogger(), logging.getLogger("dbos")
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in (root, dbos)]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate


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


def test_a_line_about_a_request_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    fields = {
        "request_id": "abc-1",
        "endpoint": "churn",
        "version": 3,
        "tenant": "default",
        "trace_id": "4bf9",
    }
    telemetry.configure("serving-0", style="json")
    log.warning("slow", extra=fields)
    log.warning("other", extra={"request_id": ""})
    telemetry.configure("serving-0")
    log.warning("slow", extra=fields)
    log.warning("odd", extra={"request_id": "a\nb pk_abcdEFGHijkl"})
    first, second, third, fourth = capsys.readouterr().err.splitlines()
    assert {name: json.loads(first)[name] for name in telemetry.FIELDS} == {**fields, "version": "3"}
    assert not json.loads(second).keys() & set(telemetry.FIELDS)
    assert third.endswith("warning serving-0 slow [id abc-1]")
    assert fourth.endswith(r"odd [id a\nb pk_abcd***]")


@pytest.mark.parametrize("style", ["text", "json"])
def test_lines_of_dbos_look_like_ours(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    from dbos._logger import init_logger

    dbos = logging.getLogger("dbos")
    dbos.handlers.clear()
    init_logger()  # it was there before us
    telemetry.configure("control", style=style)
    init_logger()  # and comes again when a DBOS is made
    dbos.info("chatter")
    dbos.warning("recovering at postgresql://u:hunter2@db")
    (line,) = capsys.readouterr().err.splitlines()
    message = "recovering at postgresql://u:***@db"
    if style == "json":
        entry = json.loads(line)
        assert (entry["role"], entry["logger"], entry["message"]) == ("control", "dbos", message)
    else:
        assert line.endswith(f"warning control   {message}")


ACCESS = Access("POST", "/v2/models/churn/infer", 200, 0.00125, 345, "abc-1", "default", "127.0.0.1")


def written(*accesses: Access, style: str = "text") -> list[str]:
    stream = io.BytesIO()
    accesses_log = AccessLog("serving-0", style=style, stream=stream)
    for access in accesses:
        accesses_log.add(access)
    accesses_log.close(timeout_s=30)
    return stream.getvalue().decode().splitlines()


class TestAccessLog:
    def test_text(self) -> None:
        (line,) = written(ACCESS)
        assert line[8:] == (
            " access  serving-0 127.0.0.1 default POST /v2/models/churn/infer 200 1.25 ms 345 B [id abc-1]"
        )

    def test_what_is_not_known_is_a_dash_or_nothing(self) -> None:
        (line,) = written(ACCESS._replace(remote="", tenant="", request_id=""))
        assert line[8:] == " access  serving-0 - - POST /v2/models/churn/infer 200 1.25 ms 345 B"

    def test_json(self) -> None:
        (line,) = written(ACCESS, style="json")
        entry = json.loads(line)
        assert entry.pop("time").endswith("Z")
        assert entry == {
            "level": "info",
            "role": "serving-0",
            "logger": "access",
            "method": "POST",
            "path": "/v2/models/churn/infer",
            "status": 200,
            "ms": 1.25,
            "bytes": 345,
            "request_id": "abc-1",
            "tenant": "default",
            "remote": "127.0.0.1",
        }

    @pytest.mark.parametrize("style", ["text", "json"])
    def test_no_secret_and_no_query(self, style: str) -> None:
        (line,) = written(ACCESS._replace(path="/v2/pk_abcdEFGHijkl?token=hunter2"), style=style)
        assert "/v2/pk_abcd***" in line
        assert "hunter2" not in line

    @pytest.mark.parametrize("style", ["text", "json"])
    @given(outside=st.text(st.characters(exclude_characters="?"), max_size=50))
    def test_nobody_writes_a_line_of_their_own(self, style: str, outside: str) -> None:
        accesses = (
            ACCESS._replace(
                method=outside, path="/" + outside, tenant=outside, remote=outside, request_id=outside
            ),
            ACCESS,
        )
        # The lines are made as the thread makes them, which would be slow to start for each example.
        make = telemetry._json_line if style == "json" else telemetry._text_line
        lines = b"".join(make("serving-0", access, at=0.0) for access in accesses).decode()
        assert lines.count("\n") == 2
        assert all(character.isprintable() or character == "\n" for character in lines)
        assert len(lines.splitlines()) == 2

    def test_pieces_hold_whole_lines_and_are_short(self) -> None:
        class Pieces(io.BytesIO):
            pieces: list[bytes] = []  # noqa: RUF012

            def write(self, piece: bytes) -> int:  # type: ignore[override]
                self.pieces.append(piece)
                return len(piece)

        stream = Pieces()
        made = AccessLog("serving-0", stream=stream)
        for _ in range(1_000):
            made.add(ACCESS)
        made.close(timeout_s=30)
        assert sum(piece.count(b"\n") for piece in stream.pieces) == 1_000
        assert all(piece.endswith(b"\n") and len(piece) <= 4_096 for piece in stream.pieces)
        assert len(stream.pieces) < 50

    def test_a_reader_that_does_not_read_holds_nobody_up(self) -> None:
        metrics = Metrics(None, "serving-0")
        reading, writing = os.pipe()
        stream = os.fdopen(writing, "wb")
        made = AccessLog("serving-0", metrics=metrics, stream=stream)
        for _ in range(30_000):
            made.add(ACCESS)
        made.close(timeout_s=0.01)
        dropped = metrics.counter("predis_access_log_dropped_total").value
        assert dropped > 0
        with os.fdopen(reading, "rb") as reader:
            reader_thread = threading.Thread(target=reader.read)
            reader_thread.start()
            made._thread.join()
            stream.close()
            reader_thread.join()

    def test_a_stream_that_nobody_reads_any_more_costs_only_the_lines(self) -> None:
        metrics = Metrics(None, "serving-0")
        stream = io.BytesIO()
        made = AccessLog("serving-0", metrics=metrics, stream=stream)
        stream.close()
        made.add(ACCESS)
        made.close(timeout_s=30)
        assert metrics.counter("predis_access_log_dropped_total").value == 1

    def test_it_goes_to_standard_error(self, capfd: pytest.CaptureFixture[str]) -> None:
        made = AccessLog("serving-0")
        made.add(ACCESS)
        made.close(timeout_s=30)
        assert capfd.readouterr().err.endswith("345 B [id abc-1]\n")
