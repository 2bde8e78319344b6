from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from predis.clock import ManualClock
from predis.errors import ModelFailure
from predis.metrics import Metrics
from predis.registry.signature import Field
from predis.serving import served as served_module
from predis.serving.batching import BatchPolicy
from predis.serving.served import ServedVersion
from predis.state.records import Matrix
from tests.serving.helpers import LIMITS, ONE, FakeRuntime, applied, ready_plane, served, signature, version


def opened(runtime: FakeRuntime, **more: Any) -> ServedVersion:
    more.setdefault("metrics", Metrics(None, "test"))
    return ServedVersion(version(1, runtime.signature), runtime, endpoint="e", limits=LIMITS, **more)


class TestWarming:
    def test_gives_the_columns_of_the_signature(self) -> None:
        runtime = FakeRuntime(
            signature(Field("a", "FP64"), Field("w", "FP32", (-1, 2, 3)), Field("k", "BYTES", levels=("x",)))
        )
        opened(runtime)
        assert {inputs.features.shape for inputs in runtime.asked} == {(1, 8), (16, 8)}

    def test_gives_tensors_to_those_that_take_them(self) -> None:
        wanted = signature(
            Field("n", "INT64", nullable=True),
            Field("w", "FP32", (-1, 2)),
            Field("k", "BYTES", levels=("x", "y")),
            Field("t", "BYTES", (-1, 2)),
            Field("r", "BYTES", raw=True),
        )
        runtime = FakeRuntime(wanted, lambda tensors: [np.zeros(len(tensors["n"]))], takes="tensors")
        opened(runtime)
        tensors = runtime.asked[0].tensors
        assert tensors is not None
        assert {name: (t.dtype, t.shape) for name, t in tensors.items()} == {
            "n": (np.float64, (1,)),
            "w": (np.float32, (1, 2)),
            "k": (np.object_, (1,)),
            "t": (np.object_, (1, 2)),
            "r": (np.object_, (1,)),
        }
        assert (tensors["k"][0], tensors["t"][0, 1], tensors["r"][0]) == ("x", "", b"")

    def test_a_version_that_fails_on_a_plain_row_never_serves(self) -> None:
        metrics = Metrics(None, "test")
        with pytest.raises(ModelFailure):
            opened(FakeRuntime(ONE, lambda features: []), metrics=metrics)
        labels = {"tenant": "default", "endpoint": "e", "version": "1"}
        assert metrics.gauge("predis_version_loaded", **labels).value == 0

    def test_one_of_tensors_may_refuse_blank_ones(self, caplog: pytest.LogCaptureFixture) -> None:
        """A function over texts or images; what it costs is learnt from requests."""

        def refuse(_tensors: Any) -> Sequence[Matrix]:
            raise ValueError("an empty text")

        with caplog.at_level(logging.INFO):
            found = opened(FakeRuntime(signature(Field("t", "BYTES")), refuse, takes="tensors"))
        assert "its cost is not known yet" in caplog.text
        assert found.cost.of(1) > BatchPolicy().inline_s  # until then it runs in a thread


class Meter:
    """Stands for ``time``: it moves when a runtime says what its rows cost."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    meter = Meter()
    monkeypatch.setattr(served_module, "time", meter)
    return meter


class TestCost:
    def runtime(self, meter: Meter, costs: Iterator[tuple[float, float]]) -> FakeRuntime:
        def answer(features: Matrix) -> Sequence[Matrix]:
            fixed, row = next(costs)
            meter.now += fixed + row * len(features)
            return [features[:, 0]]

        return FakeRuntime(ONE, answer)

    def test_is_measured_of_one_row_and_of_many(self, meter: Meter) -> None:
        found = opened(self.runtime(meter, iter([(0.001, 0.0002)] * 20)))
        assert found.cost.of(1) == pytest.approx(0.0012)
        assert found.cost.of(100) == pytest.approx(0.021)

    def test_a_slow_first_run_does_not_make_a_version_dear(self, meter: Meter) -> None:
        slow = [(0.04, 0.0), (0.03, 0.0), (0.0, 0.0001), (0.02, 0.0), (0.04, 0.0)]
        found = opened(self.runtime(meter, iter(slow + slow)))
        assert found.cost.of(1) == pytest.approx(0.0001)

    def test_many_rows_may_seem_cheaper_than_one(self, meter: Meter) -> None:
        found = opened(self.runtime(meter, iter([(0.001, 0.0)] * 5 + [(0.0001, 0.0)] * 5)))
        assert found.cost.of(1) == pytest.approx(0.001)
        assert found.cost.rows_within(0.002) > 1000

    def test_what_takes_long_is_not_run_often(self, meter: Meter) -> None:
        runtime = self.runtime(meter, iter([(1.0, 0.0)] * 2))
        assert opened(runtime).cost.of(1) == pytest.approx(1.0)
        assert len(runtime.asked) == 2


class TestLife:
    def test_joining_again_keeps_the_queue(self, clock: ManualClock) -> None:
        found = served(1)
        plane = ready_plane(clock)
        found.join(BatchPolicy(rows=3), plane)
        batcher = found.batcher
        found.join(BatchPolicy(rows=4), plane)
        assert found.batcher is batcher
        assert batcher.policy.rows == 4

    def test_closing_gives_the_memory_back(self) -> None:
        runtime = FakeRuntime(ONE)
        metrics = Metrics(None, "test")
        labels = {"tenant": "default", "endpoint": "e", "version": "1"}
        found = opened(runtime, metrics=metrics)
        assert (runtime.closed, metrics.gauge("predis_version_loaded", **labels).value) == (0, 1)
        found.close()
        assert (runtime.closed, metrics.gauge("predis_version_loaded", **labels).value) == (1, 0)

    def test_goes_when_its_last_user_does(self, clock: ManualClock) -> None:
        """No circle of references: the memory of a model is not left to a garbage collector that may come late."""
        plane = ready_plane(clock, applied({1: 1.0}))
        route = plane.applied("default", "e")
        assert route is not None
        kept = weakref.ref(route.versions[1])
        del route
        plane.remove("default", "e")
        assert kept() is None
