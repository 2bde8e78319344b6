from __future__ import annotations

import asyncio
import gc
import json
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from predis.access import Caller
from predis.access.keys import LOCAL
from predis.clock import ManualClock
from predis.errors import (
    EndpointNotFound,
    InvalidRequest,
    ModelFailure,
    NotReady,
    Overloaded,
    PredisError,
    TooLarge,
    VersionNotFound,
)
from predis.registry.signature import Field
from predis.serving import plane as plane_module
from predis.serving.plane import Answer, Plane
from predis.serving.protocol import InferRequest, decode_request
from predis.state.records import Matrix, PredictionRecord, Status, decode
from tests.serving.helpers import (
    LIMITS,
    ONE,
    FakeRuntime,
    ListSink,
    applied,
    body,
    ready_plane,
    served,
    signature,
    tensor,
)


@pytest.fixture
def sink() -> ListSink:
    return ListSink()


def request(*data: float, **more: Any) -> InferRequest:
    return decode_request(body(tensor("x", "FP64", list(data or (1.0,))), **more), LIMITS)


def infer(
    plane: Plane,
    wanted: InferRequest | None = None,
    *,
    endpoint: str = "e",
    version: str | None = None,
    caller: Caller = LOCAL,
) -> Answer:
    return asyncio.run(plane.infer(caller, endpoint, version=version, request=wanted or request()))


def version_of(answer: Answer) -> int:
    number = int(orjson.loads(answer.body)["model_version"])
    assert number == answer.served.number
    return number


class TestCapture:
    def test_a_record_is_what_was_asked_and_answered(self, clock: ManualClock, sink: ListSink) -> None:
        wanted = signature(
            Field("n", "FP64", nullable=True), Field("k", "BYTES", nullable=True, levels=("a", "b")),
            outputs=(Field("label", "INT64"), Field("p", "FP32", (-1, 2))), score="p",
        )  # fmt: skip

        def answer(features: Matrix) -> list[NDArray[Any]]:
            p = np.linspace(0, 1, len(features), dtype=np.float32)
            return [(p > 0.5).astype(np.int64), np.column_stack([1 - p, p])]

        plane = ready_plane(clock, applied({7: 1.0}, [served(7, FakeRuntime(wanted, answer))]), sink=sink)
        content = body(
            tensor("k", "BYTES", ["b", "new", None]),
            tensor("n", "FP64", [1.5, None, -2]),
            id="r-é",
            parameters={"event_time": "2013-04-01T05:00:00Z"},
        )
        answered = infer(plane, decode_request(content, LIMITS))
        assert sink.payloads == []  # nothing before the answer is sent
        clock.advance(2)
        plane.capture(answered, seconds=0.0012345)
        (record,) = sink.records
        np.testing.assert_array_equal(record.features, [[1.5, 1], [np.nan, -1], [-2, np.nan]])
        assert record.scores.tolist() == [0, 0.5, 1]
        assert json.loads(record.extra) == [[1, 1, "new"]]
        assert (record.tenant, record.endpoint, record.version, record.id) == ("default", "e", 7, "r-é")
        assert (record.status, record.latency_us) == (Status.OK, 1234)
        assert (record.received_at, record.event_at) == (clock.time_ns(), 1_364_792_400_000_000_000)

    def test_without_an_event_time_or_unseen_texts(self, clock: ManualClock, sink: ListSink) -> None:
        plane = ready_plane(clock, applied({1: 1.0}), sink=sink)
        plane.capture(infer(plane), seconds=0.5)
        (record,) = sink.records
        assert record.event_at == record.received_at == clock.time_ns()
        assert record.extra == b""

    @pytest.mark.parametrize("columns", [1, 300, 70_000])
    def test_any_number_of_columns(self, clock: ManualClock, sink: ListSink, columns: int) -> None:
        wide = signature(Field("x", "FP64", (-1, columns)))
        plane = ready_plane(clock, applied({1: 1.0}, [served(1, FakeRuntime(wide))]), sink=sink)
        content = body(tensor("x", "FP64", list(range(2 * columns)), shape=[2, columns]))
        plane.capture(infer(plane, decode_request(content, LIMITS)), seconds=0)
        (record,) = sink.records
        np.testing.assert_array_equal(record.features, np.arange(2.0 * columns).reshape(2, columns))

    @pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e9])
    def test_any_latency(self, clock: ManualClock, sink: ListSink, seconds: float) -> None:
        """Clocks jump; the record holds 32 bits."""
        plane = ready_plane(clock, applied({1: 1.0}), sink=sink)
        plane.capture(infer(plane), seconds=seconds)
        assert 0 <= sink.records[0].latency_us < 2**32

    def failed(
        self, plane: Plane, sink: ListSink, error: type[PredisError], wanted: InferRequest
    ) -> PredictionRecord:
        with pytest.raises(error):
            infer(plane, wanted)
        return decode(sink.payloads.pop())

    @pytest.mark.parametrize(
        ("wanted", "error"),
        [
            (decode_request(body(tensor("y", "FP64", [1]), id="r"), LIMITS), InvalidRequest),
            (decode_request(body(tensor("x", "FP64", ["a"]), id="r"), LIMITS), InvalidRequest),
            (decode_request(body(tensor("x", "FP64", [1] * 101), id="r"), LIMITS), TooLarge),
            (request(id="r", outputs=[{"name": "none"}]), InvalidRequest),
            (request(id="r", parameters={"event_time": "soon"}), PredisError),
        ],
    )
    def test_a_bad_request_is_recorded_as_the_callers_fault(
        self, clock: ManualClock, sink: ListSink, wanted: InferRequest, error: type[PredisError]
    ) -> None:
        plane = ready_plane(clock, applied({4: 1.0}), sink=sink)
        record = self.failed(plane, sink, error, wanted)
        assert (record.status, record.version, record.id) == (Status.REJECTED, 4, "r")
        assert (record.endpoint, record.features.shape, record.scores.shape) == ("e", (0, 0), (0,))
        assert record.received_at == record.event_at == clock.time_ns()

    def test_a_models_failure_is_recorded_as_its_own(self, clock: ManualClock, sink: ListSink) -> None:
        broken = FakeRuntime(ONE)
        plane = ready_plane(clock, applied({4: 1.0}, [served(4, broken)]), sink=sink)
        broken.answer = lambda features: []
        record = self.failed(plane, sink, ModelFailure, request(id="r"))
        assert (record.status, record.version, record.id) == (Status.FAILED, 4, "r")

    def test_a_request_for_nothing_there_is_nobodys_record(self, clock: ManualClock, sink: ListSink) -> None:
        plane = ready_plane(clock, applied({1: 1.0}), sink=sink)
        for arguments in (
            {"endpoint": "x"},
            {"version": "9"},
            {"caller": Caller("elsewhere", "eve", "admin")},
        ):
            with pytest.raises((EndpointNotFound, VersionNotFound)):
                infer(plane, **arguments)
        assert sink.payloads == []


class TestId:
    def test_is_echoed(self, clock: ManualClock) -> None:
        answer = infer(ready_plane(clock, applied({1: 1.0})), request(id="mine"))
        assert (answer.id, orjson.loads(answer.body)["id"]) == ("mine", "mine")

    def test_or_made_and_never_twice(self, clock: ManualClock) -> None:
        """Feedback finds its prediction by it, so two workers must not make the same one either."""
        planes = [ready_plane(clock, applied({1: 1.0})) for _ in range(3)]
        answers = [infer(plane) for plane in planes for _request in range(20)]
        ids = [answer.id for answer in answers]
        assert len(set(ids)) == 60
        assert all(orjson.loads(a.body)["id"] == a.id and 0 < len(a.id) <= 64 for a in answers)


class TestRouting:
    def test_a_key_stays_with_its_version(self, clock: ManualClock) -> None:
        plane = ready_plane(clock, applied({1: 0.5, 2: 0.5}))
        other = ready_plane(clock, applied({1: 0.5, 2: 0.5}))
        chosen = {}
        for number in range(50):
            parameters = {"routing_key": f"customer-{number}"}
            answers = {
                version_of(infer(p, request(parameters=parameters))) for p in (plane, other) for _ in range(3)
            }
            assert len(answers) == 1
            chosen[number] = answers.pop()
        assert set(chosen.values()) == {1, 2}

    def test_without_a_key_the_id_decides(self, clock: ManualClock) -> None:
        plane = ready_plane(clock, applied({1: 0.5, 2: 0.5}))
        by_id = [version_of(infer(plane, request(id=f"r{n}"))) for n in range(50)]
        assert by_id == [
            version_of(infer(plane, request(parameters={"routing_key": f"r{n}"}))) for n in range(50)
        ]
        assert {version_of(infer(plane)) for _ in range(50)} == {1, 2}

    def test_a_version_of_weight_zero_answers_only_when_named(self, clock: ManualClock) -> None:
        plane = ready_plane(clock, applied({1: 1.0, 2: 0.0}))
        assert {version_of(infer(plane)) for _ in range(50)} == {1}
        assert version_of(infer(plane, version="2")) == 2

    @pytest.mark.parametrize("version", ["3", "0", "-1", "", "x", "1.0", "²", "1 1", "9" * 400])
    def test_a_version_not_there(self, clock: ManualClock, version: str) -> None:
        plane = ready_plane(clock, applied({1: 1.0, 2: 0.0}))
        with pytest.raises(VersionNotFound, match="it serves 1, 2"):
            infer(plane, version=version)
        for look in (plane.model_ready, plane.model_metadata):
            with pytest.raises(VersionNotFound, match="it serves 1, 2"):
                look(LOCAL, "e", version=version)

    def test_a_route_is_swapped_whole(self, clock: ManualClock) -> None:
        plane = ready_plane(clock, applied({1: 1.0}))
        assert version_of(infer(plane)) == 1
        plane.apply(applied({2: 1.0}))
        assert version_of(infer(plane)) == 2
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
        other = Caller("other", "o", "client")
        assert version_of(infer(plane)) == 1
        assert version_of(infer(plane, caller=other)) == 2
        with pytest.raises(EndpointNotFound):
            infer(plane, endpoint="f")

    def test_the_outputs_asked_for(self, clock: ManualClock) -> None:
        two = signature(Field("x", "FP64"), outputs=(Field("a", "FP64"), Field("b", "INT64")))
        runtime = FakeRuntime(two, lambda f: [f[:, 0], np.arange(len(f))])
        plane = ready_plane(clock, applied({1: 1.0}, [served(1, runtime)]))
        for wanted in (["a"], ["b"], ["a", "b"]):
            document = orjson.loads(infer(plane, request(outputs=[{"name": n} for n in wanted])).body)
            assert [o["name"] for o in document["outputs"]] == wanted
        assert len(orjson.loads(infer(plane).body)["outputs"]) == 2
        asked = len(runtime.asked)
        with pytest.raises(InvalidRequest, match="unknown output 'c'"):
            infer(plane, request(outputs=[{"name": "c"}]))
        assert len(runtime.asked) == asked  # nothing was computed for it


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
        assert version_of(infer(plane)) == 1

    def test_an_endpoint_without_versions(self, clock: ManualClock) -> None:
        plane = ready_plane(clock, applied({}))
        assert not plane.model_ready(LOCAL, "e", version=None)
        for ask in (infer, lambda p: p.model_metadata(LOCAL, "e", version=None)):
            with pytest.raises(NotReady, match="no version yet"):
                ask(plane)
        with pytest.raises(VersionNotFound, match="it serves none"):
            infer(plane, version="1")

    def test_metadata_is_of_the_version_with_most_weight(self, clock: ManualClock) -> None:
        plane = ready_plane(clock, applied({1: 0.2, 2: 0.8, 3: 0.0}))
        found = plane.model_metadata(LOCAL, "e", version=None)
        assert found["parameters"] == {"model": "m", "version": "2"}
        assert found["versions"] == ["1", "2"]
        assert plane.model_metadata(LOCAL, "e", version="3")["parameters"]["version"] == "3"


class Meter:
    """Stands for ``time`` in the plane: it moves when a runtime says what a row costs."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class TestThreads:
    """What is cheap runs where it is asked; what is dear must not hold up the event loop."""

    @pytest.fixture
    def meter(self, monkeypatch: pytest.MonkeyPatch) -> Meter:
        meter = Meter()
        monkeypatch.setattr(plane_module, "time", meter)
        return meter

    def route(self, meter: Meter, row_cost_s: float) -> tuple[Any, list[bool]]:
        inline: list[bool] = []

        def answer(features: Matrix) -> Sequence[Matrix]:
            meter.now += row_cost_s * len(features)
            inline.append(threading.current_thread() is threading.main_thread())
            return [features[:, 0]]

        found = applied({1: 1.0}, [served(1, FakeRuntime(ONE, answer))])
        inline.clear()
        return found, inline

    @pytest.mark.parametrize(
        ("row_cost_s", "rows", "expected"),
        [(0.001, 1, True), (0.001, 2, True), (0.001, 3, False), (0.1, 1, False), (0.0, 100, True)],
    )
    def test_the_price_of_the_rows_decides(
        self, clock: ManualClock, meter: Meter, row_cost_s: float, rows: int, expected: bool
    ) -> None:
        route, inline = self.route(meter, row_cost_s)
        plane = ready_plane(clock, route, inline_s=0.002 + 1e-12)
        answer = infer(plane, request(*range(rows)))
        assert answer.outputs[0].tolist() == list(range(rows))
        assert inline == [expected]

    def test_a_slow_first_run_does_not_make_a_version_dear(self, clock: ManualClock, meter: Meter) -> None:
        costs = iter([9.0, 9.0, 0.0001, 9.0, 9.0])

        def answer(features: Matrix) -> Sequence[Matrix]:
            meter.now += next(costs)
            return [features[:, 0]]

        assert served(1, FakeRuntime(ONE, answer)).row_cost_s == pytest.approx(0.0001)

    def test_an_error_in_a_thread_is_recorded_like_any(self, clock: ManualClock, sink: ListSink) -> None:
        broken = FakeRuntime(ONE)
        route = applied({1: 1.0}, [served(1, broken)])
        route.versions[1].row_cost_s = 1.0
        broken.answer = lambda features: []
        with pytest.raises(ModelFailure):
            infer(ready_plane(clock, route, sink=sink))
        assert [r.status for r in sink.records] == [Status.FAILED]


class Gate(FakeRuntime):
    """A runtime that waits to be let go on, once ``shut``."""

    def __init__(self) -> None:
        super().__init__(ONE, self.wait)
        self.entered, self.open = threading.Semaphore(0), threading.Event()
        self.open.set()

    def wait(self, features: Matrix) -> Sequence[Matrix]:
        self.entered.release()
        assert self.open.wait(30)
        return [features[:, 0]]

    def shut(self) -> None:
        self.open.clear()
        while self.entered.acquire(blocking=False):
            pass


class TestOverload:
    def plane(self, clock: ManualClock, gate: Gate, **more: Any) -> Plane:
        route = applied({1: 1.0}, [served(1, gate)])
        route.versions[1].row_cost_s = 1.0
        gate.shut()
        return ready_plane(clock, route, **more)

    def test_what_is_too_much_is_refused_and_the_rest_finished(
        self, clock: ManualClock, sink: ListSink
    ) -> None:
        gate = Gate()
        plane = self.plane(clock, gate, max_pending=2, sink=sink)

        async def story() -> list[Answer]:
            waiting = [
                asyncio.ensure_future(plane.infer(LOCAL, "e", version=None, request=request(n)))
                for n in (1, 2)
            ]
            for _request in waiting:
                await asyncio.to_thread(gate.entered.acquire)
            for _attempt in range(3):
                with pytest.raises(Overloaded, match="more than 2"):
                    await plane.infer(LOCAL, "e", version=None, request=request(3))
            gate.open.set()
            answered = [await task for task in waiting]
            return [*answered, await plane.infer(LOCAL, "e", version=None, request=request(4))]

        assert [a.outputs[0].tolist() for a in asyncio.run(story())] == [[1], [2], [4]]
        assert sink.payloads == []  # overload is no version's fault

    def test_failures_do_not_use_up_the_room(self, clock: ManualClock) -> None:
        plane = ready_plane(clock, applied({1: 1.0}), max_pending=1)
        for _attempt in range(5):
            with pytest.raises(InvalidRequest):
                infer(plane, decode_request(body(tensor("y", "FP64", [1])), LIMITS))
        assert infer(plane)

    def test_neither_do_callers_who_went_away(self, clock: ManualClock) -> None:
        gate = Gate()
        plane = self.plane(clock, gate, max_pending=1)

        async def story() -> Answer:
            task = asyncio.ensure_future(plane.infer(LOCAL, "e", version=None, request=request(1)))
            await asyncio.to_thread(gate.entered.acquire)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.open.set()
            return await plane.infer(LOCAL, "e", version=None, request=request(2))

        assert asyncio.run(story()).outputs[0].tolist() == [2]

    def test_a_request_keeps_the_version_it_was_given_while_routes_change(self, clock: ManualClock) -> None:
        """And nobody keeps it afterwards."""

        def story() -> weakref.ref[Gate]:
            gate = Gate()
            plane = self.plane(clock, gate)

            async def infer_and_swap() -> Answer:
                task = asyncio.ensure_future(plane.infer(LOCAL, "e", version=None, request=request(5)))
                await asyncio.to_thread(gate.entered.acquire)
                plane.apply(applied({2: 1.0}))
                gate.open.set()
                return await task

            answer = asyncio.run(infer_and_swap())
            assert (version_of(answer), answer.outputs[0].tolist()) == (1, [5])
            return weakref.ref(gate)

        kept = story()
        gc.collect()
        assert kept() is None


def test_a_version_that_fails_on_a_plain_row_never_serves() -> None:
    with pytest.raises(ModelFailure):
        served(1, FakeRuntime(ONE, lambda features: []))


def test_warming_gives_the_columns_of_the_signature() -> None:
    runtime = FakeRuntime(
        signature(Field("a", "FP64"), Field("w", "FP32", (-1, 2, 3)), Field("k", "BYTES", levels=("x",)))
    )
    served(1, runtime)
    assert {features.shape for features in runtime.asked} == {(1, 8)}
