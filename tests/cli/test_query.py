"""The verb ``predis query`` and what ``predis monitor`` shows of models of every kind and of reasons."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from predis.cli import main, watch, windows
from predis.cli import query as verb

runner = CliRunner(env={"COLUMNS": "200"})


class Server:
    """A client of an installation that is not there."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.truncated = False
        self.task, self.scores = "binary", {"auc": 0.81, "auc_low": 0.8, "auc_high": 0.82}

    def query(self, sql: str, *, format: str) -> dict[str, Any]:
        self.asked.append((sql, format))
        found: dict[str, Any] = {"columns": [{"name": "n", "type": "int64"}], "truncated": self.truncated}
        return found | (
            {"rows": [[7]]}
            if format == "json"
            else {"rows": 1, "content": base64.b64encode(b"n\n7\n").decode()}
        )

    def overview(self, endpoint: str) -> dict[str, Any]:
        version = {
            "version": 1, "role": "champion", "weight": 1.0, "reference": None, "metrics": self.scores, "drift": None,
            "performance": [{"measures": self.scores, "task": self.task, "last_event": "2026-01-01"}],
        }  # fmt: skip
        return {
            "alerts": [],
            "endpoints": [{
                "name": endpoint, "health": "ok", "route": {"weights": {"1": 1.0}}, "versions": [version], "latency_ms": {},
                "traffic": {"requests": 1, "failed": 0, "per_second": 0.0}, "labels": {"coverage": None, "matured": 0, "predictions": 1},
            }],
        }  # fmt: skip

    def why(self, endpoint: str) -> dict[str, Any]:
        estimate = {
            "method": "CBPE",
            "assumption": "an estimate",
            "auc": 0.8,
            "auc_low": 0.7,
            "auc_high": 0.9,
            "error_so_far": None,
        }
        return {
            "endpoint": endpoint, "version": 3, "task": "binary", "rows": 800, "labels": 400, "estimate": estimate,
            "inputs": [{"input": "hour", "psi": 0.4, "score_shift": 0.1, "score_moved": 0.2, "auc_shift": -0.05}],
            "segments": [{"segment": "input.kind", "level": "b", "rows": 90, "labels": 60, "auc": 0.5, "score": 0.4}],
        }  # fmt: skip

    def windows(self, endpoint: str, **asked: Any) -> dict[str, Any]:
        self.asked.append(asked)
        shown = {
            "at": "2026-01-01T00:00:00Z", "version": 1, "requests": 90, "error_rate": 0.1, "latency_ms": {"p50": 1.0, "p99": 2.0},
            "scores": {"p50": 0.4}, "missing": 0.0, "out_of_range": 0.0, "unseen": 0.0, "labels": 60, "coverage": 0.7, "label_age_s": 3.0,
            "task": "binary", "measures": {"auc": 0.777, "auc_low": 0.7, "auc_high": 0.8},
        }  # fmt: skip
        return {
            "endpoint": endpoint, "length_s": 3600.0, "windows": [shown],
            "segments": [
                {"segment": name, "levels": 2, "windows": [{**shown, "level": "b"}]}
                for name in ("input.kind",) if asked["segment"] in ("", name)
            ],
        }  # fmt: skip


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    found = Server()
    for module in (verb, watch, windows):
        monkeypatch.setattr(module, "client", lambda *_args, **_more: found)
    return found


def run(*arguments: str) -> Result:
    return runner.invoke(main, list(arguments))


class TestQuery:
    def test_a_table(self, server: Server) -> None:
        shown = run("query", "select 7 as n")
        assert shown.exit_code == 0
        assert shown.output.split()[0] == "n"
        assert server.asked == [("select 7 as n", "json")]

    def test_json(self, server: Server) -> None:
        assert json.loads(run("query", "select 7", "--json").output)["rows"] == [[7]]

    def test_csv(self, server: Server) -> None:
        assert run("query", "select 7", "--csv").output == "n\n7\n"

    def test_a_file(self, server: Server, tmp_path: Path) -> None:
        path = tmp_path / "found.parquet"
        assert "1 rows in" in run("query", "select 7", "--parquet", str(path)).output
        assert path.read_bytes() == b"n\n7\n"

    def test_a_file_that_cannot_be_written(self, server: Server, tmp_path: Path) -> None:
        refused = run("query", "select 7", "--parquet", str(tmp_path / "none" / "found.parquet"))
        assert refused.exit_code == 1
        assert "cannot be written: No such file" in refused.stderr

    def test_one_format(self, server: Server) -> None:
        assert run("query", "select 7", "--csv", "--json").exit_code == 2

    def test_more_rows_than_shown(self, server: Server) -> None:
        server.truncated = True
        assert "There are more rows" in run("query", "select 7").stderr


class TestMonitor:
    @pytest.mark.parametrize(
        ("task", "scores", "title"),
        [
            ("binary", {"auc": 0.81, "auc_low": 0.8, "auc_high": 0.82}, "AUC"),
            ("regression", {"mae": 0.81, "mae_low": 0.8, "mae_high": 0.82}, "MAE"),
            ("multiclass", {"accuracy": 0.81, "accuracy_low": 0.8, "accuracy_high": 0.82}, "accuracy"),
        ],
    )
    def test_by_what_a_model_is_judged(
        self, server: Server, task: str, scores: dict[str, float], title: str
    ) -> None:
        server.task, server.scores = task, scores
        shown = run("monitor", "churn")
        assert shown.exit_code == 0, shown.output
        assert title in shown.output
        assert "0.81" in shown.output

    def test_why(self, server: Server) -> None:
        shown = run("monitor", "churn", "--why").output
        for part in ("CBPE is an estimate", "not known yet", "hour", "input.kind"):
            assert part in shown
        assert json.loads(run("monitor", "churn", "--why", "--json").output)["version"] == 3

    def test_windows(self, server: Server) -> None:
        shown = run("windows", "churn", "--since", "2026-01-01T00:00:00Z", "--segment", "input.kind").output
        assert server.asked == [{"since": "2026-01-01T00:00:00Z", "version": None, "segment": "input.kind"}]
        assert "input.kind: 2 levels are followed" in shown
        assert "0.777" in shown
        assert json.loads(run("windows", "churn", "--json").output)["length_s"] == 3600.0

    def test_windows_of_a_segment_that_is_not_followed(self, server: Server) -> None:
        assert "No windows of the segment 'nope'" in run("windows", "churn", "--segment", "nope").output

    def test_why_of_nothing(self, server: Server) -> None:
        assert run("monitor", "--why").exit_code == 2
