"""Verbs about drift of anyone's tables: ``predis drift report``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from predis.cli.output import as_json_option, save, show_json, table

if TYPE_CHECKING:
    from predis.drift import Comparison

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def drift() -> None:
    """Compare tables: what broke, what drifted."""


@drift.command()
@click.option("--reference", required=True, type=_FILE, help="Table to compare with, CSV or Parquet.")
@click.option("--current", required=True, type=_FILE, help="Table that may have moved, CSV or Parquet.")
@click.option("--target", metavar="COLUMN", help="Column that is not an input, but what is predicted.")
@click.option("--by-time", metavar="COLUMN", help="Column that puts the rows of both tables in order.")
@click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report there, with plots."
)
@click.option(
    "--fail-on",
    type=click.Choice(["info", "warning", "critical", "never"]),
    default="warning",
    show_default=True,
    help="Severity from which on to exit with 1.",
)
@click.option("--all", "show_all", is_flag=True, help="List columns that did not move, too.")
@as_json_option
def report(
    reference: Path, current: Path, *, target: str | None, by_time: str | None, html: Path | None, fail_on: str,
    show_all: bool, as_json: bool,
) -> None:  # fmt: skip
    """Compare two tables column by column.

    Rows are taken to be in time order unless --by-time says otherwise: how much a column varies by itself is learnt from contiguous
    blocks of the reference. Exits with 1 where something drifted or broke (--fail-on).

    \b
    predis drift report --reference 2024.parquet --current today.parquet
    predis drift report --reference a.csv --current b.csv --by-time ts --html report.html
    """
    from predis.drift import Severity, compare

    found = compare(reference, current, target=target, by_time=by_time)
    if html is not None:
        save(html, found.html())
    if as_json:
        show_json(found.to_dict())
    else:
        _show(found, show_all=show_all)
        if html is not None:
            click.echo(f"The report with plots: {html}")
    if fail_on != "never" and found.severity >= Severity[fail_on.upper()]:
        sys.exit(1)


def _show(found: Comparison, *, show_all: bool) -> None:
    click.secho(found.summary, bold=True)
    click.echo(
        f"{found.current_rows:,} rows in {found.windows} windows, against a reference of {found.reference_rows:,} rows."
    )
    rows = [
        {
            "severity": feature.severity.word,
            "column": f"{feature.name} (target)" if feature.role == "target" else feature.name,
            "finding": feature.finding,
            "what": feature.message,
        }
        for feature in found.features
        if show_all or feature.severity or feature.finding == "skipped"
    ]
    if rows:
        table(
            rows, {"severity": "severity", "column": "column", "finding": "finding", "what": "what"}, empty=""
        )
    for note in found.notes:
        click.echo(f"note: {note}")
