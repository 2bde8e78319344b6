"""Evidence for rollouts: exactly what two versions did since the mark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predis.clock import ManualClock
from predis.monitoring.evidence import EvidenceReader, Mark, Side
from predis.state import Database
from predis.state.records import Status
from tests import toys
from tests.toys import ENDPOINT, TENANT, Installation, record

SLOW_S = 0.05
NONE: Mark = Mark(0)


@pytest.fixture
def installation(database: Database, home: Path, clock: ManualClock) -> Iterator[Installation]:
    with toys.installed(database, home, clock) as found:
        found.register(data=False)
        found.create_endpoint()
        yield found


@pytest.fixture
def reader(database: Database) -> EvidenceReader:
    return EvidenceReader(database)


def side(reader: EvidenceReader, version: int = 1, *, mark: Mark = NONE, slow_s: float = SLOW_S) -> Side:
    return reader.side(TENANT, ENDPOINT, version=version, mark=mark, slow_s=slow_s)


def send(installation: Installation, *ids: str, label: int | None = None, **other: Any) -> None:
    for prediction in ids:
        given = {"at": installation.clock.time_ns(), **other}
        installation.journal.append(record(prediction, **given))
    if label is not None:
        labels = [{"id": prediction, "label": label} for prediction in ids]
        installation.platform.feedback.store(TENANT, ENDPOINT, labels=labels)
    installation.digest()


def test_nothing_yet(installation: Installation, reader: EvidenceReader) -> None:
    assert side(reader) == Side()
    assert reader.mark(TENANT, ENDPOINT, now=5) == Mark(5, {})
    assert reader.p99_s(TENANT, ENDPOINT, version=1) is None
    send(installation, "failed", status=Status.FAILED)
    assert reader.p99_s(TENANT, ENDPOINT, version=1) is None


def test_counts(installation: Installation, reader: EvidenceReader) -> None:
    send(installation, "a", "b", "c", latency_us=1_000)
    send(installation, "d", latency_us=80_000)
    send(installation, "e", status=Status.FAILED, latency_us=900_000)
    send(installation, "f", version=2)
    assert side(reader) == Side(requests=5, failed=1, slow=1)
    assert side(reader, 2) == Side(requests=1)
    assert reader.p99_s(TENANT, ENDPOINT, version=1) == pytest.approx(0.08, rel=0.05)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("latency_us", "slow"), [(49_000, 0), (53_500, 1), (200_000_000, 1), (1, 0)])
def test_slow_is_wholly_above_the_limit(
    installation: Installation, reader: EvidenceReader, *, latency_us: int, slow: int
) -> None:
    send(installation, "a", latency_us=latency_us)
    assert side(reader).slow == slow


def test_pairs_are_made_of_matured_labels(installation: Installation, reader: EvidenceReader) -> None:
    rng = np.random.default_rng(2)
    won = 0.0
    for place, (positive, negative) in enumerate(rng.random((20, 2)).round(1)):
        send(installation, f"p{place}", scores=[positive], label=1)
        send(installation, f"n{place}", scores=[negative], label=0)
        won += 1.0 if positive > negative else 0.5 if positive == negative else 0.0
    send(installation, "unlabelled")
    found = side(reader)
    assert (found.labels, found.pairs, found.wins) == (40, 20, won)


def test_what_came_before_the_mark_does_not_count(installation: Installation, reader: EvidenceReader) -> None:
    send(installation, "a", "b", scores=[0.9], label=1, latency_us=90_000)
    send(installation, "c", scores=[0.1], label=0)
    send(installation, "d", status=Status.FAILED)
    installation.clock.advance(1)
    mark = reader.mark(TENANT, ENDPOINT, now=installation.clock.time_ns())
    assert side(reader, mark=mark) == Side()
    send(installation, "e", scores=[0.2], label=1, latency_us=70_000)
    send(installation, "f", scores=[0.3], label=0)
    send(installation, "g", status=Status.FAILED)
    assert side(reader, mark=mark) == Side(requests=3, failed=1, slow=1, labels=2, wins=0.0, pairs=1)
    assert side(reader) == Side(requests=7, failed=2, slow=3, labels=5, wins=1.0, pairs=2)


def test_labels_that_come_late_do_not_count_for_predictions_before_the_mark(
    installation: Installation, reader: EvidenceReader
) -> None:
    send(installation, "before", scores=[0.9])
    installation.clock.advance(1)
    mark = reader.mark(TENANT, ENDPOINT, now=installation.clock.time_ns())
    send(installation, "after", scores=[0.8])
    labels = [{"id": "before", "label": 0}, {"id": "after", "label": 1}]
    installation.platform.feedback.store(TENANT, ENDPOINT, labels=labels)
    installation.digest()
    assert (side(reader, mark=mark).labels, side(reader).labels) == (1, 2)


def test_a_version_that_first_answers_after_the_mark(
    installation: Installation, reader: EvidenceReader
) -> None:
    mark = reader.mark(TENANT, ENDPOINT, now=installation.clock.time_ns())
    send(installation, "a", version=2, label=1)
    assert side(reader, 2, mark=mark) == Side(requests=1, labels=1)


def test_a_mark_survives_its_row(installation: Installation, reader: EvidenceReader) -> None:
    """It is stored as JSON."""
    send(installation, "a", "b", label=1)
    mark = reader.mark(TENANT, ENDPOINT, now=installation.clock.time_ns())
    again = json.loads(json.dumps(asdict(mark)))
    send(installation, "c", label=0)
    expected = side(reader, mark=mark)
    assert expected.requests == 1
    assert side(reader, mark=Mark(again["at"], again["counters"])) == expected
