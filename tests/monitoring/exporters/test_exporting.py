from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from predis.clock import ManualClock
from predis.errors import InvalidSetting, Unavailable
from predis.metrics import Metrics
from predis.monitoring.exporters import Exporting, Health
from predis.monitoring.exporters.exporting import EXPORTERS, exporters_of, health_of, sign_of_life
from predis.settings import Settings


@pytest.fixture
def agent() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        found.settimeout(20)
        yield found


def settings(home: Path, agent: socket.socket, **more: object) -> Settings:
    address = f"udp://127.0.0.1:{agent.getsockname()[1]}"
    return Settings(home=home, exporters="dogstatsd", statsd_address=address, **more)  # type: ignore[arg-type]


def test_metrics_and_health_arrive(tmp_path: Path, agent: socket.socket, clock: ManualClock) -> None:
    given = settings(tmp_path, agent, export_metrics="predis_rows_total", export_tags="environment=prod")
    metrics = Metrics(given.metrics_folder, "control")
    exporting = Exporting(
        given, metrics=metrics, clock=clock, health=lambda: [Health("default", "churn", "critical")]
    )
    assert exporting.active
    exporting.look()
    assert agent.recv(65_536).startswith(b"_sc|predis.endpoint|2|")
    metrics.counter("predis_rows_total", tenant="default", endpoint="churn", version="3").add(5)
    exporting.look()
    assert agent.recv(65_536).startswith(b"predis_rows_total:5|c|#environment:prod,tenant:default")
    metrics.counter("predis_rows_total", tenant="default", endpoint="churn", version="3").add(2)
    exporting.close()  # with what was added last
    assert agent.recv(65_536).startswith(b"predis_rows_total:2|c|")
    assert metrics.counter("predis_export_batches_total", exporter="dogstatsd").value == 3
    metrics.close()


def test_numbers_are_sent_where_the_database_is_gone(
    tmp_path: Path, agent: socket.socket, clock: ManualClock
) -> None:
    def gone() -> list[Health]:
        raise Unavailable("the database does not answer")

    given = settings(tmp_path, agent, export_metrics="predis_alerts_open")
    metrics = Metrics(given.metrics_folder, "control")
    metrics.gauge("predis_alerts_open", severity="critical").set(1)
    exporting = Exporting(given, metrics=metrics, clock=clock, health=gone)
    with pytest.raises(Unavailable):
        exporting.look()
    assert agent.recv(65_536) == b"predis_alerts_open:1|g|#severity:critical"
    exporting.close()
    metrics.close()


def test_without_exporters_nothing_happens(tmp_path: Path, clock: ManualClock) -> None:
    exporting = Exporting(Settings(home=tmp_path), clock=clock, health=list)
    assert not exporting.active
    exporting.close()


def test_an_exporter_that_is_not_there() -> None:
    with pytest.raises(InvalidSetting, match="there is no 'carbon'; there are cloudwatch, datadog"):
        exporters_of(Settings(exporters="statsd, carbon"))


@pytest.mark.parametrize("name", EXPORTERS)
def test_each_exporter_is_made_from_the_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    environ = {"DD_API_KEY": "k", "NEW_RELIC_LICENSE_KEY": "k"}
    given = Settings(exporters=name, otel_endpoint="http://127.0.0.1:1", export_tags="a=b")
    (exporter,) = exporters_of(given, environ=environ)
    assert exporter.name == name
    assert len(list(exporter.encode(sign_of_life(ManualClock())))) == 1
    exporter.close()


def test_health_is_the_worst_open_alert() -> None:
    found = health_of(
        [("default", "churn"), ("default", "fraud")],
        [
            {"tenant": "default", "endpoint": "churn", "severity": severity}
            for severity in ("warning", "emergency", "info")
        ]
        + [{"tenant": "other", "endpoint": "fraud", "severity": "critical"}],
    )
    assert found == [Health("default", "churn", "emergency"), Health("default", "fraud")]
