from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from predis.clock import ManualClock
from predis.state import Database
from tests.monitoring.alerting.receivers import Receiver
from tests.monitoring.alerting.worlds import World


@pytest.fixture
def world(database: Database, tmp_path: Path, clock: ManualClock) -> World:
    return World(database, tmp_path / "secrets", clock)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as found:
        yield found
