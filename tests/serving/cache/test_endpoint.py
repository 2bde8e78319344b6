"""One endpoint's cache in memory: hits, single flight, fairness when the one at work fails or gives up."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from predis.clock import ManualClock
from predis.errors import DeadlineExceeded, InvalidRequest, ModelFailure, Overloaded, TenantOverloaded
from predis.metrics import Metrics
from predis.serving.cache import CacheConfig, CacheKeys
from predis.serving.cache.endpoint import MemoryCache
from tests.serving.cache.helpers import Call, Planelet, Recorder, matrix, version

KEY, OTHER = bytes(16), bytes(15) + b"\1"
OUTPUTS = [np.array([0.5])]


def memory(
    asker: Any, *, metrics: Metrics | None = None, clock: ManualClock | None = None, **config: Any
) -> MemoryCache:
    return MemoryCache(
        CacheConfig(**config),
        asker,
        metrics=metrics or Metrics(None, "test"),
        tenant="default",
        endpoint="e",
        clock=(clock or ManualClock()).monotonic_s,
    )


@pytest.fixture
def plane() -> Recorder:
    return Recorder()


class TestHits:
    def test_what_was_predicted_is_answered_at_once(self, plane: Recorder) -> None:
        cache = memory(plane)
        cache.begin(KEY, "first")
        assert (plane.to_predict, plane.answers) == (["first"], [])
        cache.finish(KEY, OUTPUTS)
        cache.begin(KEY, "second")
        assert plane.to_predict == ["first"]
        assert plane.answers == [("second", [np.array([0.5])])]

    def test_until_its_time_is_over(self, plane: Recorder, clock: ManualClock) -> None:
        cache = memory(plane, clock=clock, ttl_s=10.0)
        cache.begin(KEY, "first")
        cache.finish(KEY, OUTPUTS)
        clock.advance(9.9)
        cache.begin(KEY, "second")
        clock.advance(0.1)
        cache.begin(KEY, "third")
        assert plane.to_predict == ["first", "third"]

    def test_what_is_kept_is_nobodys_to_change(self, plane: Recorder) -> None:
        cache = memory(plane)
        outputs = np.array([0.5])
        cache.begin(KEY, "first")
        cache.finish(KEY, [outputs])
        outputs[0] = 99.0
        cache.begin(KEY, "second")
        kept = plane.answers[0][1][0]
        assert kept.tolist() == [0.5]
        with pytest.raises(ValueError, match="read-only"):
            kept[0] = 1.0

    def test_a_slice_does_not_keep_its_batch_alive(self, plane: Recorder) -> None:
        class Batch(np.ndarray):
            """An array that weak references can be made to."""

        cache = memory(plane)
        batch = np.zeros(100_000).view(Batch)
        gone = weakref.ref(batch)
        cache.begin(KEY, "first")
        cache.finish(KEY, [batch[7:8]])
        del batch
        gc.collect()
        assert gone() is None

    def test_memory_is_bounded(self, plane: Recorder) -> None:
        metrics = Metrics(None, "test")
        cache = memory(plane, metrics=metrics, max_bytes=64 << 10)
        for number in range(500):
            key = number.to_bytes(16, "big")
            cache.begin(key, number)
            cache.finish(key, [np.zeros(100), np.array(["x" * 50] * 3, np.object_)])
        assert (
            32 << 10 < metrics.gauge("predis_cache_bytes", tenant="default", endpoint="e").value <= 64 << 10
        )

    def test_a_closed_one_gives_its_memory_back_and_keeps_no_more(self, plane: Recorder) -> None:
        metrics = Metrics(None, "test")
        cache = memory(plane, metrics=metrics)
        cache.begin(KEY, "first")
        cache.finish(KEY, OUTPUTS)
        cache.begin(OTHER, "second")
        cache.close()
        cache.finish(OTHER, OUTPUTS)
        cache.begin(KEY, "third")
        assert plane.to_predict == ["first", "second", "third"]
        assert metrics.gauge("predis_cache_bytes", tenant="default", endpoint="e").value == 0

    def test_memory_is_given_back_when_nothing_new_comes(self, plane: Recorder, clock: ManualClock) -> None:
        metrics = Metrics(None, "test")
        cache = memory(plane, metrics=metrics, clock=clock, ttl_s=5.0)
        cache.begin(KEY, "first")
        cache.finish(KEY, OUTPUTS)
        clock.advance(5)
        cache.expire()
        assert metrics.gauge("predis_cache_bytes", tenant="default", endpoint="e").value == 0


class TestSingleFlight:
    def test_the_same_is_predicted_once(self, plane: Recorder) -> None:
        cache = memory(plane)
        for call in ("first", "second", "third"):
            cache.begin(KEY, call)
        cache.begin(OTHER, "other")
        assert plane.to_predict == ["first", "other"]
        cache.finish(KEY, OUTPUTS)
        assert plane.answers == [("second", OUTPUTS), ("third", OUTPUTS)]

    def test_all_get_the_models_failure(self, plane: Recorder) -> None:
        cache = memory(plane)
        for call in ("first", "second", "third"):
            cache.begin(KEY, call)
        cache.abandon(KEY, ModelFailure("the model is broken"))
        assert plane.to_predict == ["first"]
        assert [call for call, _ in plane.answers] == ["second", "third"]
        assert all(
            type(error) is ModelFailure and str(error) == "the model is broken" for _, error in plane.answers
        )
        cache.begin(KEY, "fourth")  # a failure is not kept
        assert plane.to_predict == ["first", "fourth"]

    def test_all_get_what_is_wrong_with_the_rows(self, plane: Recorder) -> None:
        cache = memory(plane)
        for call in ("first", "second"):
            cache.begin(KEY, call)
        cache.abandon(KEY, InvalidRequest("no such row"))
        assert [type(error) for _, error in plane.answers] == [InvalidRequest]

    @pytest.mark.parametrize(
        "reason", [None, DeadlineExceeded("late"), Overloaded("full"), TenantOverloaded("full")]
    )
    def test_the_next_predicts_if_the_first_was_refused_late_or_gave_up(
        self, plane: Recorder, reason: Any
    ) -> None:
        async def story() -> None:
            cache = memory(plane)
            for call in ("first", "second", "third"):
                cache.begin(KEY, call)
            cache.abandon(KEY, reason)
            await asyncio.sleep(0)
            assert plane.to_predict == ["first", "second"]
            assert plane.answers == []
            cache.begin(KEY, "fourth")
            cache.finish(KEY, OUTPUTS)
            assert [call for call, _ in plane.answers] == ["third", "fourth"]

        asyncio.run(story())

    def test_the_last_to_give_up_leaves_nothing_behind(self, plane: Recorder) -> None:
        cache = memory(plane)
        cache.begin(KEY, "first")
        cache.abandon(KEY)
        cache.begin(KEY, "second")
        assert plane.to_predict == ["first", "second"]

    def test_thousands_may_give_up_one_after_the_other(self, plane: Recorder) -> None:
        async def story() -> None:
            class Refusing(Recorder):
                def uncached(self, call: Any) -> None:
                    super().uncached(call)
                    cache.abandon(KEY, Overloaded("full"))

            refusing = Refusing()
            cache = memory(plane)
            cache._asker = refusing
            cache._flights.join(KEY, 0)
            for call in range(1, 5_000):
                cache.begin(KEY, call)
            cache.abandon(KEY)
            for _ in range(5_000):
                await asyncio.sleep(0)
            assert refusing.to_predict == list(range(1, 5_000))
            assert len(cache._flights) == 0

        asyncio.run(story())


def test_every_call_counts_once(plane: Recorder) -> None:
    metrics = Metrics(None, "test")
    cache = memory(plane, metrics=metrics)
    for call in range(3):
        cache.begin(KEY, call)
    cache.finish(KEY, OUTPUTS)
    for call in range(5):
        cache.begin(KEY, call)
    found = {
        name: metrics.counter(f"predis_cache_{name}_total", tenant="default", endpoint="e").value
        for name in ("hits", "misses", "waits")
    }
    assert found == {"hits": 5, "misses": 1, "waits": 2}


class TestWhoseAnswer:
    """What MLServer 1.7.1 does wrong: it keys its cache by the body alone and answers for model b with what model a said."""

    ROWS = matrix([1.0, 2.0])

    def ask_all(self, *models: tuple[Any, float], shared: bool = False) -> list[float]:
        """Each model's answers to the same rows, asked twice; in caches of their own, or all in one."""
        answers: list[float] = []
        planes = [Planelet(_always(answer), CacheKeys(described)) for described, answer in models]
        for plane in planes:
            plane.cache = memory(plane)
        if shared:
            for plane in planes:
                plane.cache._kept = planes[0].cache._kept
        for _ in range(2):
            answers += [plane.ask(self.ROWS).outputs[0].item() for plane in planes]
        assert [plane.predicted for plane in planes] == [1] * len(planes)
        return answers

    @pytest.mark.parametrize("shared", [False, True])
    def test_two_endpoints_with_different_models(self, shared: bool) -> None:
        models = (version("a", digest="a" * 64), 1.0), (version("b", digest="b" * 64), 2.0)
        assert self.ask_all(*models, shared=shared) == [1.0, 2.0, 1.0, 2.0]

    @pytest.mark.parametrize("shared", [False, True])
    def test_two_versions_of_a_model(self, shared: bool) -> None:
        models = (version(number=1), 1.0), (version(number=2), 2.0)
        assert self.ask_all(*models, shared=shared) == [1.0, 2.0, 1.0, 2.0]

    @pytest.mark.parametrize("shared", [False, True])
    def test_two_tenants_with_the_same_names(self, shared: bool) -> None:
        models = (version(tenant="one"), 1.0), (version(tenant="two"), 2.0)
        assert self.ask_all(*models, shared=shared) == [1.0, 2.0, 1.0, 2.0]


def _always(answer: float) -> Callable[[Any], list[np.ndarray]]:
    return lambda _inputs: [np.array([answer])]


def test_a_call_is_never_looked_into(plane: Recorder) -> None:
    cache = memory(plane)
    cache.begin(KEY, Call())
    cache.finish(KEY, OUTPUTS)
    cache.begin(KEY, None)
    assert plane.answers == [(None, OUTPUTS)]
