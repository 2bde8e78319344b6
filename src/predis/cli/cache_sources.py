"""Verbs of the cache's sources: add, list, show, test, retry, remove."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import click

from predis.cli.output import as_json_option, client_of, remote, show_json, table
from predis.errors import InvalidInput


@click.group()
def source() -> None:
    """Sources: slow data that keys of the cache are loaded from, and written to.

    \b
    predis cache source add users --pattern 'user:{id:int}' --sql postgresql://db/shop \\
        --statement 'SELECT id, name FROM users WHERE id IN :id' --set ttl_s=60
    predis cache source test user:7
    predis cache source list
    """


@source.command("list")
@as_json_option
@remote
def list_sources(as_json: bool, **where: str) -> None:
    """List sources, with the writes that wait for each.

    \b
    predis cache source list
    predis cache source list --json
    """
    found = client_of(where).cache_sources()
    if as_json:
        show_json(found)
        return
    columns = {
        "source": "name", "keys": "pattern", "kind": "kind", "ttl s": "ttl_s", "writes": "writes", "queued": "queued",
        "set aside": "set_aside", "declared in": "declared_in",
    }  # fmt: skip
    table(found, columns, empty="No sources; declare one: predis cache source add --help")


@source.command()
@click.argument("name", required=False)
@click.option("--pattern", default="", help="Keys it is for: user:{id:int}.")
@click.option(
    "--sql", default="", metavar="URL", help="A database; or env:NAME, a variable that holds its URL."
)
@click.option(
    "--http", default="", metavar="URL", help="An answer over HTTP: https://host/users/{id}; or env:NAME."
)
@click.option(
    "--python",
    default="",
    metavar="MODULE:FUNCTION",
    help="A Python function; the setting allow_code must allow it.",
)
@click.option(
    "--statement", default="", help="SELECT with :placeholders; with IN :placeholder many keys are one query."
)
@click.option(
    "--set",
    "more",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Any other field; --fields lists them. May be given again.",
)
@click.option(
    "--from",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A TOML file of fields.",
)
@click.option("--replace", is_flag=True, help="There may be a source of this name already.")
@click.option("--fields", is_flag=True, help="List the fields of a source, and leave.")
@as_json_option
@remote
def add(
    name: str | None, *, pattern: str, sql: str, http: str, python: str, statement: str, more: tuple[str, ...],
    file: Path | None, replace: bool, fields: bool, as_json: bool, **where: str,
) -> None:  # fmt: skip
    """Declare a source. Gateways follow within a second; no restart.

    \b
    predis cache source add users --pattern 'user:{id:int}' --sql env:PREDIS_SOURCE_SHOP \\
        --statement 'SELECT id, name FROM users WHERE id IN :id' --set ttl_s=60 --set stale_s=600
    predis cache source add rates --pattern 'rate:{currency}' --http 'https://rates.example/{currency}' --set path=data.rate
    predis cache source add --fields
    """
    if fields:
        _show_fields(as_json)
        return
    if name is None:
        raise click.UsageError("Missing argument 'NAME'.")
    document = _of_file(file) if file else {}
    document |= _of_options(sql=sql, http=http, python=python)
    document |= {key: value for key, value in {"pattern": pattern, "statement": statement}.items() if value}
    document |= dict(_pair(text) for text in more)
    found = client_of(where).add_cache_source(name, document, replace=replace)
    show_json(found) if as_json else click.echo(
        f"source {found['name']} loads keys like {found['pattern']}; try one: predis cache source test KEY"
    )


@source.command()
@click.argument("name")
@as_json_option
@remote
def show(name: str, as_json: bool, **where: str) -> None:
    """Show a source: every field, and the writes that it has not taken.

    \b
    predis cache source show users
    """
    found = client_of(where).cache_source(name)
    if as_json:
        show_json(found)
        return
    rest = {
        key: value
        for key, value in found.items()
        if key not in ("name", "troubled") and value not in ("", {}, None)
    }
    click.secho(found["name"], bold=True)
    for key, value in rest.items():
        click.echo(f"  {key:18} {value}")
    if found["troubled"]:
        click.secho("\nWrites that it has not taken", bold=True)
        columns = {
            "key": "key",
            "what": "kind",
            "tries": "attempts",
            "set aside": "set_aside",
            "written": "written_at",
            "error": "error",
        }
        table(found["troubled"], columns, empty="")


@source.command()
@click.argument("tried", metavar="KEY")  # ``--key`` is the API key
@as_json_option
@remote
def test(tried: str, as_json: bool, **where: str) -> None:
    """Ask a key's source for it, past the cache: what matched, what was asked, how long it took, and the value. Exits 1 on an error.

    \b
    predis cache source test user:7
    """
    found = client_of(where).test_cache_source(tried)
    if as_json:
        show_json(found)
    else:
        click.echo(f"source     {found['source']}, keys like {found['pattern']}")
        click.echo(
            f"arguments  {', '.join(f'{name}={value!r}' for name, value in found['arguments'].items())}"
        )
        click.echo(f"asked      {found['asked'] or '-'}")
        click.echo(f"took       {found['ms']:g} ms")
        if found["error"]:
            click.secho(f"error      {found['error']}", fg="red")
        else:
            nothing = found["value"] is None
            click.echo(
                "value      none" if nothing else f"value      {found['value']}  ({found['bytes']} bytes)"
            )
    if found["error"]:
        sys.exit(1)


@source.command()
@click.argument("name")
@remote
def retry(name: str, **where: str) -> None:
    """Try once more the writes that a source refused for good.

    \b
    predis cache source retry users
    """
    click.echo(f"{client_of(where).retry_cache_source(name)} writes are tried again")


@source.command()
@click.argument("name")
@click.option("--discard", is_flag=True, help="Drop the writes that wait for it.")
@remote
def remove(name: str, *, discard: bool, **where: str) -> None:
    """End a source: its keys are keys like any other. What is in the cache stays until it expires.

    \b
    predis cache source remove users
    predis cache source remove users --discard
    """
    client_of(where).remove_cache_source(name, discard=discard)
    click.echo(f"source {name} is gone")


def _of_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} is no TOML: {error}") from None


def _of_options(**kinds: str) -> dict[str, Any]:
    given = {kind: text for kind, text in kinds.items() if text}
    if len(given) > 1:
        raise InvalidInput(f"a source is of one kind, not of {' and '.join(given)}")
    for kind, text in given.items():
        if kind == "python":
            return {"kind": kind, "function": text}
        if text.startswith("env:"):
            return {"kind": kind, "url_env": text.removeprefix("env:")}
        return {"kind": kind, "url": text}
    return {}


def _pair(text: str) -> tuple[str, Any]:
    from predis.cache.sources.source import typed

    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput(f"--set is like ttl_s=60, got {text!r}")
    return key, typed(key, value)


def _show_fields(as_json: bool) -> None:
    from predis.cache.sources.source import described

    rows = [{"field": name, "default": default, "what": text} for name, default, text in described()]
    show_json(rows) if as_json else table(
        rows, {"field": "field", "default": "default", "what": "what"}, empty=""
    )
