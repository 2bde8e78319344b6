"""Grafana dashboards, made from the table of metrics: import them, or put them where Grafana provisions from.

Three: the overview of all endpoints, one endpoint, and the inside of the processes. Each row of the table has its panel: what has an
endpoint stands on the endpoint's dashboard, everything else on that of the inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from predis.metrics import TABLE, Metric

SCHEMA = 39  # Grafana 10.4; later ones bring it up to theirs
_RATE = "$__rate_interval"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_UNITS = {"seconds": "s", "bytes": "bytes"}
_COLUMNS, _WIDTH, _HEIGHT = 24, 12, 8
_ONE = 'job=~"$job", tenant=~"$tenant", endpoint=~"$endpoint"'
_ALL = 'job=~"$job"'

Json = dict[str, Any]


@dataclass(frozen=True)
class Panel:
    """A chart: PromQL by the legend that its series bear."""

    title: str
    queries: Mapping[str, str]
    unit: str = "short"
    help: str = ""
    kind: str = "timeseries"


def dashboards() -> dict[str, Json]:
    """All dashboards by file name."""
    return {
        "predis-overview.json": _dashboard("predis-overview", "Predis: overview", panels=_overview()),
        "predis-endpoint.json": _dashboard("predis-endpoint", "Predis: endpoint", panels=_endpoint(), names=("tenant", "endpoint")),
        "predis-inside.json": _dashboard("predis-inside", "Predis: inside", panels=_inside()),
    }  # fmt: skip


def _overview() -> list[Panel]:
    rate = f"sum by (tenant, endpoint) (rate(predis_requests_total{{{_ALL}}}[{_RATE}]))"
    bad = f'sum by (tenant, endpoint) (rate(predis_requests_total{{{_ALL}, outcome=~"failed|shed|deadline"}}[{_RATE}]))'
    slow = f"sum by (tenant, endpoint, le) (rate(predis_request_seconds_bucket{{{_ALL}}}[{_RATE}]))"
    hits = f"sum by (tenant, endpoint) (rate(predis_cache_hits_total{{{_ALL}}}[{_RATE}]))"
    misses = f"sum by (tenant, endpoint) (rate(predis_cache_misses_total{{{_ALL}}}[{_RATE}]))"
    of = "{{tenant}}/{{endpoint}}"
    return [
        Panel("Requests a second", {"": f"sum(rate(predis_requests_total{{{_ALL}}}[{_RATE}]))"}, "reqps", kind="stat"),
        Panel("Open alerts", {"{{severity}}": f"sum by (severity) (predis_alerts_open{{{_ALL}}})"}, kind="stat"),
        Panel("Evidence behind", {"": f"max(predis_ingest_lag_seconds{{{_ALL}}})"}, "s", kind="stat"),
        Panel("Requests by endpoint", {of: rate}, "reqps"),
        Panel("Share that failed, was shed or came too late", {of: f"{bad} / {rate}"}, "percentunit"),
        Panel("p99 of an answer", {of: f"histogram_quantile(0.99, {slow})"}, "s"),
        Panel("Share answered from the cache", {of: f"{hits} / ({hits} + {misses})"}, "percentunit"),
        Panel("Newest Route", {of: f"max by (tenant, endpoint) (predis_route{{{_ALL}}})"}, "none"),
        Panel(
            "Rollouts and retrainings that ended",
            {
                "rollout {{state}}": f"sum by (state) (increase(predis_rollouts_total{{{_ALL}}}[1h]))",
                "retraining {{outcome}}": f"sum by (outcome) (increase(predis_retrainings_total{{{_ALL}}}[1h]))",
            },
        ),
    ]  # fmt: skip


def _endpoint() -> list[Panel]:
    return [_of_metric(metric, _ONE) for metric in TABLE.values() if "endpoint" in metric.labels]


def _inside() -> list[Panel]:
    return [_of_metric(metric, _ALL) for metric in TABLE.values() if "endpoint" not in metric.labels]


def _of_metric(metric: Metric, selector: str) -> Panel:
    """A row of the table as a panel: counters by their rate, histograms by three quantiles, gauges as they are."""
    labels = [label for label in (*metric.labels, metric.by) if label and label not in ("tenant", "endpoint")]
    legend = " ".join(f"{{{{{label}}}}}" for label in labels)
    title = metric.name.removeprefix("predis_").removesuffix("_total").replace("_", " ").capitalize()
    unit = "percentunit" if metric.name.endswith("_ratio") else _UNITS.get(metric.unit, "short")
    if metric.name.endswith("_time_seconds"):  # a moment, which is shown by how long ago it was
        expr = f"time() - max by ({', '.join(labels)}) ({metric.name}{{{selector}}})"
        return Panel(f"{title.removesuffix(' time seconds')}: how long ago", {legend: expr}, "s", metric.help)
    if metric.kind == "gauge":
        over = "max" if metric.by else "sum"  # what a process says of itself is no part of a sum
        return Panel(title, {legend: _over(metric.name, selector, by=labels, over=over)}, unit, metric.help)
    if metric.kind == "counter":
        of = _over(f"rate({metric.name}", selector, by=labels, after=f"[{_RATE}])")
        return Panel(
            f"{title} a second", {legend: of}, "short" if metric.unit == "seconds" else "cps", metric.help
        )
    of = _over(f"rate({metric.name}_bucket", selector, by=[*labels, "le"], after=f"[{_RATE}])")
    queries = {f"p{q * 100:.0f} {legend}": f"histogram_quantile({q}, {of})" for q in (0.5, 0.95, 0.99)}
    return Panel(title, queries, unit, metric.help)


def _over(before: str, selector: str, *, by: Iterable[str], after: str = "", over: str = "sum") -> str:
    labels = ", ".join(by)
    return f"{over}{f' by ({labels})' if labels else ''} ({before}{{{selector}}}{after})"


def _dashboard(uid: str, title: str, *, panels: Iterable[Panel], names: Iterable[str] = ()) -> Json:
    laid = _laid_out(list(panels))
    variables = [_datasource(), _variable("job", "label_values(predis_process_start_time_seconds, job)")]
    selector = 'job=~"$job"'
    for name in names:
        variables.append(_variable(name, f"label_values(predis_requests_total{{{selector}}}, {name})"))
        selector += f', {name}=~"${name}"'
    return {
        "uid": uid, "title": title, "tags": ["predis"], "schemaVersion": SCHEMA, "version": 1, "editable": True,
        "refresh": "30s", "time": {"from": "now-3h", "to": "now"}, "timezone": "browser",
        "templating": {"list": variables}, "annotations": {"list": []},
        "links": [{"type": "dashboards", "title": "Predis", "tags": ["predis"], "asDropdown": True, "keepTime": True}],
        "panels": laid,
    }  # fmt: skip


def _laid_out(panels: list[Panel]) -> list[Json]:
    """Charts in two columns, single numbers before them in one row."""
    found: list[Json] = []
    x = y = height = 0
    numbers = sum(panel.kind == "stat" for panel in panels)
    for panel in panels:
        width, wanted = (_COLUMNS // numbers, 4) if panel.kind == "stat" else (_WIDTH, _HEIGHT)
        if x + width > _COLUMNS or (height and wanted != height):
            x, y = 0, y + height
        height = wanted
        found.append(_panel(panel, len(found) + 1, grid={"x": x, "y": y, "w": width, "h": height}))
        x += width
    return found


def _panel(panel: Panel, number: int, *, grid: Json) -> Json:
    targets = [
        {
            "refId": chr(ord("A") + at),
            "expr": expr,
            "legendFormat": legend or panel.title,
            "datasource": _SOURCE,
        }
        for at, (legend, expr) in enumerate(panel.queries.items())
    ]
    return {
        "id": number, "type": panel.kind, "title": panel.title, "description": panel.help,
        "datasource": _SOURCE, "gridPos": grid, "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": {"tooltip": {"mode": "multi"}} if panel.kind == "timeseries" else {},
    }  # fmt: skip


def _datasource() -> Json:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _variable(name: str, query: str) -> Json:
    return {
        "name": name, "type": "query", "datasource": _SOURCE, "query": {"query": query, "refId": name},
        "definition": query, "multi": True, "includeAll": True, "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]}, "refresh": 2, "sort": 1,
    }  # fmt: skip
