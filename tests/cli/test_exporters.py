from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from predis.cli import main
from tests.monitoring.exporters.given import receiving


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREDIS_CONFIG", raising=False)


def export(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", *arguments])


def test_rules_into_a_file_and_onto_the_screen() -> None:
    assert export("prometheus-rules", "etc/predis.yml", "--job", "ml").output == "wrote etc/predis.yml\n"
    shown = export("prometheus-rules", "-", "--job", "ml").output
    assert Path("etc/predis.yml").read_text() == shown
    assert 'up{job="ml"} == 0' in json.dumps(yaml.safe_load(shown)).replace('\\"', '"')


@pytest.mark.parametrize("objective", ["1", "0.2", "x"])
def test_an_objective_that_cannot_be(objective: str) -> None:
    assert export("prometheus-rules", "-", "--objective", objective).exit_code == 2


def test_dashboards() -> None:
    assert export("grafana", "dashboards").exit_code == 0
    files = {path.name: json.loads(path.read_text()) for path in Path("dashboards").iterdir()}
    assert set(files) == {"predis-overview.json", "predis-endpoint.json", "predis-inside.json"}
    assert all(dashboard["panels"] for dashboard in files.values())


def test_where_nothing_can_be_written() -> None:
    Path("file").write_text("")
    shown = export("grafana", "file/dashboards")
    assert shown.exit_code == 1
    assert "cannot be written" in shown.stderr


def test_checking_without_exporters() -> None:
    shown = export("check")
    assert shown.exit_code == 1
    assert "PREDIS_EXPORTERS" in shown.stderr


def test_checking_says_what_each_backend_made_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DD_API_KEY", "s3cr3t")
    monkeypatch.setenv("PREDIS_EXPORTERS", "otlp,datadog")
    with receiving() as receiver:
        monkeypatch.setenv("PREDIS_OTEL_ENDPOINT", receiver.url)
        monkeypatch.setenv("PREDIS_DATADOG_URL", receiver.url)
        assert export("check").output == "otlp: sent\ndatadog: sent\n"
        receiver.replies = [(202, b""), (403, b"Forbidden")]
        shown = export("check")
    assert shown.exit_code == 1
    assert shown.stdout == "otlp: sent\n"
    assert "datadog: 127.0.0.1 answered 403 to /api/v2/series: Forbidden" in shown.stderr
    assert "s3cr3t" not in shown.output
