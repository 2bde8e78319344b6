"""The learner's part: from events of the rings to tables."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from predis.cache.predictor.learning import TableLearner
from predis.cache.ring import Flag
from predis.cache.ring_reader import EVENT
from predis.cache.sources.pattern import Matcher, Pattern

SOURCES = {
    name: SimpleNamespace(name=name, matched=Pattern(pattern))
    for name, pattern in {
        "session": "session:{u}",
        "prefs": "prefs:{u}",
        "order": "order:{id:int}",
        "customer": "customer:{id}",
    }.items()
}
MATCH = Matcher([(source.matched, source) for source in SOURCES.values()]).match


def _events(reads: Sequence[tuple[int, int, bytes]], *, flags: int = int(Flag.WHOLE)) -> np.ndarray[Any, Any]:
    """``reads``: microseconds, client, key."""
    events = np.zeros(len(reads), dtype=EVENT)
    for event, (us, client, key) in zip(events, reads, strict=True):
        event["us"], event["client"], event["flags"], event["length"] = us, client, flags, len(key)
        event["key"] = key[:96]
    return events


def _visits(n: int, *, gap_us: int) -> list[tuple[int, int, bytes]]:
    return [
        read
        for i in range(n)
        for read in (
            (i * 1_000_000, i % 3, b"session:%d" % (i * 17)),
            (i * 1_000_000 + gap_us, i % 3, b"prefs:%d" % (i * 17)),
        )
    ]


def _rules(learner: TableLearner) -> list[str]:
    return [str(one.rule) for one in learner.compile().rules]


def test_a_rule_between_two_sources_is_learnt() -> None:
    learner = TableLearner(MATCH, delay_s=0.01)
    learner.take("0", _events(_visits(60, gap_us=20_000)))
    assert _rules(learner) == ["session:{a} -> prefs:{a}"]
    tables = learner.compile()
    assert [key for _, key in tables.after(b"session:x", SOURCES["session"], value=None)] == [b"prefs:x"]


def test_what_comes_sooner_than_a_load_takes_is_no_rule() -> None:
    learner = TableLearner(MATCH, delay_s=0.01)
    learner.take("0", _events(_visits(60, gap_us=5_000)))
    assert _rules(learner) == []


def test_keys_without_a_source_and_single_samples_are_left_out() -> None:
    learner = TableLearner(MATCH)
    learner.take("0", _events([(i * 50_000, 1, b"other:%d" % i) for i in range(100)]))
    learner.take("0", _events(_visits(60, gap_us=20_000), flags=int(Flag.SPATIAL)))
    learner.take("0", _events([(0, 1, b"session:" + b"1" * 200)]))
    assert learner.reads == 0


def test_clients_of_two_workers_are_not_one() -> None:
    learner = TableLearner(MATCH)
    for i in range(60):
        learner.take("0", _events([(i * 1_000_000, 1, b"session:%d" % (i * 17))]))
        learner.take("1", _events([(i * 1_000_000 + 50_000, 1, b"prefs:%d" % (i * 17))]))
    assert _rules(learner) == []


def test_values_lead_to_keys() -> None:
    customers = {b"order:%d" % (i * 100): b'{"customer": "c%d"}' % (i * 31) for i in range(60)}
    learner = TableLearner(MATCH, peek=lambda keys: [customers.get(key) for key in keys], peeks=1_000)
    reads = []
    for i, value in enumerate(customers.values()):
        reads.append((i * 1_000_000, 1, b"order:%d" % (i * 100)))
        reads.append((i * 1_000_000 + 50_000, 1, b"customer:" + value[14:-2]))
    learner.take("0", _events(reads))
    assert "order:{a} -> customer:{value.customer}" in _rules(learner)


def test_values_looked_at_are_bounded() -> None:
    asked: list[int] = []

    def peek(keys: Sequence[bytes]) -> Sequence[bytes | None]:
        asked.append(len(keys))
        return [None] * len(keys)

    TableLearner(MATCH, peek=peek, peeks=10).take("0", _events(_visits(500, gap_us=20_000)))
    assert asked == [10]
