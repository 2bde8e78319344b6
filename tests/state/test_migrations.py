from __future__ import annotations

import subprocess
import sys

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from predis.errors import SetupError, Unavailable
from predis.state import migrations
from predis.state.engine import Database
from predis.state.schema import metadata, models

only_sqlite = pytest.mark.parametrize("blank_database", ["sqlite"], indirect=True)


def tables(database: Database) -> set[str]:
    with database.read() as connection:
        return set(sa.inspect(connection).get_table_names())


def downgrade(database: Database, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations.FOLDER))
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def test_head_is_the_newest_revision() -> None:
    assert ScriptDirectory(str(migrations.FOLDER)).get_heads() == [migrations.HEAD]


def test_migrations_make_what_the_schema_says(blank_database: Database) -> None:
    assert migrations.current(blank_database) is None
    migrations.upgrade(blank_database)
    assert migrations.current(blank_database) == migrations.HEAD
    with blank_database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_keys_and_indexes_are_those_of_the_schema(blank_database: Database) -> None:
    """What Alembic's comparison leaves out: primary keys, and the condition of a partial index."""
    migrations.upgrade(blank_database)
    with blank_database.read() as connection:
        inspector = sa.inspect(connection)
        for table in metadata.sorted_tables:
            key = inspector.get_pk_constraint(table.name)["constrained_columns"]
            assert key == [column.name for column in table.primary_key], table.name
            found = {
                index["name"]: (index["column_names"], index["unique"], _is_partial(index))
                for index in inspector.get_indexes(table.name)
                if not str(index["name"]).startswith("uq_api_keys")
            }
            assert found == {
                index.name: (
                    [c.name for c in index.columns],
                    index.unique,
                    index.dialect_options["sqlite"]["where"] is not None,
                )
                for index in table.indexes
            }, table.name


def _is_partial(index: sa.engine.interfaces.ReflectedIndex) -> bool:
    options = index.get("dialect_options", {})
    return options.get("sqlite_where", options.get("postgresql_where")) is not None


def test_every_table_that_belongs_to_someone_says_to_whom() -> None:
    of_the_installation = {"workers", "journal_positions"}
    assert {t.name for t in metadata.sorted_tables if "tenant" not in t.columns} == of_the_installation


def test_upgrading_again_changes_nothing(blank_database: Database) -> None:
    migrations.upgrade(blank_database)
    with blank_database.write() as connection:
        connection.execute(models.insert(), {"tenant": "default", "name": "a", "created_at": 1})
    migrations.upgrade(blank_database)
    with blank_database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(models)) == 1


def test_processes_may_upgrade_at_once(blank_database: Database) -> None:
    program = (
        "import sys; from predis.state import migrations; from predis.state.engine import Database;"
        "migrations.upgrade(Database(sys.argv[1]))"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, blank_database.url], stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    assert [process.communicate(timeout=120)[1] for process in started] == [""] * 3
    assert [process.returncode for process in started] == [0] * 3
    assert migrations.current(blank_database) == migrations.HEAD


def test_a_failed_upgrade_leaves_nothing_behind(
    blank_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with blank_database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE workers (id INTEGER)")  # made last by the first revision
    with pytest.raises((Unavailable, sa.exc.ProgrammingError)):
        migrations.upgrade(blank_database)
    assert tables(blank_database) == {"workers"}


def test_a_database_of_a_newer_release_is_refused_and_left_alone(database: Database) -> None:
    with database.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SetupError, match="at revision '9999', which this Predis does not know"):
        migrations.upgrade(database)
    assert migrations.current(database) == "9999"


def test_downgrade_undoes_every_revision(blank_database: Database) -> None:
    migrations.upgrade(blank_database)
    downgrade(blank_database, "base")
    assert tables(blank_database) == {"alembic_version"}
    assert migrations.current(blank_database) is None
    migrations.upgrade(blank_database)
    assert tables(blank_database) == {*metadata.tables, "alembic_version"}
