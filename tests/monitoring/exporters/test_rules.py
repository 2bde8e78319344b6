from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from predis.metrics import TABLE, Metrics
from predis.monitoring.exporters.rules import alerts, records, rules
from tests.installation import wait_for
from tests.monitoring.exporters.given import Receiver
from tests.monitoring.exporters.prometheus import alertmanager, exposing, prometheus

Program = Callable[[str], str]
VERSION = {"tenant": "default", "endpoint": "churn", "version": "3"}
_SUFFIX = re.compile(r"_(bucket|sum|count)$")


def test_every_metric_that_rules_name_is_in_the_table() -> None:
    recorded = {record.name for record in records()}
    for expr in [rule.expr for rule in (*records(), *alerts())]:
        for name in re.findall(r"(?<![:\w])predis_\w+", expr):
            assert name in TABLE or _SUFFIX.sub("", name) in TABLE
        for name in re.findall(r"\w+:\w+:\w+", expr):
            assert name in recorded


def test_every_counter_and_histogram_of_an_endpoint_is_recorded() -> None:
    exprs = " ".join(record.expr for record in records())
    for metric in TABLE.values():
        if metric.kind == "histogram" or (metric.kind == "counter" and "endpoint" in metric.labels):
            assert metric.name in exprs
    assert len({record.name for record in records()}) == len(records())


def test_the_file_is_what_the_rules_say() -> None:
    groups = {group["name"]: group["rules"] for group in yaml.safe_load(rules(job="ml"))["groups"]}
    assert [rule["expr"] for rule in groups["predis.records"]] == [record.expr for record in records()]
    found = {rule["alert"]: rule for rule in groups["predis.alerts"]}
    assert found["PredisDown"]["expr"] == 'up{job="ml"} == 0'
    assert {rule["labels"]["severity"] for rule in found.values()} == {"warning", "critical", "emergency"}
    assert all(rule["annotations"]["look"].startswith("predis ") for rule in found.values())


@pytest.mark.parametrize("objective", [0.9, 0.999, 0.99999])
def test_promtool_finds_nothing_to_mend(tmp_path: Path, program: Program, objective: float) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(rules(objective=objective))
    checked = subprocess.run(
        [program("promtool"), "check", "rules", "--lint-fatal", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(records()) + len(alerts())} rules found" in checked.stdout


def series(name: str, *, values: str, **labels: str) -> dict[str, str]:
    own = ", ".join(
        f'{label}="{value}"' for label, value in {"job": "predis", "instance": "a", **labels}.items()
    )
    return {"series": f"{name}{{{own}}}", "values": values}


SCRAPED = (series("up", values="1x120"), series("predis_ingest_lag_seconds", values="1x120"))
# What Prometheus sees, and the alerts that fire after an hour of it, or after the minutes that are named.
SCENES: dict[str, tuple[list[dict[str, str]], str, set[str]]] = {
    "all is well": (
        [
            *SCRAPED,
            series("predis_requests_total", values="0+6000x120", outcome="ok", **VERSION),
            series("predis_requests_total", values="0+1x120", outcome="failed", **VERSION),
        ],
        "1h",
        set(),
    ),
    "one in twenty fails": (
        [
            *SCRAPED,
            series("predis_requests_total", values="0+950x120", outcome="ok", **VERSION),
            series("predis_requests_total", values="0+50x120", outcome="failed", **VERSION),
        ],
        "1h",
        {"PredisErrorBudgetBurn1h", "PredisErrorBudgetBurn6h"},
    ),
    "clients' faults burn nothing": (
        [*SCRAPED, series("predis_requests_total", values="0+950x120", outcome="rejected", **VERSION)],
        "1h",
        set(),
    ),
    "it is over": (
        [
            *SCRAPED,
            series("predis_requests_total", values="0+950x120", outcome="ok", **VERSION),
            series("predis_requests_total", values="0+100x20 2000+0x100", outcome="failed", **VERSION),
        ],
        "1h",
        set(),
    ),
    "it does not answer": ([series("up", values="1x10 0x110")], "1h", {"PredisDown"}),
    "control has no numbers": ([series("up", values="1x120")], "1h", {"PredisMonitoringBehind"}),
    "control is behind": (
        [SCRAPED[0], series("predis_ingest_lag_seconds", values="0+60x120")],
        "1h",
        {"PredisMonitoringBehind"},
    ),
    "workers differ": (
        [
            *SCRAPED,
            series("predis_route", values="7x120", tenant="default", endpoint="churn", worker="serving-0"),
            series("predis_route", values="8x120", tenant="default", endpoint="churn", worker="serving-1"),
        ],
        "1h",
        {"PredisRoutesDiffer"},
    ),
    "evidence and metrics are lost": (
        [
            *SCRAPED,
            series("predis_journal_lost_total", values="0+1x120"),
            series("predis_export_dropped_total", values="0+1x120", exporter="otlp"),
        ],
        "1h",
        {"PredisEvidenceLost", "PredisExportFailing"},
    ),
    "a backend is gone": (
        [*SCRAPED, series("predis_export_waiting", values="0+4x120", exporter="otlp")],
        "30m",
        {"PredisExportFailing"},
    ),
    "too much at once": (
        [
            *SCRAPED,
            series("predis_requests_total", values="0+980x120", outcome="ok", **VERSION),
            series("predis_requests_total", values="0+20x120", outcome="shed", **VERSION),
        ],
        "30m",
        {"PredisShedding", "PredisErrorBudgetBurn1h", "PredisErrorBudgetBurn6h"},
    ),
}


def test_each_rule_fires_when_it_should_and_only_then(tmp_path: Path, program: Program) -> None:
    (tmp_path / "rules.yml").write_text(rules())
    names = sorted({alert.name for alert in alerts()})
    tests = [
        {
            "interval": "1m",
            "name": scene,
            "input_series": given,
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": at,
                    "exp_samples": [
                        {"labels": f'{{alertname="{name}"}}', "value": 1} for name in names if name in fires
                    ],
                }
            ],
        }
        for scene, (given, at, fires) in SCENES.items()
    ]
    file = tmp_path / "tests.yml"
    file.write_text(json.dumps({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_an_alert_goes_all_the_way(tmp_path: Path, program: Program, receiver: Receiver) -> None:
    """Metrics in a worker's file -> exposition -> Prometheus -> rule -> Alertmanager -> webhook; and resolved again."""
    file = tmp_path / "rules.yml"
    file.write_text(rules())
    metrics = Metrics(tmp_path / "metrics", "control")
    metrics.gauge("predis_ingest_lag_seconds").set(0.1)
    critical = metrics.gauge("predis_alerts_open", severity="critical")
    with (
        exposing(tmp_path / "metrics") as target,
        alertmanager(program("prometheus-alertmanager"), tmp_path, webhook=receiver.url + "/page") as tells,
        prometheus(program("prometheus"), tmp_path, target=target, rules=file, tells=tells) as watching,
    ):
        wait_for(lambda: watching.value('predis_alerts_open{severity="critical"}') == 0)
        assert watching.alerts() == {}
        critical.set(1)
        receiver.wait_for(1)
        (told,) = _pages(receiver)
        assert (told["status"], told["labels"]["severity"]) == ("firing", "critical")
        assert told["annotations"]["look"] == "predis alerts --open"
        critical.set(0)
        receiver.wait_for(2)
        assert _pages(receiver)[-1]["status"] == "resolved"
    metrics.close()


def _pages(receiver: Receiver) -> list[dict[str, Any]]:
    """Alerts that the webhook was told of, all of one rule."""
    found = [alert for body in receiver.bodies("/page") for alert in json.loads(body)["alerts"]]
    assert {alert["labels"]["alertname"] for alert in found} == {"PredisCriticalAlertOpen"}
    return found
