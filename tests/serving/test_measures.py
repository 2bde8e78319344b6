from __future__ import annotations

from pathlib import Path

import pytest

from predis import errors
from predis.metrics import Metrics, collected
from predis.serving.measures import Totals, VersionMetrics


def made(metrics: Metrics, tenant: str = "default", version: int = 1) -> VersionMetrics:
    return VersionMetrics(metrics, tenant, endpoint="e", version=version)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (errors.InvalidRequest, "rejected"),
        (errors.TooLarge, "rejected"),
        (errors.Overloaded, "shed"),
        (errors.TenantOverloaded, "shed"),
        (errors.NotReady, "shed"),
        (errors.DeadlineExceeded, "late"),
        (errors.ModelFailure, "failed"),
        (errors.PredisError, "failed"),
    ],
)
def test_a_refusal_is_counted_by_its_kind(error: type[errors.PredisError], outcome: str) -> None:
    counted = made(Metrics(None, "test"))
    counted.refused(error("no"))
    found = {name: getattr(counted, name).value for name in ("ok", "rejected", "shed", "late", "failed")}
    assert found == {**dict.fromkeys(found, 0), outcome: 1}


def test_a_batch_counts_its_requests_and_one_from_a_cache_only_itself(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "serving-0")
    counted, other = made(metrics), made(metrics, "other")
    counted.predicted(5, 0.25, requests=[0.5, 0.75], queued=[0.125, 0.0])
    counted.cached(0.001)
    counted.refused(errors.ModelFailure("no"))
    other.predicted(100, 9.0, requests=[9.0], queued=[9.0])
    totals = Totals(collected(tmp_path), "default", endpoint="e", version=1)
    assert (totals.outcome("ok"), totals.outcome("ok", "failed"), totals.outcome("shed")) == (3, 4, 0)
    assert totals.rows() == 5
    assert totals.spent("predis_request_seconds") == (3, 1_251_000_000)
    assert totals.spent("predis_queue_seconds") == (2, 125_000_000)
    assert totals.spent("predis_predict_seconds") == (1, 250_000_000)
    assert totals.last_ms() > 1_700_000_000_000
    metrics.close()


def test_of_a_version_that_nobody_asked_nothing_is_counted(tmp_path: Path) -> None:
    totals = Totals(collected(tmp_path), "default", endpoint="e", version=1)
    assert (totals.outcome("ok"), totals.rows(), totals.last_ms()) == (0, 0, 0)
    assert totals.spent("predis_request_seconds") == (0, 0)
