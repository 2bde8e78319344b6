from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predis.errors import InvalidInput, ModelFailure, PredisError
from predis.serving import batching
from predis.serving.batching import Batch, Batcher, BatchPolicy, Cost
from predis.serving.inputs import Inputs


class Meter:
    """Stands for ``time`` in the batcher: it moves when a prediction says what it takes."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    meter = Meter()
    monkeypatch.setattr(batching, "time", meter)
    return meter


@dataclass(eq=False)
class Call:
    """Waits with rows that all hold its own number."""

    number: int
    inputs: Inputs
    deadline: float = math.inf
    cancelled: bool = False


def call(number: int, rows: int = 1, **more: Any) -> Call:
    return Call(number, Inputs(rows, np.full((rows, 1), float(number)), {}), **more)


@dataclass
class Desk:
    """Does what a batcher asks when it is told to."""

    finished: list[Batch] = field(default_factory=list)
    gone: list[Call] = field(default_factory=list)
    woken: list[Batcher] = field(default_factory=list)
    threads: list[tuple[Callable[[], None], Callable[[], None]]] = field(default_factory=list)

    def done(self, batch: Batch) -> None:
        self.finished.append(batch)

    def expired(self, call: Call) -> None:
        self.gone.append(call)

    def wake(self, batcher: Batcher) -> None:
        self.woken.append(batcher)

    def aside(self, work: Callable[[], None], after: Callable[[], None]) -> None:
        self.threads.append((work, after))

    def finish_thread(self) -> None:
        work, after = self.threads.pop(0)
        work()
        after()

    @property
    def batches(self) -> list[list[int]]:
        return [[call.number for call in batch.calls] for batch in self.finished]


class Model:
    """Predicts a row's own number; takes ``row_s`` for each row; fails on the numbers in ``fails``."""

    def __init__(self, meter: Meter, row_s: float = 0.0001) -> None:
        self.meter, self.row_s = meter, row_s
        self.fails: dict[int, Exception] = {}
        self.asked: list[list[float]] = []

    def __call__(self, inputs: Inputs) -> list[Any]:
        self.asked.append(inputs.features[:, 0].tolist())
        self.meter.now += self.row_s * inputs.rows
        for number, error in self.fails.items():
            if number in inputs.features:
                raise error
        return [inputs.features[:, 0]]


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def model(meter: Meter) -> Model:
    return Model(meter)


def make(
    model: Model,
    desk: Desk,
    *,
    rows: int = 256,
    seconds: float = 0.02,
    inline_s: float = 0.002,
    expected_row_s: float | None = None,
) -> Batcher:
    cost = Cost(0.0, model.row_s if expected_row_s is None else expected_row_s)
    return Batcher(model, cost, policy=BatchPolicy(rows, seconds, inline_s), scheduler=desk)


def add(batcher: Batcher, *calls: Call) -> None:
    for each in calls:
        batcher.add(each)


class TestJoining:
    def test_a_lone_request_is_predicted_where_it_is(self, model: Model, desk: Desk) -> None:
        batcher = make(model, desk)
        add(batcher, call(7, rows=2))
        batcher.work()
        (batch,) = desk.finished
        assert (batch.rows, batch.each, desk.threads, len(batcher)) == (2, None, [], 0)
        assert batch.outputs is not None
        assert batch.outputs[0].tolist() == [7, 7]
        assert (batch.started, batch.ended) == (0.0, pytest.approx(0.0002))

    def test_what_waits_is_predicted_together_in_its_order(self, model: Model, desk: Desk) -> None:
        batcher = make(model, desk)
        add(batcher, call(1), call(2, rows=3), call(3))
        assert len(batcher) == 3
        batcher.work()
        assert model.asked == [[1, 2, 2, 2, 3]]
        assert desk.batches == [[1, 2, 3]]
        assert desk.finished[0].rows == 5
        assert desk.finished[0].inputs is not None
        assert desk.finished[0].inputs.rows == 5

    def test_nothing_waits(self, model: Model, desk: Desk) -> None:
        make(model, desk).work()
        assert (model.asked, desk.finished, desk.woken) == ([], [], [])

    @pytest.mark.parametrize(
        ("most", "sizes", "batches"),
        [
            (4, [1, 1, 1, 1, 1], [[0, 1, 2, 3], [4]]),
            (4, [3, 2, 2, 1], [[0], [1, 2], [3]]),
            (4, [9, 1, 1], [[0], [1, 2]]),
            (4, [1, 9], [[0], [1]]),
            (1, [1, 1, 1], [[0], [1], [2]]),
        ],
    )
    def test_up_to_so_many_rows(
        self, model: Model, desk: Desk, most: int, sizes: list[int], batches: list[list[int]]
    ) -> None:
        batcher = make(model, desk, rows=most)
        add(batcher, *(call(number, rows) for number, rows in enumerate(sizes)))
        batcher.work()
        assert desk.batches == batches

    def test_up_to_so_much_time(self, model: Model, desk: Desk) -> None:
        batcher = make(model, desk, seconds=0.00035)
        add(batcher, *map(call, range(7)))
        batcher.work()
        assert desk.batches == [[0, 1, 2], [3, 4, 5], [6]]

    @pytest.mark.parametrize("seconds", [0.0, 1e-9])
    def test_no_time_is_no_joining(self, model: Model, desk: Desk, seconds: float) -> None:
        batcher = make(model, desk, seconds=seconds)
        add(batcher, call(1, rows=5), call(2))
        batcher.work()
        assert desk.batches == [[1], [2]]

    def test_the_loop_looks_at_its_sockets_in_between(self, model: Model, desk: Desk) -> None:
        """Many cheap batches are as long as a dear one."""
        batcher = make(model, desk, rows=10, inline_s=0.002)
        add(batcher, *map(call, range(45)))
        batcher.work()
        assert [len(batch) for batch in desk.batches] == [10, 10]
        assert desk.woken == [batcher]
        batcher.work()
        batcher.work()
        assert [len(batch) for batch in desk.batches] == [10, 10, 10, 10, 5]
        assert len(desk.woken) == 2

    def test_another_policy(self, model: Model, desk: Desk) -> None:
        batcher = make(model, desk)
        add(batcher, *map(call, range(4)))
        batcher.policy = BatchPolicy(rows=2)
        batcher.work()
        assert desk.batches == [[0, 1], [2, 3]]


class TestThread:
    """What is dear runs aside, and what comes meanwhile is the next batch."""

    def test_the_expected_cost_decides(self, model: Model, desk: Desk) -> None:
        batcher = make(model, desk)
        for rows, aside in ((20, False), (21, True)):
            add(batcher, call(1, rows))
            batcher.work()
            assert bool(desk.threads) is aside

    def test_meanwhile_others_wait_and_are_joined(self, model: Model, desk: Desk) -> None:
        model.row_s = 0.005
        batcher = make(model, desk, seconds=1.0)
        add(batcher, call(1))
        batcher.work()
        assert (len(desk.threads), desk.finished) == (1, [])
        for number in (2, 3, 4):
            add(batcher, call(number))
            batcher.work()
        assert len(desk.threads) == 1
        desk.finish_thread()
        assert desk.batches == [[1]]
        assert len(desk.threads) == 1  # the next is under way
        desk.finish_thread()
        assert desk.batches == [[1], [2, 3, 4]]
        assert desk.woken == []

    def test_cheap_and_dear_ones_stay_in_order(self, model: Model, desk: Desk) -> None:
        batcher = make(model, desk, rows=30, inline_s=0.002)
        add(batcher, call(1), call(2, rows=30), call(3))
        batcher.work()
        assert (desk.batches, len(desk.threads)) == ([[1]], 1)
        batcher.work()
        assert desk.batches == [[1]]
        desk.finish_thread()
        batcher.work()
        assert desk.batches == [[1], [2], [3]]

    def test_how_long_one_more_would_wait(self, model: Model, desk: Desk, meter: Meter) -> None:
        model.row_s = 0.01
        batcher = make(model, desk)
        assert batcher.expected_wait_s(meter.now) == 0
        add(batcher, call(1), call(2, rows=2))
        assert batcher.expected_wait_s(meter.now) == pytest.approx(0.03)
        batcher.work()
        assert batcher.expected_wait_s(meter.now) == pytest.approx(0.03)  # 0.01 runs, 0.02 wait
        meter.now += 0.004
        assert batcher.expected_wait_s(meter.now) == pytest.approx(0.026)
        meter.now += 5
        assert batcher.expected_wait_s(meter.now) == pytest.approx(0.02)
        desk.finish_thread()
        batcher.work()
        desk.finish_thread()
        assert batcher.expected_wait_s(meter.now) == 0

    def test_of_several_batches_each_has_its_price(self, model: Model, desk: Desk, meter: Meter) -> None:
        batcher = Batcher(model, Cost(0.01, 0.001), policy=BatchPolicy(10, 1.0, 0.002), scheduler=desk)
        for rows, wait in ((10, 0.02), (1, 0.031), (9, 0.04), (30, 0.09)):
            add(batcher, call(1, rows))
            assert batcher.expected_wait_s(meter.now) == pytest.approx(wait)
        batcher = Batcher(model, Cost(0.01, 0.001), policy=BatchPolicy(10, 1.0, 0.002), scheduler=desk)
        add(batcher, call(1, rows=100))  # one request is one prediction, however many rows it has
        assert batcher.expected_wait_s(meter.now) == pytest.approx(0.11)

    def test_how_long_threads_take_beyond_the_prediction_is_learnt(
        self, model: Model, desk: Desk, meter: Meter
    ) -> None:
        """They wait for other threads, and for the interpreter."""
        model.row_s = 0.01
        batcher = make(model, desk, rows=1)
        for number in range(60):
            add(batcher, call(number), call(number))
            batcher.work()
            meter.now += 0.02
            desk.finish_thread()
            batcher.work()
            meter.now += 0.02
            desk.finish_thread()
        add(batcher, call(1), call(2))
        batcher.work()
        assert batcher.expected_wait_s(meter.now) == pytest.approx(
            0.06, rel=0.05
        )  # not the 0.02 of two predictions
        desk.finish_thread()
        batcher.work()
        desk.finish_thread()
        for number in range(60):
            add(batcher, call(number))
            batcher.work()
            desk.finish_thread()
        add(batcher, call(1), call(2))
        batcher.work()
        assert batcher.expected_wait_s(meter.now) == pytest.approx(0.02, rel=0.05)

    def test_one_that_waits_no_longer(self, model: Model, desk: Desk, meter: Meter) -> None:
        model.row_s = 0.01
        batcher = make(model, desk)
        calls = [call(number, number) for number in (1, 2, 3)]
        add(batcher, calls[0])
        batcher.work()
        add(batcher, *calls[1:])
        assert batcher.drop(calls[1])
        assert not batcher.drop(calls[0])  # it is predicted
        assert not batcher.drop(calls[1])
        assert batcher.expected_wait_s(meter.now) == pytest.approx(0.04)
        desk.finish_thread()
        desk.finish_thread()
        assert desk.batches == [[1], [3]]
        assert batcher.idle

    def test_idle_or_not(self, model: Model, desk: Desk) -> None:
        model.row_s = 0.01
        batcher = make(model, desk)
        assert batcher.idle
        add(batcher, call(1))
        assert not batcher.idle
        batcher.work()
        assert not batcher.idle
        desk.finish_thread()
        assert batcher.idle

    def test_a_failure_there_is_one_like_any(self, model: Model, desk: Desk) -> None:
        model.row_s = 1.0
        model.fails[1] = ModelFailure("bad")
        batcher = make(model, desk)
        add(batcher, call(1))
        batcher.work()
        desk.finish_thread()
        assert desk.finished[0].each == [model.fails[1]]
        add(batcher, call(2))
        batcher.work()
        desk.finish_thread()
        assert desk.finished[1].each is None


class TestFailure:
    def test_of_one_is_its_own(self, model: Model, desk: Desk) -> None:
        model.fails[2] = ModelFailure("bad")
        batcher = make(model, desk)
        add(batcher, call(1), call(2, rows=2), call(3))
        batcher.work()
        assert model.asked == [[1, 2, 2, 3]]
        desk.finish_thread()  # each alone takes longer than was expected of all, and is not done in the loop
        (batch,) = desk.finished
        assert (batch.inputs, batch.outputs) == (None, None)
        assert batch.each is not None
        assert batch.each[1] is model.fails[2]
        assert [found[0].tolist() for found in (batch.each[0], batch.each[2])] == [[1], [3]]  # type: ignore[index]
        assert model.asked == [[1, 2, 2, 3], [1], [2, 2], [3]]

    def test_of_a_lone_request_is_not_tried_again(self, model: Model, desk: Desk) -> None:
        model.fails[1] = ModelFailure("bad")
        batcher = make(model, desk)
        add(batcher, call(1))
        batcher.work()
        assert desk.finished[0].each == [model.fails[1]]
        assert len(model.asked) == 1

    @pytest.mark.parametrize("error", [ValueError("odd"), MemoryError("odd"), KeyError("odd")])
    def test_that_is_none_of_ours_becomes_one(self, model: Model, desk: Desk, error: Exception) -> None:
        model.fails[1] = error
        for calls in ([call(1)], [call(1), call(2)]):
            batcher = make(model, desk)
            add(batcher, *calls)
            batcher.work()
            while desk.threads:
                desk.finish_thread()
            each = desk.finished[-1].each
            assert each is not None
            assert type(each[0]) is PredisError
            assert type(error).__name__ in str(each[0])

    def test_of_an_input_keeps_its_class(self, model: Model, desk: Desk) -> None:
        model.fails[1] = InvalidInput("no")
        batcher = make(model, desk)
        add(batcher, call(1))
        batcher.work()
        assert desk.finished[0].each == [model.fails[1]]

    def test_teaches_nothing_about_the_cost(self, model: Model, desk: Desk) -> None:
        model.fails[1] = ModelFailure("bad")
        batcher = make(model, desk, expected_row_s=0.0001)
        model.row_s = 0.1
        before = batcher.cost.of(1)
        add(batcher, call(1), call(2))
        batcher.work()
        desk.finish_thread()
        assert batcher.cost.of(1) == before


class TestDeadline:
    def test_who_waited_past_it_is_not_predicted(self, model: Model, desk: Desk, meter: Meter) -> None:
        batcher = make(model, desk)
        meter.now = 10.0
        late, gone, good = call(1, deadline=10.0), call(2, cancelled=True), call(3, deadline=10.001)
        add(batcher, late, gone, good)
        batcher.work()
        assert (desk.gone, desk.batches, model.asked) == ([late, gone], [[3]], [[3]])

    def test_all_of_them(self, model: Model, desk: Desk, meter: Meter) -> None:
        batcher = make(model, desk)
        meter.now = 10.0
        add(batcher, call(1, deadline=1), call(2, rows=300, deadline=1))
        batcher.work()
        assert (len(desk.gone), desk.finished, len(batcher)) == (2, [], 0)
        assert batcher.expected_wait_s(meter.now) == 0

    def test_it_passes_while_another_runs(self, model: Model, desk: Desk, meter: Meter) -> None:
        model.row_s = 0.5
        batcher = make(model, desk)
        add(batcher, call(1), call(2, deadline=0.4), call(3, deadline=math.inf))
        batcher.work()
        desk.finish_thread()
        batcher.work()
        desk.finish_thread()
        assert (desk.batches, [c.number for c in desk.gone]) == ([[1], [3]], [2])

    def test_one_that_passes_during_its_own_prediction_does_not_matter(
        self, model: Model, desk: Desk
    ) -> None:
        """The work is done; whoever still waits has the answer."""
        batcher = make(model, desk)
        add(batcher, call(1, deadline=0.00001))
        batcher.work()
        assert desk.batches == [[1]]


class TestCost:
    def test_of_rows_and_back(self) -> None:
        cost = Cost(0.001, 0.0005)
        assert cost.of(4) == pytest.approx(0.003)
        assert cost.rows_within(0.003) == 4
        assert cost.rows_within(0.0034) == 4
        assert cost.rows_within(0.0005) <= 0

    def test_a_price_per_row_that_was_too_small_to_measure(self) -> None:
        assert Cost(0.001, 0.0).rows_within(0.002) >= 1_000_000

    def test_learns_from_every_batch(self) -> None:
        cost = Cost(0.001, 0.001)
        for _batch in range(100):
            cost.observe(9, 0.03)
        assert cost.of(9) == pytest.approx(0.03, rel=0.01)
        assert cost.rows_within(0.03) == pytest.approx(9, abs=1)
        for _batch in range(100):
            cost.observe(9, 0.005)
        assert cost.of(9) == pytest.approx(0.005, rel=0.01)

    def test_one_slow_batch_is_not_believed(self) -> None:
        cost = Cost(0.0, 0.001)
        cost.observe(1, 60.0)
        assert cost.of(1) < 0.0014

    def test_a_batcher_observes(self, model: Model, desk: Desk, meter: Meter) -> None:
        """A version believed to be dear runs aside until it has been seen to be cheap."""
        batcher = make(model, desk, expected_row_s=0.01)
        aside = 0
        for number in range(40):
            add(batcher, call(number))
            batcher.work()
            while desk.threads:
                aside += 1
                desk.finish_thread()
        assert 0 < aside < 40
        assert batcher.cost.of(1) < batcher.policy.inline_s


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(1, 12)),
            st.tuples(st.just("work"), st.just(0)),
            st.tuples(st.just("finish"), st.just(0)),
            st.tuples(st.just("cancel"), st.integers(0, 40)),
        ),
        max_size=60,
    ),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.0004, 0.002, 1.0]),
    st.sampled_from([0.00001, 0.0005, 0.01]),
    st.sets(st.integers(0, 40), max_size=3),
)
def test_whatever_happens_each_call_is_answered_once_and_in_turn(
    story: list[tuple[str, int]], most: int, inline_s: float, row_s: float, poison: set[int]
) -> None:
    meter, desk = Meter(), Desk()
    model = Model(meter, row_s)
    model.fails = {number: ModelFailure("bad") for number in poison}
    calls: list[Call] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "time", meter)
        batcher = make(model, desk, rows=most, seconds=10.0, inline_s=inline_s)

        def work() -> None:
            due = len(desk.woken)
            del desk.woken[:]
            for _time in range(max(due, 1)):
                batcher.work()
            assert len(desk.threads) <= 1  # never two predictions of a version at once

        for what, number in story:
            if what == "add":
                calls.append(call(len(calls), rows=number))
                batcher.add(calls[-1])
            elif what == "work":
                work()
            elif what == "finish" and desk.threads:
                desk.finish_thread()
            elif what == "cancel" and calls:
                calls[number % len(calls)].cancelled = True
        while len(batcher) or desk.threads:
            work()
            while desk.threads:
                desk.finish_thread()
    answered = [each for batch in desk.finished for each in batch.calls]
    assert sorted(each.number for each in (*answered, *desk.gone)) == list(range(len(calls)))
    assert [each.number for each in answered] == sorted(each.number for each in answered)
    for batch in desk.finished:
        assert len(batch.calls) == 1 or batch.rows <= most
        each = [batch.outputs] if batch.each is None else batch.each
        found = [part if isinstance(part, PredisError) else part[0].tolist() for part in each]  # type: ignore[index]
        rows = [[float(one.number)] * one.inputs.rows for one in batch.calls]
        if batch.each is None:
            assert found == [[value for row in rows for value in row]]
        else:
            assert found == [
                model.fails.get(one.number, expected) for one, expected in zip(batch.calls, rows, strict=True)
            ]
