"""Feedback: durable before it is acknowledged, matched once, numbered without gaps, whatever comes first."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from predis.clock import ManualClock
from predis.errors import InvalidInput, TooLarge
from predis.monitoring.feedback import MAX_LABELS, Feedback
from predis.monitoring.ingest import Ingest
from predis.monitoring.store import MonitoringStore
from predis.registry.signature import Field, Signature
from predis.state import Database, JournalWriter
from predis.state.records import Arm
from predis.state.schema import feedback as feedback_table
from predis.state.schema import labelled
from predis.stats import Calibration, binary_scores
from tests.toys import ENDPOINT, SECOND, TENANT, record

WINDOW = 100
KEY = {"tenant": TENANT, "endpoint": ENDPOINT, "version": 1}
START = 1_700_000_000 * SECOND


class Crash(Exception):
    """The process dies here."""


class World:
    """Predictions and labels for them."""

    def __init__(self, database: Database, home: Path, clock: ManualClock) -> None:
        self.database, self.clock = database, clock
        self.store = MonitoringStore(database)
        self.writer = JournalWriter(home / "journal" / "serving-0")
        self._ingest = Ingest(
            database, home / "journal", profile=lambda _t, _e, *, number: None, window_rows=WINDOW
        )

    @property
    def feedback(self) -> Feedback:
        """A new one each time: nothing may hang on what a process remembers."""
        return Feedback(self.database, self.clock, window_rows=WINDOW)

    def predict(self, *ids: str, version: int = 1, **other: Any) -> None:
        for prediction in ids:
            self.writer.append(record(prediction, version=version, **other))
        while self._ingest.look():
            pass

    def label(self, *ids: str, label: Any = 1, **other: Any) -> dict[str, int]:
        labels = [{"id": prediction, "label": label, **other} for prediction in ids]
        return self.feedback.store(TENANT, ENDPOINT, labels=labels)

    def totals(self) -> dict[str, Any]:
        return self.store.feedback_totals(TENANT, ENDPOINT)

    def matured(self, version: int = 1) -> int:
        rows = self.store.all_counters(TENANT, ENDPOINT)
        return next(row["matured"] for row in rows if row["version"] == version)

    def numbers(self, version: int = 1) -> list[int]:
        """The numbers that labelled predictions of a version have, in order."""
        statement = sa.select(labelled.c.number).filter_by(version=version).order_by(labelled.c.number)
        with self.database.read() as connection:
            return list(connection.scalars(statement))


@pytest.fixture
def world(database: Database, home: Path, clock: ManualClock) -> Iterator[World]:
    found = World(database, home, clock)
    yield found
    found.writer.close()


def ids(count: int, prefix: str = "p") -> list[str]:
    return [f"{prefix}{place}" for place in range(count)]


class TestStore:
    def test_acknowledged_and_counted(self, world: World) -> None:
        assert world.label("a", "b") == {"received": 2, "stored": 2, "duplicates": 0}
        assert world.totals() == {"received": 2, "stored": 2, "duplicates": 0, "waiting": 2}

    def test_nothing_yet(self, world: World) -> None:
        assert world.totals() == {"received": 0, "stored": 0, "duplicates": 0, "waiting": 0}
        assert world.feedback.mature() == 0

    def test_repeats_change_nothing(self, world: World) -> None:
        world.label("a", "b", label=1)
        assert world.label("b", "c", label=0) == {"received": 2, "stored": 1, "duplicates": 1}
        assert world.label("d", "d") == {"received": 2, "stored": 1, "duplicates": 1}
        assert world.totals() == {"received": 6, "stored": 4, "duplicates": 2, "waiting": 4}
        with world.database.read() as connection:
            rows = connection.execute(sa.select(feedback_table.c.id, feedback_table.c.label)).all()
        assert dict(map(tuple, rows)) == {"a": 1.0, "b": 1.0, "c": 0.0, "d": 1.0}

    def test_endpoints_and_tenants_are_apart(self, world: World) -> None:
        labels = [{"id": "a", "label": 1}]
        world.label("a")
        assert world.feedback.store(TENANT, "other", labels=labels)["stored"] == 1
        assert world.feedback.store("elsewhere", ENDPOINT, labels=labels)["stored"] == 1
        assert sorted(world.store.endpoints_with_feedback()) == sorted([
            (TENANT, ENDPOINT), (TENANT, "other"), ("elsewhere", ENDPOINT),
        ])  # fmt: skip

    @pytest.mark.parametrize("value", [1, 0, 1.0, 0.0, True, False])
    def test_labels(self, world: World, value: Any) -> None:
        assert world.label("a", label=value)["stored"] == 1

    def test_rows_of_a_request(self, world: World) -> None:
        labels = [{"id": "a", "row": row, "label": row % 2} for row in (0, 1, 2, 2)]
        assert world.feedback.store(TENANT, ENDPOINT, labels=labels)["stored"] == 3

    def test_a_value_is_kept_with_the_first_label(self, world: World) -> None:
        world.predict("a", "b", "c")
        world.label("a", value=12.5)
        world.label("a", value=99)
        world.label("b", value=-3)
        world.label("c")
        world.feedback.mature()
        rows = world.store.rewards(KEY, start=0, stop=9, since=0, arm=None)
        assert [row.value for row in rows] == [12.5, -3.0, None]

    def test_event_time_defaults_to_now(self, world: World) -> None:
        world.label("a")
        world.label("b", event_time="2020-01-01T00:00:00Z")
        with world.database.read() as connection:
            rows = dict(
                map(tuple, connection.execute(sa.select(feedback_table.c.id, feedback_table.c.event_at)))
            )
        assert rows == {"a": world.clock.time_ns(), "b": 1_577_836_800 * SECOND}

    def test_nothing_is_acknowledged_that_is_not_durable(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def dies(*_arguments: Any, **_named: Any) -> None:
            raise Crash

        with monkeypatch.context() as patch:
            patch.setattr(MonitoringStore, "count_feedback", dies)
            with pytest.raises(Crash):
                world.label("a")
        assert world.totals() == {"received": 0, "stored": 0, "duplicates": 0, "waiting": 0}
        assert world.label("a")["stored"] == 1

    def test_many_callers_at_once_are_all_counted(self, world: World) -> None:
        start = threading.Barrier(6)

        def send(caller: int) -> None:
            start.wait()
            for place in range(8):
                world.label(f"{caller}-{place}", f"shared-{place}")

        threads = [threading.Thread(target=send, args=(caller,)) for caller in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert world.totals() == {"received": 96, "stored": 56, "duplicates": 40, "waiting": 56}


class TestRefused:
    @pytest.mark.parametrize(
        ("bad", "named"),
        [
            ("text", "labels[1] must be an object"),
            (None, "labels[1] must be an object"),
            ({"label": 1}, "labels[1].id"),
            ({"id": "", "label": 1}, "labels[1].id"),
            ({"id": 7, "label": 1}, "labels[1].id"),
            ({"id": "x" * 129, "label": 1}, "labels[1].id"),
            ({"id": "a\0b", "label": 1}, "labels[1].id"),
            ({"id": "a\ud800", "label": 1}, "labels[1].id"),
            ({"id": "a"}, "labels[1].label"),
            ({"id": "a", "label": None}, "labels[1].label"),
            ({"id": "a", "label": 2}, "labels[1].label"),
            ({"id": "a", "label": 0.5}, "labels[1].label"),
            ({"id": "a", "label": "1"}, "labels[1].label"),
            ({"id": "a", "label": float("nan")}, "labels[1].label"),
            ({"id": "a", "label": [1]}, "labels[1].label"),
            ({"id": "a", "label": {}}, "labels[1].label"),
            ({"id": "a", "label": 1, "row": -1}, "labels[1].row"),
            ({"id": "a", "label": 1, "row": True}, "labels[1].row"),
            ({"id": "a", "label": 1, "row": 2**31}, "labels[1].row"),
            ({"id": "a", "label": 1, "row": "0"}, "labels[1].row"),
            ({"id": "a", "label": 1, "value": "12"}, "labels[1].value"),
            ({"id": "a", "label": 1, "value": True}, "labels[1].value"),
            ({"id": "a", "label": 1, "value": float("nan")}, "labels[1].value"),
            ({"id": "a", "label": 1, "value": float("-inf")}, "labels[1].value"),
            ({"id": "a", "label": 1, "value": 10**400}, "labels[1].value"),
            ({"id": "a", "label": 1, "value": [1]}, "labels[1].value"),
            ({"id": "a", "label": 1, "event_time": "yesterday"}, "labels[1].event_time"),
            ({"id": "a", "label": 1, "event_time": -1}, "labels[1].event_time"),
            ({"id": "a", "label": 1, "event_time": [1]}, "labels[1].event_time"),
            ({"id": "a", "label": 1, "event_time": float("inf")}, "labels[1].event_time"),
        ],
    )
    @pytest.mark.parametrize("database", ["sqlite"], indirect=True)
    def test_all_or_nothing(self, world: World, bad: Any, named: str) -> None:
        good = [{"id": "first", "label": 1}, bad, {"id": "last", "label": 0}]
        with pytest.raises(InvalidInput) as refused:
            world.feedback.store(TENANT, ENDPOINT, labels=good)
        assert str(refused.value).startswith(named)
        assert world.totals()["stored"] == 0

    @pytest.mark.parametrize("labels", [[], None, {}, "ab", ({"id": "a", "label": 1},)])
    @pytest.mark.parametrize("database", ["sqlite"], indirect=True)
    def test_no_list(self, world: World, labels: Any) -> None:
        with pytest.raises(InvalidInput, match="at least one label"):
            world.feedback.store(TENANT, ENDPOINT, labels=labels)

    @pytest.mark.parametrize("database", ["sqlite"], indirect=True)
    def test_too_many(self, world: World) -> None:
        labels = [{"id": "a", "label": 1}] * (MAX_LABELS + 1)
        with pytest.raises(TooLarge, match=str(MAX_LABELS)):
            world.feedback.store(TENANT, ENDPOINT, labels=labels)


class TestMature:
    def test_label_meets_its_prediction(self, world: World) -> None:
        world.predict("a", "b")
        world.label("b", label=0)
        assert world.feedback.mature() == 1
        assert world.feedback.mature() == 0
        assert world.totals()["waiting"] == 0
        assert world.store.labels_since(TENANT, ENDPOINT) == {("b", 0): 0.0}
        assert world.matured() == 1

    def test_label_before_its_prediction(self, world: World) -> None:
        world.label("a")
        assert world.feedback.mature() == 0
        assert world.totals()["waiting"] == 1
        world.predict("a")
        assert world.feedback.mature() == 1
        assert (world.totals()["waiting"], world.matured()) == (0, 1)

    def test_unknown_ids_wait_and_hold_up_nobody(self, world: World) -> None:
        world.label("never", "known", "neither")
        world.predict("known")
        assert world.feedback.mature() == 1
        assert world.totals()["waiting"] == 2
        assert world.numbers() == [0]

    def test_a_row_is_matched_not_a_request(self, world: World) -> None:
        world.predict("a", scores=[0.1, 0.9])
        labels = [{"id": "a", "row": 1, "label": 1}, {"id": "a", "row": 5, "label": 1}]
        world.feedback.store(TENANT, ENDPOINT, labels=labels)
        assert world.feedback.mature() == 1
        assert world.store.labels_since(TENANT, ENDPOINT) == {("a", 1): 1.0}
        assert world.totals()["waiting"] == 1

    def test_rows_beyond_any_number_are_unknown_like_others(self, world: World) -> None:
        world.predict("a", scores=[0.1, 0.9])
        labels = [{"id": "a", "row": row, "label": 1} for row in (2, 2**28, 2**31 - 1)]
        world.feedback.store(TENANT, ENDPOINT, labels=labels)
        assert world.feedback.mature() == 0
        assert world.totals()["waiting"] == 3

    def test_what_has_no_score_has_no_label(self, world: World) -> None:
        """NaN can be compared with nothing; its label waits like one whose prediction is unknown."""
        world.predict("a", scores=[np.nan, 0.25, np.inf, -np.nan])
        labels = [{"id": "a", "row": row, "label": row % 2} for row in range(4)]
        world.feedback.store(TENANT, ENDPOINT, labels=labels)
        assert world.feedback.mature() == 2
        assert world.store.labels_since(TENANT, ENDPOINT) == {("a", 1): 1.0, ("a", 2): 0.0}
        assert [row.score for row in world.store.matured(KEY, start=0, stop=9)] == [0.25, np.inf]
        assert world.totals()["waiting"] == 2

    def test_a_label_brings_what_its_prediction_was(self, world: World) -> None:
        world.predict("a", scores=[0.1, 0.9], at=START, event_at=START - 7)
        label = {"id": "a", "row": 1, "label": 1, "event_time": START / SECOND + 60}
        world.feedback.store(TENANT, ENDPOINT, labels=[label])
        world.feedback.mature()
        (row,) = world.store.matured(KEY, start=0, stop=1)
        assert tuple(row) == (0.9, 1.0, START - 7, START + 60 * SECOND)
        assert world.store.matured(KEY, start=0, stop=1, since=START + 1) == []

    def test_labels_are_forgotten_with_their_predictions(self, world: World) -> None:
        world.predict("old", at=START)
        world.predict("young", at=START + 10)
        world.label("old", "young")
        world.feedback.mature()
        with world.database.write() as connection:
            assert world.store.forget_predictions(connection, before=START + 5) == 1
        assert world.store.labels_since(TENANT, ENDPOINT) == {("young", 0): 1.0}
        assert world.matured() == 2  # the numbers go on

    def test_the_first_label_stays(self, world: World) -> None:
        world.predict("a")
        world.label("a", label=1)
        world.feedback.mature()
        world.label("a", label=0)
        assert world.feedback.mature() == 0
        assert world.store.labels_since(TENANT, ENDPOINT) == {("a", 0): 1.0}
        assert world.matured() == 1

    def test_labels_of_every_arm_are_numbered_together(self, world: World) -> None:
        """A performance window is a range of numbers, whether or not requests were compared meanwhile."""
        names = ids(40)
        for place, name in enumerate(names):
            world.writer.append(record(name, arm=Arm.COMPARED if place % 4 else Arm.ORDINARY))
        world.predict()
        for start in range(0, 40, 8):
            world.label(*names[start : start + 8])
            world.clock.advance(1)
            world.feedback.mature()
        assert (world.numbers(), world.matured()) == (list(range(40)), 40)
        by_arm = {row["arm"]: row["matured"] for row in world.store.counters_by_arm(TENANT, ENDPOINT)}
        assert by_arm == {Arm.ORDINARY: 10, Arm.COMPARED: 30}
        compared = world.store.rewards(KEY, start=0, stop=40, since=0, arm=Arm.COMPARED)
        assert len(compared) == 30

    def test_another_endpoints_labels_are_its_own(self, world: World) -> None:
        world.predict("a")
        world.feedback.store(TENANT, "other", labels=[{"id": "a", "label": 1}])
        world.feedback.store("elsewhere", ENDPOINT, labels=[{"id": "a", "label": 1}])
        assert world.feedback.mature() == 0

    def test_numbers_have_no_gaps_and_follow_the_order_of_arrival(self, world: World) -> None:
        rng = np.random.default_rng(3)
        names = ids(120)
        for place, name in enumerate(names):
            world.writer.append(record(name, version=1 + place % 3))
        world.predict()
        order = [names[place] for place in rng.permutation(len(names))]
        while order:
            size = int(rng.integers(1, 30))
            chosen, order = order[:size], order[size:]
            world.clock.advance(1)
            world.label(*chosen)
            if rng.random() < 0.6:
                world.feedback.mature()
        world.feedback.mature()
        for version in (1, 2, 3):
            assert world.numbers(version) == list(range(40))
            assert world.matured(version) == 40

    @pytest.mark.parametrize("method", ["counters", "add_matured", "set_labels"])
    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_a_crash_inside_changes_nothing(
        self, world: World, monkeypatch: pytest.MonkeyPatch, *, method: str, after: bool
    ) -> None:
        world.predict(*ids(30))
        world.label(*ids(30))
        real = getattr(MonitoringStore, method)

        def dies(*arguments: Any, **named: Any) -> None:
            if after:
                real(*arguments, **named)
            raise Crash

        with monkeypatch.context() as patch:
            patch.setattr(MonitoringStore, method, dies)
            with pytest.raises(Crash):
                world.feedback.mature()
        assert (world.totals()["waiting"], world.matured(), world.numbers()) == (30, 0, [])
        assert world.feedback.mature() == 30
        assert (world.matured(), world.numbers()) == (30, list(range(30)))


class TestWindows:
    def fill(self, world: World, count: int, *, seed: int = 0, prefix: str = "p") -> tuple[Any, Any]:
        """``count`` predictions with their labels, matured in the order they were made."""
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 2, count)
        scores = np.clip(0.3 * labels + rng.random(count) * 0.7, 0, 1)
        for name, score in zip(ids(count, prefix), scores, strict=True):
            world.writer.append(record(name, scores=[score], at=START))
        world.predict()
        sent = [
            {"id": name, "label": int(label), "event_time": START / SECOND + 3_600}
            for name, label in zip(ids(count, prefix), labels, strict=True)
        ]
        world.feedback.store(TENANT, ENDPOINT, labels=sent)
        return scores, labels

    def test_exact(self, world: World) -> None:
        scores, labels = self.fill(world, 250)
        world.feedback.mature()
        second, first = world.store.performance(KEY)  # newest first; the third is not full
        for number, window in ((1, first), (2, second)):
            part = slice((number - 1) * WINDOW, number * WINDOW)
            expected = asdict(binary_scores(scores[part], labels[part]))
            assert window["task"] == "binary"
            measured = {**window["scores"], "positives": window["positives"]}
            assert {name: measured[name] for name in expected} == pytest.approx(expected)
            assert window["early_labels"] == 0
            assert (window["number"], window["rows"]) == (number, WINDOW)
            assert window["positives"] == labels[part].sum()
            assert window["label_age_s"] == 3_600
            assert (window["first_event"], window["last_event"]) == (START, START)
            assert window["coverage"] == pytest.approx(100 / 250)  # all 250 fell in the same moment

    def test_coverage_counts_what_was_predicted_meanwhile(self, world: World) -> None:
        for place in range(300):
            world.writer.append(record(f"p{place}", at=START + place))
        world.predict()
        world.label(*[f"p{place}" for place in range(0, 200, 2)])
        world.feedback.mature()
        (window,) = world.store.performance(KEY)
        assert (window["first_event"], window["last_event"]) == (START, START + 198)
        assert window["coverage"] == pytest.approx(100 / 199)

    def test_one_class_has_no_auc(self, world: World) -> None:
        world.predict(*ids(WINDOW))
        world.label(*ids(WINDOW), label=1)
        world.feedback.mature()
        (window,) = world.store.performance(KEY)
        assert window["scores"]["auc"] is None
        assert window["positives"] == WINDOW

    def test_not_before_it_is_full(self, world: World) -> None:
        self.fill(world, WINDOW - 1)
        world.feedback.mature()
        assert world.store.performance(KEY) == []
        self.fill(world, 1, prefix="q")
        world.feedback.mature()
        assert [w["number"] for w in world.store.performance(KEY)] == [1]

    def test_in_pieces_with_restarts_it_is_the_same(self, world: World) -> None:
        rng = np.random.default_rng(8)
        scores, labels, names = [], [], []
        sent = 0
        while sent < 230:
            size = int(rng.integers(1, 60))
            found = self.fill(world, size, seed=sent, prefix=f"{sent}-")
            scores.append(found[0])
            labels.append(found[1])
            names.append(size)
            sent += size
            world.clock.advance(1)
            if rng.random() < 0.7:
                world.feedback.mature()
        world.feedback.mature()
        windows = world.store.performance(KEY)[::-1]
        assert [w["number"] for w in windows] == list(range(1, sent // WINDOW + 1))
        every_score, every_label = np.concatenate(scores), np.concatenate(labels)
        for place, window in enumerate(windows):
            part = slice(place * WINDOW, (place + 1) * WINDOW)
            assert window["scores"]["auc"] == pytest.approx(
                binary_scores(every_score[part], every_label[part]).auc
            )

    def test_a_crash_between_matching_and_closing(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No further label may ever come: the next process closes what is full."""
        self.fill(world, WINDOW)

        def dies(*_arguments: Any, **_named: Any) -> None:
            raise Crash

        with monkeypatch.context() as patch:
            patch.setattr(MonitoringStore, "add_performance", dies)
            with pytest.raises(Crash):
                world.feedback.mature()
        assert world.matured() == WINDOW
        world.feedback.mature()
        assert [w["number"] for w in world.store.performance(KEY)] == [1]

    def test_an_error_between_matching_and_closing(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same within one process, which goes on."""
        feedback = world.feedback
        feedback.mature()
        self.fill(world, WINDOW)
        with monkeypatch.context() as patch:
            patch.setattr(MonitoringStore, "add_performance", lambda *_a, **_n: (_ for _ in ()).throw(Crash))
            patch.setattr(
                "predis.monitoring.feedback.performance", lambda *_a, **_n: (_ for _ in ()).throw(Crash())
            )
            with contextlib.suppress(Crash):
                feedback.mature()
        feedback.mature()
        assert [w["number"] for w in world.store.performance(KEY)] == [1]

    def test_closing_twice_changes_nothing(self, world: World) -> None:
        self.fill(world, WINDOW)
        world.feedback.mature()
        before = world.store.performance(KEY)
        labels = world.store.matured(KEY, start=0, stop=WINDOW)
        world.feedback._close({**KEY, "number": 1, "stop": WINDOW}, labels)
        assert world.store.performance(KEY) == before

    def test_another_window_size_goes_on_where_the_last_window_ended(self, world: World) -> None:
        """Labels are in one window each, also where somebody changes the setting between two starts."""
        self.fill(world, WINDOW)
        world.feedback.mature()
        smaller = Feedback(world.database, world.clock, window_rows=WINDOW // 2)
        self.fill(world, WINDOW, prefix="q")
        while smaller.mature():
            pass
        windows = world.store.performance(KEY)
        assert (windows[-1]["number"], windows[-1]["stop"]) == (1, WINDOW)
        assert [w["stop"] for w in reversed(windows)][1:] == [WINDOW + WINDOW // 2, 2 * WINDOW]


class TestKinds:
    """Labels of regressors and of classifiers of several classes."""

    class Models:
        def __init__(self, signature: Signature) -> None:
            self.of = signature
            self.curve: Calibration | None = None

        def signature(self, tenant: str, endpoint: str, *, number: int | None = None) -> Signature | None:
            return self.of

        def calibration(self, tenant: str, endpoint: str, *, number: int) -> Calibration | None:
            return self.curve

    def models(self, task: Any, *classes: str) -> Models:
        output = Field("output", "FP64")
        return self.Models(Signature((Field("x", "FP64"),), (output,), "output", task, classes))

    def feed(self, world: World, models: Models, *, scores: Any, labels: list[Any]) -> dict[str, Any]:
        """One full window of labelled predictions."""
        for name, score in zip(ids(WINDOW), scores, strict=True):
            world.writer.append(record(name, scores=[score]))
        world.predict()
        feedback = Feedback(world.database, world.clock, window_rows=WINDOW, models=models)
        sent = [{"id": name, "label": label} for name, label in zip(ids(WINDOW), labels, strict=True)]
        feedback.store(TENANT, ENDPOINT, labels=sent)
        feedback.mature()
        return world.store.performance(KEY)[0]

    def test_numbers(self, world: World) -> None:
        scores = np.linspace(0, 100, WINDOW)
        found = self.feed(world, self.models("regression"), scores=scores, labels=(scores + 2.5).tolist())
        assert found["task"] == "regression"
        assert found["scores"]["mae"] == pytest.approx(2.5)
        assert found["scores"]["bias"] == pytest.approx(-2.5)

    def test_classes(self, world: World) -> None:
        scores = np.arange(WINDOW) % 3 + 0.9
        labels = [("ant", "bee", 2)[place % 3] for place in range(WINDOW)]
        found = self.feed(world, self.models("multiclass", "ant", "bee", "cat"), scores=scores, labels=labels)
        assert (found["task"], found["scores"]["accuracy"]) == ("multiclass", 1.0)

    def test_of_a_task_nobody_told(self, world: World) -> None:
        labels = [place % 2 for place in range(WINDOW)]
        assert self.feed(world, self.models(None), scores=labels, labels=labels)["task"] == "binary"

    def test_what_was_expected_stands_beside(self, world: World) -> None:
        models, rng = self.models("binary"), np.random.default_rng(0)
        scores = rng.random(WINDOW)
        models.curve = Calibration(np.array([0.0, 1.0]), np.array([0.0, 1.0]), 1_000)
        found = self.feed(
            world, models, scores=scores, labels=(rng.random(WINDOW) < scores).astype(int).tolist()
        )
        assert abs(found["scores"]["estimated_auc"] - found["scores"]["auc"]) < 0.15

    @pytest.mark.parametrize(
        ("task", "label", "says"),
        [
            ("binary", 2, "must be 0 or 1"), ("regression", "high", "finite number"), ("regression", float("nan"), "finite number"),
            ("regression", None, "finite number"), ("regression", True, "finite number"), ("multiclass", "dog", "must be one of ant, bee"),
            ("multiclass", 2, "must be one of"), ("multiclass", 0.5, "must be one of"), ("multiclass", -1, "must be one of"),
        ],
    )  # fmt: skip
    def test_refused(self, world: World, task: Any, label: Any, says: str) -> None:
        models = self.models(task, *(("ant", "bee") if task == "multiclass" else ()))
        feedback = Feedback(world.database, world.clock, window_rows=WINDOW, models=models)
        with pytest.raises(InvalidInput, match=says):
            feedback.store(TENANT, ENDPOINT, labels=[{"id": "p", "label": label}])
        assert world.totals()["received"] == 0

    def test_clocks_that_jump(self, world: World) -> None:
        """A label from before its prediction counts, and is counted."""
        world.predict(*ids(WINDOW))
        labels = [{"id": name, "label": place % 2, "event_time": 1} for place, name in enumerate(ids(WINDOW))]
        world.feedback.store(TENANT, ENDPOINT, labels=labels)
        world.feedback.mature()
        (window,) = world.store.performance(KEY)
        assert (window["early_labels"], window["label_age_s"] < 0) == (WINDOW, True)

    def test_labels_of_nobody_wait_and_are_counted(self, world: World) -> None:
        world.label(*ids(10, "unknown"))
        assert world.feedback.mature() == 0
        assert world.totals()["waiting"] == 10
