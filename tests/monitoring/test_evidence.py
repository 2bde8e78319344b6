"""Evidence for rollouts: exactly what two versions did since the mark, in the arm that is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predis.clock import NANOSECONDS, ManualClock
from predis.expressions import Expression, compile_expression
from predis.monitoring.evidence import Compared, EvidenceReader, Mark, Side
from predis.monitoring.tally import SLOT
from predis.state import Database
from predis.state.records import Arm, Status
from predis.stats import AucPairs, Moments, latency, score_buckets
from tests.monitoring.worlds import BASELINE, CANDIDATE, World
from tests.toys import ENDPOINT, TENANT

NONE = Mark(0)
BOTH = (BASELINE, CANDIDATE)
only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def world(database: Database, home: Path, clock: ManualClock) -> Iterator[World]:
    found = World(database, home, clock)
    yield found
    found.writer.close()


@pytest.fixture
def reader(database: Database) -> EvidenceReader:
    return EvidenceReader(database)


def sides(
    reader: EvidenceReader, arm: Arm | None = None, *, mark: Mark = NONE, reward: str = ""
) -> tuple[Side, Side]:
    return reader.sides(TENANT, ENDPOINT, versions=BOTH, arm=arm, mark=mark, reward=expression(reward))


def expression(text: str) -> Expression | None:
    return compile_expression(text, names=("label", "score", "value")) if text else None


def mark_of(reader: EvidenceReader, world: World) -> Mark:
    """A mark of this moment; what comes later comes at a later moment."""
    world.clock.advance(1)
    return reader.mark(TENANT, ENDPOINT, now=world.clock.time_ns())


def figures(side: Side) -> tuple[Any, ...]:
    """A side as something that can be compared."""
    values = dict(vars(side))
    rewards = values.pop("rewards")
    counts = [values.pop(name).tolist() for name in ("latency", "scores")]
    return (*values.values(), *counts, rewards.n, pytest.approx(rewards.mean), pytest.approx(rewards.m2))


def shown(side: Side) -> tuple[int, int, int, int, int]:
    return side.requests, side.failed, int(side.latency.sum()), int(side.scores.sum()), side.labels


class TestSides:
    def test_nothing_yet(self, world: World, reader: EvidenceReader) -> None:
        for arm in (None, *Arm):
            for side in sides(reader, arm, reward="label"):
                assert figures(side) == figures(Side())
        assert reader.mark(TENANT, ENDPOINT, now=5) == Mark(5, {})
        assert reader.latency(TENANT, ENDPOINT, version=BASELINE) is None

    def test_arms_are_apart(self, world: World, reader: EvidenceReader) -> None:
        world.answer("a", "b", latency_us=1_000, scores=[0.25])
        world.answer("c", arm=Arm.COMPARED, latency_us=80_000, scores=[0.75, 0.5])
        world.answer("d", arm=Arm.COMPARED, status=Status.FAILED)
        world.answer("e", arm=Arm.COMPARED, version=CANDIDATE, status=Status.REJECTED)
        world.copy("a", "b", "c", latency_us=2_000)
        world.label("a", "c")
        world.digest()
        compared, all_, shadow = (sides(reader, arm) for arm in (Arm.COMPARED, None, Arm.SHADOW))
        assert [shown(side) for side in compared] == [(2, 1, 1, 2, 1), (1, 1, 0, 0, 0)]
        assert [shown(side) for side in all_] == [(4, 1, 3, 4, 2), (1, 1, 0, 0, 0)]
        assert [shown(side) for side in shadow] == [(4, 1, 3, 4, 2), (3, 0, 3, 3, 2)]
        assert compared[0].latency.tolist() == latency.count([0.08]).tolist()
        assert compared[0].scores.tolist() == score_buckets.count([0.75, 0.5]).tolist()
        assert shadow[1].latency.tolist() == latency.count([0.002] * 3).tolist()

    def test_pairs_are_made_of_matured_labels(self, world: World, reader: EvidenceReader) -> None:
        rng = np.random.default_rng(2)
        won = 0.0
        for place, (positive, negative) in enumerate(rng.random((20, 2)).round(1)):
            world.answer(f"p{place}", scores=[positive])
            world.answer(f"n{place}", scores=[negative])
            world.look()
            world.label(f"p{place}", label=1)
            world.label(f"n{place}", label=0)
            world.clock.advance(1)
            won += 1.0 if positive > negative else 0.5 if positive == negative else 0.0
        world.answer("unlabelled")
        world.digest()
        found, _ = sides(reader)
        assert (found.labels, found.pairs, found.wins) == (40, 20, won)

    def test_of_compared_traffic_only_its_own_labels_count(
        self, world: World, reader: EvidenceReader
    ) -> None:
        world.answer("a", "b", scores=[0.9])
        world.answer("c", arm=Arm.COMPARED, scores=[0.1])
        world.look()
        for name, label in (("a", 0), ("c", 1), ("b", 0)):
            world.label(name, label=label)
            world.clock.advance(1)
            world.mature()
        assert [(s.labels, s.pairs, s.wins) for s in sides(reader, Arm.COMPARED)] == [
            (1, 0, 0.0),
            (0, 0, 0.0),
        ]
        assert [(s.labels, s.pairs, s.wins) for s in sides(reader)] == [(3, 1, 0.0), (0, 0, 0.0)]


class TestRewards:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("value", [2.5, -1.0]),
            ("value if label else 0", [2.5, 0, -1.0]),
            ("label * 10 - score", [9.5, -0.5, 9.5, 9.5]),
            ("label == 1", [1, 0, 1, 1]),
            ("None", []),
            ("'gold'", []),
            ("value * 1e15 * 1e15 * 1e15 * 1e15 * 1e15 * 1e15 * 1e15 * 1e15", []),
        ],
    )
    @only_sqlite
    def test_what_gives_no_number_is_not_counted(
        self, world: World, reader: EvidenceReader, *, text: str, expected: list[float]
    ) -> None:
        world.answer("a", "b", "c", "d")
        world.look()
        world.label("a", value=2.5)
        world.label("b", label=0)
        world.label("c", value=-1)
        world.label("d")
        world.mature()
        if text == "value if label else 0":
            expected = [2.5, 0, -1.0]  # of "d" nobody knows
        found, other = sides(reader, reward=text)
        assert found.labels == 4
        assert found.rewards == Moments.of(expected)
        assert other.rewards == Moments()

    @only_sqlite
    def test_another_expression_counts_anew(self, world: World, reader: EvidenceReader) -> None:
        world.answer("a", "b")
        world.look()
        world.label("a", "b", value=7)
        world.mature()
        assert sides(reader, reward="value")[0].rewards == Moments(2, 7.0, 0.0)
        assert sides(reader, reward="label")[0].rewards == Moments(2, 1.0, 0.0)
        assert sides(reader)[0].rewards == Moments()


class TestMark:
    def test_what_came_before_does_not_count(self, world: World, reader: EvidenceReader) -> None:
        for arm in (Arm.ORDINARY, Arm.COMPARED):
            world.answer(f"a{arm}", f"b{arm}", arm=arm, scores=[0.9], latency_us=90_000)
        world.copy("a0", "b1", scores=[0.9], answers=[0.4])
        world.label("a0", "a1", "b1", label=1, value=5)
        world.digest()
        mark = mark_of(reader, world)
        for arm in (None, Arm.COMPARED, Arm.SHADOW):
            assert [shown(side) for side in sides(reader, arm, mark=mark, reward="value")] == [(0,) * 5] * 2
        assert reader.shadow(TENANT, ENDPOINT, version=CANDIDATE, mark=mark) == Compared()
        world.answer("e", arm=Arm.COMPARED, scores=[0.2], latency_us=70_000)
        world.copy("e", scores=[0.3], answers=[0.2])
        world.look()
        world.label("e", "b0", value=3)
        world.mature()
        for arm in (None, Arm.COMPARED, Arm.SHADOW):
            base, other = sides(reader, arm, mark=mark, reward="value")
            assert shown(base) == (1, 0, 1, 1, 1)
            assert base.rewards == Moments(1, 3.0, 0.0)
            assert base.latency.tolist() == latency.count([0.07]).tolist()
            assert shown(other) == ((1, 0, 1, 1, 1) if arm is Arm.SHADOW else (0,) * 5)
        assert shown(sides(reader)[0]) == (5, 0, 5, 5, 5)

    def test_labels_that_come_late_do_not_count_for_requests_before(
        self, world: World, reader: EvidenceReader
    ) -> None:
        world.answer("before", scores=[0.9])
        world.copy("before")
        world.look()
        mark = mark_of(reader, world)
        world.answer("after", scores=[0.8])
        world.copy("after")
        world.look()
        world.label("before", label=0)
        world.label("after")
        world.mature()
        assert [side.labels for side in sides(reader, mark=mark)] == [1, 0]
        assert [side.labels for side in sides(reader, Arm.SHADOW, mark=mark)] == [1, 1]
        assert [side.labels for side in sides(reader, Arm.SHADOW)] == [2, 2]

    @only_sqlite
    def test_a_version_or_an_arm_that_is_new(self, world: World, reader: EvidenceReader) -> None:
        world.answer("before")
        world.digest()
        mark = mark_of(reader, world)
        world.answer("a", version=CANDIDATE)
        world.answer("b", arm=Arm.COMPARED)
        world.label("a", "b")
        world.digest()
        assert [shown(side) for side in sides(reader, mark=mark)] == [(1, 0, 1, 1, 1)] * 2

    def test_survives_its_row(self, world: World, reader: EvidenceReader) -> None:
        """It is stored as JSON."""
        world.answer("a", "b", arm=Arm.COMPARED)
        world.copy("a", "b", scores=[0.2], answers=[0.7])
        world.label("a", "b")
        world.digest()
        mark = mark_of(reader, world)
        again = Mark(**json.loads(json.dumps(asdict(mark))))
        assert again == mark
        world.answer("c")
        world.copy("c", scores=[0.4], answers=[0.5])
        world.digest()
        for arm in (None, Arm.COMPARED, Arm.SHADOW):
            found, expected = (
                sides(reader, arm, mark=again),
                sides(EvidenceReader(world.database), arm, mark=mark),
            )
            assert [figures(side) for side in found] == [figures(side) for side in expected]
        assert reader.shadow(TENANT, ENDPOINT, version=CANDIDATE, mark=again).rows == 1

    @only_sqlite
    def test_is_small(self, world: World, reader: EvidenceReader) -> None:
        rng = np.random.default_rng(1)
        for place, took in enumerate(rng.lognormal(8, 1, 500)):
            for version in BOTH:
                name = f"{version}-{place}"
                world.answer(name, version=version, scores=[rng.random()], latency_us=round(took))
        world.look()
        assert len(json.dumps(asdict(mark_of(reader, world)))) < 2_000

    @only_sqlite
    def test_of_some_versions(self, world: World, reader: EvidenceReader) -> None:
        for version in (1, 2, 3):
            world.answer(f"a{version}", version=version)
        world.copy("a1", version=3)
        world.look()
        mark = reader.mark(TENANT, ENDPOINT, now=1, versions=(1, 3))
        assert mark.counters.keys() == {"1:0", "3:0", "3:2"}
        assert reader.mark(TENANT, ENDPOINT, now=1).counters.keys() == {"1:0", "2:0", "3:0", "3:2"}


class TestShadow:
    def test_both_sides_are_about_the_same_rows(self, world: World, reader: EvidenceReader) -> None:
        rng = np.random.default_rng(7)
        answered, scored = AucPairs(), AucPairs()
        worths: list[tuple[float, float]] = []
        for place in range(60):
            (answer, score), label = rng.random(2).round(2), int(rng.random() < 0.5)
            name, copied = f"p{place}", place % 3 != 0
            world.answer(name, scores=[answer])
            if copied:
                world.copy(name, scores=[score], answers=[answer])
            world.look()
            world.label(name, label=label, value=place)
            world.mature()
            world.clock.advance(1)
            if copied:
                answered.update([answer], [label])
                scored.update([score], [label])
                worths.append((place * answer, place * score))
        base, candidate = sides(reader, Arm.SHADOW, reward="value * score")
        assert (base.requests, candidate.requests) == (60, 40)
        assert base.labels == candidate.labels == 40
        assert (base.pairs, base.wins) == (answered.pairs, answered.wins)
        assert (candidate.pairs, candidate.wins) == (scored.pairs, scored.wins)
        for side, column in ((base, 0), (candidate, 1)):
            expected = Moments.of([worth[column] for worth in worths])
            assert (side.rewards.n, side.rewards.mean) == (40, pytest.approx(expected.mean))

    def test_compared(self, world: World, reader: EvidenceReader) -> None:
        assert reader.shadow(TENANT, ENDPOINT, version=CANDIDATE, mark=NONE) == Compared()
        world.copy("a", scores=[0.2, 0.6], answers=[0.5, 0.5])
        world.look()
        found = reader.shadow(TENANT, ENDPOINT, version=CANDIDATE, mark=NONE)
        assert (found.rows, found.flips, found.worst) == (2, 1, pytest.approx(0.3))
        assert (found.difference.n, found.difference.mean) == (2, pytest.approx(-0.1))
        mark = mark_of(reader, world)
        later = [(0.5, 0.45), (0.3, 0.31), (0.9, 0.85)]
        for place, (score, answer) in enumerate(later):
            world.copy(f"b{place}", scores=[score], answers=[answer])
        world.look()
        found = reader.shadow(TENANT, ENDPOINT, version=CANDIDATE, mark=mark)
        assert (found.rows, found.flips) == (3, 1)
        expected = Moments.of([score - answer for score, answer in later])
        assert (found.difference.mean, found.difference.m2) == pytest.approx((expected.mean, expected.m2))
        assert 0.05 <= found.worst < 0.07  # within a bucket: it was worse before the mark
        world.copy("c", scores=[1.0], answers=[0.0])
        world.look()
        assert reader.shadow(TENANT, ENDPOINT, version=CANDIDATE, mark=mark).worst == 1.0


class TestIncrementally:
    @pytest.mark.parametrize("seed", range(3))
    def test_one_reader_over_time_and_a_new_one_agree(
        self, world: World, reader: EvidenceReader, seed: int
    ) -> None:
        """Whatever comes in whatever order, after every look."""
        rng = np.random.default_rng(seed)
        waiting: list[str] = []
        mark = NONE
        for step in range(40):
            if step == 15:
                mark = mark_of(reader, world)
            names = [f"{step}-{place}" for place in range(int(rng.integers(1, 6)))]
            for name in names:
                score, version = rng.random(), int(rng.choice(BOTH))
                status = Status(int(rng.choice(3, p=[0.8, 0.1, 0.1])))
                arm = Arm(int(rng.integers(0, 2)))
                world.answer(name, scores=[score], version=version, arm=arm, status=status)
                if status is Status.OK and rng.random() < 0.5:
                    world.copy(name, scores=[rng.random()], answers=[score])
            waiting += names
            rng.shuffle(waiting)
            size = int(rng.integers(0, 6))
            sent, waiting = waiting[:size], waiting[size:]
            for name in sent:
                world.label(name, label=int(rng.integers(0, 2)), value=float(rng.normal()))
                world.clock.advance(1)
            for work in (world.look, world.mature):
                if rng.random() < 0.7:
                    work()
            for arm_asked in (None, Arm.COMPARED, Arm.SHADOW):
                found = sides(reader, arm_asked, mark=mark, reward="value + score")
                fresh = sides(EvidenceReader(world.database), arm_asked, mark=mark, reward="value + score")
                assert [figures(side) for side in found] == [figures(side) for side in fresh]


class TestRecent:
    def test_whole_seconds_of_what_was_answered(self, world: World, reader: EvidenceReader) -> None:
        start = world.clock.time_ns() // SLOT * SLOT
        for second in range(5):
            at = start + second * NANOSECONDS
            world.answer(f"a{second}", f"b{second}", at=at + 7, arm=Arm.COMPARED, latency_us=3_000)
            world.answer(f"c{second}", at=at + 9, status=Status.FAILED)
            world.answer(f"d{second}", at=at + 9, version=CANDIDATE, status=Status.REJECTED)
            world.copy(f"a{second}", at=at + 9)
        world.look()
        found = reader.recent(TENANT, ENDPOINT, version=BASELINE, since=start + 2 * SLOT)
        assert (found.requests, found.failed) == (9, 3)
        assert found.latency.tolist() == latency.count([0.003] * 6).tolist()
        found = reader.recent(TENANT, ENDPOINT, version=BASELINE, since=start + 2 * SLOT + 1)
        assert (found.requests, found.failed) == (6, 2)
        found = reader.recent(TENANT, ENDPOINT, version=CANDIDATE, since=start)
        assert (found.requests, found.failed, found.latency.sum()) == (5, 5, 0)
        assert reader.recent(TENANT, ENDPOINT, version=3, since=start).requests == 0


@only_sqlite
def test_latency_of_all_time(world: World, reader: EvidenceReader) -> None:
    world.answer("failed", status=Status.FAILED)
    world.copy("a", version=BASELINE, latency_us=9_000_000)
    world.look()
    assert reader.latency(TENANT, ENDPOINT, version=BASELINE) is None
    world.answer("a", latency_us=2_000)
    world.answer("b", latency_us=4_000, arm=Arm.COMPARED)
    world.look()
    found = reader.latency(TENANT, ENDPOINT, version=BASELINE)
    assert found is not None
    assert found.tolist() == latency.count([0.002, 0.004]).tolist()
