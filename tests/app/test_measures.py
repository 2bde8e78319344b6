from __future__ import annotations

from pathlib import Path

import pytest

from predis.app.measures import ControlMetrics
from predis.clock import ManualClock
from predis.errors import Unavailable
from predis.events import Bus, RetrainingEnded, RolloutEnded
from predis.metrics import Metrics
from predis.monitoring.ingest import CONSUMER
from predis.monitoring.store import MonitoringStore
from predis.state import Database
from predis.state.journal import Position

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def store(database: Database) -> MonitoringStore:
    return MonitoringStore(database)


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def metrics(tmp_path: Path) -> Metrics:
    return Metrics(tmp_path / "metrics", "control")


@pytest.fixture
def measures(metrics: Metrics, store: MonitoringStore, bus: Bus, clock: ManualClock) -> ControlMetrics:
    return ControlMetrics(metrics, store, bus=bus, clock=clock)


def moved(
    database: Database, stream: str, *, records: int, dropped: int = 0, consumer: str = CONSUMER
) -> None:
    """A consumer has come to a record; ``dropped`` are those it newly found missing."""
    with database.write() as connection:
        position = Position(1, 64, records)
        MonitoringStore(database).move(
            connection, consumer + stream, position=position, dropped=dropped, damaged=0
        )


def read(metrics: Metrics) -> float:
    return metrics.counter("predis_ingest_requests_total").value


def dropped(metrics: Metrics, stream: str) -> float:
    return metrics.counter("predis_journal_dropped_total", stream=stream).value


def test_what_was_read_is_counted_on(database: Database, metrics: Metrics, measures: ControlMetrics) -> None:
    measures.look()
    moved(database, "serving-0", records=100)
    moved(database, "serving-1", records=50, dropped=20)
    moved(database, "serving-0", records=70, consumer="log:")
    measures.look()
    assert (read(metrics), dropped(metrics, "serving-0"), dropped(metrics, "serving-1")) == (130, 0, 20)
    measures.look()
    moved(database, "serving-1", records=80, dropped=5)
    measures.look()
    assert (read(metrics), dropped(metrics, "serving-1")) == (155, 25)


def test_a_journal_that_began_anew_counts_on(
    database: Database, metrics: Metrics, measures: ControlMetrics
) -> None:
    moved(database, "serving-0", records=100)
    measures.look()
    moved(database, "serving-0", records=10)
    measures.look()
    moved(database, "serving-0", records=15)
    measures.look()
    assert read(metrics) == 105


def test_a_restarted_control_counts_what_the_one_before_had_no_time_for(
    database: Database,
    tmp_path: Path,
    metrics: Metrics,
    measures: ControlMetrics,
    store: MonitoringStore,
    clock: ManualClock,
) -> None:
    moved(database, "serving-0", records=100, dropped=10)
    measures.look()
    moved(database, "serving-0", records=120, dropped=5)
    metrics.close()
    again = Metrics(tmp_path / "metrics", "control")
    ControlMetrics(again, store, bus=Bus(), clock=clock).look()
    assert (read(again), dropped(again, "serving-0")) == (105, 15)


def test_the_lag_grows_until_all_is_read_even_without_a_database(
    metrics: Metrics, measures: ControlMetrics, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise Unavailable("the state database does not answer: gone")

    lag = metrics.gauge("predis_ingest_lag_seconds")
    monkeypatch.setattr(MonitoringStore, "journal_streams", away)
    clock.advance(7)
    with pytest.raises(Unavailable):
        measures.look()
    assert lag.value == 7
    measures.caught_up()
    clock.advance(2)
    with pytest.raises(Unavailable):
        measures.look()
    assert lag.value == 2


def test_alerts_are_counted_while_they_last(
    metrics: Metrics, measures: ControlMetrics, store: MonitoringStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted() -> dict[str, float]:
        measures.look()
        severities = ("info", "warning", "critical", "emergency")
        return {s: metrics.gauge("predis_alerts_open", severity=s).value for s in severities}

    assert set(counted().values()) == {0}
    severe = [{"severity": "critical"}, {"severity": "critical"}, {"severity": "info"}]
    monkeypatch.setattr(MonitoringStore, "open_alerts", lambda _: severe)
    assert counted() == {"info": 1, "warning": 0, "critical": 2, "emergency": 0}
    severe.clear()
    assert set(counted().values()) == {0}


def test_ends_are_counted_by_how_they_came(metrics: Metrics, bus: Bus, measures: ControlMetrics) -> None:
    ended = {"tenant": "default", "at_ns": 0, "endpoint": "e"}
    assert metrics.counter("predis_rollouts_total", state="aborted").value == 0
    for state in ("promoted", "promoted", "aborted"):
        bus.publish(RolloutEnded(**ended, rollout=1, candidate=2, state=state))  # type: ignore[arg-type]
    bus.publish(RetrainingEnded(**ended, run="r", outcome="rejected"))  # type: ignore[arg-type]
    assert metrics.counter("predis_rollouts_total", state="promoted").value == 2
    assert metrics.counter("predis_rollouts_total", state="aborted").value == 1
    assert metrics.counter("predis_retrainings_total", outcome="rejected").value == 1
