"""Datadog's HTTP API, for where there is no agent: metrics, events for alerts, a service check for each endpoint.

The API takes no buckets, and a distribution only as single values. A histogram therefore becomes ``NAME.count`` and ``NAME.sum``,
which add up over everything, and gauges ``NAME.p50``, ``.p95`` and ``.p99`` of the interval. Whoever wants quantiles that can be
aggregated runs the agent and the exporter ``dogstatsd``.

https://docs.datadoghq.com/api/latest/metrics/#submit-metrics
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import orjson

from predis.errors import InvalidSetting
from predis.monitoring.exporters.batch import Batch, Exporter, Notice, Sample, Tags
from predis.monitoring.exporters.histograms import quantile
from predis.monitoring.exporters.naming import tags_of
from predis.monitoring.exporters.posting import Poster
from predis.monitoring.exporters.statsd import ALERT_TYPES, CHECK_NAME, CHECK_STATES, tag
from predis.settings import Settings

KEY = "DD_API_KEY"
SERIES = 1_000  # in one request, some 200 kB
QUANTILES = (0.5, 0.95, 0.99)
_COUNT, _GAUGE = 1, 3
_NS = 1_000_000_000

HttpRequest = tuple[str, bytes]  # path and body


class Datadog(Exporter[HttpRequest]):
    """Sends to ``POST /api/v2/series``, ``/api/v1/events`` and ``/api/v1/check_run``."""

    name = "datadog"
    takes_notices = True

    def __init__(self, url: str, *, key: str, tags: Tags = (), timeout_s: float = 5.0) -> None:
        super().__init__()
        self._tags = tags
        self._host = socket.gethostname()
        self._poster = Poster(url, headers={"DD-API-KEY": key}, timeout_s=timeout_s)

    @classmethod
    def of(cls, settings: Settings, environ: Mapping[str, str]) -> Datadog:
        """
        Raises:
            InvalidSetting: there is no key in the environment.
        """
        if not environ.get(KEY):
            raise InvalidSetting(f"the exporter datadog needs an API key in the environment variable {KEY}")
        url = settings.datadog_url or f"https://api.{environ.get('DD_SITE') or 'datadoghq.com'}"
        tags, timeout_s = tags_of(settings.export_tags), settings.export_timeout_s
        return cls(url, key=environ[KEY], tags=tags, timeout_s=timeout_s)

    def encode(self, batch: Batch) -> Iterator[HttpRequest]:
        series = (one for sample in batch.samples if not sample.idle for one in self._series(sample, batch))
        while part := list(islice(series, SERIES)):
            yield "/api/v2/series", orjson.dumps({"series": part})
        for notice in batch.notices:
            yield "/api/v1/events", orjson.dumps(self._event(notice))
        if batch.health:
            yield "/api/v1/check_run", orjson.dumps(self._checks(batch))

    def deliver(self, request: HttpRequest) -> None:
        path, body = request
        self._poster.post(path, body)

    def _series(self, sample: Sample, batch: Batch) -> Iterator[dict[str, Any]]:
        name, cells = sample.metric.name, sample.delta
        values = {name: cells[0]}
        kinds = {name: _GAUGE if sample.metric.kind == "gauge" else _COUNT}
        if sample.metric.kind == "histogram":
            values = {f"{name}.count": sum(cells[:-1]), f"{name}.sum": cells[-1]}
            kinds = dict.fromkeys(values, _COUNT)
            for q in QUANTILES:
                values[f"{name}.p{q * 100:.0f}"] = quantile(sample.metric.buckets, cells, q=q) or 0.0
        seconds = max(1, round((batch.at_ns - batch.began_ns) / _NS))
        for own, value in values.items():
            kind = kinds.get(own, _GAUGE)
            yield {
                "metric": own,
                "type": kind,
                "points": [{"timestamp": batch.at_ns // _NS, "value": value}],
                "tags": self._tagged(sample.labels),
                **({"interval": seconds} if kind == _COUNT else {}),
            }

    def _event(self, notice: Notice) -> dict[str, Any]:
        return {
            "title": notice.title,
            "text": notice.text,
            "date_happened": notice.at_ns // _NS,
            "alert_type": "success" if notice.resolved else ALERT_TYPES.get(notice.severity, "info"),
            "aggregation_key": f"predis-{notice.incident}",
            "source_type_name": "predis",
            "tags": self._tagged(notice.labels),
        }

    def _checks(self, batch: Batch) -> list[dict[str, Any]]:
        return [
            {
                "check": CHECK_NAME,
                "host_name": self._host,
                "status": CHECK_STATES.get(health.severity, 0),
                "timestamp": batch.at_ns // _NS,
                "message": f"worst open alert: {health.severity}" if health.severity else "",
                "tags": self._tagged((("tenant", health.tenant), ("endpoint", health.endpoint))),
            }
            for health in batch.health
        ]

    def _tagged(self, labels: Sequence[tuple[str, str]]) -> list[str]:
        return [tag(name, value) for name, value in (*self._tags, *labels)]
