"""Verbs of access: keys and the audit log. ``key create`` works on the home itself, so that the first key needs no key."""

from __future__ import annotations

from typing import Any

import click

from predis.cli.output import as_json_option, show_json, table
from predis.cli.processes import settings_options
from predis.settings import load


@click.group()
def key() -> None:
    """Create, list and revoke API keys of the installation in the home folder.

    \b
    predis key create alice --role operator
    """


@key.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["client", "viewer", "operator", "admin"]),
    default="client",
    show_default=True,
    help="What it may do.",
)
@settings_options("home", "state_url")
def create(name: str, *, role: str, **flags: Any) -> None:
    """Make a key for NAME. It is shown this once; from the first key on, everybody needs one."""
    click.echo(_keys(flags).create(name, role=role))


@key.command("list")
@as_json_option
@settings_options("home", "state_url")
def list_keys(as_json: bool, **flags: Any) -> None:
    """List keys; the keys themselves are never shown again."""
    rows = _keys(flags).listed()
    columns = {"id": "id", "name": "name", "role": "role", "created": "created_at", "revoked": "revoked_at"}
    show_json(rows) if as_json else table(
        rows, columns, empty="No keys: whoever is on this machine may do everything."
    )


@key.command()
@click.argument("key_id")
@settings_options("home", "state_url")
def revoke(key_id: str, **flags: Any) -> None:
    """End the key with this id."""
    _keys(flags).revoke(key_id)
    click.echo("revoked")


@click.command()
@click.option("--limit", default=50, show_default=True, help="How many entries, newest first.")
@as_json_option
@settings_options("home", "state_url")
def audit(limit: int, as_json: bool, **flags: Any) -> None:
    """Show who did what."""
    from predis.access import DEFAULT_TENANT, Audit
    from predis.clock import SystemClock

    rows = Audit(_database(flags), SystemClock()).entries(DEFAULT_TENANT, limit=limit)
    columns = {"at": "at", "who": "actor", "what": "action", "to": "target", "detail": "detail"}
    show_json(rows) if as_json else table(rows, columns, empty="Nothing has happened yet.")


def _keys(flags: dict[str, Any]) -> Any:
    from predis.access import Keys
    from predis.clock import SystemClock

    return Keys(_database(flags), SystemClock())


def _database(flags: dict[str, Any]) -> Any:
    from predis.app.home import prepare
    from predis.state import Database

    settings = load(flags)
    prepare(settings)
    return Database(settings.database_url)
