from __future__ import annotations

import logging
import threading

import pytest

from predis.errors import InvalidInput, Unavailable
from predis.metrics import Metrics
from predis.monitoring.exporters import Batch, Courier, Exporter
from predis.monitoring.exporters import courier as module
from tests.installation import wait_for
from tests.monitoring.exporters.given import batch, counter


class Backend(Exporter[Batch]):
    """Takes batches while ``open``; else it holds whoever comes, or fails with ``fault``."""

    name = "backend"

    def __init__(self, *faults: Exception) -> None:
        super().__init__()
        self.faults = list(faults)
        self.taken: list[Batch] = []
        self.open = threading.Event()
        self.open.set()
        self.asked = threading.Event()
        self.closed = False

    def encode(self, batch: Batch) -> list[Batch]:
        return [batch]

    def deliver(self, request: Batch) -> None:
        self.asked.set()
        assert self.open.wait(20)
        if self.faults:
            raise self.faults.pop(0)
        self.taken.append(request)

    def close(self) -> None:
        self.closed = True


def counts(metrics: Metrics) -> tuple[float, float, float]:
    """Batches taken, batches dropped, tries that failed."""
    names = ("batches", "dropped", "failures")
    return tuple(metrics.counter(f"predis_export_{name}_total", exporter="backend").value for name in names)  # type: ignore[return-value]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(None, "control")


def courier(backend: Backend, metrics: Metrics, *, room: int = 240) -> Courier:
    return Courier(backend, metrics=metrics, room=room, first_wait_s=0.001, longest_wait_s=0.01)


def test_batches_arrive_in_order(metrics: Metrics) -> None:
    backend, given = Backend(), [batch() for _ in range(5)]
    sender = courier(backend, metrics)
    for one in given:
        sender.put(one)
    sender.close()
    assert [id(one) for one in backend.taken] == [id(one) for one in given]
    assert counts(metrics) == (5, 0, 0)
    assert backend.closed


def test_a_backend_that_comes_back_gets_what_waited(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    backend = Backend(*[Unavailable("connection refused")] * 4)
    sender = courier(backend, metrics)
    sender.put(batch())
    sender.put(batch())
    wait_for(lambda: len(backend.taken) == 2)
    sender.close()
    assert counts(metrics) == (2, 0, 4)
    told = [record.message for record in caplog.records]
    assert told == [
        "backend takes no metrics: connection refused; they wait until it does",
        "backend takes metrics again",
    ]


def test_a_slow_backend_delays_nobody_and_the_oldest_goes_first(metrics: Metrics) -> None:
    backend = Backend()
    backend.open.clear()
    sender = courier(backend, metrics, room=3)
    given = [batch() for _ in range(6)]
    sender.put(given[0])
    assert backend.asked.wait(20)
    for one in given[1:]:
        sender.put(one)  # returns, though nothing is taken
    assert counts(metrics) == (0, 3, 0)
    backend.open.set()
    sender.close()
    assert [id(one) for one in backend.taken[1:]] == [id(one) for one in given[3:]]
    assert counts(metrics) == (3, 3, 0)


@pytest.mark.parametrize("fault", [InvalidInput("no such metric"), RuntimeError("a bug")])
def test_what_will_never_be_taken_is_dropped(metrics: Metrics, fault: Exception) -> None:
    backend = Backend(fault)
    sender = courier(backend, metrics)
    sender.put(batch())
    sender.put(batch())
    sender.close()
    assert len(backend.taken) == 1
    assert counts(metrics) == (1, 1, 1)


def test_closing_does_not_wait_for_a_dead_backend(metrics: Metrics) -> None:
    backend = Backend(*[Unavailable("away")] * 1_000_000)
    sender = Courier(backend, metrics=metrics, first_wait_s=3_600, longest_wait_s=3_600)
    sender.put(batch())
    sender.put(batch())
    assert backend.asked.wait(20)
    sender.close(timeout_s=20)
    assert backend.closed
    assert counts(metrics)[:2] == (0, 2)
    assert metrics.gauge("predis_export_waiting", exporter="backend").value == 0


def test_one_that_was_never_used_closes() -> None:
    Courier(Backend()).close()


def test_samples_that_wait_are_bounded(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOM_SAMPLES", 10)
    backend = Backend()
    backend.open.clear()
    sender = courier(backend, metrics)
    given = [batch(*[counter(1, 1)] * 4) for _ in range(5)]
    sender.put(batch())
    assert backend.asked.wait(20)
    for one in given:
        sender.put(one)
    large = batch(*[counter(1, 1)] * 50)  # alone it may be
    sender.put(large)
    backend.open.set()
    sender.close()
    assert backend.taken[-1] is large
    assert len(backend.taken) == 2
