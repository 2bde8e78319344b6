from __future__ import annotations

import json
import socket

import pytest

from predis.errors import InvalidSetting, Unavailable
from predis.monitoring.exporters import Health
from predis.monitoring.exporters.datadog import SERIES, Datadog
from predis.settings import Settings
from tests.monitoring.exporters.given import AT_NS, Receiver, batch, counter, gauge, notice, seconds

AT_S = AT_NS // 1_000_000_000
OWN = ["environment:prod", "tenant:default", "endpoint:churn", "version:3"]


def datadog(receiver: Receiver) -> Datadog:
    return Datadog(receiver.url, key="k", tags=(("environment", "prod"),))


def test_series(receiver: Receiver) -> None:
    datadog(receiver).send(batch(counter(3, 90), counter(0, 90), gauge(2), seconds()))
    ((path, headers, body),) = receiver.seen
    assert (path, headers["dd-api-key"]) == ("/api/v2/series", "k")
    series = {one["metric"]: one for one in json.loads(body)["series"]}
    assert series["predis_requests_total"] == {
        "metric": "predis_requests_total",
        "type": 1,
        "interval": 15,
        "points": [{"timestamp": AT_S, "value": 3}],
        "tags": [*OWN, "outcome:ok"],
    }
    assert series["predis_alerts_open"]["type"] == 3
    values = {name: one["points"][0]["value"] for name, one in series.items()}
    assert values["predis_request_seconds.count"] == 6
    assert values["predis_request_seconds.sum"] == 0.0152
    assert values["predis_request_seconds.p50"] == pytest.approx(0.000075)
    assert 0.005 < values["predis_request_seconds.p95"] < values["predis_request_seconds.p99"] <= 0.01


def test_events_and_checks(receiver: Receiver) -> None:
    health = (Health("default", "churn", "critical"), Health("default", "fraud"))
    datadog(receiver).send(batch(notices=(notice(), notice(resolved=True)), health=health))
    raised, resolved = map(json.loads, receiver.bodies("/api/v1/events"))
    assert (raised["alert_type"], resolved["alert_type"]) == ("error", "success")
    assert raised["aggregation_key"] == resolved["aggregation_key"] == "predis-c0ffee"
    assert (raised["title"], raised["date_happened"]) == (notice().title, AT_S)
    (checks,) = map(json.loads, receiver.bodies("/api/v1/check_run"))
    assert [(check["check"], check["status"]) for check in checks] == [
        ("predis.endpoint", 2),
        ("predis.endpoint", 0),
    ]
    assert checks[0]["host_name"] == socket.gethostname()


def test_large_batches_are_divided_and_nothing_is_sent_twice(receiver: Receiver) -> None:
    receiver.replies = [(202, b""), (503, b"later")]
    exporter, given = datadog(receiver), batch(*[counter(n, n) for n in range(1, 2 * SERIES + 2)])
    with pytest.raises(Unavailable):
        exporter.send(given)
    exporter.send(given)
    counts = [len(json.loads(body)["series"]) for body in receiver.bodies("/api/v2/series")]
    assert counts == [SERIES, SERIES, SERIES, 1]


def test_the_key_comes_from_the_environment() -> None:
    with pytest.raises(InvalidSetting, match="DD_API_KEY"):
        Datadog.of(Settings(), {})
    Datadog.of(Settings(), {"DD_API_KEY": "k", "DD_SITE": "datadoghq.eu"})
