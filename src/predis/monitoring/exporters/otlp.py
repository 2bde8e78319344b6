"""OTLP over HTTP: metrics to ``/v1/metrics`` and alerts as log records to ``/v1/logs``, for any OpenTelemetry collector; New Relic too.

A collector gets sums since this exporter began (cumulative), which survive a batch that was lost; New Relic gets what was added
(delta), which it asks for. The messages are built from their published definitions, not with OpenTelemetry's SDK: that would count
everything a second time, and in one process only.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from predis import __version__
from predis.errors import InvalidInput, InvalidSetting, MissingExtra
from predis.monitoring.exporters.batch import Batch, Exporter, Notice, Sample, Tags
from predis.monitoring.exporters.naming import tags_of, words_of
from predis.monitoring.exporters.posting import Poster
from predis.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as MetricMessage

NEW_RELIC_KEY = "NEW_RELIC_LICENSE_KEY"
POINTS = 1_000  # in one request: below New Relic's 1 MB with room to spare
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
_UNITS = {"seconds": "s", "bytes": "By", "rows": "{row}"}  # UCUM, as OpenTelemetry wants it
_LEVELS = {"info": 9, "warning": 13, "critical": 17, "emergency": 21}  # INFO, WARN, ERROR, FATAL

HttpRequest = tuple[str, bytes]  # path and body


class Otlp(Exporter[HttpRequest]):
    """Sends to a collector.

    Args:
        url: base URL; ``/v1/metrics`` and ``/v1/logs`` are appended.
        headers: such as a key.
        delta: send what was added, not sums.

    Raises:
        MissingExtra: OpenTelemetry's message definitions are not installed.
    """

    name = "otlp"
    takes_notices = True

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        tags: Tags = (),
        timeout_s: float = 5.0,
        delta: bool = False,
    ) -> None:
        super().__init__()
        try:
            import opentelemetry.proto.collector.metrics.v1.metrics_service_pb2  # noqa: F401
        except ImportError:
            raise MissingExtra.of("opentelemetry-exporter-otlp-proto-http", "otel") from None
        self._tags = tags
        self._delta = delta
        self._poster = Poster(url, headers=headers or {}, timeout_s=timeout_s)

    @classmethod
    def of(cls, settings: Settings, environ: Mapping[str, str]) -> Otlp:
        """
        Raises:
            InvalidSetting: no collector is named.
        """
        url = settings.otel_endpoint or environ.get(_ENDPOINT, "")
        if not url:
            raise InvalidSetting(f"the exporter otlp needs otel_endpoint, or {_ENDPOINT} in the environment")
        headers = {}
        for word in words_of(environ.get(_HEADERS, "")):
            name, _, value = word.partition("=")
            headers[name.strip()] = unquote(value.strip())
        tags, timeout_s = tags_of(settings.export_tags), settings.export_timeout_s
        return cls(url, headers=headers, tags=tags, timeout_s=timeout_s)

    def encode(self, batch: Batch) -> Iterator[HttpRequest]:
        samples = (sample for sample in batch.samples if not (self._delta and sample.idle))
        while part := list(islice(samples, POINTS)):
            yield "/v1/metrics", self._metrics(part, batch)
        if batch.notices:
            yield "/v1/logs", self._logs(batch.notices)

    def deliver(self, request: HttpRequest) -> None:
        path, body = request
        answer = self._poster.post(path, body, content_type="application/x-protobuf")
        if path == "/v1/metrics":
            _check_taken(answer)

    def _metrics(self, samples: Iterable[Sample], batch: Batch) -> bytes:
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        message = ExportMetricsServiceRequest()
        resource = message.resource_metrics.add()
        resource.resource.attributes.extend(self._resource())
        scope = resource.scope_metrics.add()
        scope.scope.name = "predis"
        for metric, group in groupby(samples, key=lambda sample: sample.metric):
            own = scope.metrics.add(
                name=metric.name, description=metric.help, unit=_UNITS.get(metric.unit, "1")
            )
            for sample in group:
                self._point(own, sample, batch=batch)
        return bytes(message.SerializeToString())

    def _point(self, message: MetricMessage, sample: Sample, *, batch: Batch) -> None:
        from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality as Temporality

        metric, attributes = sample.metric, _attributes(sample.labels)
        cells = sample.delta if self._delta else sample.total
        temporality = (
            Temporality.AGGREGATION_TEMPORALITY_DELTA
            if self._delta
            else Temporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        )
        moments: dict[str, Any] = {"time_unix_nano": batch.at_ns, "attributes": attributes}
        if metric.kind == "gauge":
            message.gauge.data_points.add(as_double=cells[0], **moments)
            return
        moments["start_time_unix_nano"] = batch.began_ns if self._delta else batch.origin_ns
        if metric.kind == "counter":
            message.sum.is_monotonic = True
            message.sum.aggregation_temporality = temporality
            message.sum.data_points.add(as_double=cells[0], **moments)
            return
        counts = [round(count) for count in cells[:-1]]
        message.histogram.aggregation_temporality = temporality
        message.histogram.data_points.add(
            count=sum(counts), sum=cells[-1], bucket_counts=counts, explicit_bounds=metric.buckets, **moments
        )

    def _logs(self, notices: Sequence[Notice]) -> bytes:
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

        message = ExportLogsServiceRequest()
        resource = message.resource_logs.add()
        resource.resource.attributes.extend(self._resource())
        scope = resource.scope_logs.add()
        scope.scope.name = "predis"
        for notice in notices:
            record = scope.log_records.add(
                time_unix_nano=notice.at_ns,
                severity_number=_LEVELS["info"] if notice.resolved else _LEVELS.get(notice.severity, 9),
                severity_text="RESOLVED" if notice.resolved else notice.severity.upper(),
                attributes=_attributes((*notice.labels, ("incident", notice.incident))),
            )
            record.body.string_value = f"{notice.title}. {notice.text}"
        return bytes(message.SerializeToString())

    def _resource(self) -> list[KeyValue]:
        return _attributes((("service.name", "predis"), ("service.version", __version__), *self._tags))


class NewRelic(Otlp):
    """New Relic's OTLP endpoint."""

    name = "newrelic"

    @classmethod
    def of(cls, settings: Settings, environ: Mapping[str, str]) -> NewRelic:
        """
        Raises:
            InvalidSetting: there is no key in the environment.
        """
        key = environ.get(NEW_RELIC_KEY)
        if not key:
            raise InvalidSetting(
                f"the exporter newrelic needs a licence key in the environment variable {NEW_RELIC_KEY}"
            )
        return cls(
            settings.newrelic_url,
            headers={"api-key": key},
            tags=tags_of(settings.export_tags),
            timeout_s=settings.export_timeout_s,
            delta=True,
        )


def _attributes(pairs: Sequence[tuple[str, str]]) -> list[KeyValue]:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

    return [KeyValue(key=name, value=AnyValue(string_value=value)) for name, value in pairs]


def _check_taken(answer: bytes) -> None:
    """
    Raises:
        InvalidInput: the backend took the request and refused points in it.
    """
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

    try:
        partial = ExportMetricsServiceResponse.FromString(answer).partial_success
    except DecodeError:
        return  # a proxy's own words; the status said yes
    if partial.rejected_data_points:
        raise InvalidInput(f"{partial.rejected_data_points} points were refused: {partial.error_message}")
