"""The verb that shows windows by time and by segment."""

from __future__ import annotations

import time
from typing import Any

import click

from predis.cli.output import as_json_option, client, remote, show_json, table
from predis.clock import iso, parse_since

_JUDGED = {"binary": "auc", "multiclass": "accuracy", "regression": "mae"}


@click.command()
@click.argument("endpoint")
@click.option(
    "--since", default="24h", show_default=True, help="How far back: 30m, 12h, 7d, or a moment (RFC 3339)."
)
@click.option("--segment", default="", help="Of this segment only, as the endpoint's configuration has it.")
@click.option("--version", type=int, help="Of this version only.")
@as_json_option
@remote
def windows(
    endpoint: str, *, since: str, segment: str, version: int | None, as_json: bool, control: str, serving: str, key: str
) -> None:  # fmt: skip
    """Show what came to ENDPOINT and how well it was answered, hour by hour, and in each level of its segments.

    Segments are named in the endpoint's configuration: {"monitoring": {"segments": ["input.carrier"]}}. Of each, the 20 levels with the
    most rows are shown, all others as "other".

    \b
    predis windows flight-delay
    predis windows flight-delay --since 7d --segment input.carrier
    predis windows flight-delay --json
    """
    begins = str(iso(parse_since(since, now=time.time_ns())))
    server = client(control, serving, key=key, patience_s=30.0)
    found = server.windows(endpoint, since=begins, version=version, segment=segment)
    if as_json:
        show_json(found)
        return
    _show(found["windows"], {}, empty=f"Nothing came to {endpoint} since then.")
    if segment and not found["segments"]:
        click.echo(
            f"No windows of the segment {segment!r}; `predis endpoint show {endpoint}` lists those that are followed."
        )
    for part in found["segments"]:
        click.secho(f"{part['segment']}: {part['levels']} levels are followed", bold=True)
        _show(part["windows"], {"is": "level"}, empty="")


def _show(found: list[dict[str, Any]], columns: dict[str, str], *, empty: str) -> None:
    tasks = [window["task"] for window in found if window["task"]]
    judged = _JUDGED[tasks[0]] if tasks else ""
    rows = [
        {
            **window, "p50": window["latency_ms"]["p50"], "p99": window["latency_ms"]["p99"], "median": window["scores"]["p50"],
            **{name: window["measures"].get(name) for name in (judged, f"{judged}_low", f"{judged}_high")},
        }
        for window in found
    ]  # fmt: skip
    quality = {judged: judged, "from": f"{judged}_low", "to": f"{judged}_high"} if judged else {}
    columns = {
        "since": "at", **columns, "version": "version", "requests": "requests", "errors": "error_rate", "p50 ms": "p50", "p99 ms": "p99",
        "median score": "median", "missing": "missing", "out of range": "out_of_range", "unseen": "unseen", "labels": "labels",
        "coverage": "coverage", "label age s": "label_age_s",
    }  # fmt: skip
    table(rows, columns | quality, empty=empty)
