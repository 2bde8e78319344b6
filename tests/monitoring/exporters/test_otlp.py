from __future__ import annotations

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from predis.errors import InvalidInput, InvalidSetting
from predis.monitoring.exporters.otlp import POINTS, NewRelic, Otlp
from predis.settings import Settings
from tests.monitoring.exporters.given import (
    AT_NS,
    BEGAN_NS,
    ORIGIN_NS,
    Receiver,
    batch,
    counter,
    gauge,
    notice,
    seconds,
)

CUMULATIVE, DELTA = 2, 1


def metrics(receiver: Receiver) -> dict[str, object]:
    found = {}
    for body in receiver.bodies("/v1/metrics"):
        (resource,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
        assert resource.resource.attributes[0].value.string_value == "predis"
        for metric in resource.scope_metrics[0].metrics:
            found[metric.name] = metric
    return found


def test_a_collector_gets_sums_since_it_began(receiver: Receiver) -> None:
    Otlp(receiver.url, tags=(("environment", "prod"),)).send(batch(counter(3, 90), gauge(2), seconds()))
    ((_, headers, _),) = receiver.seen
    assert headers["content-type"] == "application/x-protobuf"
    found = metrics(receiver)
    requests = found["predis_requests_total"].sum
    (point,) = requests.data_points
    assert (requests.is_monotonic, requests.aggregation_temporality, point.as_double) == (
        True,
        CUMULATIVE,
        90,
    )
    assert (point.start_time_unix_nano, point.time_unix_nano) == (ORIGIN_NS, AT_NS)
    assert {a.key: a.value.string_value for a in point.attributes}["outcome"] == "ok"
    assert found["predis_alerts_open"].gauge.data_points[0].as_double == 2
    times = found["predis_request_seconds"]
    (point,) = times.histogram.data_points
    assert (times.unit, point.count, point.bucket_counts[0], point.sum) == ("s", 12, 8, 0.0304)
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1


def test_new_relic_gets_what_was_added(receiver: Receiver) -> None:
    settings = Settings(newrelic_url=receiver.url)
    exporter = NewRelic.of(settings, {"NEW_RELIC_LICENSE_KEY": "k"})
    exporter.send(batch(counter(3, 90), counter(0, 90), seconds()))
    assert receiver.seen[0][1]["api-key"] == "k"
    found = metrics(receiver)
    (point,) = found["predis_requests_total"].sum.data_points
    assert (point.as_double, point.start_time_unix_nano) == (3, BEGAN_NS)
    assert found["predis_requests_total"].sum.aggregation_temporality == DELTA
    assert found["predis_request_seconds"].histogram.data_points[0].count == 6


def test_alerts_are_log_records(receiver: Receiver) -> None:
    Otlp(receiver.url).send(batch(notices=(notice(), notice(resolved=True))))
    (body,) = receiver.bodies("/v1/logs")
    raised, resolved = ExportLogsServiceRequest.FromString(body).resource_logs[0].scope_logs[0].log_records
    assert (raised.severity_number, raised.severity_text) == (17, "CRITICAL")
    assert (resolved.severity_number, resolved.severity_text) == (9, "RESOLVED")
    assert raised.body.string_value.startswith("[CRITICAL] churn v3: performance. AUC fell")


def test_large_batches_are_divided(receiver: Receiver) -> None:
    Otlp(receiver.url).send(batch(*[counter(n, n) for n in range(1, POINTS + 2)]))
    points = [
        len(
            ExportMetricsServiceRequest.FromString(body)
            .resource_metrics[0]
            .scope_metrics[0]
            .metrics[0]
            .sum.data_points
        )
        for body in receiver.bodies("/v1/metrics")
    ]
    assert points == [POINTS, 1]


def test_points_that_a_collector_refuses_are_told_of(receiver: Receiver) -> None:
    answer = ExportMetricsServiceResponse()
    answer.partial_success.rejected_data_points = 7
    answer.partial_success.error_message = "too many labels"
    receiver.replies = [(200, answer.SerializeToString())]
    with pytest.raises(InvalidInput, match="7 points were refused: too many labels"):
        Otlp(receiver.url).send(batch(gauge(1)))


def test_where_it_goes(receiver: Receiver) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20x, team=a",
    }
    Otlp.of(Settings(), environ).send(batch(gauge(1)))
    headers = receiver.seen[0][1]
    assert (headers["authorization"], headers["team"]) == ("Bearer x", "a")
    with pytest.raises(InvalidSetting, match="otel_endpoint"):
        Otlp.of(Settings(), {})
    with pytest.raises(InvalidSetting, match="NEW_RELIC_LICENSE_KEY"):
        NewRelic.of(Settings(), {})
