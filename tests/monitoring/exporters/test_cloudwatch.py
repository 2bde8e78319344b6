from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from predis.errors import InvalidInput, InvalidSetting, Unavailable
from predis.metrics import TABLE
from predis.monitoring.exporters import Sample
from predis.monitoring.exporters.cloudwatch import METRICS, CloudWatch
from predis.settings import Settings
from tests.installation import free_ports, wait_for
from tests.monitoring.exporters.given import AT_NS, OK, Receiver, batch, counter, gauge, seconds

NAMESPACE = "Predis"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials and a region as AWS's own variables give them."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def moto(aws: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A CloudWatch of moto's, in a process of its own."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "moto.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
        )
        try:
            monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH", url)
            wait_for(lambda: _answers(port), patience_s=60)
            yield url
        finally:
            server.terminate()
            server.wait()


def _answers(port: int) -> bool:
    import socket

    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) == 0


def statistics(name: str, dimensions: list[dict[str, str]]) -> dict[str, Any]:
    client = boto3.client("cloudwatch")
    at = datetime.fromtimestamp(AT_NS / 1e9, UTC)
    found = client.get_metric_statistics(
        Namespace=NAMESPACE,
        MetricName=name,
        Dimensions=dimensions,
        StartTime=at - timedelta(minutes=5),
        EndTime=at + timedelta(minutes=5),
        Period=3600,
        Statistics=["Sum", "SampleCount", "Maximum"],
    )["Datapoints"]
    client.close()
    (point,) = found
    return dict(point)


@pytest.mark.slow
def test_moto_takes_it(moto: str) -> None:
    exporter = CloudWatch(NAMESPACE, tags=(("environment", "prod"),))
    exporter.send(batch(counter(3, 90), gauge(2), seconds()))
    exporter.send(batch(counter(4, 94)))
    exporter.close()
    own = [
        {"Name": name, "Value": value}
        for name, value in (
            ("environment", "prod"),
            ("tenant", "default"),
            ("endpoint", "churn"),
            ("version", "3"),
        )
    ]
    assert statistics("predis_requests_total", [*own, {"Name": "outcome", "Value": "ok"}])["Sum"] == 7
    times = statistics("predis_request_seconds", own)
    assert times["SampleCount"] == 6
    assert times["Sum"] == pytest.approx(4 * 0.00005 + 2 * 0.0075)


def test_requests_keep_to_the_limits(aws: None, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH", receiver.url)
    monkeypatch.setenv("AWS_DISABLE_REQUEST_COMPRESSION", "true")
    exporter = CloudWatch(NAMESPACE)
    given = [counter(n, n) for n in range(1, METRICS + 2)]
    assert [len(part) for part in exporter.encode(batch(*given))] == [METRICS, 1]
    long = tuple((name, "ß" * 1_000) for name, _ in OK)
    given = [Sample(TABLE["predis_requests_total"], long, (1.0,), (1.0,))] * 300
    exporter.send(batch(*given))
    assert 2 <= len(receiver.seen) <= 5
    assert all(len(body) <= 1_000_000 for _, _, body in receiver.seen)
    exporter.close()


def test_values_that_the_api_does_not_take(aws: None) -> None:
    exporter = CloudWatch(NAMESPACE)
    assert list(exporter.encode(batch(gauge(float("nan")), counter(0, 5)))) == []
    odd = Sample(TABLE["predis_rows_total"], (("tenant", "zürich"), ("endpoint", " ")), (1.0,), (1.0,))
    ((datum,),) = exporter.encode(batch(odd))
    assert datum["Dimensions"] == [{"Name": "tenant", "Value": "z_rich"}]
    exporter.close()


@pytest.mark.parametrize(
    ("status", "expected"), [(400, InvalidInput), (403, InvalidInput), (503, Unavailable)]
)
def test_verdicts(
    aws: None,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    expected: type[Exception],
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH", receiver.url)
    receiver.replies = [(status, b"{}")]
    exporter = CloudWatch(NAMESPACE)
    with pytest.raises(expected, match=f"answered {status}"):
        exporter.send(batch(gauge(1)))
    exporter.close()


def test_nobody_there(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH", f"http://127.0.0.1:{port}")
    exporter = CloudWatch.of(Settings(), {})
    with pytest.raises(Unavailable, match="CloudWatch does not answer"):
        exporter.send(batch(gauge(1)))
    exporter.close()


def test_a_region_is_needed(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(InvalidSetting, match="AWS_REGION"):
        CloudWatch(NAMESPACE)
