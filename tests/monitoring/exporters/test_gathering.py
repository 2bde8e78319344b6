from __future__ import annotations

from pathlib import Path

from predis.clock import ManualClock
from predis.metrics import Metrics
from predis.monitoring.exporters import Batch, Health, Sample
from predis.monitoring.exporters.gathering import Gathering

LABELS = {"tenant": "default", "endpoint": "churn", "version": "3"}


def find(batch: Batch, name: str) -> list[Sample]:
    return [sample for sample in batch.samples if sample.metric.name == name]


def test_what_was_there_before_is_nobodys_news(tmp_path: Path, clock: ManualClock) -> None:
    metrics = Metrics(tmp_path, "serving-0")
    rows = metrics.counter("predis_rows_total", **LABELS)
    rows.add(100)
    gathering = Gathering(tmp_path, clock=clock)
    origin = clock.time_ns()
    assert [sample.delta for sample in find(gathering.gather(), "predis_rows_total")] == [(0.0,)]
    clock.advance(15)
    rows.add(5)
    second = gathering.gather([Health("default", "churn")])
    assert [(s.delta, s.total) for s in find(second, "predis_rows_total")] == [((5.0,), (5.0,))]
    assert (second.origin_ns, second.began_ns, second.at_ns) == (origin, origin, origin + 15_000_000_000)
    assert second.health == (Health("default", "churn"),)
    clock.advance(15)
    rows.add(2)
    third = gathering.gather()
    assert [(s.delta, s.total) for s in find(third, "predis_rows_total")] == [((2.0,), (7.0,))]
    assert third.began_ns == second.at_ns
    metrics.close()


def test_a_series_that_comes_later_counts_from_nothing(tmp_path: Path, clock: ManualClock) -> None:
    metrics = Metrics(tmp_path, "serving-0")
    gathering = Gathering(tmp_path, clock=clock)
    gathering.gather()
    metrics.counter("predis_rows_total", **LABELS).add(4)
    metrics.histogram("predis_batch_rows", **LABELS).observe([1.0, 1.0, 7.0])
    metrics.gauge("predis_alerts_open", severity="critical").set(2)
    found = gathering.gather()
    assert find(found, "predis_rows_total")[0].delta == (4.0,)
    (rows,) = find(found, "predis_batch_rows")
    assert (rows.delta[0], rows.delta[3], rows.delta[-1]) == (2, 1, 9)
    assert find(found, "predis_alerts_open")[0].delta == (2.0,)
    metrics.close()


def test_a_lost_file_takes_nothing_back(tmp_path: Path, clock: ManualClock) -> None:
    metrics = Metrics(tmp_path, "serving-0")
    gathering = Gathering(tmp_path, clock=clock)
    gathering.gather()
    metrics.counter("predis_rows_total", **LABELS).add(10)
    gathering.gather()
    metrics.close()
    (tmp_path / "serving-0.bin").unlink()
    metrics = Metrics(tmp_path, "serving-0")
    metrics.counter("predis_rows_total", **LABELS).add(3)
    (sample,) = find(gathering.gather(), "predis_rows_total")
    assert (sample.delta, sample.total) == ((3.0,), (13.0,))
    metrics.close()


def test_only_some_metrics(tmp_path: Path, clock: ManualClock) -> None:
    metrics = Metrics(tmp_path, "serving-0")
    metrics.counter("predis_rows_total", **LABELS).add()
    metrics.counter("predis_requests_total", **LABELS, outcome="ok").add()
    metrics.gauge("predis_connections").set(1)
    gathering = Gathering(tmp_path, clock=clock, only=("predis_r*", "predis_connections"))
    names = {sample.metric.name for sample in gathering.gather().samples}
    assert names == {"predis_rows_total", "predis_requests_total", "predis_connections"}
    metrics.close()
