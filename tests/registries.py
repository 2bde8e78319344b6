"""Registries for tests: models are opened in the test's own process, which is quick, and safe for the models of tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from predis.clock import Clock
from predis.events import Bus
from predis.registry import Registry
from predis.registry.signing import Seals
from predis.serving.inspect_child import Loaded
from predis.state import ArtifactStore, Database


def open_registry(database: Database, artifacts: ArtifactStore, *, clock: Clock, **given: Any) -> Registry:
    """``given``: bus, inspect, seals; without seals, no version that needs one can be made."""
    given = {"bus": Bus(), "inspect": Loaded, "seals": Seals(Path("there are no keys")), **given}
    return Registry(database, artifacts, clock=clock, **given)
