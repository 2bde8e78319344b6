"""kill -9 at every step of a registration leaves the whole version or nothing, and the next registration works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from predis.access import Audit
from predis.clock import ManualClock, SystemClock
from predis.errors import ModelNotFound
from predis.events import Bus
from predis.registry import Registration, Registry, evaluation
from predis.registry.store import RegistryStore
from predis.registry.trust.trust import Trust
from predis.state import ArtifactStore, Database, artifacts, migrations
from tests.registries import open_registry
from tests.toy_model import booster

ROOT = Path(__file__).parents[2]
TENANT, MODEL = "default", "churn"
# What is killed, and which step of which part: "before" or "after" it, at its n-th call. The first file to land is the model, the second
# its reference.
STEPS: dict[str, tuple[Any, str, str, int]] = {
    "the model is written": (artifacts._Landing, "commit", "before", 1),
    "the model is written, not synced": (os, "fsync", "before", 1),
    "the model is synced": (os, "fsync", "after", 1),
    "the model is renamed": (os, "replace", "after", 1),
    "the model's folder is synced": (artifacts, "_sync_folder", "after", 1),
    "its parent is synced": (artifacts, "_sync_folder", "after", 2),
    "the reference is written": (artifacts._Landing, "commit", "before", 2),
    "the reference is renamed": (os, "replace", "after", 2),
    "everything is uploaded": (Registry, "register", "before", 1),
    "the model is scored": (evaluation, "profile_of", "after", 1),
    "before the transaction": (Registry, "add", "before", 1),
    "the row is written": (RegistryStore, "add_version", "after", 1),
    "the audit log is written": (Registry, "_note", "after", 1),
    "signatures are kept": (Trust, "keep", "after", 1),
    "the alias points": (Registry, "point", "after", 1),
}
COMMITTED: dict[str, tuple[Any, str, str, int]] = {
    "after the commit": (Bus, "publish", "before", 1),
    "it is told": (Registry, "register", "after", 1),
}


def die_at(step: tuple[Any, str, str, int]) -> None:
    """Make this process kill itself at a step."""
    owner, name, when, call = step
    made: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def killed(*args: Any, **given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = made(*args, **given)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, name, killed)


def register(folder: Path) -> int:
    """Upload and register; the version's number."""
    database, store = opened(folder)
    registry = open_registry(database, store, clock=SystemClock())
    wanted = Registration(
        model=MODEL,
        format="lightgbm",
        files={"model.txt": store.put(booster()).digest},
        reference=store.put(reference()).digest,
    )
    try:
        return registry.register(TENANT, wanted, actor="alice", alias="champion").number
    finally:
        database.close()


def reference() -> bytes:
    columns = {name: np.linspace(-1, 1, 200) for name in ("x", "z", "kind")}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def opened(folder: Path) -> tuple[Database, ArtifactStore]:
    return Database(f"sqlite:///{folder / 'state.db'}"), ArtifactStore(str(folder / "artifacts"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An installation without models."""
    database, _ = opened(tmp_path)
    migrations.upgrade(database)
    database.close()
    return tmp_path


@pytest.mark.parametrize("step", [*STEPS, *COMMITTED])
def test_a_registration_killed_when(step: str, folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.registry import test_killed as t; "
        "t.die_at({**t.STEPS, **t.COMMITTED}[sys.argv[1]]); t.register(Path(sys.argv[2]))"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program, step, str(folder)], cwd=ROOT, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    left = 1 if step in COMMITTED else 0
    check(folder, versions=left)
    assert register(folder) == left + 1
    check(folder, versions=left + 1)


def check(folder: Path, *, versions: int) -> None:
    """There are so many versions, each whole; and whatever lies in the store is what its name says."""
    database, store = opened(folder)
    try:
        registry = open_registry(database, store, clock=ManualClock())
        for digest in store.held():
            store.read(digest)
        if not versions:
            with pytest.raises(ModelNotFound):
                registry.versions(TENANT, MODEL)
        else:
            assert len(registry.versions(TENANT, MODEL)) == versions
        for number in range(1, versions + 1):
            assert registry.verify(TENANT, MODEL, reference=number)["ok"]
            found = registry.version(TENANT, MODEL, reference=number)
            assert found.profile is not None
            assert registry.read_table(found.lineage["reference"]).num_rows == 200
        assert registry.aliases(TENANT, MODEL) == ({"champion": versions} if versions else {})
        assert len(Audit(database, ManualClock()).entries(TENANT)) == 2 * versions  # the version, its alias
    finally:
        database.close()
