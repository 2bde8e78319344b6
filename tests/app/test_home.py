from __future__ import annotations

import pytest

from predis import settings as predis_settings
from predis.app.home import open_registry, prepare
from predis.clock import ManualClock
from predis.errors import AccessDenied, HomeNotWritable, Untrusted
from predis.events import Bus
from predis.registry import Field, Registration, Registry, Signature, Version
from predis.settings import Settings
from predis.state import ArtifactStore, Database

CODE = b"import os\nPID = float(os.getpid())\ndef predict(inputs): return [PID] * len(inputs['x'])"
SIGNATURE = Signature((Field("x", "FP64"),), (Field("pid", "FP64"),), "pid")


def opened(settings: Settings) -> tuple[Registry, Database]:
    prepare(settings)
    database = Database(settings.database_url)
    return open_registry(settings, database, clock=ManualClock(), bus=Bus()), database


def register(settings: Settings, registry: Registry) -> Version:
    digest = ArtifactStore(settings.store_url).put(CODE).digest
    wanted = Registration(model="m", format="python", files={"model.py": digest}, signature=SIGNATURE)
    return registry.register("default", wanted, actor="test")


def test_models_run_in_processes_of_their_own_and_need_the_homes_key(settings: Settings) -> None:
    import os

    import pyarrow as pa

    settings = predis_settings.load({"home": settings.home, "allow_code": True}, environ={})
    registry, database = opened(settings)
    version = register(settings, registry)
    with registry.open(version) as model:
        assert model.score(pa.table({"x": [1.0]}))[0] != os.getpid()
    assert sorted(path.name for path in (settings.home / "keys").iterdir()) == [
        "registry.key",
        "registry.pub",
    ]
    (settings.home / "keys" / "registry.pub").unlink()
    with pytest.raises(Untrusted):
        registry.open(version)
    database.close()


def test_code_is_off(settings: Settings) -> None:
    registry, database = opened(settings)
    with pytest.raises(AccessDenied, match="allow_code"):
        register(settings, registry)
    database.close()


def test_a_home_that_cannot_be(settings: Settings) -> None:
    (settings.home / "file").write_bytes(b"")
    with pytest.raises(HomeNotWritable):
        prepare(predis_settings.load({"home": settings.home / "file" / "home"}, environ={}))
