from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from predis.metrics import TABLE, Metrics, exposition
from predis.metrics.exposition import CONTENT_TYPE
from predis.metrics.table import ROWS
from tests.installation import free_ports, wait_for
from tests.metrics.text import samples

LABELS = {"tenant": "default", "endpoint": "churn", "version": "1"}


def value(folder: Path, name: str, **labels: str) -> float | None:
    return samples(exposition(folder)).get((name, frozenset(labels.items())))


def lines_of(text: bytes, name: str) -> list[str]:
    return [line for line in text.decode().splitlines() if name in line]


def test_without_files_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert exposition(tmp_path / "nowhere") == b""


def test_the_text_to_the_letter(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "serving-0")
    metrics.counter("predis_rows_total", **LABELS).add(3)
    metrics.histogram("predis_batch_rows", **LABELS).observe([1.0, 3.0, 3.0, 99_999.0])
    metrics.gauge("predis_in_flight").set(0.5)
    text = exposition(tmp_path)
    assert lines_of(text, "predis_rows_total") == [
        "# HELP predis_rows_total Rows predicted.",
        "# TYPE predis_rows_total counter",
        'predis_rows_total{tenant="default",endpoint="churn",version="1"} 3',
    ]
    own = 'tenant="default",endpoint="churn",version="1"'
    counts = {
        "1": 1,
        "2": 1,
        **{str(round(bound)): 3 for bound in ROWS[2:]},
        "+Inf": 4,
    }
    assert lines_of(text, "predis_batch_rows") == [
        "# HELP predis_batch_rows Rows in one joined prediction.",
        "# TYPE predis_batch_rows histogram",
        *(f'predis_batch_rows_bucket{{{own},le="{bound}"}} {count}' for bound, count in counts.items()),
        f"predis_batch_rows_sum{{{own}}} 100006",
        f"predis_batch_rows_count{{{own}}} 4",
    ]
    assert lines_of(text, "predis_in_flight")[-1] == 'predis_in_flight{worker="serving-0"} 0.5'
    assert text.endswith(b"\n")


def test_counters_and_histograms_are_added_up_and_gauges_as_the_table_says(tmp_path: Path) -> None:
    for number in (0, 1):
        metrics = Metrics(tmp_path, f"serving-{number}")
        metrics.counter("predis_rows_total", **LABELS).add(1 + number)
        metrics.histogram("predis_queue_seconds", **LABELS).observe([0.5] * (1 + number))
        metrics.gauge("predis_connections").set(1 + number)
        metrics.gauge("predis_alerts_open", severity="critical").set(1 + number)
        assert metrics.process == f"serving-{number}"
    found = samples(exposition(tmp_path))
    assert found["predis_rows_total", frozenset(LABELS.items())] == 3
    assert found["predis_queue_seconds_bucket", frozenset({**LABELS, "le": "0.5"}.items())] == 3
    assert found["predis_queue_seconds_sum", frozenset(LABELS.items())] == 1.5
    assert found["predis_connections", frozenset({("worker", "serving-0")})] == 1
    assert found["predis_connections", frozenset({("worker", "serving-1")})] == 2
    assert found["predis_alerts_open", frozenset({("severity", "critical")})] == 3


def test_of_a_process_that_is_gone_the_counters_stay_and_the_gauges_do_not(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "serving-0")
    metrics.counter("predis_rows_total", **LABELS).add(3)
    metrics.gauge("predis_connections").set(3)
    assert value(tmp_path, "predis_connections", worker="serving-0") == 3
    metrics.close()
    assert value(tmp_path, "predis_connections", worker="serving-0") is None
    assert value(tmp_path, "predis_rows_total", **LABELS) == 3


def test_processes_tell_of_themselves(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "serving-0")
    resident = value(tmp_path, "predis_process_resident_bytes", process="serving-0")
    assert resident is not None
    assert resident > 10e6
    metrics.close()
    assert value(tmp_path, "predis_process_resident_bytes", process="serving-0") is None


def test_a_damaged_file_is_left_out_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Metrics(tmp_path, "serving-0").counter("predis_rows_total", **LABELS).add(3)
    (tmp_path / "serving-1.bin").write_bytes(b"?" * 64)
    (tmp_path / "serving-2.bin").mkdir()
    for _ in range(3):
        assert value(tmp_path, "predis_rows_total", **LABELS) == 3
    assert sorted(record.getMessage()[:20] for record in caplog.records) == [
        "metrics of serving-1",
        "metrics of serving-2",
    ]


def test_a_tenant_does_not_see_the_others(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "serving-0")
    for tenant in ("a", "b"):
        metrics.counter("predis_rows_total", tenant=tenant, endpoint="e", version="1").add(1)
    metrics.gauge("predis_in_flight").set(2)
    text = exposition(tmp_path, tenant="a")
    assert b'tenant="a"' in text
    assert b'tenant="b"' not in text
    assert b"predis_in_flight{" in text
    assert b"predis_cache" not in text


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=20), st.floats(min_value=0, allow_nan=False))
def test_prometheus_reads_back_any_label_and_number(tmp_path: Path, label: str, number: float) -> None:
    (tmp_path / "serving-0.bin").unlink(missing_ok=True)
    metrics = Metrics(tmp_path, "serving-0")
    metrics.counter("predis_rows_total", **{**LABELS, "endpoint": label}).add(number)
    metrics.gauge("predis_in_flight").set(-number)
    found = samples(exposition(tmp_path))
    metrics.close()
    assert found["predis_rows_total", frozenset({**LABELS, "endpoint": label}.items())] == number
    assert found["predis_in_flight", frozenset({("worker", "serving-0")})] == -number


def fill(folder: Path) -> Metrics:
    """Write every metric of the table."""
    metrics = Metrics(folder, "serving-0")
    for metric in TABLE.values():
        labels = {label: f'a "{label}"\n\\' for label in metric.labels}
        if metric.kind == "counter":
            metrics.counter(metric.name, **labels).add(1)
        elif metric.kind == "gauge":
            metrics.gauge(metric.name, **labels).set(1)
        else:
            metrics.histogram(metric.name, **labels).observe([0.01, 3])
    return metrics


def test_prometheus_parser_knows_every_metric(tmp_path: Path) -> None:
    metrics = fill(tmp_path)
    families = {
        family.name: family for family in text_string_to_metric_families(exposition(tmp_path).decode())
    }
    assert families.keys() == {metric.name.removesuffix("_total") for metric in TABLE.values()}
    for metric in TABLE.values():
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        by = {metric.by: "serving-0"} if metric.by else {}
        own = {**{label: f'a "{label}"\n\\' for label in metric.labels}, **by}
        for sample in family.samples:
            assert {k: v for k, v in sample.labels.items() if k != "le"} == own
    metrics.close()


PROMTOOL, PROMETHEUS = shutil.which("promtool"), shutil.which("prometheus")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_promtool_finds_nothing_to_mend(tmp_path: Path) -> None:
    metrics = fill(tmp_path)
    checked = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=exposition(tmp_path), capture_output=True, check=False
    )
    metrics.close()
    assert (checked.returncode, checked.stderr) == (0, b""), checked.stderr.decode()


@pytest.fixture
def scraped(tmp_path: Path) -> Iterator[str]:
    """Host and port of a server of the metrics in ``tmp_path/metrics``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = exposition(tmp_path / "metrics")
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Prometheus:
    """A real one that scrapes one target five times a second."""

    def __init__(self, folder: Path, target: str) -> None:
        folder.mkdir()
        config = folder / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
            f"scrape_configs: [{{job_name: predis, static_configs: [{{targets: ['{target}']}}]}}]\n"
        )
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        command = [
            str(PROMETHEUS),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def ask(self, query: str) -> float | None:
        """The value of a query that has one."""
        url = f"{self.url}/api/v1/query?query={urllib.request.quote(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                result = json.load(answer)["data"]["result"]
        except OSError:
            return None
        return float(result[0]["value"][1]) if result else None

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.log.close()


@pytest.mark.slow
@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")
def test_a_real_prometheus_scrapes_it(tmp_path: Path, scraped: str) -> None:
    metrics = fill(tmp_path / "metrics")
    rows = metrics.counter("predis_rows_total", **LABELS)
    seconds = metrics.histogram("predis_request_seconds", **LABELS)
    prometheus = Prometheus(tmp_path / "prometheus", scraped)
    try:
        wait_for(lambda: prometheus.ask("up") == 1)
        wait_for(lambda: prometheus.ask('count({__name__=~"predis_.*"})') is not None)
        rows.add(40)
        seconds.observe([0.004] * 90 + [0.2] * 10)
        own = 'endpoint="churn"'
        wait_for(lambda: prometheus.ask(f"predis_rows_total{{{own}}}") == 40)
        wait_for(lambda: prometheus.ask(f"predis_request_seconds_count{{{own}}}") == 100)
        quantile = prometheus.ask(f"histogram_quantile(0.5, predis_request_seconds_bucket{{{own}}})")
        assert quantile is not None
        assert 0.0025 < quantile < 0.005
        assert prometheus.ask("count(count by (__name__) ({__name__=~'predis_.*'}))") == sum(
            3 if metric.kind == "histogram" else 1 for metric in TABLE.values()
        )
        assert prometheus.ask("predis_process_start_time_seconds") == pytest.approx(
            os.stat(f"/proc/{os.getpid()}").st_mtime, abs=600
        )
    finally:
        prometheus.stop()
        metrics.close()
