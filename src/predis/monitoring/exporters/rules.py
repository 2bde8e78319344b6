"""What Prometheus is set up with: recording and alerting rules for the metrics of ``TABLE``.

Recording rules are made from the rows: a rate for each counter of an endpoint, three quantiles for each histogram, and the error
ratios that the burn rates rest on. Names follow Prometheus' convention ``LEVEL:METRIC:OPERATION``. Dashboards do not need them.

Burn rates: https://sre.google/workbook/alerting-on-slos/, section 6.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from predis.metrics import TABLE, Metric

WINDOW = "5m"
QUANTILES = (0.5, 0.95, 0.99)
RATIO_WINDOWS = ("5m", "30m", "1h", "6h")
_BY = "job, tenant, endpoint"
_BAD = 'outcome=~"failed|shed|deadline"'  # what a client cannot help


@dataclass(frozen=True)
class Record:
    """A recording rule."""

    name: str
    expr: str


@dataclass(frozen=True)
class Alerting:
    """An alerting rule. ``look``: the command that digs deeper. ``hold``: how long the condition has to last."""

    name: str
    expr: str
    severity: str
    summary: str
    look: str
    hold: str = "0s"


def records() -> list[Record]:
    """Recording rules, in the table's order."""
    return [*_rates(), *_quantiles(), *_ratios()]


def _rates() -> Iterator[Record]:
    for metric in TABLE.values():
        if metric.kind == "counter" and "endpoint" in metric.labels:
            by = ", ".join(("job", *metric.labels))
            yield Record(
                f"{_level(metric)}:{_bare(metric)}:rate{WINDOW}",
                f"sum by ({by}) (rate({metric.name}[{WINDOW}]))",
            )


def _quantiles() -> Iterator[Record]:
    for metric in TABLE.values():
        if metric.kind == "histogram":
            by = ", ".join(("job", *metric.labels, "le"))
            rate = f"sum by ({by}) (rate({metric.name}_bucket[{WINDOW}]))"
            for q in QUANTILES:
                name = f"{_level(metric)}:{_bare(metric)}:p{q * 100:.0f}_{WINDOW}"
                yield Record(name, f"histogram_quantile({q}, {rate})")


def _ratios() -> Iterator[Record]:
    for window in RATIO_WINDOWS:
        yield Record(
            f"endpoint:predis_requests:bad_ratio{window}",
            f"sum by ({_BY}) (rate(predis_requests_total{{{_BAD}}}[{window}]))"
            f" / sum by ({_BY}) (rate(predis_requests_total[{window}]))",
        )


def _level(metric: Metric) -> str:
    return "_".join(metric.labels)


def _bare(metric: Metric) -> str:
    return metric.name.removesuffix("_total")


def alerts(*, objective: float = 0.999, job: str = "predis") -> list[Alerting]:
    """Alerting rules.

    Args:
        objective: share of requests that are to succeed.
        job: the name under which Prometheus scrapes Predis.
    """
    return [*_of_endpoints(objective), *_of_control(job), *_of_evidence()]


def _of_endpoints(objective: float) -> Iterator[Alerting]:
    endpoint = "{{ $labels.endpoint }}"
    for severity in ("critical", "emergency"):
        yield Alerting(
            f"Predis{severity.capitalize()}AlertOpen",
            f'max by (job, instance) (predis_alerts_open{{severity="{severity}"}}) > 0',
            severity, f"Predis has a {severity} alert open.", "predis alerts --open",
        )  # fmt: skip
    # 14.4 for an hour is 2 % of a month's budget, 6 for six hours 5 %. The short window ends the alert when it is over.
    for factor, long, short, severity in ((14.4, "1h", "5m", "critical"), (6.0, "6h", "30m", "warning")):
        limit = f"{factor * (1 - objective):.6g}"
        ratio = "endpoint:predis_requests:bad_ratio"
        yield Alerting(
            f"PredisErrorBudgetBurn{long}",
            f"{ratio}{long} > {limit} and {ratio}{short} > {limit}",
            severity, f"Endpoint {endpoint} burns its error budget {factor} times as fast as it may.",
            f"predis monitor {endpoint}", hold="2m",
        )  # fmt: skip
    yield Alerting(
        "PredisShedding",
        f'sum by ({_BY}) (rate(predis_requests_total{{outcome=~"shed|deadline"}}[5m])) > 0.01'
        f" * sum by ({_BY}) (rate(predis_requests_total[5m]))",
        "warning", f"More than 1 % of the requests to {endpoint} are too much at once, or too late.", "predis bench --help", hold="5m",
    )  # fmt: skip
    yield Alerting(
        "PredisRoutesDiffer",
        "max by (job, instance, tenant, endpoint) (predis_route) > min by (job, instance, tenant, endpoint) (predis_route)",
        "warning", f"Workers follow different Routes of {endpoint}.", "predis doctor", hold="2m",
    )  # fmt: skip


def _of_control(job: str) -> Iterator[Alerting]:
    yield Alerting(
        "PredisDown", f'up{{job="{job}"}} == 0',
        "emergency", "Predis at {{ $labels.instance }} does not answer Prometheus.", "predis doctor", hold="1m",
    )  # fmt: skip
    yield Alerting(
        "PredisMonitoringBehind",
        f'predis_ingest_lag_seconds > 60 or (up{{job="{job}"}} == 1 unless on (job, instance) predis_ingest_lag_seconds)',
        "critical", "Predictions are answered and not monitored: control does not read them.", "predis doctor", hold="2m",
    )  # fmt: skip
    yield Alerting(
        "PredisRestarting", "sum by (job, instance) (changes(predis_process_start_time_seconds[15m])) > 5",
        "warning", "Processes of Predis at {{ $labels.instance }} end again and again.", "predis doctor",
    )  # fmt: skip
    yield Alerting(
        "PredisExportFailing",
        "increase(predis_export_dropped_total[15m]) > 0 or predis_export_waiting > 20",
        "warning", "Metrics do not reach {{ $labels.exporter }}.", "predis export check", hold="2m",
    )  # fmt: skip
    yield Alerting(
        "PredisRetrainingFailed", 'increase(predis_retrainings_total{outcome="failed"}[15m]) > 0',
        "warning", "A retraining run failed.", "predis retrain --help",
    )  # fmt: skip


def _of_evidence() -> Iterator[Alerting]:
    lost = ("predis_journal_lost_total", "predis_journal_dropped_total")
    expr = " or ".join(f"sum by (job, instance) (increase({name}[15m])) > 0" for name in lost)
    yield Alerting(
        "PredisEvidenceLost", expr,
        "warning", "Predictions were answered that monitoring will never see.", "predis doctor",
    )  # fmt: skip
    yield Alerting(
        "PredisSeriesOverflow", "increase(predis_series_overflow_total[15m]) > 0",
        "warning", "There are more series than a process keeps; numbers stand under the label value 'other'.", "predis doctor",
    )  # fmt: skip


def rules(*, objective: float = 0.999, job: str = "predis") -> str:
    """The rule file: YAML, as Prometheus reads it."""
    lines = [
        "# Written by `predis export prometheus-rules`. Check it with: promtool check rules FILE",
        "groups:",
    ]
    lines += ["  - name: predis.records", "    rules:"]
    for record in records():
        lines += [f"      - record: {record.name}", f"        expr: {_text(record.expr)}"]
    lines += ["  - name: predis.alerts", "    rules:"]
    for alert in alerts(objective=objective, job=job):
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {_text(alert.expr)}",
            f"        for: {alert.hold}",
            f"        labels: {{severity: {alert.severity}}}",
            "        annotations:",
            f"          summary: {_text(alert.summary)}",
            f"          look: {_text(alert.look)}",
        ]
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    """A YAML text; JSON's are such."""
    return json.dumps(value, ensure_ascii=False)
