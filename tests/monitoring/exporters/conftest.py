from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.monitoring.exporters.given import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """Path of promtool, prometheus or prometheus-alertmanager, which scripts/setup installs."""

    def find(name: str) -> str:
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not installed")
        return found

    return find
