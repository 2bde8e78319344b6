from __future__ import annotations

import asyncio
import gc
import logging
import math
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from predis.access import Caller
from predis.access.keys import LOCAL
from predis.clock import ManualClock
from predis.errors import (
    DeadlineExceeded,
    EndpointNotFound,
    InvalidRequest,
    ModelFailure,
    NotReady,
    Overloaded,
    PredisError,
    TenantOverloaded,
    TooLarge,
    VersionNotFound,
)
from predis.metrics import Metrics
from predis.registry.signature import Field
from predis.serving import plane as plane_module
from predis.serving.batching import BatchPolicy
from predis.serving.measures import VersionMetrics
from predis.serving.plane import Admission, AppliedRoute, Call, Plane
from predis.serving.protocol import InferRequest, decode_request
from predis.state.records import Matrix, Status
from tests.serving.helpers import (
    LIMITS,
    ONE,
    FakeRuntime,
    ListSink,
    applied,
    body,
    call,
    in_loop,
    ready_plane,
    rounds,
    served,
    signature,
    tensor,
)

OTHER = Caller("other", "o", "client")


def request(*data: float, **more: Any) -> InferRequest:
    return decode_request(body(tensor("x", "FP64", list(data or (1.0,))), **more), LIMITS)


def infer(plane: Plane, wanted: InferRequest | None = None, endpoint: str = "e", **more: Any) -> Call:
    return asyncio.run(plane.infer(call(wanted or request(), endpoint, **more)))


def answer(found: Call) -> list[float]:
    assert found.outputs is not None
    return found.outputs[0].tolist()


class Submitted:
    """Calls taken on together, and those that were answered, in order."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.answered: list[Call] = []
        self._more = asyncio.Event()

    def _take(self, found: Call) -> None:
        self.answered.append(found)
        self._more.set()

    def __call__(self, wanted: InferRequest, endpoint: str = "e", **more: Any) -> Call:
        asked = call(wanted, endpoint, **more)
        asked.reply = self._take
        self.plane.submit(asked)
        return asked

    async def all(self, count: int) -> list[Call]:
        while len(self.answered) < count:
            self._more.clear()
            await self._more.wait()
        assert len(self.answered) == count
        return self.answered


class TestInfer:
    def test_a_prediction(self, clock: ManualClock) -> None:
        runtime = FakeRuntime(ONE)
        plane = ready_plane(clock, applied({1: 1.0}, [served(1, runtime)]))
        before = time.perf_counter()
        found = infer(plane, request(1.5, 2))
        assert answer(found) == [1.5, 2]
        assert found.error is None
        assert found.predicted is not None
        assert before <= found.started <= found.predicted[0] <= found.predicted[1] <= found.ended
        assert (found.inputs.rows, plane.pending) == (2, 0)

    def test_refused_before_it_is_taken_on(self, clock: ManualClock) -> None:
        runtime = FakeRuntime(ONE)
        plane = ready_plane(clock, applied({1: 1.0}, [served(1, runtime)]))
        for wanted, error in (
            (request(outputs=[{"name": "c"}]), InvalidRequest),
            (request(*[1.0] * 101), TooLarge),
            (request(parameters={"event_time": "soon"}), PredisError),
            (request(parameters={"timeout": -1}), InvalidRequest),
            (request(parameters={"routing_key": 7}), InvalidRequest),
        ):
            with pytest.raises(error):
                infer(plane, wanted)
        assert (runtime.asked, plane.pending) == ([], 0)

    def test_an_error_of_the_model_is_raised(self, clock: ManualClock) -> None:
        runtime = FakeRuntime(ONE)
        plane = ready_plane(clock, applied({1: 1.0}, [served(1, runtime)]))
        runtime.answer = lambda features: []
        with pytest.raises(ModelFailure):
            infer(plane)
        assert plane.pending == 0

    @in_loop
    async def test_a_reply_that_fails_fails_nobody_else(self, caplog: pytest.LogCaptureFixture) -> None:
        plane = ready_plane(ManualClock(), applied({1: 1.0}))
        submit = Submitted(plane)
        broken = call(request())
        broken.reply = lambda _call: 1 / 0  # type: ignore[assignment,return-value]
        plane.submit(broken)
        submit(request())
        with caplog.at_level(logging.ERROR):
            await submit.all(1)
        assert caplog.text.count("an answer could not be given") == 1
        assert plane.pending == 0

    def test_the_outputs_asked_for(self, clock: ManualClock) -> None:
        two = signature(Field("x", "FP64"), outputs=(Field("a", "FP64"), Field("b", "INT64")))
        runtime = FakeRuntime(two, lambda f: [f[:, 0], np.arange(len(f))])
        plane = ready_plane(clock, applied({1: 1.0}, [served(1, runtime)]))
        found = infer(plane, request(7, 8, outputs=[{"name": "b"}]))
        assert found.outputs is not None
        chosen = found.served.encoder.chosen(found.request, found.outputs)
        assert [(field.name, values.tolist()) for field, values, _output in chosen] == [("b", [0, 1])]
        with pytest.raises(InvalidRequest, match="unknown output 'c'"):
            infer(plane, request(outputs=[{"name": "c"}]))
        assert len(runtime.asked) == 1  # nothing was computed for it


class TestId:
    def test_is_kept(self, clock: ManualClock) -> None:
        assert infer(ready_plane(clock, applied({1: 1.0})), request(id="mine")).request.id == "mine"

    def test_or_made_and_never_twice(self, clock: ManualClock) -> None:
        """Feedback finds its prediction by it, so two workers must not make the same one either."""
        planes = [ready_plane(clock, applied({1: 1.0})) for _ in range(3)]
        ids = [infer(plane).request.id for plane in planes for _request in range(20)]
        assert len(set(ids)) == 60
        assert all(0 < len(name) <= 64 and name.isprintable() for name in ids)


class TestRouting:
    def test_a_key_stays_with_its_version(self, clock: ManualClock) -> None:
        plane = ready_plane(clock, applied({1: 0.5, 2: 0.5}))
        other = ready_plane(clock, applied({1: 0.5, 2: 0.5}))
        chosen = {}
        for number in range(50):
            parameters = {"routing_key": f"customer-{number}"}
            answers = {
                infer(p, request(parameters=parameters)).served.number
                for p in (plane, other)
                for _ in range(3)
            }
            assert len(answers) == 1
            chosen[number] = answers.pop()
        assert set(chosen.values()) == {1, 2}

    def test_without_a_key_the_id_decides(self, clock: ManualClock) -> None:
        plane = ready_plane(clock, applied({1: 0.5, 2: 0.5}))
        by_id = [infer(plane, request(id=f"r{n}")).served.number for n in range(50)]
        by_key = [infer(plane, request(parameters={"routing_key": f"r{n}"})).served.number for n in range(50)]
        assert by_id == by_key
        assert {infer(plane).served.number for _ in range(50)} == {1, 2}

    def test_a_version_of_weight_zero_answers_only_when_named(self, clock: ManualClock) -> None:
        plane = ready_plane(clock, applied({1: 1.0, 2: 0.0}))
        assert {infer(plane).served.number for _ in range(50)} == {1}
        assert infer(plane, version="2").served.number == 2

    @pytest.mark.parametrize("version", ["3", "0", "-1", "", "x", "1.0", "²", "1 1", "9" * 400])
    def test_a_version_not_there(self, clock: ManualClock, version: str) -> None:
        plane = ready_plane(clock, applied({1: 1.0, 2: 0.0}))
        with pytest.raises(VersionNotFound, match="it serves 1, 2") as caught:
            infer(plane, version=version)
        assert len(str(caught.value)) < 200

    def test_a_route_is_swapped_whole(self, clock: ManualClock) -> None:
        plane = ready_plane(clock, applied({1: 1.0}))
        assert infer(plane).served.number == 1
        plane.apply(applied({2: 1.0}))
        assert infer(plane).served.number == 2
        plane.remove("default", "e")
        plane.remove("default", "e")
        with pytest.raises(EndpointNotFound):
            infer(plane)

    def test_tenants_do_not_see_each_other(self, clock: ManualClock) -> None:
        plane = ready_plane(
            clock,
            applied({1: 1.0}),
            applied({2: 1.0}, tenant="other"),
            applied({3: 1.0}, endpoint="f", tenant="other"),
        )
        assert infer(plane).served.number == 1
        assert infer(plane, caller=OTHER).served.number == 2
        with pytest.raises(EndpointNotFound):
            infer(plane, endpoint="f")
        assert [a.route.endpoint for a in plane.endpoints("other")] == ["e", "f"]
        assert [a.tenant for a in plane.endpoints("default")] == ["default"]


class TestReady:
    def test_before_the_routes_are_known_nothing_is_said_to_be_missing(self, clock: ManualClock) -> None:
        plane = ready_plane(clock)
        plane.following = False
        assert plane.live()
        assert not plane.ready()
        with pytest.raises(NotReady):
            infer(plane)
        plane.following = True
        assert plane.ready()
        with pytest.raises(EndpointNotFound):
            infer(plane)

    def test_what_is_applied_is_served_even_then(self, clock: ManualClock) -> None:
        plane = ready_plane(clock, applied({1: 1.0}))
        plane.following = False
        assert infer(plane).served.number == 1

    def test_an_endpoint_without_versions(self, clock: ManualClock) -> None:
        plane = ready_plane(clock, applied({}))
        with pytest.raises(NotReady, match="no version yet; deploy one with: predis deploy e VERSION"):
            infer(plane)
        with pytest.raises(VersionNotFound, match="it serves none"):
            infer(plane, version="1")

    def test_an_unloaded_endpoint(self, clock: ManualClock) -> None:
        plane = ready_plane(clock, applied({}, config={"loaded": False}))
        with pytest.raises(NotReady, match="'e' is unloaded; load it with: predis endpoint load e"):
            infer(plane)


class Where(FakeRuntime):
    """Remembers whether it was asked in the event loop's thread."""

    def __init__(self) -> None:
        super().__init__(ONE, self.look)
        self.inline: list[bool] = []

    def look(self, features: Matrix) -> list[NDArray[Any]]:
        self.inline.append(threading.current_thread() is threading.main_thread())
        return [features[:, 0]]


def priced(number: int, runtime: FakeRuntime, *, row_s: float) -> Any:
    """A version that is believed to take so long for a row."""
    found = served(number, runtime)
    found.cost.fixed_s, found.cost.row_s = 0.0, row_s
    if isinstance(runtime, Where):
        runtime.inline.clear()
    return found


class TestJoining:
    @in_loop
    async def test_what_comes_in_one_round_of_the_loop_is_predicted_together(self) -> None:
        runtime = Where()
        plane = ready_plane(ManualClock(), applied({1: 1.0}, [priced(1, runtime, row_s=1e-6)]))
        submit = Submitted(plane)
        for number in range(5):
            submit(request(*[float(number)] * (number + 1)))
        assert (runtime.asked, plane.pending) == ([], 5)
        await rounds(1)
        assert [inputs.rows for inputs in runtime.asked] == [15]
        assert [answer(found) for found in submit.answered] == [[float(n)] * (n + 1) for n in range(5)]
        assert (runtime.inline, plane.pending) == ([True], 0)

    @in_loop
    async def test_a_lone_request_waits_for_nobody(self) -> None:
        runtime = Where()
        plane = ready_plane(ManualClock(), applied({1: 1.0}, [priced(1, runtime, row_s=1e-6)]))
        submit = Submitted(plane)
        for number in range(3):
            submit(request(number))
            await rounds(1)
            assert len(submit.answered) == number + 1
        assert [inputs.rows for inputs in runtime.asked] == [1, 1, 1]

    @in_loop
    async def test_a_round_that_does_not_end_is_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With very many connections the loop reads for seconds before it does what is due."""
        monkeypatch.setattr(plane_module, "_ROUND_S", 0.0)
        runtime = FakeRuntime(ONE)
        plane = ready_plane(ManualClock(), applied({1: 1.0}, [served(1, runtime)]))
        submit = Submitted(plane)
        submit(request(1))
        assert submit.answered == []
        submit(request(2), started=time.perf_counter() + 1)
        assert [answer(found) for found in submit.answered] == [[1], [2]]
        assert [inputs.rows for inputs in runtime.asked] == [2]
        await rounds()
        submit(request(3))
        assert [answer(found) for found in await submit.all(3)] == [[1], [2], [3]]

    @in_loop
    async def test_versions_and_endpoints_are_not_mixed(self) -> None:
        runtimes = [FakeRuntime(ONE, lambda f, n=n: [f[:, 0] + n]) for n in (10, 20, 30)]  # type: ignore[misc]
        plane = ready_plane(
            ManualClock(),
            applied({1: 1.0, 2: 0.0}, [served(1, runtimes[0]), served(2, runtimes[1])]),
            applied({1: 1.0}, [served(1, runtimes[2], endpoint="f")], endpoint="f"),
        )
        submit = Submitted(plane)
        calls = [
            submit(request(number), endpoint, version=version)
            for number in (1, 2)
            for endpoint, version in (("e", None), ("e", "2"), ("f", None))
        ]
        await submit.all(6)
        assert [answer(found) for found in calls] == [[11], [21], [31], [12], [22], [32]]
        assert [len(runtime.asked) for runtime in runtimes] == [1, 1, 1]

    @in_loop
    async def test_an_endpoints_configuration_bounds_it(self) -> None:
        runtime = FakeRuntime(ONE)
        plane = ready_plane(
            ManualClock(),
            applied({1: 1.0}, [served(1, runtime)], config={"batching": {"rows": 2}}),
            policy=BatchPolicy(rows=3, seconds=5.0, inline_s=7.0),
        )
        submit = Submitted(plane)
        version = submit(request()).served
        assert version.batcher.policy == BatchPolicy(2, 5.0, 7.0)
        for number in range(4):
            submit(request(number))
        await submit.all(5)
        assert [inputs.rows for inputs in runtime.asked] == [2, 2, 1]

    @in_loop
    async def test_another_configuration_of_the_same_version(self) -> None:
        """Its queue stays: two would be two predictions at once."""
        runtime = FakeRuntime(ONE)
        version = served(1, runtime)
        plane = ready_plane(ManualClock(), applied({1: 1.0}, [version]))
        submit = Submitted(plane)
        for number in range(4):
            submit(request(number))
        batcher = version.batcher
        plane.apply(applied({1: 1.0}, [version], config={"batching": {"rows": 1, "ms": 3}}))
        assert version.batcher is batcher
        assert (batcher.policy.rows, batcher.policy.seconds) == (1, 0.003)
        await submit.all(4)
        assert [inputs.rows for inputs in runtime.asked] == [1, 1, 1, 1]

    @pytest.mark.parametrize(
        ("row_s", "rows", "inline"), [(0.001, 2, True), (0.001, 3, False), (0.1, 1, False), (1e-9, 100, True)]
    )
    def test_the_price_of_the_rows_decides_where(
        self, clock: ManualClock, row_s: float, rows: int, inline: bool
    ) -> None:
        runtime = Where()
        plane = ready_plane(
            clock, applied({1: 1.0}, [priced(1, runtime, row_s=row_s)]), policy=BatchPolicy(inline_s=0.00201)
        )
        assert answer(infer(plane, request(*range(rows)))) == list(range(rows))
        assert runtime.inline == [inline]

    @in_loop
    async def test_a_failure_does_not_fail_the_neighbours(self) -> None:
        def fail_on_seven(features: Matrix) -> list[NDArray[Any]]:
            if 7 in features:
                raise ValueError("seven")
            return [features[:, 0]]

        sink = ListSink()
        version = served(1, FakeRuntime(ONE, fail_on_seven))
        plane = ready_plane(ManualClock(), applied({1: 1.0}, [version]), sink=sink)
        submit = Submitted(plane)
        calls = [submit(request(number, id=f"r{number}")) for number in (1, 7, 2)]
        await submit.all(3)
        assert [answer(calls[0]), answer(calls[2])] == [[1], [2]]
        assert isinstance(calls[1].error, ModelFailure)
        assert calls[1].outputs is None
        assert {r.id: (r.status, r.scores) for r in sink.records} == {
            "r1": (Status.OK, [1.0]),
            "r7": (Status.FAILED, []),
            "r2": (Status.OK, [2.0]),
        }
        assert (plane.pending, version.pending) == (0, 0)


class Gate(FakeRuntime):
    """A runtime that waits to be let go on, once ``shut``."""

    def __init__(self) -> None:
        super().__init__(ONE, self.wait)
        self.entered, self.open = threading.Semaphore(0), threading.Event()
        self.inside = self.most_inside = 0
        self._lock = threading.Lock()
        self.open.set()

    def wait(self, features: Matrix) -> Sequence[Matrix]:
        with self._lock:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        self.entered.release()
        assert self.open.wait(30)
        with self._lock:
            self.inside -= 1
        return [features[:, 0]]

    def shut(self) -> None:
        self.open.clear()
        while self.entered.acquire(blocking=False):
            pass

    async def is_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=30)


PATIENT = Admission(wait_s=math.inf)


def gated(*gates: Gate, sink: ListSink | None = None, **more: Any) -> Plane:
    """A plane whose versions 1, 2, ... are dear and wait at their gates."""
    versions = [priced(number, gate, row_s=1.0) for number, gate in enumerate(gates, 1)]
    for gate in gates:
        gate.shut()
    weights = {version.number: 1.0 if version.number == 1 else 0.0 for version in versions}
    more.setdefault("admission", PATIENT)
    policy = BatchPolicy(seconds=1e9)
    return ready_plane(ManualClock(), applied(weights, versions), sink=sink, policy=policy, **more)


class TestThreads:
    @in_loop
    async def test_while_one_batch_runs_the_next_one_grows(self) -> None:
        gate = Gate()
        plane = gated(gate)
        submit = Submitted(plane)
        submit(request(0))
        await gate.is_entered()
        for number in (1, 2, 3):
            submit(request(number))
            await rounds()
        assert submit.answered == []
        gate.open.set()
        assert [answer(found) for found in await submit.all(4)] == [[0], [1], [2], [3]]
        assert [inputs.rows for inputs in gate.asked] == [1, 3]
        assert gate.most_inside == 1

    @in_loop
    async def test_the_loop_goes_on_meanwhile(self) -> None:
        gate = Gate()
        plane = gated(gate)
        plane.apply(applied({1: 1.0}, endpoint="cheap"))
        submit = Submitted(plane)
        submit(request())
        await gate.is_entered()
        submit(request(), "cheap")
        await rounds(1)
        assert [found.endpoint for found in submit.answered] == ["cheap"]
        gate.open.set()
        await submit.all(2)

    @in_loop
    async def test_one_version_never_runs_twice_at_once_two_versions_do(self) -> None:
        one, two = Gate(), Gate()
        plane = gated(one, two, threads=4)
        submit = Submitted(plane)
        for _round in range(3):
            for version in ("1", "2"):
                submit(request(), version=version)
            await rounds()
        await one.is_entered()
        await two.is_entered()
        one.open.set()
        two.open.set()
        await submit.all(6)
        assert (one.most_inside, two.most_inside) == (1, 1)

    @in_loop
    async def test_a_request_keeps_the_version_it_was_given_while_routes_change(self) -> None:
        gate = Gate()
        plane = gated(gate)
        submit = Submitted(plane)
        first = submit(request(5))
        await gate.is_entered()
        second = submit(request(6))
        plane.apply(applied({2: 1.0}))
        gate.open.set()
        await submit.all(2)
        assert [(c.served.number, answer(c)) for c in (first, second)] == [(1, [5]), (1, [6])]
        assert (await plane.infer(call(request()))).served.number == 2

    def test_and_nobody_keeps_it_afterwards(self) -> None:
        def story() -> weakref.ref[Gate]:
            gate = Gate()
            plane = gated(gate)

            async def infer_and_swap() -> None:
                task = asyncio.ensure_future(plane.infer(call(request(5))))
                await gate.is_entered()
                plane.apply(applied({2: 1.0}))
                gate.open.set()
                await task
                while not plane.close():  # the answer is given before the thread has let go
                    await rounds()

            asyncio.run(infer_and_swap())
            return weakref.ref(gate)

        kept = story()
        gc.collect()
        assert kept() is None

    @in_loop
    async def test_closing_says_whether_something_runs_still(self) -> None:
        gate = Gate()
        plane = gated(gate)
        submit = Submitted(plane)
        submit(request(0))
        await gate.is_entered()
        assert not plane.close()
        gate.open.set()
        await submit.all(1)
        while not plane.close():
            await rounds()

    @in_loop
    async def test_settled_once_the_loop_has_gone_round(self) -> None:
        plane = ready_plane(ManualClock(), applied({1: 1.0}))
        await plane.infer(call(request()))
        found = await asyncio.to_thread(plane.settled)
        await rounds()
        assert found.is_set()
        again = plane.settled()
        assert not again.is_set()
        await rounds()
        assert again.is_set()

    def test_settled_where_no_loop_runs(self, clock: ManualClock) -> None:
        plane = ready_plane(clock, applied({1: 1.0}))
        assert plane.settled().is_set()
        infer(plane)
        assert plane.settled().is_set()


class TestDeadlines:
    @in_loop
    async def test_one_that_has_passed_is_refused_at_once(self) -> None:
        runtime = FakeRuntime(ONE)
        plane = ready_plane(ManualClock(), applied({1: 1.0}, [served(1, runtime)]))
        with pytest.raises(DeadlineExceeded):
            await plane.infer(call(request(), deadline=time.perf_counter()))
        assert answer(await plane.infer(call(request(3), deadline=time.perf_counter() + 60))) == [3]
        assert len(runtime.asked) == 1

    @in_loop
    async def test_so_is_one_that_would_pass_before_its_turn(self) -> None:
        gate = Gate()
        plane = gated(gate)
        submit = Submitted(plane)
        submit(request())
        await gate.is_entered()
        with pytest.raises(DeadlineExceeded, match="before this request's turn"):
            submit(request(), deadline=time.perf_counter() + 0.01)
        gate.open.set()
        await submit.all(1)

    @in_loop
    async def test_one_that_passes_in_the_queue(self) -> None:
        """Believed to be cheap, the version takes long this time."""
        gate, sink = Gate(), ListSink()
        plane = gated(gate, sink=sink)
        submit = Submitted(plane)
        submit(request(1, id="first"))
        await gate.is_entered()
        late = submit(request(2, id="late"), deadline=time.perf_counter() + 60)
        submit(request(3, id="last"))
        late.deadline = time.perf_counter()
        gate.open.set()
        await submit.all(3)
        assert isinstance(late.error, DeadlineExceeded)
        assert [inputs.rows for inputs in gate.asked] == [1, 1]
        assert [record.id for record in sink.records] == ["first", "last"]  # no version's fault
        assert plane.pending == 0

    @in_loop
    async def test_one_that_passes_while_another_is_predicted_is_told_so_then(self) -> None:
        gate = Gate()
        plane = gated(gate)
        plane.find("default", "e").versions[1].cost.row_s = 0.01
        submit = Submitted(plane)
        submit(request(1))
        await gate.is_entered()
        late = submit(request(2), deadline=time.perf_counter() + 0.1)
        patient = submit(request(3), deadline=time.perf_counter() + 60)
        (answered,) = await submit.all(1)
        assert answered is late
        assert isinstance(late.error, DeadlineExceeded)
        assert plane.pending == 2
        gate.open.set()
        await submit.all(3)
        assert answer(patient) == [3]
        assert [inputs.rows for inputs in gate.asked] == [1, 1]

    @in_loop
    async def test_the_protocols_parameter(self) -> None:
        plane = ready_plane(ManualClock(), applied({1: 1.0}))
        started = time.perf_counter() - 1.0
        with pytest.raises(DeadlineExceeded):
            await plane.infer(call(request(parameters={"timeout": 1_000_000}), started=started))
        found = await plane.infer(call(request(parameters={"timeout": 90_000_000}), started=started))
        assert found.deadline == started + 90
        shorter = call(request(parameters={"timeout": 90_000_000}), deadline=started + 80)
        assert (await plane.infer(shorter)).deadline == started + 80
        for wrong in (-1, "soon"):
            with pytest.raises(InvalidRequest):
                await plane.infer(call(request(parameters={"timeout": wrong})))

    @in_loop
    async def test_who_has_gone_away_is_not_predicted_for(self) -> None:
        gate = Gate()
        plane = gated(gate)
        submit = Submitted(plane)
        submit(request(1))
        await gate.is_entered()
        submit(request(2)).cancel()
        task = asyncio.ensure_future(plane.infer(call(request(3))))
        await rounds()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open.set()
        await submit.all(2)
        while plane.pending:
            await rounds()
        assert [inputs.rows for inputs in gate.asked] == [1]


class TestAdmission:
    @in_loop
    async def test_so_many_and_no_more(self) -> None:
        gate, sink = Gate(), ListSink()
        plane = gated(gate, admission=Admission(pending=2, wait_s=math.inf), sink=sink)
        submit = Submitted(plane)
        submit(request(1))
        await gate.is_entered()
        submit(request(2))
        for _attempt in range(3):
            with pytest.raises(Overloaded, match="more than 2 requests are waiting here"):
                submit(request(3))
        assert plane.pending == 2
        gate.open.set()
        await submit.all(2)
        assert answer(await plane.infer(call(request(4)))) == [4]
        assert [record.features.tolist() for record in sink.records] == [[[1]], [[2]], [[4]]]

    @in_loop
    async def test_of_one_tenant(self) -> None:
        gate = Gate()
        plane = gated(gate, admission=Admission(pending=9, wait_s=math.inf, tenant_pending=1))
        plane.apply(applied({1: 1.0}, tenant="other"))
        submit = Submitted(plane)
        submit(request(1))
        await gate.is_entered()
        for endpoint in ("e", "e"):
            with pytest.raises(TenantOverloaded, match="more than 1 requests of tenant 'default'"):
                submit(request(2), endpoint)
        assert (await plane.infer(call(request(), caller=OTHER))).served.number == 1
        gate.open.set()
        await submit.all(1)
        assert answer(await plane.infer(call(request(4)))) == [4]

    @in_loop
    async def test_whose_turn_would_come_too_late(self) -> None:
        gate = Gate()
        plane = gated(gate, admission=Admission(wait_s=2.5))
        submit = Submitted(plane)
        submit(request(1))
        await gate.is_entered()
        submit(request(1))
        submit(request(1))
        with pytest.raises(
            Overloaded, match=r"would wait [23]\.\d s here, more than 2\.5 s .setting max_wait_ms"
        ):
            submit(request(1))
        gate.open.set()
        await submit.all(3)

    @in_loop
    async def test_what_the_loop_can_answer_by_itself_is_no_reason_to_refuse(self) -> None:
        """It is answered first, and then there is room."""
        runtime = FakeRuntime(ONE)
        plane = ready_plane(
            ManualClock(), applied({1: 1.0}, [served(1, runtime)]), admission=Admission(2, 1.0, 2)
        )
        submit = Submitted(plane)
        for number in range(5):
            submit(request(number))
        assert [answer(found) for found in submit.answered] == [[0], [1], [2], [3]]
        assert [answer(found) for found in await submit.all(5)][4] == [4]

    @in_loop
    async def test_a_version_that_is_idle_does_not_suffer_for_another(self) -> None:
        gate = Gate()
        plane = gated(gate, admission=Admission(pending=1, wait_s=math.inf))
        plane.apply(applied({1: 1.0}, endpoint="idle"))
        submit = Submitted(plane)
        submit(request(1))
        await gate.is_entered()
        with pytest.raises(Overloaded):
            submit(request(2))
        assert (await plane.infer(call(request(), "idle"))).error is None
        gate.open.set()
        await submit.all(1)

    @in_loop
    async def test_whether_there_is_room_can_be_asked_before_the_request_is_read(self) -> None:
        gate, other = Gate(), Gate()
        plane = gated(gate, other, admission=Admission(pending=1, wait_s=math.inf))
        counted = plane.applied("default", "e").versions[1].metrics = VersionMetrics(  # type: ignore[union-attr]
            Metrics(None, "test"), "default", endpoint="e", version=1
        )
        plane.check_room("default", "e", version=None)
        submit = Submitted(plane)
        submit(request(1))
        await gate.is_entered()
        for version in (None, "1"):
            with pytest.raises(Overloaded):
                plane.check_room("default", "e", version=version)
        assert counted.shed.value == 2
        plane.check_room("default", "e", version="2")  # idle
        plane.check_room("default", "nobody", version=None)  # the request will be told
        plane.apply(applied({1: 0.5, 2: 0.5}, plane.applied("default", "e").versions.values()))  # type: ignore[union-attr]
        plane.check_room("default", "e", version=None)  # which of them is not known yet
        gate.open.set()
        await submit.all(1)

    @in_loop
    async def test_what_is_refused_or_fails_leaves_its_room(self) -> None:
        runtime = FakeRuntime(ONE)
        plane = ready_plane(
            ManualClock(), applied({1: 1.0}, [served(1, runtime)]), admission=Admission(1, 1.0, 1)
        )
        for _attempt in range(5):
            with pytest.raises(InvalidRequest):
                await plane.infer(call(decode_request(body(tensor("y", "FP64", [1])), LIMITS)))
        runtime.answer = lambda features: []
        for _attempt in range(5):
            with pytest.raises(ModelFailure):
                await plane.infer(call(request()))
        runtime.answer = lambda features: [features[:, 0]]
        assert await plane.infer(call(request()))

    @in_loop
    async def test_so_do_callers_who_went_away(self) -> None:
        gate = Gate()
        plane = gated(gate, admission=Admission(1, math.inf, 1))
        task = asyncio.ensure_future(plane.infer(call(request(1))))
        await gate.is_entered()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(Overloaded):
            await plane.infer(call(request(1)))
        gate.open.set()
        while plane.pending:
            await rounds()
        assert answer(await plane.infer(call(request(2)))) == [2]


class TestCounting:
    """What is counted of a version's requests."""

    def version(self, runtime: FakeRuntime | None = None) -> tuple[Any, Any]:
        found = served(1, runtime, metrics=Metrics(None, "test"))
        return found, found.metrics

    @in_loop
    async def test_how_they_ended(self) -> None:
        runtime = FakeRuntime(ONE)
        version, counted = self.version(runtime)
        plane = ready_plane(ManualClock(), applied({1: 1.0}, [version]))
        submit = Submitted(plane)
        for _request in range(3):
            submit(request(1, 2))
        price, version.cost.fixed_s = version.cost.fixed_s, 60.0
        with pytest.raises(Overloaded):
            submit(request())
        version.cost.fixed_s = price
        await submit.all(3)
        with pytest.raises(InvalidRequest):
            submit(request(outputs=[{"name": "c"}]))
        with pytest.raises(DeadlineExceeded):
            submit(request(), deadline=0.0)
        runtime.answer = lambda features: []
        with pytest.raises(ModelFailure):
            await plane.infer(call(request()))
        outcomes = (counted.ok, counted.shed, counted.rejected, counted.late, counted.failed)
        assert [counter.value for counter in outcomes] == [3, 1, 1, 1, 1]
        assert counted.rows.value == 6
        assert [h.count for h in (counted.request_s, counted.queue_s, counted.predict_s)] == [3, 3, 1]
        assert (counted.batch_rows.count, counted.batch_rows.sum) == (1, 6)

    def test_in_memory_or_not(self, clock: ManualClock) -> None:
        version, _counted = self.version()
        gauge = version.metrics._loaded
        assert gauge.value == 1
        version.close()
        assert gauge.value == 0


CACHED = {"cache": {"store": "memory", "ttl_s": 60}}


class TestCache:
    """What the plane does with a prediction cache; ``serving/cache`` has tests of its own."""

    def plane(self, runtime: FakeRuntime, *more: AppliedRoute, **options: Any) -> Plane:
        route = applied({1: 1.0}, [served(1, runtime)], config=CACHED)
        return ready_plane(ManualClock(), route, *more, **options)

    @in_loop
    async def test_the_same_rows_are_predicted_once(self) -> None:
        runtime, sink = FakeRuntime(ONE), ListSink()
        plane = self.plane(runtime, sink=sink)
        for number in range(3):
            found = await plane.infer(call(request(1, 2, id=f"r{number}")))
            assert answer(found) == [1, 2]
        assert answer(await plane.infer(call(request(2, 1)))) == [2, 1]
        assert [inputs.rows for inputs in runtime.asked] == [2, 2]
        assert [(r.id, r.scores) for r in sink.records][:3] == [(f"r{n}", [1, 2]) for n in range(3)]
        assert plane.pending == 0

    @in_loop
    async def test_asked_at_once_they_are_too(self) -> None:
        runtime = FakeRuntime(ONE)
        plane = self.plane(runtime)
        submit = Submitted(plane)
        for number in (1, 1, 2, 1):
            submit(request(number))
        found = await submit.all(4)
        assert sorted(answer(each) for each in found) == [[1], [1], [1], [2]]
        assert sorted(row for inputs in runtime.asked for row in inputs.features[:, 0].tolist()) == [1, 2]

    @in_loop
    async def test_one_version_is_never_answered_with_anothers_prediction(self) -> None:
        one, two = (FakeRuntime(ONE, lambda f, n=n: [f[:, 0] + n]) for n in (10, 20))  # type: ignore[misc]
        plane = ready_plane(
            ManualClock(),
            applied({1: 1.0, 2: 0.0}, [served(1, one), served(2, two)], config=CACHED),
        )
        # Their rows in the registry differ in the digest of their files.
        answers = [answer(await plane.infer(call(request(1), version=v))) for v in ("1", "2", "1", "2")]
        assert answers == [[11], [21], [11], [21]]

    @in_loop
    async def test_a_failure_is_not_kept(self) -> None:
        runtime = FakeRuntime(ONE)
        plane = self.plane(runtime)
        good, runtime.answer = runtime.answer, lambda features: []
        submit = Submitted(plane)
        for _request in range(3):
            submit(request(1))
        assert all(isinstance(each.error, ModelFailure) for each in await submit.all(3))
        assert len(runtime.asked) == 1
        runtime.answer = good
        assert answer(await plane.infer(call(request(1)))) == [1]
        assert plane.pending == 0

    @in_loop
    async def test_who_waits_for_one_that_gave_up_is_predicted_for(self) -> None:
        gate = Gate()
        plane = gated(gate)
        route = plane.applied("default", "e")
        assert route is not None
        plane.apply(applied({1: 1.0}, [route.versions[1]], config=CACHED))
        submit = Submitted(plane)
        submit(request(0))
        await gate.is_entered()
        submit(request(1)).cancel()
        follower = submit(request(1))
        gate.open.set()
        await submit.all(3)
        assert answer(follower) == [1]
        assert route.versions[1].pending == plane.pending == 0

    @in_loop
    async def test_is_as_the_endpoints_configuration_says(self) -> None:
        runtime = FakeRuntime(ONE)
        version = served(1, runtime)
        plane = ready_plane(ManualClock(), applied({1: 1.0}, [version], config=CACHED))
        await plane.infer(call(request(1)))
        plane.apply(applied({1: 1.0}, [version]))
        await plane.infer(call(request(1)))
        assert len(runtime.asked) == 2


def test_a_caller_is_known_by_the_key_not_by_the_request(clock: ManualClock) -> None:
    plane = ready_plane(clock, applied({1: 1.0}))
    assert infer(plane, request(parameters={"tenant": "other"})).applied.tenant == LOCAL.tenant
