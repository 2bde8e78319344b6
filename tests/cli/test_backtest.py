"""The verb ``predis rollout backtest``: what it asks for, what it shows, and how it exits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from predis.cli import backtest as verb
from predis.cli import main
from predis.clock import ManualClock
from predis.errors import Conflict
from predis.state import Database
from tests import toys
from tests.rollout.backtest.log import report, serve

runner = CliRunner()


class Server:
    """A client of an installation that is not there."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.row = row
        self.asked: list[Any] = []
        self.polls = 2

    def backtest(self, endpoint: str, candidate: str, **wanted: Any) -> dict[str, Any]:
        self.asked.append((endpoint, candidate, wanted))
        return {**self.row, "state": "running"}

    def backtests(self, endpoint: str) -> list[dict[str, Any]]:
        return [self.row] if self.row else []

    def show_backtest(self, _number: int) -> dict[str, Any]:
        self.polls -= 1
        return {**self.row, "state": "running"} if self.polls > 0 else self.row

    def cancel_backtest(self, number: int) -> dict[str, Any]:
        self.asked.append(number)
        return {**self.row, "state": "cancelled"}


def run(server: Server, *arguments: str) -> Result:
    return runner.invoke(main, ["rollout", "backtest", "churn", *arguments])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    found = Server({"id": 5, "state": "done", "progress": 0.5, "error": "", "report": None})
    monkeypatch.setattr(verb, "client", lambda *_args, **_more: found)
    monkeypatch.setattr(verb, "_POLL_S", 0.0)
    return found


@pytest.fixture
def reports(database: Database, home: Path, clock: ManualClock) -> Iterator[dict[str, dict[str, Any]]]:
    """Real reports, of candidates that pass, fail, and cannot be told of."""
    with toys.installed(database, home, clock) as installed:
        for column in ("x", "z", "x"):
            installed.register(column)
        installed.create_endpoint()
        serve(installed, 1)
        asked = toys.table(1_000)
        ids = installed.send(asked, version=1)
        found = {"unknown": report(installed, 2)}
        installed.label(ids, asked)
        yield {**found, "fail": report(installed, 2), "pass": report(installed, 3)}


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_report_is_a_page_that_begins_with_the_conclusion(
    server: Server, reports: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    for outcome, status in (("pass", 0), ("fail", 1), ("unknown", 0)):
        server.row["report"] = reports[outcome]
        shown = run(server, "--candidate", "2", "--html", str(page))
        assert shown.exit_code == status, shown.output
        conclusion = reports[outcome]["conclusion"]["text"]
        first = shown.stdout.splitlines()[0]
        assert first == f"version {reports[outcome]['candidate']} on {toys.ENDPOINT}: {conclusion}"
        for word in ("scores", "flips", "labels", "latency", "egments", "an estimate"):
            assert word in shown.stdout
        content = page.read_text("utf-8")
        assert content.startswith("<!doctype html>")
        assert content.count("<svg") == content.count("</svg>") == 4
        assert "http" not in content  # nothing from elsewhere
    assert json.loads(run(server, "--last", "--json").stdout)["report"] == reports["unknown"]


def test_what_is_given_is_asked_for(server: Server) -> None:
    server.row |= {"state": "failed", "error": "the log is empty"}
    shown = run(
        server, "--candidate", "7", "--since", "12h", "--rows", "500", "--threshold", "0.3", "--baseline", "4"
    )
    wanted = {"since": "12h", "rows": 500, "threshold": 0.3, "baseline": "4"}
    assert server.asked == [("churn", "7", wanted)]
    assert shown.exit_code == 2
    assert shown.stderr.splitlines() == ["predis: backtest 5 failed: the log is empty [internal]"]


def test_errors_exit_with_two(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "name the version to try with --candidate" in run(server).stderr
    assert run(server).exit_code == 2

    def busy(*_args: Any, **_more: Any) -> Any:
        raise Conflict("backtest 4 of version 7 runs")

    monkeypatch.setattr(server, "backtest", busy)
    shown = run(server, "--candidate", "7")
    assert (shown.exit_code, shown.stderr) == (2, "predis: backtest 4 of version 7 runs [conflict]\n")
    server.row = {}
    assert "there was no backtest on 'churn' yet" in run(server, "--last").stderr


def test_cancelling(server: Server) -> None:
    shown = run(server, "--cancel")
    assert (shown.exit_code, shown.stdout, server.asked) == (0, "backtest 5 is cancelled\n", [5])


def test_ctrl_c_leaves_it_running_and_says_how_to_come_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_number: int) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "show_backtest", interrupted)
    shown = run(server, "--candidate", "7")
    assert shown.exit_code == 130
    assert "backtest 5 goes on; see it with: predis rollout backtest churn --last" in shown.stderr
