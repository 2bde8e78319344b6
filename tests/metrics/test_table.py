from __future__ import annotations

import re

import pytest

from predis.metrics import TABLE, Metric
from scripts import reference

metrics = pytest.mark.parametrize("metric", TABLE.values(), ids=list(TABLE))


@metrics
def test_names_and_labels_are_prometheus_own(metric: Metric) -> None:
    assert re.fullmatch(r"predis_[a-z0-9_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    for label in (*metric.labels, metric.by):
        assert re.fullmatch(r"[a-z]*", label)
        assert label not in ("le", "quantile")
    if metric.unit:
        assert metric.name.removesuffix("_total").endswith(f"_{metric.unit}")


@metrics
def test_buckets_belong_to_histograms_and_rise(metric: Metric) -> None:
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))


@metrics
def test_every_metric_is_documented(metric: Metric) -> None:
    page = (reference.FOLDER / "metrics.md").read_text("utf-8")
    assert metric.help.endswith(".")
    assert f"`{metric.name}`" in page
    assert " ".join(metric.help.split()) in page
