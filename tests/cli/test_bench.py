"""``predis bench serving`` against a server of the tests' own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from predis.cli import main
from tests.loadtest.server import METADATA, Link, in_thread, response, toy_answer

runner = CliRunner()
QUICK = ("--duration", "0.3", "--warmup", "0", "--processes", "1", "--distinct", "4")


@pytest.fixture
def server() -> Iterator[str]:
    with in_thread(toy_answer) as target:
        yield f"http://127.0.0.1:{target.port}"


def bench(server: str, *options: str, endpoint: str = "toy") -> Result:
    nowhere = "http://127.0.0.1:9"
    return runner.invoke(
        main,
        [
            "bench",
            "serving",
            "--endpoint",
            endpoint,
            "--serving",
            server,
            "--control",
            nowhere,
            *QUICK,
            *options,
        ],
    )


def steps(shown: Result) -> list[dict[str, Any]]:
    assert shown.exit_code == 0, shown.output
    found: list[dict[str, Any]] = json.loads(shown.stdout)["steps"]
    return found


def test_a_closed_loop_is_the_default(server: str) -> None:
    (step,) = steps(bench(server, "--json"))
    assert (step["connections"], step["rate"]) == (64, None)
    assert step["answered"] > 0
    assert step["errors"] == {}
    assert step["latency_ms"]["p99"] > 0


def test_several_connections_are_several_steps(server: str) -> None:
    assert [step["connections"] for step in steps(bench(server, "--connections", "1,2", "--json"))] == [1, 2]


@pytest.mark.parametrize(
    ("option", "rates"),
    [(("--rate", "50"), [50]), (("--rates", "50,1_00"), [50, 100]), (("--ramp", "25:100:3"), [25, 50, 100])],
)
def test_rates_make_open_loops(server: str, option: tuple[str, ...], rates: list[float]) -> None:
    found = steps(bench(server, *option, "--arrivals", "constant", "--json"))
    assert [step["rate"] for step in found] == rates
    assert [step["measured"] for step in found] == pytest.approx([rate * 0.3 for rate in rates], abs=1.1)


@pytest.mark.parametrize("encoding", [(), ("--binary",)])
def test_people_see_figures_and_a_histogram(server: str, encoding: tuple[str, ...]) -> None:
    shown = bench(server, "--connections", "2", "--rows", "3", *encoding)
    assert shown.exit_code == 0, shown.output
    assert "3 rows a request" in " ".join(shown.stdout.split())
    assert " 2 connections" in shown.stdout
    assert "█" in shown.stdout


def test_values_may_come_from_a_file(server: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"x": 1.5, "kind": "a"}\n')
    shown = json.loads(bench(server, "--rows-from", str(rows), "--json").stdout)
    assert "rows of rows.jsonl" in shown["about"]


def test_values_follow_the_reference_profile_where_control_has_one() -> None:
    sent: list[float] = []
    bins = {"name": "x", "kind": "numeric", "edges": [70.0, 80.0], "levels": []}

    def answer(link: Link, request: bytes) -> None:
        path, body = request.split(b" ", 2)[1], request.partition(b"\r\n\r\n")[2]
        if path == b"/v2/models/toy":
            named = {**METADATA, "parameters": {"model": "model", "version": "3"}}
            link.write(response(json.dumps(named).encode()))
        elif path == b"/api/v1/models/model/versions/3/profile":
            link.write(response(json.dumps({"bins": [bins], "counts": [[0, 5, 0, 0]]}).encode()))
        else:
            sent.extend(json.loads(body)["inputs"][0]["data"])
            toy_answer(link, request)

    with in_thread(answer) as target:
        url = f"http://127.0.0.1:{target.port}"
        shown = bench(url, "--connections", "1", "--json", "--control", url)
    assert "random values as in the training data" in json.loads(shown.stdout)["about"]
    assert all(70 <= value <= 80 for value in sent)


def test_grpc_goes_to_its_own_port(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[bytes] = set()

    def infer(request: bytes, _context: grpc.ServicerContext) -> bytes:
        asked.add(request)
        return b""

    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    grpc_server = grpc.server(ThreadPoolExecutor(2))
    grpc_server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),)
    )
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    grpc_server.start()
    try:
        monkeypatch.setenv("PREDIS_GRPC_PORT", str(port))
        (step,) = steps(bench(server, "--grpc", "--connections", "1", "--json"))
    finally:
        grpc_server.stop(None).wait()
    assert step["answered"] > 0
    assert len(asked) == 4


def test_a_page_is_written(server: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert bench(server, "--html", str(page)).exit_code == 0
    assert page.read_text("utf-8").startswith("<!doctype html>")


def test_limits_that_are_kept_exit_with_0(server: str) -> None:
    assert (
        bench(server, "--connections", "1", "--max-p99-ms", "60000", "--max-error-rate", "0").exit_code == 0
    )


def test_a_p99_above_its_limit_exits_with_1(server: str) -> None:
    shown = bench(server, "--connections", "1", "--max-p99-ms", "0", "--json")
    assert shown.exit_code == 1
    assert json.loads(shown.stdout)["broken"] == [shown.stderr.removeprefix("predis: ").strip()]
    assert "is above 0 ms" in shown.stderr


def test_more_errors_than_allowed_exit_with_1() -> None:
    asked = 0

    def failing(link: Any, request: bytes) -> None:
        nonlocal asked
        asked += request.startswith(b"POST")
        if asked > 1:  # the one before the test is answered
            link.write(response(b'{"error":"no more"}', 503))
        else:
            toy_answer(link, request)

    with in_thread(failing) as target:
        shown = bench(
            f"http://127.0.0.1:{target.port}",
            "--connections",
            "1",
            "--max-error-rate",
            "0.01",
            "--max-p99-ms",
            "1",
        )
    assert shown.exit_code == 1
    assert "100.000% of the requests failed, more than 1.000%" in shown.stderr
    assert "the p99 of nan ms is above 1 ms" in shown.stderr
    assert '× HTTP 503: {"error":"no more"}' in shown.stdout


def test_an_endpoint_that_is_not_there_is_told(server: str) -> None:
    shown = bench(server, endpoint="none")
    assert (shown.exit_code, shown.stderr) == (1, "predis: there is no such endpoint [endpoint_not_found]\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rate", "5", "--ramp", "1:2:2"), "--rate and --ramp exclude each other"),
        (("--binary", "--grpc"), "exclude each other"),
        (("--rate", "5", "--connections", "1,2"), "--connections is one number"),
        (("--rate", "many"), "'many' is not a number"),
        (("--rate", "0"), "give numbers above 0"),
        (("--ramp", "5"), "'5' is not like 500:20000:6"),
        (("--ramp", "5:1:3"), "a lower and a higher rate"),
    ],
)
def test_options_that_make_no_sense_are_told(server: str, options: tuple[str, ...], message: str) -> None:
    shown = bench(server, *options)
    assert shown.exit_code != 0
    assert message in " ".join(shown.stderr.split())
