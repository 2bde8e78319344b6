from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from predis.access import Caller
from predis.clock import ManualClock
from predis.errors import (
    DeadlineExceeded,
    EndpointNotFound,
    InvalidRequest,
    ModelFailure,
    PredisError,
    TooLarge,
    VersionNotFound,
)
from predis.registry.signature import Field
from predis.serving.capture import Capture
from predis.serving.plane import Call, Plane
from predis.serving.protocol import InferRequest, Limits, decode_request
from predis.state.records import Matrix, Status
from tests.serving.helpers import (
    LIMITS,
    ONE,
    FakeRuntime,
    ListSink,
    Record,
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

MINUTE_NS = 60 * 10**9


@pytest.fixture
def sink() -> ListSink:
    return ListSink()


def request(*data: float, **more: Any) -> InferRequest:
    return decode_request(body(tensor("x", "FP64", list(data or (1.0,))), **more), LIMITS)


def infer(plane: Plane, wanted: InferRequest | None = None, endpoint: str = "e", **more: Any) -> Call:
    return asyncio.run(plane.infer(call(wanted or request(), endpoint, **more)))


async def together(plane: Plane, *wanted: InferRequest) -> list[Call]:
    """Requests that come in one round of the loop, once they are answered and kept."""
    calls = [call(each) for each in wanted]
    for each in calls:
        plane.submit(each)
    while plane.pending:
        await rounds()
    await rounds()
    return calls


MIXED = signature(
    Field("n", "FP64", nullable=True), Field("k", "BYTES", nullable=True, levels=("a", "b")),
    outputs=(Field("label", "INT64"), Field("p", "FP32", (-1, 2))), score="p",
)  # fmt: skip


def mixed_answer(features: Matrix) -> list[NDArray[Any]]:
    p = np.linspace(0, 1, len(features), dtype=np.float32)
    return [(p > 0.5).astype(np.int64), np.column_stack([1 - p, p])]


def mixed(texts: list[str | None], numbers: list[float | None], **more: Any) -> InferRequest:
    return decode_request(body(tensor("k", "BYTES", texts), tensor("n", "FP64", numbers), **more), LIMITS)


class TestAnswered:
    def test_a_record_is_what_was_asked_and_answered(self, clock: ManualClock, sink: ListSink) -> None:
        version = served(7, FakeRuntime(MIXED, mixed_answer))
        plane = ready_plane(clock, applied({7: 1.0}, [version]), sink=sink)
        asked = mixed(
            ["b", "new", None],
            [1.5, None, -2],
            id="r-é",
            parameters={"event_time": "2013-04-01T05:00:00Z"},
        )
        infer(plane, asked)
        (record,) = sink.records
        np.testing.assert_array_equal(record.features, [[1.5, 1], [np.nan, -1], [-2, np.nan]])
        assert record.scores == [0, 0.5, 1]
        assert record.extra == [[1, 1, "new"]]
        assert (record.tenant, record.endpoint, record.version, record.id) == ("default", "e", 7, "r-é")
        assert record.status is Status.OK
        assert record.event_at == 1_364_792_400_000_000_000
        assert clock.time_ns() - MINUTE_NS < record.received_at <= clock.time_ns()
        assert 0 < record.latency_us < 60_000_000

    def test_nothing_before_the_answer_is_given(self, clock: ManualClock, sink: ListSink) -> None:
        plane = ready_plane(clock, applied({1: 1.0}), sink=sink)
        seen = []

        async def story() -> None:
            asked = call(request())
            asked.reply = lambda _call: seen.append(len(sink.payloads))
            plane.submit(asked)
            await rounds()

        asyncio.run(story())
        assert (seen, len(sink.payloads)) == ([0], 1)

    def test_without_an_event_time_it_is_when_it_came(self, clock: ManualClock, sink: ListSink) -> None:
        plane = ready_plane(clock, applied({1: 1.0}), sink=sink)
        infer(plane)
        clock.advance(100)
        infer(plane)
        first, second = sink.records
        assert first.event_at == first.received_at
        assert second.received_at - first.received_at == pytest.approx(100 * 10**9, abs=MINUTE_NS)
        assert sink.blocks[0].extra == b""

    def test_the_moment_is_that_of_the_first_byte(self, clock: ManualClock, sink: ListSink) -> None:
        """However long it waited since."""
        plane = ready_plane(clock, applied({1: 1.0}), sink=sink)
        asked = call(request())
        asked.started -= 500.0
        asyncio.run(plane.infer(asked))
        (record,) = sink.records
        assert clock.time_ns() - record.received_at == pytest.approx(500 * 10**9, abs=MINUTE_NS)
        assert record.latency_us == pytest.approx(500e6, abs=60e6)

    @pytest.mark.parametrize("columns", [1, 300, 70_000])
    def test_any_number_of_columns(self, clock: ManualClock, sink: ListSink, columns: int) -> None:
        wide = signature(Field("x", "FP64", (-1, columns)))
        plane = ready_plane(clock, applied({1: 1.0}, [served(1, FakeRuntime(wide))]), sink=sink)
        content = body(tensor("x", "FP64", list(range(2 * columns)), shape=[2, columns]))
        infer(plane, decode_request(content, LIMITS))
        (record,) = sink.records
        np.testing.assert_array_equal(record.features, np.arange(2.0 * columns).reshape(2, columns))

    def test_tensors_that_are_too_wide_leave_their_scores(self, clock: ManualClock, sink: ListSink) -> None:
        wide = signature(Field("x", "FP64", (-1, 4)))
        runtime = FakeRuntime(wide, lambda tensors: [tensors["x"].sum(axis=1)], takes="tensors")
        for columns, kept in ((4, 4), (3, 0)):
            version = served(1, runtime, limits=Limits(capture_columns=columns))
            plane = ready_plane(clock, applied({1: 1.0}, [version]), sink=sink)
            content = body(tensor("x", "FP64", [1, 2, 3, 4], shape=[1, 4]))
            infer(plane, decode_request(content, LIMITS))
            record = sink.records[-1]
            assert (record.scores, record.features.shape) == ([10], (1, kept))

    @pytest.mark.parametrize("ago_s", [-1.0, 0.0, 1e4])
    def test_any_latency(self, clock: ManualClock, sink: ListSink, ago_s: float) -> None:
        """Clocks jump; the record holds 32 bits of microseconds."""
        plane = ready_plane(clock, applied({1: 1.0}), sink=sink)
        asked = call(request())
        asked.started -= ago_s
        asyncio.run(plane.infer(asked))
        assert 0 <= sink.records[0].latency_us < 2**32


class TestBatch:
    @in_loop
    async def test_is_one_record(self) -> None:
        sink = ListSink()
        plane = ready_plane(
            ManualClock(), applied({7: 1.0}, [served(7, FakeRuntime(MIXED, mixed_answer))]), sink=sink
        )
        await together(
            plane,
            mixed(["a"], [1], id="r1"),
            mixed(["b", "new"], [2, 3], id="r2", parameters={"event_time": 5}),
            mixed(["other"], [None], id="r3"),
        )
        (block,) = sink.blocks
        assert (block.tenant, block.endpoint, block.version) == ("default", "e", 7)
        assert block.ids == ["r1", "r2", "r3"]
        assert block.rows.tolist() == [1, 2, 1]
        assert block.status.tolist() == [Status.OK] * 3
        np.testing.assert_array_equal(block.features, [[1, 0], [2, 1], [3, -1], [np.nan, -1]])
        np.testing.assert_allclose(block.scores, [0, 1 / 3, 2 / 3, 1], rtol=1e-6)
        assert json.loads(block.extra) == [[2, 1, "new"], [3, 1, "other"]]  # rows of the block
        assert [record.extra for record in sink.records] == [[], [[1, 1, "new"]], [[0, 1, "other"]]]
        assert block.event_at[1] == 5 * 10**9
        assert block.event_at[0] == block.received_at[0] <= block.received_at[2]
        assert (block.latency_us > 0).all()

    @in_loop
    async def test_joined_only_as_far_as_it_was_predicted_together(self) -> None:
        sink = ListSink()
        plane = ready_plane(ManualClock(), applied({1: 1.0}, config={"batching": {"rows": 2}}), sink=sink)
        await together(plane, *(request(number, id=f"r{number}") for number in range(5)))
        assert [block.ids for block in sink.blocks] == [["r0", "r1"], ["r2", "r3"], ["r4"]]

    @in_loop
    async def test_whose_answers_cannot_all_be_given(self) -> None:
        """A reply that fails is found after the prediction; it is that request's failure alone."""
        sink = ListSink()
        plane = ready_plane(ManualClock(), applied({1: 1.0}, [served(1, FakeRuntime(ONE))]), sink=sink)

        def fail(broken: Call) -> None:
            broken.error = ModelFailure("its text cannot be written")

        calls = [call(request(number, id=f"r{number}")) for number in range(3)]
        calls[1].reply = fail
        for each in calls:
            plane.submit(each)
        await rounds()
        assert [(r.id, r.status, r.scores) for r in sink.records] == [
            ("r0", Status.OK, [0]),
            ("r1", Status.FAILED, []),
            ("r2", Status.OK, [2]),
        ]


class TestRefused:
    def failed(self, plane: Plane, sink: ListSink, error: type[PredisError], wanted: InferRequest) -> Record:
        with pytest.raises(error):
            infer(plane, wanted)
        (record,) = sink.records
        sink.payloads.clear()
        return record

    @pytest.mark.parametrize(
        ("wanted", "error"),
        [
            (decode_request(body(tensor("y", "FP64", [1]), id="r"), LIMITS), InvalidRequest),
            (decode_request(body(tensor("x", "FP64", ["a"]), id="r"), LIMITS), InvalidRequest),
            (decode_request(body(tensor("x", "FP64", [1] * 101), id="r"), LIMITS), TooLarge),
            (request(id="r", outputs=[{"name": "none"}]), InvalidRequest),
            (request(id="r", parameters={"event_time": "soon"}), PredisError),
            (request(id="r", parameters={"timeout": "soon"}), PredisError),
        ],
    )
    def test_a_bad_request_is_recorded_as_the_callers_fault(
        self, clock: ManualClock, sink: ListSink, wanted: InferRequest, error: type[PredisError]
    ) -> None:
        plane = ready_plane(clock, applied({4: 1.0}), sink=sink)
        record = self.failed(plane, sink, error, wanted)
        assert (record.status, record.version, record.id) == (Status.REJECTED, 4, "r")
        assert (record.endpoint, record.features.shape, record.scores) == ("e", (0, 0), [])
        assert clock.time_ns() - MINUTE_NS < record.received_at == record.event_at <= clock.time_ns()

    def test_a_models_failure_is_recorded_as_its_own(self, clock: ManualClock, sink: ListSink) -> None:
        broken = FakeRuntime(ONE)
        plane = ready_plane(clock, applied({4: 1.0}, [served(4, broken)]), sink=sink)
        broken.answer = lambda features: []
        record = self.failed(plane, sink, ModelFailure, request(id="r", parameters={"event_time": 5}))
        assert (record.status, record.version, record.id) == (Status.FAILED, 4, "r")
        assert (record.scores, record.features.shape, record.event_at) == ([], (0, 0), 5 * 10**9)

    def test_a_request_for_nothing_there_is_nobodys_record(self, clock: ManualClock, sink: ListSink) -> None:
        plane = ready_plane(clock, applied({1: 1.0}), sink=sink)
        for arguments in (
            {"endpoint": "x"},
            {"version": "9"},
            {"caller": Caller("elsewhere", "eve", "admin")},
        ):
            with pytest.raises((EndpointNotFound, VersionNotFound)):
                infer(plane, **arguments)  # type: ignore[arg-type]
        with pytest.raises(DeadlineExceeded):
            infer(plane, deadline=0.0)
        assert sink.payloads == []


class TestOff:
    def plane(self, clock: ManualClock, sink: ListSink | None, runtime: FakeRuntime, **config: Any) -> Plane:
        plane = Plane(Capture(sink, clock))
        plane.apply(applied({1: 1.0}, [served(1, runtime)], config=config))
        plane.following = True
        return plane

    @pytest.mark.parametrize("by", ["setting", "endpoint"])
    def test_nothing_is_kept(self, clock: ManualClock, sink: ListSink, by: str) -> None:
        runtime = FakeRuntime(ONE)
        plane = self.plane(clock, None if by == "setting" else sink, runtime, capture=by == "setting")
        infer(plane)
        with pytest.raises(InvalidRequest):
            infer(plane, request(outputs=[{"name": "none"}]))
        runtime.answer = lambda features: []
        with pytest.raises(ModelFailure):
            infer(plane)
        assert sink.payloads == []

    def test_of_one_endpoint_only(self, clock: ManualClock, sink: ListSink) -> None:
        plane = self.plane(clock, sink, FakeRuntime(ONE), capture=False)
        plane.apply(applied({1: 1.0}, endpoint="f"))
        infer(plane)
        infer(plane, endpoint="f")
        assert [record.endpoint for record in sink.records] == ["f"]


class TestTrouble:
    def test_with_the_journal_touches_no_answer(
        self,
        clock: ManualClock,
        sink: ListSink,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def broken(*_given: Any) -> bool:
            raise RuntimeError("the disk is gone")

        plane = ready_plane(clock, applied({1: 1.0}), sink=sink)
        monkeypatch.setattr(sink, "append", broken)
        with caplog.at_level(logging.ERROR):
            assert infer(plane).outputs is not None
            with pytest.raises(InvalidRequest):
                infer(plane, request(outputs=[{"name": "none"}]))
        assert caplog.text.count("could not be kept") == 2

    def test_a_full_disk_is_the_sinks_affair(self, clock: ManualClock, sink: ListSink) -> None:
        sink.append = lambda payload, count=1: False  # type: ignore[method-assign]
        assert infer(ready_plane(clock, applied({1: 1.0}), sink=sink)).outputs is not None
