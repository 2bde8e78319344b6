"""Verbs that look after versions: ``predis model aliases|diff|delete|gc``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import click

from predis.cli.output import as_json_option, client, remote, show_json, table, text
from predis.errors import InvalidInput

_UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


@click.command()
@click.argument("name")
@click.option("--history", is_flag=True, help="Who moved which alias, when, from what to what; newest first.")
@click.option("--delete", "deleted", metavar="ALIAS", help="Delete this alias; its history stays.")
@as_json_option
@remote
def aliases(
    name: str, *, history: bool, deleted: str | None, as_json: bool, control: str, serving: str, key: str
) -> None:
    """Show where the aliases of model NAME point.

    \b
    predis model aliases churn --history
    """
    server = client(control, serving, key=key)
    if deleted:
        server.delete_alias(name, deleted)
        click.echo(f"{name}@{deleted} is deleted.")
        return
    rows: list[dict[str, Any]]
    if history:
        rows = server.alias_history(name)
        columns = {"alias": "alias", "from": "from", "to": "to", "when": "moved_at", "by": "moved_by"}
    else:
        rows = [{"alias": alias, "version": version} for alias, version in server.aliases(name).items()]
        columns = {"alias": "alias", "version": "version"}
    empty = (
        f"No alias of {name} was ever set."
        if history
        else f"Model {name} has no aliases: predis model alias NAME ALIAS VERSION"
    )
    show_json(rows) if as_json else table(rows, columns, empty=empty)


@click.command()
@click.argument("name")
@click.argument("before")
@click.argument("after")
@as_json_option
@remote
def diff(name: str, before: str, *, after: str, as_json: bool, control: str, serving: str, key: str) -> None:
    """Show what changed of model NAME from version BEFORE to AFTER: numbers, aliases, or latest.

    Metrics first, then what callers notice, what the data says, and where they come from.

    \b
    predis model diff churn champion latest
    """
    found = client(control, serving, key=key).diff(name, before, after=after)
    if as_json:
        show_json(found)
        return
    old, new = (f"v{found[side]}" for side in ("before", "after"))
    if found["same"]:
        click.echo(f"{old} and {new} are made of the same files.")
    measures = {n: values for n, values in found["metrics"].items() if not n.endswith(("_low", "_high"))}
    metrics = [{"metric": metric, **values} for metric, values in measures.items()]
    if metrics and not found["same_holdout"]:
        click.echo("Measured on different holdouts: rows differ as well as models.")
    if metrics:
        columns = {
            "metric": "metric",
            old: "before",
            new: "after",
            "difference": "difference",
            "better": "better",
        }
        table(metrics, columns, empty="")
    columns = {"changed": "what", old: "before", new: "after"}
    table(list(_changes(found)), columns, empty="Inputs, outputs, files and provenance are the same.")
    if found["reference"]:
        shifts = {"score": found["reference"]["score"], **found["reference"]["features"]}
        rows = [{"what": what, "psi": _psi(shift)} for what, shift in shifts.items()]
        table(rows, {"reference of": "what", "PSI": "psi"}, empty="")


def _changes(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Everything that differs but metrics and PSI, one row each, what callers notice first."""
    for side in ("inputs", "outputs"):
        what = side[:-1]
        for field in found[side]["added"]:
            yield {"what": f"{what} {field['name']}", "before": None, "after": f"{field['datatype']} (added)"}
        for field in found[side]["removed"]:
            yield {"what": f"{what} {field['name']}", "before": field["datatype"], "after": "(removed)"}
        for name, changes in found[side]["changed"].items():
            yield from _field_changes(f"{what} {name}", changes)
    for what in ("order", "score", "format"):
        if found[what]:
            yield {
                "what": {"order": "order of inputs", "score": "watched output"}.get(what, what),
                **found[what],
            }
    if found["size_bytes"]["before"] != found["size_bytes"]["after"]:
        yield {"what": "size in bytes", **found["size_bytes"]}
    for how, names in found["files"].items():
        for name in names:
            yield {"what": f"file {name}", "before": None, "after": how}
    for name, pair in found["provenance"].items():
        yield {"what": name, **pair}
    for what in ("rows", "label_rate") if found["reference"] else ():
        pair = found["reference"][what]
        if pair["before"] != pair["after"]:
            yield {"what": f"reference {what.replace('_', ' ')}", **pair}


def _field_changes(what: str, changes: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, change in changes.items():
        if name == "levels":
            moved = " moved" if change["moved"] else ""
            words = [f"+{level}" for level in change["added"]] + [f"-{level}" for level in change["removed"]]
            yield {"what": f"{what}, levels", "before": None, "after": " ".join(words) + moved}
        else:
            yield {"what": f"{what}, {name}", **change}


def _psi(shift: Mapping[str, Any]) -> str:
    """PSI as people read it; nearly so where the bins were not the same."""
    return "-" if shift["psi"] is None else f"{'' if shift['exact'] else '~'}{text(shift['psi'])}"


@click.command()
@click.argument("name")
@click.argument("version", type=click.IntRange(min=1))
@remote
def delete(name: str, version: int, *, control: str, serving: str, key: str) -> None:
    """Delete VERSION of model NAME, if nothing can still need it. For administrators.

    \b
    predis model delete churn 3
    """
    client(control, serving, key=key).delete_version(name, version)
    click.echo(f"{name}@{version} is deleted; its files go with the next `predis model gc`.")


@click.command()
@click.option("--dry-run", is_flag=True, help="Delete nothing; say what would be.")
@click.option(
    "--older-than",
    default="1d",
    show_default=True,
    help="Leave alone what is younger: 90m, 12h, 7d. At least 1h.",
)
@click.option(
    "--keep-last",
    type=click.IntRange(min=1),
    help="Delete older versions too that nothing needs, but for so many of each model's newest.",
)
@as_json_option
@remote
def gc(
    *,
    dry_run: bool,
    older_than: str,
    keep_last: int | None,
    as_json: bool,
    control: str,
    serving: str,
    key: str,
) -> None:
    """Delete files that no version names: of deleted versions, and of registrations that came to nothing. For administrators.

    \b
    predis model gc --dry-run
    predis model gc --older-than 30d --keep-last 5
    """
    found = client(control, serving, key=key).collect_garbage(
        older_than_s=seconds_of(older_than), keep_last=keep_last, dry_run=dry_run
    )
    if as_json:
        show_json(found)
        return
    for version in found["versions"]:
        click.echo(f"  {version}")
    done = "would be deleted" if dry_run else "deleted"
    click.echo(
        f"{len(found['versions'])} versions, {found['artifacts']} files of {found['bytes']:,} bytes and "
        f"{found['strays']} unfinished uploads {done}."
    )


def seconds_of(duration: str) -> float:
    """A duration such as ``90m``, ``12h`` or ``7d`` in seconds.

    >>> seconds_of("7d")
    604800.0

    Raises:
        InvalidInput: it is none.
    """
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)([smhd])", duration.strip())
    if not found:
        raise InvalidInput(f"a duration is a number and one of s, m, h, d, such as 7d; got {duration!r}")
    return float(found[1]) * _UNITS[found[2]]
