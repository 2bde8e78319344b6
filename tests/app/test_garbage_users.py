"""What the control role tells the registry's garbage collection: who uses versions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from predis.clock import ManualClock
from predis.errors import Conflict
from predis.state import Database
from tests import toys
from tests.toys import MODEL, TENANT, Installation


@pytest.fixture
def installation(database: Database, home: Path, clock: ManualClock) -> Iterator[Installation]:
    with toys.installed(database, home, clock) as found:
        yield found


def test_routes_and_rollouts_keep_their_versions(installation: Installation) -> None:
    for column in ("x", "z", "x"):
        installation.register(column, data=False)
    installation.create_endpoint()
    installation.deploy(1)
    registry = installation.platform.registry
    registry.delete_alias(TENANT, MODEL, alias="champion", actor="root")
    garbage = registry.garbage
    in_use = garbage.in_use
    installation.start(2, strategy="direct")
    for number in (1, 2):
        with pytest.raises(Conflict, match="names it"):
            garbage.delete(TENANT, MODEL, number=number, actor="root")
    # The rollout alone would do, were the Route to forget one of them.
    garbage.in_use = {words: users for words, users in in_use.items() if "rollout" in words}
    for number in (1, 2):
        with pytest.raises(Conflict, match="a rollout that has not ended"):
            garbage.delete(TENANT, MODEL, number=number, actor="root")
    garbage.delete(TENANT, MODEL, number=3, actor="root")
