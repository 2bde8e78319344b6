"""Alembic migrations of the state database, and the one call that brings a database up to date."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from predis.errors import SetupError

if TYPE_CHECKING:
    from predis.state.engine import Database

FOLDER = Path(__file__).parent
HEAD = "0010"
_LOCK = 0x7072_6564  # "pred"; any number that other users of the server's advisory locks are unlikely to take


def current(database: Database) -> str | None:
    """The revision a database is at; ``None`` where nothing has been made yet."""
    with database.read() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(database: Database) -> None:
    """Bring the database to this release's schema. Quick where it already is.

    Raises:
        SetupError: the database was made by a newer Predis.
    """
    found = current(database)
    if found == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    try:
        with database.write() as connection:
            if database.dialect == "postgresql":  # SQLite's writers wait for each other as it is.
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise SetupError(
            f"the state database is at revision {found!r}, which this Predis does not know; use the release that made it"
        ) from error
