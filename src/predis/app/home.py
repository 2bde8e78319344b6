"""The home folder and the state database, made ready before any role starts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from predis.errors import HomeNotWritable
from predis.settings import Settings
from predis.state import ArtifactStore, Database, migrations

if TYPE_CHECKING:
    from predis.clock import Clock
    from predis.events import Bus
    from predis.registry import Registry
    from predis.registry.registry import Inspect


def prepare(settings: Settings) -> None:
    """Make the home folder and bring the state database up to date.

    Raises:
        HomeNotWritable: the folder cannot be made or written to.
        SetupError: the database is of a newer release.
    """
    home = settings.home
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = home / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise HomeNotWritable(
            f"the home folder {home} cannot be written to ({error.strerror}); name another with --home"
        ) from None
    database = Database(settings.database_url)
    try:
        migrations.upgrade(database)
    finally:
        database.close()


def open_registry(
    settings: Settings, database: Database, *, clock: Clock, bus: Bus, inspect: Inspect | None = None
) -> Registry:
    """The registry of an installation, with its keys; it opens models in processes of their own unless told how."""
    from predis.registry import Registry
    from predis.registry.signing import Seals
    from predis.serving.inspection import Inspector

    return Registry(
        database,
        ArtifactStore(settings.store_url),
        clock=clock,
        bus=bus,
        inspect=inspect or Inspector.of(settings),
        seals=Seals(settings.home / "keys", allow_code=settings.allow_code),
    )
