"""All caches of a worker."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys

import numpy as np
import pytest

from predis.clock import ManualClock
from predis.metrics import Metrics
from predis.serving.cache import CacheConfig, EndpointCache, PredictionCache, Valkey
from tests.serving.cache.helpers import Recorder

KEY = bytes(16)


def filled(cache: EndpointCache | None) -> EndpointCache:
    assert cache is not None
    cache.begin(KEY, "first")
    cache.finish(KEY, [np.array([0.5])])
    return cache


def test_an_endpoint_has_none_unless_it_says_so() -> None:
    assert PredictionCache().of("t", "e", config=None, asker=Recorder()) is None


def test_it_is_the_same_as_long_as_the_configuration_is() -> None:
    predictions, plane = PredictionCache(), Recorder()
    first = filled(predictions.of("t", "e", config=CacheConfig(), asker=plane))
    assert predictions.of("t", "e", config=CacheConfig(), asker=plane) is first
    other = predictions.of("t", "e", config=CacheConfig(ttl_s=5), asker=plane)
    assert other is not None
    assert other is not first
    other.begin(KEY, "second")
    assert plane.to_predict == ["first", "second"]
    assert predictions.of("t", "e", config=None, asker=plane) is None


def test_endpoints_and_tenants_have_their_own() -> None:
    predictions, plane = PredictionCache(), Recorder()
    filled(predictions.of("t", "e", config=CacheConfig(), asker=plane))
    for tenant, endpoint in (("t", "f"), ("u", "e")):
        filled(predictions.of(tenant, endpoint, config=CacheConfig(), asker=plane))
    assert plane.to_predict == ["first"] * 3


def test_a_removed_one_gives_its_memory_back() -> None:
    metrics = Metrics(None, "test")
    predictions = PredictionCache(metrics=metrics)
    filled(predictions.of("t", "e", config=CacheConfig(), asker=Recorder()))
    held = metrics.gauge("predis_cache_bytes", tenant="t", endpoint="e")
    assert held.value > 0
    predictions.remove("t", "e")
    predictions.remove("t", "e")
    assert held.value == 0


def test_expire_reaches_every_one(clock: ManualClock) -> None:
    metrics = Metrics(None, "test")
    predictions = PredictionCache(metrics=metrics, clock=clock.monotonic_s)
    for endpoint in ("e", "f"):
        filled(predictions.of("t", endpoint, config=CacheConfig(ttl_s=5), asker=Recorder()))
    clock.advance(6)
    predictions.expire()
    assert metrics.gauge("predis_cache_bytes", tenant="t", endpoint="e").value == 0
    assert metrics.gauge("predis_cache_bytes", tenant="t", endpoint="f").value == 0


def test_valkey_without_a_url_is_said_and_done_without(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert PredictionCache().of("t", "e", config=CacheConfig("valkey"), asker=Recorder()) is None
    assert "valkey_url" in caplog.text


def test_closing_without_a_connection_is_nothing() -> None:
    async def story() -> None:
        await PredictionCache().close()
        await PredictionCache(Valkey("redis://127.0.0.1:1")).close()

    asyncio.run(story())


def test_the_client_library_is_loaded_by_who_uses_it() -> None:
    script = "import sys, predis.serving.cache; print([m for m in sys.modules if m.split('.')[0] == 'redis'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
