"""The home folder and the state database, made ready before any role starts."""

from __future__ import annotations

import os

from predis.errors import HomeNotWritable
from predis.settings import Settings
from predis.state import Database, migrations


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
