"""The near cache behind a Predis gateway: tracking goes through it, and it takes what the gateway reads ahead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from predis import nearcache
from tests.cache.gateways import Served
from tests.nearcache.stories import CALM, PATIENCE_S, until


@pytest.fixture
def near(through: Served) -> Iterator[Any]:
    client = nearcache.connect(f"redis://127.0.0.1:{through.port}", **CALM)
    assert client.near.wait(PATIENCE_S)
    assert client.near.stats.gateway
    yield client
    client.close()


def read_ahead(through: Served, key: bytes) -> None:
    """Have the gateway give every near cache a key."""
    through.call(lambda: [session.push(key) for session in through.gateway._sessions if session.near])


def test_writes_of_others_are_seen_after_a_barrier(near: Any, other: redis.Redis) -> None:
    for version in range(300):
        other.set("k", version)
        assert near.near.barrier()
        assert near.get("k") == near.get("k") == b"%d" % version
    assert near.near.stats.hits >= 300


def test_what_the_gateway_reads_ahead_is_kept_and_tracked(
    near: Any, through: Served, other: redis.Redis
) -> None:
    other.set("k", "1")
    read_ahead(through, b"k")
    until(lambda: near.near.stats.prefetched == 1)
    assert near.get("k") == b"1"
    assert (near.near.stats.hits, near.near.stats.misses) == (1, 0)
    other.set("k", "2")
    assert near.near.barrier()
    assert near.get("k") == b"2"


def test_an_own_write_beside_a_value_read_ahead(near: Any, through: Served) -> None:
    """Without any barrier: the value that was read ahead may be of before the write, and is not to be kept then."""
    for version in range(300):
        near.set("k", version)
        read_ahead(through, b"k")
        near.set("k", -version)
        assert near.get("k") == b"%d" % -version


def test_a_gateway_that_goes_takes_everything_with_it(near: Any, through: Served, other: redis.Redis) -> None:
    other.set("k", "1")
    near.get("k")
    through.call(lambda: [session.transport.abort() for session in list(through.gateway._sessions)])
    until(lambda: near.near.stats.losses == 1)
    other.set("k", "2")
    assert near.get("k") == b"2"
