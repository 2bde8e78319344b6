"""The verb that asks the prediction log."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import click

from predis.cli.output import as_json_option, client, remote, save, show_json, table


@click.command()
@click.argument("sql")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--parquet", type=click.Path(dir_okay=False, path_type=Path), help="Write a Parquet file.")
@as_json_option
@remote
def query(
    sql: str, *, as_csv: bool, parquet: Path | None, as_json: bool, control: str, serving: str, key: str
) -> None:
    """Ask the prediction log in SQL (DuckDB's): one SELECT over your own predictions and labels.

    The views are predictions, labels, shadows, and one of each endpoint by its name. Labels join by endpoint, id and row.

    \b
    predis query "select version, count(*), avg(score) from predictions group by 1"
    predis query "select carrier, avg(label) from \\"flight-delay\\" join labels using (endpoint, id, row) group by 1"
    predis query "select * from predictions where event_at > now() - interval 1 day" --parquet day.parquet
    """
    if sum((as_csv, as_json, parquet is not None)) > 1:
        raise click.UsageError("say one of --csv, --json and --parquet")
    server = client(control, serving, key=key, patience_s=5.0)
    wanted = "csv" if as_csv else "parquet" if parquet else "json"
    found = server.query(sql, format=wanted)
    names = [column["name"] for column in found["columns"]]
    if as_json:
        show_json(found)
    elif as_csv:
        sys.stdout.write(base64.b64decode(found["content"]).decode())
    elif parquet:
        save(parquet, base64.b64decode(found["content"]))
        click.echo(f"{found['rows']} rows in {parquet}")
    else:
        shown = [{str(place): value for place, value in enumerate(row)} for row in found["rows"]]
        table(shown, {name: str(place) for place, name in enumerate(names)}, empty="No rows.")
    if found["truncated"]:
        click.echo(
            "There are more rows than an answer holds; add a LIMIT, or write a file with --parquet.", err=True
        )
