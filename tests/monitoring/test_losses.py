"""A concept that flips is found in the losses of some dozen labels, told until it is over, and not forgotten by a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from predis.clock import ManualClock
from predis.monitoring.alerts import Severity
from predis.monitoring.checks import Watched
from predis.monitoring.losses import LossWatches
from predis.state import Database
from predis.stats.drift import LossDetector, PageHinkleyDetector
from tests.toys import ENDPOINT, LABEL, TENANT, Installation, installed, table

WATCHED = Watched(TENANT, ENDPOINT, 1, "toy-model", {}, None, "binary")


@pytest.fixture
def toy(database: Database, home: Path, clock: ManualClock) -> Iterator[Installation]:
    with installed(database, home, clock) as found:
        found.register("x")
        found.create_endpoint()
        found.deploy(1)
        yield found


def flipped(rows: int, seed: int) -> pa.Table:
    found = table(rows, seed=seed)
    labels = pa.array(1.0 - np.asarray(found.column(LABEL)))
    return found.set_column(found.schema.get_field_index(LABEL), LABEL, labels)


def take_in(toy: Installation, rows: pa.Table) -> None:
    toy.label(toy.send(rows, version=1), rows)
    while toy.platform.ingest.look():
        pass
    while toy.platform.feedback.mature():
        pass


class TestFlip:
    def test_found_within_200_labels(self, toy: Installation) -> None:
        watches = LossWatches(toy.platform.database, toy.clock)
        take_in(toy, table(2_000, seed=5))
        assert watches.look(WATCHED) is None
        for batch in range(4):
            take_in(toy, flipped(50, seed=10 + batch))
            finding = watches.look(WATCHED)
            if finding:
                break
        assert finding is not None
        assert (finding.kind, finding.severity) == ("loss", Severity.WARNING)
        assert 2_000 <= finding.evidence["label"] < 2_200
        assert finding.evidence["recent"] > finding.evidence["before"]

    def test_the_monitor_raises_it(self, toy: Installation) -> None:
        take_in(toy, table(1_500, seed=5))
        toy.platform.monitor.look()
        take_in(toy, flipped(150, seed=11))
        found = toy.platform.monitor.findings(TENANT, ENDPOINT)
        assert any("the loss of version 1 rose" in each.message for each in found if each.kind == "loss")

    def test_a_restart_forgets_neither_losses_nor_the_alarm(self, toy: Installation) -> None:
        take_in(toy, table(2_000, seed=5))
        LossWatches(toy.platform.database, toy.clock).look(WATCHED)
        take_in(toy, flipped(200, seed=10))
        found = LossWatches(toy.platform.database, toy.clock).look(WATCHED)
        assert found is not None
        again = LossWatches(toy.platform.database, toy.clock).look(WATCHED)
        assert again is not None
        assert again.evidence["label"] == found.evidence["label"]

    def test_over_when_the_loss_is_back(self, toy: Installation) -> None:
        watches = LossWatches(toy.platform.database, toy.clock)
        for rows in (table(2_000, seed=5), flipped(200, seed=10)):
            take_in(toy, rows)
            found = watches.look(WATCHED)
        assert found is not None
        take_in(toy, table(1_500, seed=6))
        assert watches.look(WATCHED) is None

    def test_nothing_without_labels(self, toy: Installation) -> None:
        assert LossWatches(toy.platform.database, toy.clock).look(WATCHED) is None


@pytest.mark.parametrize("made", [LossDetector, PageHinkleyDetector])
@pytest.mark.parametrize("split", [0, 7, 640, 1_017])
def test_a_restored_detector_goes_on_as_if_nothing_had_happened(made: type, split: int) -> None:
    rng = np.random.default_rng(4)
    values = np.concatenate([rng.random(1_000) < 0.1, rng.random(400) < 0.6]).astype(float)
    whole, parts = made(), made()
    told: list[list[int]] = [[], []]
    for at, value in enumerate(values.tolist()):
        if at == split:
            fresh = made()
            fresh.restore(parts.to_dict())
            parts = fresh
        for detector, found in zip((whole, parts), told, strict=True):
            detector.update(value)
            if detector.drift_detected:
                found.append(at)
    assert told[0] == told[1]
    assert told[0]
