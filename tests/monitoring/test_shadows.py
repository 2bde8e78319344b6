"""Shadow copies: apart from everything that was answered, and with their label once, whichever comes first."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from predis.clock import ManualClock
from predis.monitoring.log import PredictionLog
from predis.monitoring.store import MonitoringStore, unpack_counts
from predis.state import Database
from predis.state.records import Arm, Status
from predis.state.schema import shadow_differences, shadow_predictions
from tests.monitoring.worlds import BASELINE, CANDIDATE, TARGET, World
from tests.toys import ENDPOINT, SECOND, TENANT

only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


class Crash(Exception):
    """The process dies here."""


@pytest.fixture
def world(database: Database, home: Path, clock: ManualClock) -> Iterator[World]:
    found = World(database, home, clock)
    yield found
    found.writer.close()


def differences(world: World) -> Any:
    with world.database.read() as connection:
        return connection.execute(sa.select(shadow_differences)).one()


class TestApart:
    def test_from_counters_slots_and_predictions(self, world: World) -> None:
        world.answer("a", "b")
        world.copy("a", "b")
        world.copy("c", status=Status.FAILED, answers=())
        world.look()
        (answered,) = world.store.all_counters(TENANT, ENDPOINT)
        assert (answered["version"], answered["requests"], answered["rows"]) == (BASELINE, 2, 2)
        slots = world.store.recent_slots(TENANT, ENDPOINT, since=0)
        assert [(slot["version"], slot["requests"]) for slot in slots] == [(BASELINE, 2)]
        key = {**TARGET, "version": CANDIDATE}
        assert world.store.predictions_between(key, first=0, last=2**62) == 0
        copied = world.counters(CANDIDATE, Arm.SHADOW)
        assert {name: copied[name] for name in ("requests", "failed", "rows", "duplicates")} == {
            "requests": 3, "failed": 1, "rows": 2, "duplicates": 0,
        }  # fmt: skip
        assert unpack_counts(copied["latency"]).sum() == unpack_counts(copied["scores"]).sum() == 2

    @only_sqlite
    def test_from_labels_that_others_learn_from_and_from_performance(self, world: World) -> None:
        names = [f"p{place}" for place in range(120)]
        world.answer(*names, scores=[0.25])
        world.copy(*names, scores=[0.75], answers=[0.25])
        world.look()
        world.label(*names)
        world.mature()
        assert len(world.store.labels_since(TENANT, ENDPOINT)) == 120
        assert world.store.performance({**TARGET, "version": CANDIDATE}) == []
        (window,) = world.store.performance({**TARGET, "version": BASELINE})
        assert window["coverage"] == pytest.approx(100 / 120)
        assert len(world.shadow_labels()) == 120

    @only_sqlite
    def test_in_the_log_with_what_was_answered(self, world: World) -> None:
        """They are told apart in the files, and not given to those who ask for answers."""
        world.answer("a", scores=[0.25])
        world.copy("a", scores=[0.75], answers=[0.25])
        world.copy("b", scores=[0.5], answers=[0.5], version=BASELINE)
        world.answer("b", scores=[0.5], version=CANDIDATE, arm=Arm.COMPARED)
        log = PredictionLog(
            world.database, world.journal, folder=world.journal.parent / "log", version=lambda _t, _e, *, number: None,
            clock=world.clock,
        )  # fmt: skip
        assert log.flush() == 4
        files = world.store.log_files(TENANT, ENDPOINT)
        assert len({file["path"] for file in files}) == len(files) == 4
        table = log.table(TENANT, ENDPOINT, columns=())
        rows = sorted((row["id"], row["version"], row["score"]) for row in table.to_pylist())
        assert rows == [("a", BASELINE, 0.25), ("b", CANDIDATE, 0.5)]

    def test_a_block_may_hold_every_arm(self, world: World) -> None:
        """Requests of a version are put together by the journal's reader, whatever brought them there."""
        for place in range(30):
            arm = (Arm.ORDINARY, Arm.COMPARED, Arm.SHADOW)[place % 3]
            status = Status.FAILED if arm is Arm.SHADOW else Status.OK
            world.answer(f"p{place}", arm=arm, status=status, latency_us=1_000 * (1 + arm))
        world.look()
        found = [world.counters(BASELINE, arm) for arm in Arm]
        assert [(row["requests"], row["failed"]) for row in found] == [(10, 0), (10, 0), (10, 10)]
        (whole,) = world.store.all_counters(TENANT, ENDPOINT)
        assert (whole["requests"], whole["failed"], whole["rows"]) == (20, 0, 20)
        assert (
            unpack_counts(whole["latency"]).tolist()
            == sum(unpack_counts(row["latency"]) for row in found[:2]).tolist()
        )  # type: ignore[union-attr]


class TestDifferences:
    def test_of_scores_and_answers(self, world: World) -> None:
        world.copy("a", scores=[0.25, 0.75, np.nan, 0.5], answers=[0.5, 0.25, 0.5, np.nan])
        world.copy("b", scores=[0.5], answers=[0.5])
        world.look()
        found = differences(world)
        assert (found.rows, found.flips, found.worst) == (3, 2, 0.5)
        assert (found.mean, found.m2) == pytest.approx((0.25 / 3, np.var([-0.25, 0.5, 0.0]) * 3))
        assert unpack_counts(found.sizes).sum() == 3

    def test_go_on_after_a_restart(self, world: World) -> None:
        rng = np.random.default_rng(4)
        pairs = rng.random((40, 2))
        for place, (score, answer) in enumerate(pairs):
            world.copy(f"p{place}", scores=[score], answers=[answer])
            if place % 7 == 0:
                world.look()
        world.look()
        found, apart = differences(world), pairs[:, 0] - pairs[:, 1]
        assert (found.rows, found.worst) == (40, np.abs(apart).max())
        assert (found.mean, found.m2) == pytest.approx((apart.mean(), np.var(apart) * 40))

    @only_sqlite
    def test_of_scores_without_bounds(self, world: World) -> None:
        world.copy("a", scores=[np.inf, -np.inf, 1e300, np.inf], answers=[np.inf, np.inf, -1e300, 0.0])
        world.look()
        found = differences(world)
        assert (found.rows, found.worst) == (4, 1e100)
        assert np.isfinite([found.mean, found.m2]).all()

    @only_sqlite
    def test_without_answers_there_are_none(self, world: World) -> None:
        world.copy("a", answers=())
        world.look()
        world.label("a")
        world.mature()
        with world.database.read() as connection:
            assert connection.execute(sa.select(shadow_differences)).all() == []
            assert connection.execute(sa.select(shadow_predictions)).all() == []


class TestLabels:
    @pytest.mark.parametrize(
        "order",
        [
            ("answer", "copy", "label"),
            ("answer", "label", "copy"),
            ("label", "answer", "copy"),
            ("label", "copy", "answer"),
            ("copy", "answer", "label"),
            ("copy", "label", "answer"),
        ],
    )
    def test_whatever_comes_first(self, world: World, order: tuple[str, ...]) -> None:
        doers = {
            "answer": lambda: world.answer("a", scores=[0.25, 0.75]),
            "copy": lambda: world.copy("a", scores=[0.5, 0.125], answers=[0.25, 0.75]),
            "label": lambda: world.label("a", row=1, label=0, value=3.5),
        }
        for step in order:
            doers[step]()
            world.digest()
        world.digest()
        (row,) = world.shadow_labels()
        assert {name: row[name] for name in ("number", "id", "row", "score", "answered", "label", "value")} == {
            "number": 0, "id": "a", "row": 1, "score": 0.125, "answered": 0.75, "label": 0.0, "value": 3.5,
        }  # fmt: skip
        assert world.counters(CANDIDATE, Arm.SHADOW)["matured"] == 1
        assert world.counters(BASELINE, Arm.ORDINARY)["matured"] == 1

    def test_of_several_shadows(self, world: World) -> None:
        world.answer("a")
        world.copy("a", version=2, scores=[0.1])
        world.copy("a", version=3, scores=[0.2])
        world.look()
        world.label("a")
        world.mature()
        assert [row["score"] for version in (2, 3) for row in world.shadow_labels(version)] == [0.1, 0.2]

    def test_the_first_copy_of_a_request_stays(self, world: World) -> None:
        world.answer("a")
        world.copy("a", scores=[0.1])
        world.copy("a", scores=[0.2])
        world.look()
        world.label("a")
        world.mature()
        world.copy("a", "b", scores=[0.3])
        world.digest()
        assert [row["score"] for row in world.shadow_labels()] == [0.1]
        row = world.counters(CANDIDATE, Arm.SHADOW)
        assert (row["requests"], row["rows"], row["duplicates"]) == (4, 2, 2)

    @only_sqlite
    def test_only_with_two_scores_that_can_be_compared(self, world: World) -> None:
        world.answer("a", scores=[0.1, 0.2, 0.3])
        world.copy("a", scores=[np.nan, 0.5, np.inf], answers=[0.1, np.nan, 0.3])
        world.look()
        for row in range(4):
            world.label("a", row=row)
        world.mature()
        assert [(row["row"], row["score"]) for row in world.shadow_labels()] == [(2, np.inf)]

    @only_sqlite
    def test_many_more_than_a_statement_takes(self, world: World) -> None:
        names = [f"p{place}" for place in range(2_500)]
        world.answer(*names)
        world.copy(*names[:2_200])
        world.label(*names[:1_500])
        world.digest()
        world.label(*names[1_500:])
        world.copy(*names[2_200:])
        world.digest()
        assert [row["number"] for row in world.shadow_labels()] == list(range(2_500))
        assert {row["id"] for row in world.shadow_labels()} == set(names)

    def test_go_with_old_copies(self, world: World) -> None:
        at = world.clock.time_ns()
        world.answer("old", "young")
        world.copy("old", at=at)
        world.copy("young", at=at + SECOND)
        world.label("old", "young")
        world.digest()
        with world.database.write() as connection:
            world.store.forget_predictions(connection, before=at + 1)
        assert [(row["number"], row["id"]) for row in world.shadow_labels()] == [(1, "young")]
        with world.database.read() as connection:
            assert connection.scalars(sa.select(shadow_predictions.c.id)).all() == ["young"]


class TestOnce:
    METHODS = ("add_copies", "put_counters", "put_differences", "matched_labels", "add_shadow_labels", "move")

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_a_crash_while_copies_are_taken_in(
        self, world: World, monkeypatch: pytest.MonkeyPatch, *, method: str, after: bool
    ) -> None:
        names = [f"p{place}" for place in range(20)]
        world.answer(*names)
        world.label(*names[:10])
        world.digest()
        world.copy(*names, scores=[0.75], answers=[0.25])
        ingest = world.ingest()
        with monkeypatch.context() as patch:
            patch.setattr(MonitoringStore, method, dying(method, after=after))
            with pytest.raises(Crash):
                ingest.look()
        assert (world.counters(CANDIDATE, Arm.SHADOW), world.shadow_labels()) == ({}, [])
        ingest.catch_up()  # the process may as well live on
        world.label(*names[10:])
        world.mature()
        assert [row["number"] for row in world.shadow_labels()] == list(range(20))
        assert (differences(world).rows, differences(world).flips) == (20, 20)
        assert world.counters(CANDIDATE, Arm.SHADOW)["requests"] == 20

    @pytest.mark.parametrize("method", ["copies", "add_shadow_labels", "add_matured"])
    def test_a_crash_while_labels_meet_copies(
        self, world: World, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        names = [f"p{place}" for place in range(20)]
        world.answer(*names)
        world.copy(*names)
        world.look()
        world.label(*names)
        with monkeypatch.context() as patch:
            patch.setattr(MonitoringStore, method, dying(method, after=True))
            with pytest.raises(Crash):
                world.mature()
        assert (world.shadow_labels(), world.store.labels_since(TENANT, ENDPOINT)) == ([], {})
        assert world.mature() == 20
        assert [row["number"] for row in world.shadow_labels()] == list(range(20))

    def test_while_others_match_and_take_in(self, world: World) -> None:
        """Copies, labels and matching from processes of their own: every pair meets once, and numbers have no gaps."""
        rounds, size = 12, 15
        names = [[f"{round_}-{place}" for place in range(size)] for round_ in range(rounds)]
        for some in names:
            world.answer(*some)
        world.look()
        done = threading.Event()
        failures: list[BaseException] = []

        def repeat(work: Any) -> None:
            try:
                while not done.is_set():
                    work()
            except BaseException as error:
                failures.append(error)

        others = [threading.Thread(target=repeat, args=(work,)) for work in (world.mature, world.look)]
        for thread in others:
            thread.start()
        for some in names:
            sender = threading.Thread(target=world.label, args=some)
            sender.start()
            world.copy(*some)
            sender.join()
        done.set()
        for thread in others:
            thread.join()
        assert failures == []
        world.digest()
        met = world.shadow_labels()
        assert [row["number"] for row in met] == list(range(rounds * size))
        assert {row["id"] for row in met} == {name for some in names for name in some}


def dying(method: str, *, after: bool) -> Any:
    """A method of the store in which the process dies."""
    real = getattr(MonitoringStore, method)

    def dies(*arguments: Any, **named: Any) -> None:
        if after:
            real(*arguments, **named)
        raise Crash

    return dies
