from __future__ import annotations

from dataclasses import replace

import pytest

from predis.errors import InvalidInput, Unavailable
from predis.monitoring.exporters import Batch, Exporter
from tests.monitoring.exporters.given import batch, counter, gauge, notice, seconds


class Scripted(Exporter[int]):
    """Three requests a batch; ``faults`` are raised in turn, ``None`` lets one through."""

    name = "scripted"

    def __init__(self, *faults: Exception | None) -> None:
        super().__init__()
        self._faults = list(faults)
        self.taken: list[int] = []

    def encode(self, batch: Batch) -> list[int]:
        return [1, 2, 3]

    def deliver(self, request: int) -> None:
        fault = self._faults.pop(0) if self._faults else None
        if fault is not None:
            raise fault
        self.taken.append(request)


def test_a_batch_that_is_sent_again_goes_on_where_it_stopped() -> None:
    exporter, given = Scripted(None, Unavailable("away"), None, Unavailable("away")), batch()
    for _ in range(2):
        with pytest.raises(Unavailable):
            exporter.send(given)
    exporter.send(given)
    assert exporter.taken == [1, 2, 3]
    exporter.send(given)  # it was done with: now it is sent as a whole
    assert exporter.taken == [1, 2, 3, 1, 2, 3]


def test_another_batch_begins_anew() -> None:
    exporter = Scripted(None, Unavailable("away"))
    with pytest.raises(Unavailable):
        exporter.send(batch())
    exporter.send(batch())
    assert exporter.taken == [1, 1, 2, 3]


def test_what_is_refused_does_not_keep_the_rest() -> None:
    exporter = Scripted(None, InvalidInput("no such metric"))
    with pytest.raises(InvalidInput, match="no such metric"):
        exporter.send(batch())
    assert exporter.taken == [1, 3]


def test_idle_is_what_nothing_was_added_to() -> None:
    assert counter(0, 9).idle
    assert not counter(1, 9).idle
    assert not gauge(0).idle
    assert not seconds().idle


def test_a_notice_is_labelled_with_what_is_known() -> None:
    assert ("severity", "critical") in notice().labels
    summary = replace(notice(), endpoint="", kind="")
    assert summary.labels == (("tenant", "default"), ("severity", "critical"))
