"""Shadows on a plane: what was answered is copied, and nothing that becomes of a copy touches an answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from predis.clock import ManualClock
from predis.errors import PredisError
from predis.metrics import Metrics
from predis.registry.signature import Field
from predis.serving import shadows as shadows_module
from predis.serving.plane import Admission, AppliedRoute, Call, Plane
from predis.serving.protocol import decode_request
from predis.serving.served import ServedVersion
from predis.state.records import Arm, Matrix, Status
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
    row_sums,
    served,
    signature,
    tensor,
)

X, K = Field("x", "FP64"), Field("k", "BYTES", levels=("a", "b"))


class Journal(ListSink):
    """Keeps records, and tells whoever waits for copies."""

    def __init__(self) -> None:
        super().__init__()
        self._more = asyncio.Event()

    def append(self, payload: bytes, count: int = 1) -> bool:
        found = super().append(payload, count)
        self._more.set()
        return found

    def of(self, arm: Arm) -> list[Record]:
        return [record for record in self.records if record.arm is arm]

    async def copies(self, count: int) -> list[Record]:
        """So many records of copies, and no more; by id."""
        while len(self.of(Arm.SHADOW)) < count:
            self._more.clear()
            await self._more.wait()
        found = self.of(Arm.SHADOW)
        assert len(found) == count
        return sorted(found, key=lambda record: record.id)


async def until(happened: Callable[[], bool]) -> None:
    while not happened():  # noqa: ASYNC110, what is waited for happens in another thread
        await asyncio.sleep(0.001)


class Site:
    """A plane with a journal."""

    def __init__(self, *routes: AppliedRoute, **more: Any) -> None:
        self.journal = Journal()
        self.plane: Plane = ready_plane(ManualClock(), *routes, sink=self.journal, **more)

    async def ask(self, *data: float, id: str = "", **more: Any) -> Call:
        content = body(tensor("x", "FP64", list(data or (1.0,))), **more.pop("body", {}))
        asked = call(decode_request(content, LIMITS), **more)
        asked.request.id = id
        return await self.plane.infer(asked)

    async def idle(self, version: ServedVersion) -> None:
        """Until nothing of a version is taken on any more."""
        await until(lambda: not version.pending)


def runtime(answer: Callable[[Any], Any], *inputs: Field, **more: Any) -> FakeRuntime:
    return FakeRuntime(signature(*(inputs or (X,))), answer, **more)


def failing(_features: Matrix) -> list[NDArray[Any]]:
    raise ValueError("a shadow is at fault")


class TestCopies:
    @in_loop
    async def test_are_kept_beside_what_was_answered(self) -> None:
        shadow = served(2, FakeRuntime(ONE, lambda features: [features[:, 0] * 10]))
        site = Site(applied({1: 1.0}, [shadow], shadows={2: 1.0}))
        await asyncio.gather(*(site.ask(float(n), n + 0.5, id=f"r{n}") for n in range(5)))
        copies = await site.journal.copies(5)
        answered = sorted(site.journal.of(Arm.ORDINARY), key=lambda record: record.id)
        for n, (copy, record) in enumerate(zip(copies, answered, strict=True)):
            assert (copy.id, copy.version, copy.status) == (f"r{n}", 2, Status.OK)
            assert copy.scores == [n * 10, n * 10 + 5]
            assert copy.answers == record.scores == [1.0, 1.0]
            assert record.answers == []
            assert copy.features.tolist() == record.features.tolist() == [[n], [n + 0.5]]
            # Moments are told by the clock of the moment they are told, and this one stands still.
            assert abs(copy.event_at - record.event_at) < 1e9
            assert abs(copy.received_at - record.received_at) < 1e9

    @in_loop
    async def test_of_many_are_predicted_together(self) -> None:
        runtime_2 = FakeRuntime(ONE)
        shadow = served(2, runtime_2)
        site = Site(applied({1: 1.0}, [shadow], shadows={2: 1.0}))
        await asyncio.gather(*(site.ask(float(n), id=f"r{n}") for n in range(50)))
        await site.journal.copies(50)
        assert sum(inputs.rows for inputs in runtime_2.asked) == 50
        assert len(runtime_2.asked) < 10

    @in_loop
    async def test_of_many_rows_are_predicted_in_parts(self) -> None:
        runtime_2 = FakeRuntime(ONE)
        site = Site(applied({1: 1.0}, [served(2, runtime_2)], shadows={2: 1.0}))
        await asyncio.gather(*(site.ask(*np.arange(100.0), id=f"r{n}") for n in range(5)))
        copies = await site.journal.copies(5)
        assert all(copy.scores == list(np.arange(100.0)) for copy in copies)
        assert max(inputs.rows for inputs in runtime_2.asked) <= 256

    @in_loop
    async def test_are_of_a_share_of_the_ids_the_same_on_every_worker(self) -> None:
        found = []
        for _worker in range(2):
            site = Site(applied({1: 1.0}, shadows={2: 0.3, 3: 1.0}, salt="s"))
            for n in range(200):
                await site.ask(id=f"r{n}")
            for version in site.plane.find("default", "e").versions.values():
                await site.idle(version)
            copies = site.journal.of(Arm.SHADOW)
            found.append({copy.id for copy in copies if copy.version == 2})
            assert {copy.id for copy in copies if copy.version == 3} == {f"r{n}" for n in range(200)}
        assert found[0] == found[1]
        assert 30 < len(found[0]) < 90

    @in_loop
    async def test_of_compared_traffic(self) -> None:
        site = Site(applied({1: 0.5, 2: 0.5}, shadows={3: 1.0}))
        for n in range(20):
            await site.ask(id=f"r{n}")
        copies = await site.journal.copies(20)
        answered = {record.id: record.scores for record in site.journal.of(Arm.COMPARED)}
        assert {copy.id: copy.answers for copy in copies} == answered
        assert {copy.answers[0] for copy in copies} == {1.0, 2.0}

    @in_loop
    async def test_of_answers_from_the_cache(self) -> None:
        cache = {"cache": {"ttl_s": 60}}
        site = Site(applied({1: 1.0}, shadows={2: 1.0}, config=cache))
        for n in range(3):
            await site.ask(4.0, id=f"r{n}")
        copies = await site.journal.copies(3)
        assert [(copy.scores, copy.answers) for copy in copies] == [([2.0], [1.0])] * 3

    @in_loop
    async def test_are_bound_anew_for_another_signature(self) -> None:
        """The shadow takes a level that the version which answers does not know, in another order, as tensors."""
        codes = served(1, runtime(row_sums, X, K))
        texts = served(2, runtime(lambda tensors: [tensors["x"]], K, X, takes="tensors"))
        site = Site(applied({1: 1.0}, [codes, texts], shadows={2: 1.0}))
        content = body(tensor("x", "FP64", [3.0]), tensor("k", "BYTES", ["new"]))
        await site.plane.infer(call(decode_request(content, LIMITS)))
        (copy,) = await site.journal.copies(1)
        assert (copy.scores, copy.answers) == ([3.0], [2.0])
        assert copy.features.tolist() == [[-1.0, 3.0]]
        assert copy.extra == [[0, 0, "new"]]

    @in_loop
    async def test_that_do_not_fit_the_signature_are_rejected(self) -> None:
        shadow = served(2, runtime(row_sums, X, K))
        site = Site(applied({1: 1.0}, [shadow], shadows={2: 1.0}))
        assert (await site.ask(id="r")).error is None
        (copy,) = await site.journal.copies(1)
        assert (copy.id, copy.version, copy.status, copy.scores) == ("r", 2, Status.REJECTED, [])

    @in_loop
    async def test_that_the_model_fails_on_are_failed_each_for_itself(self) -> None:
        def some(features: Matrix) -> list[NDArray[Any]]:
            if (features == 3.0).any():
                raise ValueError("not this one")
            return [features[:, 0]]

        site = Site(applied({1: 1.0}, [served(2, FakeRuntime(ONE, some))], shadows={2: 1.0}))
        calls = await asyncio.gather(*(site.ask(float(n), id=f"r{n}") for n in range(6)))
        assert not any(each.error for each in calls)
        copies = await site.journal.copies(6)
        assert [copy.status for copy in copies] == [Status.FAILED if n == 3 else Status.OK for n in range(6)]
        assert [copy.scores for copy in copies] == [[] if n == 3 else [float(n)] for n in range(6)]

    @in_loop
    async def test_say_what_the_request_would_have_taken(self) -> None:
        """The shadow costs as much per row whether copies are joined or not, so joining must not make it look slower."""
        shadow = served(2)
        site = Site(applied({1: 1.0}, [shadow], shadows={2: 1.0}))
        await asyncio.gather(*(site.ask(id=f"r{n}") for n in range(20)))
        copies = await site.journal.copies(20)
        answered = {record.id: record.latency_us for record in site.journal.of(Arm.ORDINARY)}
        assert all(0 < copy.latency_us < answered[copy.id] + 1_000_000 for copy in copies)


class TestNoCopies:
    @in_loop
    async def test_of_what_was_not_answered_or_asked_of_a_version(self) -> None:
        fails = FakeRuntime(ONE)
        good, bad = served(1), served(3, fails)
        fails.answer = failing
        site = Site(
            applied({1: 1.0}, [good], shadows={2: 1.0}),
            applied({3: 1.0}, [bad], endpoint="f", shadows={2: 1.0}),
        )
        for more in (
            {"version": "1"},
            {"version": "2"},
            {"endpoint": "f"},
            {"body": {"outputs": [{"name": "no"}]}},
        ):
            try:
                await site.ask(id="r", **more)
            except PredisError:
                continue
        await site.ask(id="last")
        (copy,) = await site.journal.copies(1)
        assert copy.id == "last"
        assert {record.arm for record in site.journal.records if record.id == "r"} == {Arm.ORDINARY}

    @in_loop
    async def test_where_nothing_is_kept(self) -> None:
        runtime_2 = FakeRuntime(ONE)
        shadow = served(2, runtime_2)
        site = Site(applied({1: 1.0}, [shadow], shadows={2: 1.0}, config={"capture": False}))
        await site.ask()
        assert (shadow.pending, site.journal.payloads, runtime_2.asked) == (0, [], [])

    @in_loop
    async def test_beyond_what_may_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shadows_module, "_MOST_WAITING", 3)
        monkeypatch.setattr(shadows_module, "_JOINED_ROWS", 1)
        gate = threading.Event()
        metrics = Metrics(None, "test")
        answers = FakeRuntime(ONE, lambda features: [features[:, 0] * gate.wait(30)])
        gate.set()
        shadow = served(2, answers, metrics=metrics)
        gate.clear()
        site = Site(applied({1: 1.0}, [shadow], shadows={2: 1.0}))
        for n in range(10):  # one of them may be with the model already
            await site.ask(id=f"r{n}")
        assert shadow.metrics.shadow_dropped.value in (6, 7)
        gate.set()
        await site.journal.copies(10 - int(shadow.metrics.shadow_dropped.value))
        assert shadow.pending == 0

    @in_loop
    async def test_of_more_values_than_may_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shadows_module, "_MOST_VALUES", 10)
        site = Site(applied({1: 1.0}, shadows={2: 1.0}))
        await asyncio.gather(*(site.ask(*np.zeros(4), id=f"r{n}") for n in range(4)))
        await site.journal.copies(2)
        await site.ask(*np.zeros(8), id="again there is room")
        await site.journal.copies(3)

    @in_loop
    async def test_while_the_worker_has_much_to_do(self) -> None:
        shadow = served(2)
        site = Site(applied({1: 1.0}, [shadow], shadows={2: 1.0}), admission=Admission(pending=10))
        site.plane._pending = 6
        await site.ask(id="busy")
        assert shadow.pending == 0
        site.plane._pending = 0
        await site.ask(id="idle")
        assert [copy.id for copy in await site.journal.copies(1)] == ["idle"]


class TestHarm:
    @in_loop
    async def test_a_shadow_that_hangs_keeps_no_answer_and_no_other_shadow(self) -> None:
        gate = threading.Event()
        gate.set()
        hangs = served(2, FakeRuntime(ONE, lambda features: [features[:, 0] * gate.wait(30)]))
        gate.clear()
        site = Site(applied({1: 1.0}, [hangs], shadows={2: 1.0, 3: 1.0}), threads=1)
        dear = site.plane.find("default", "e").versions[1]
        dear.cost.fixed_s = 0.01  # answers are predicted in a thread too
        try:
            for n in range(5):
                await site.ask(id=f"r{n}")
            assert {copy.version for copy in await site.journal.copies(5)} == {3}
            assert not site.plane.close()
        finally:
            gate.set()

    @in_loop
    async def test_one_that_ends_the_process_fails(self) -> None:
        def leave(_features: Matrix) -> list[NDArray[Any]]:
            raise SystemExit

        shadow = FakeRuntime(ONE)
        version = served(2, shadow)
        shadow.answer = leave
        site = Site(applied({1: 1.0}, [version], shadows={2: 1.0}))
        await site.ask(id="r")
        assert [copy.status for copy in await site.journal.copies(1)] == [Status.FAILED]

    @in_loop
    async def test_what_goes_wrong_in_copying_is_logged_and_forgotten(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*_args: Any, **_more: Any) -> None:
            raise RuntimeError("ours")

        shadow = served(2)
        site = Site(applied({1: 1.0}, [shadow], shadows={2: 1.0}))
        monkeypatch.setattr("predis.serving.capture.Capture.copied", fail)
        assert (await site.ask()).error is None
        await site.idle(shadow)
        assert "could not be worked on" in caplog.text
        monkeypatch.setattr("predis.serving.shadows.Shadow.offer", fail)
        assert (await site.ask()).error is None
        assert "could not be copied" in caplog.text


class TestChange:
    @in_loop
    async def test_copies_go_to_the_shadows_of_the_route_there_is(self) -> None:
        """The version that was a shadow may be closed by the time an answer comes."""
        release = threading.Event()
        release.set()
        slow = served(1, FakeRuntime(ONE, lambda features: [features[:, 0] * release.wait(30)]))
        release.clear()
        slow.cost.fixed_s = 0.01
        first, second = served(2), served(3)
        site = Site(applied({1: 1.0}, [slow, first], shadows={2: 1.0}))
        asked = asyncio.create_task(site.ask(id="r"))
        await until(lambda: not slow.batcher.idle)
        site.plane.apply(applied({1: 1.0}, [slow, second], shadows={3: 1.0}))
        release.set()
        await asked
        assert [copy.version for copy in await site.journal.copies(1)] == [3]
        assert (first.pending, first.runtime.asked) == (0, [])  # type: ignore[attr-defined]

    @in_loop
    async def test_what_waits_for_a_shadow_that_is_one_no_longer_is_dropped(self) -> None:
        metrics = Metrics(None, "test")
        for remove in (False, True):
            answers = served(1)
            shadow = served(2, metrics=metrics)
            before = shadow.metrics.shadow_dropped.value
            site = Site(applied({1: 1.0}, [answers, shadow], shadows={2: 1.0}))
            await site.ask(id="r")
            assert shadow.pending == 1
            if remove:
                site.plane.remove("default", "e")
            else:
                site.plane.apply(applied({1: 1.0}, [answers]))
            await site.idle(shadow)
            assert shadow.metrics.shadow_dropped.value == before + 1
            assert site.journal.of(Arm.SHADOW) == []

    @in_loop
    async def test_a_shadow_that_stays_one_goes_on(self) -> None:
        answers, other, shadow = served(1), served(3), served(2)
        site = Site(applied({1: 1.0}, [answers, shadow], shadows={2: 1.0}))
        await site.ask(id="r0")
        site.plane.apply(applied({1: 0.0, 3: 1.0}, [answers, other, shadow], shadows={2: 1.0}))
        await site.ask(id="r1")
        assert [copy.answers for copy in await site.journal.copies(2)] == [[1.0], [3.0]]

    @in_loop
    async def test_a_shadow_that_is_promoted_gets_no_copies_of_its_own(self) -> None:
        release = threading.Event()
        release.set()
        slow = served(2, FakeRuntime(ONE, lambda features: [features[:, 0] * release.wait(30)]))
        release.clear()
        slow.cost.fixed_s = 0.01
        site = Site(applied({2: 1.0}, [slow]))
        asked = asyncio.create_task(site.ask(id="r"))
        await until(lambda: not slow.batcher.idle)
        site.plane.apply(applied({1: 1.0}, [slow], shadows={2: 1.0}))
        release.set()
        await asked
        assert slow.pending == 0
