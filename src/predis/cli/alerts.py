"""Verbs of alerts: list, show, acknowledge, silence; whom alerts are told to; error budgets."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import click

from predis.cli.output import as_json_option, client_of, remote, show_json, table

_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
# As the channels are called; it takes longer to import them than most commands take.
CHANNELS = ("webhook", "email", "slack", "teams", "pagerduty", "opsgenie")
SEVERITIES = ("info", "warning", "critical", "emergency")


@click.group(invoke_without_command=True)
@click.option("--endpoint", default="", help="Only this endpoint's.")
@click.option("--open", "only_open", is_flag=True, help="Only those that last.")
@as_json_option
@remote
@click.pass_context
def alerts(ctx: click.Context, /, **options: Any) -> None:
    """List alerts, newest first; show, acknowledge and silence them; say whom they are told to.

    \b
    predis alerts --open
    predis alerts show 12
    predis alerts ack 12 --note "the feed of prices is being mended"
    predis alerts silence --endpoint churn --for 2h --reason "load test"
    predis alerts route list
    """
    if ctx.invoked_subcommand is None:
        _list(**options)


@alerts.command("list")
@click.option("--endpoint", default="", help="Only this endpoint's.")
@click.option("--open", "only_open", is_flag=True, help="Only those that last.")
@as_json_option
@remote
def list_alerts(**options: Any) -> None:
    """List alerts, newest first.

    \b
    predis alerts list --open --json
    """
    _list(**options)


def _list(*, endpoint: str, only_open: bool, as_json: bool, **where: str) -> None:
    found = [a for a in client_of(where).alerts(endpoint) if not only_open or a["state"] == "open"]
    show_json(found) if as_json else show_alerts(found, empty="No alerts.")


@alerts.command()
@click.argument("number", type=int)
@as_json_option
@remote
def show(number: int, as_json: bool, **where: str) -> None:
    """Show one alert: what it means, where to look, and who was told of it.

    \b
    predis alerts show 12
    """
    found = client_of(where).alert(number)
    if as_json:
        show_json(found)
        return
    version = f" v{found['version']}" if found["version"] is not None else ""
    click.secho(
        f"{found['severity']} ({found['state']}) {found['endpoint']}{version}: {found['kind']}", bold=True
    )
    click.echo(found["message"])
    click.echo(
        f"  it means   {found['meaning']}\n  look at    {found['look_at']}\n  look with  {found['command']}"
    )
    click.echo(
        f"  opened {found['opened_at']}, last seen {found['seen_at']}, ended {found['ended_at'] or '-'}"
    )
    if found["acknowledged_at"]:
        click.echo(
            f"  acknowledged by {found['acknowledged_by']} at {found['acknowledged_at']}: {found['note'] or '-'}"
        )
    if found["silenced"]:
        click.echo("  silenced: predis alerts silences")
    columns = {
        "route": "route",
        "told": "event",
        "state": "state",
        "tries": "attempts",
        "at": "created_at",
        "error": "error",
    }
    table(
        found["deliveries"], columns, empty="  nobody was told; add a route: predis alerts route add --help"
    )


@alerts.command()
@click.argument("number", type=int)
@click.option("--note", default="", help="What you are doing about it; routes are told.")
@as_json_option
@remote
def ack(number: int, *, note: str, as_json: bool, **where: str) -> None:
    """Acknowledge an alert and its incident: somebody takes care of it, nothing escalates any more.

    \b
    predis alerts ack 12 --note "rolling back"
    """
    found = client_of(where).acknowledge(number, note=note)
    show_json(found) if as_json else click.echo(
        f"alert {number} is acknowledged by {found['acknowledged_by']}"
    )


@alerts.command()
@click.option("--endpoint", default="", help="Pattern of endpoints, such as churn-*. Empty: all.")
@click.option("--kind", default="", help="Pattern of kinds, such as slo_*. Empty: all.")
@click.option("--version", type=int, help="Only of this version.")
@click.option("--severity", default="", help="The most severe that is silenced. Empty: all but emergency.")
@click.option("--for", "span", default="", help="For how long: 30m, 2h, 7d.")
@click.option("--until", default="", help="Until when: 2026-11-21T18:00:00Z.")
@click.option("--reason", required=True, help="Why; for those who wonder later.")
@as_json_option
@remote
def silence(
    endpoint: str, *, kind: str, version: int | None, severity: str, span: str, until: str, reason: str,
    as_json: bool, **where: str,
) -> None:  # fmt: skip
    """Tell nobody of alerts that match, for a while. They are still listed, and retraining still begins.

    \b
    predis alerts silence --endpoint churn --for 2h --reason "load test"
    predis alerts silence --kind drift --until 2026-12-01T00:00:00Z --reason "new prices; see TICKET-12"
    """
    which: dict[str, Any] = {"endpoint": endpoint, "kind": kind, "version": version, "severity": severity}
    which |= {"for_s": _seconds(span, "--for")} if span else {}
    which |= {"until": until} if until else {}
    found = client_of(where).add_silence(reason, **which)
    show_json(found) if as_json else click.echo(f"silence {found['id']} lasts until {found['ends_at']}")


@alerts.command()
@click.option("--all", "ended", is_flag=True, help="Those that are over as well.")
@as_json_option
@remote
def silences(ended: bool, as_json: bool, **where: str) -> None:
    """List silences, newest first.

    \b
    predis alerts silences
    """
    found = client_of(where).silences(ended=ended)
    columns = {
        "id": "id", "endpoint": "endpoint", "kind": "kind", "version": "version", "up to": "severity", "until": "ends_at",
        "by": "created_by", "why": "reason",
    }  # fmt: skip
    show_json(found) if as_json else table(found, columns, empty="No silences.")


@alerts.command()
@click.argument("silence", type=int)
@remote
def unsilence(silence: int, **where: str) -> None:
    """End a silence; alerts that it hid and that last are told.

    \b
    predis alerts unsilence 3
    """
    client_of(where).end_silence(silence)
    click.echo(f"silence {silence} is over")


@alerts.command()
@click.option("--limit", type=click.IntRange(1, 1_000), default=30, show_default=True, help="How many.")
@as_json_option
@remote
def deliveries(limit: int, *, as_json: bool, **where: str) -> None:
    """List what routes are to be told, and were told: what waits first, then the newest.

    \b
    predis alerts deliveries
    """
    found = client_of(where).alert_deliveries(limit=limit)
    columns = {
        "route": "route", "state": "state", "what": "title", "tries": "attempts", "written": "created_at", "next try": "next",
        "done": "ended_at", "error": "error",
    }  # fmt: skip
    rows = [{**row, "next": row["due_at"] if row["state"] == "waiting" else ""} for row in found]
    show_json(found) if as_json else table(rows, columns, empty="Nothing was to be told yet.")


@alerts.group()
def route() -> None:
    """Whom alerts are told to, and how. For administrators.

    \b
    predis alerts route add ops webhook --set url=https://hooks.example.org/predis --set secret=file:hook
    predis alerts route test ops
    predis alerts route list
    """


@route.command("add")
@click.argument("name")
@click.argument("channel", type=click.Choice(CHANNELS))
@click.option(
    "--set",
    "values",
    multiple=True,
    metavar="FIELD=VALUE",
    help="A field of the channel; secrets as env:NAME or file:NAME.",
)
@click.option("--endpoint", default="", help="Pattern of endpoints. Empty: all.")
@click.option("--kind", "kinds", multiple=True, help="Pattern of kinds, may be repeated. None: all.")
@click.option(
    "--severity",
    type=click.Choice(SEVERITIES),
    default="warning",
    show_default=True,
    help="The least that it is told.",
)
@click.option("--after", default="", help="Only what nobody acknowledged for so long: 15m, 1h.")
@click.option(
    "--per-hour",
    type=int,
    default=60,
    show_default=True,
    help="Notices in an hour; the rest comes as a summary.",
)
@as_json_option
@remote
def add_route(
    name: str, *, channel: str, values: tuple[str, ...], endpoint: str, kinds: tuple[str, ...], severity: str,
    after: str, per_hour: int, as_json: bool, **where: str,
) -> None:  # fmt: skip
    """Tell alerts to somebody more. Secrets are named by where they are found, never given here.

    \b
    predis alerts route add ops webhook --set url=https://hooks.example.org/predis --set secret=env:PREDIS_ALERT_HOOK
    predis alerts route add mail email --set host=mail.example.org --set from=predis@example.org --set to=team@example.org
    predis alerts route add room slack --set url=file:slack-url --severity info
    predis alerts route add page pagerduty --set routing_key=file:pagerduty --severity critical --after 15m
    """
    config = dict(_value(text) for text in values)
    which = {"endpoint": endpoint, "kinds": list(kinds), "severity": severity, "per_hour": per_hour}
    which["after_s"] = _seconds(after, "--after") if after else 0.0
    found = client_of(where).add_alert_route(name, channel=channel, config=config, **which)
    show_json(found) if as_json else click.echo(
        f"alerts go to {name}; try it: predis alerts route test {name}"
    )


@route.command("list")
@as_json_option
@remote
def list_routes(as_json: bool, **where: str) -> None:
    """List routes with how many notices were sent, wait, or were given up.

    \b
    predis alerts route list
    """
    found = client_of(where).alert_routes()
    columns = {
        "name": "name", "channel": "channel", "endpoint": "endpoint", "kinds": "kinds", "at least": "severity", "after s": "after_s",
        "comes from": "whence", "sent": "sent", "waiting": "waiting", "failed": "failed", "last error": "error",
    }  # fmt: skip
    rows = [{**row, "whence": row["origin"] or f"added by {row['created_by']}"} for row in found]
    show_json(found) if as_json else table(
        rows, columns, empty="Alerts go nowhere yet: predis alerts route add --help"
    )


@route.command("test")
@click.argument("name")
@as_json_option
@remote
def test_route(name: str, as_json: bool, **where: str) -> None:
    """Send a test notice now; exits with 1 where it was not taken.

    \b
    predis alerts route test ops
    """
    found = client_of(where).test_alert_route(name)
    if as_json:
        show_json(found)
    else:
        click.echo(f"{name} took it" if found["sent"] else f"{name} did not take it: {found['error']}")
    if not found["sent"]:
        sys.exit(1)


@route.command("remove")
@click.argument("name")
@remote
def remove_route(name: str, **where: str) -> None:
    """Remove a route, and what it was still to be told.

    \b
    predis alerts route remove ops
    """
    client_of(where).remove_alert_route(name)
    click.echo(f"nothing goes to {name} any more")


@click.command()
@click.argument("endpoint", required=False, default="")
@as_json_option
@remote
def slo(endpoint: str, *, as_json: bool, **where: str) -> None:
    """Show what is left of the error budgets of ENDPOINT, or of every endpoint, and how fast they burn.

    \b
    predis slo
    predis slo churn --json
    """
    found = client_of(where).objectives(endpoint)
    if as_json:
        show_json(found)
        return
    rows = [{**row, "left": f"{row['budget_left']:.1%}", "burns": _burns(row["burn"])} for row in found]
    columns = {
        "endpoint": "endpoint", "objective": "text", "achieved": "achieved", "requests": "requests", "bad": "bad",
        "of it missed in outages": "missed", "budget left": "left", "burn rate (limit)": "burns",
    }  # fmt: skip
    table(
        rows,
        columns,
        empty="No objectives. Set some: predis endpoint configure NAME --set objectives='{\"availability\": 0.999}'",
    )


def show_alerts(rows: list[dict[str, Any]], *, empty: str) -> None:
    """Print alerts as a table."""
    columns = {
        "id": "id", "severity": "severity", "state": "state", "endpoint": "endpoint", "what": "message", "look with": "command",
        "opened": "opened_at", "acknowledged": "acknowledged_by",
    }  # fmt: skip
    table(rows, columns, empty=empty)


def _burns(pairs: list[dict[str, Any]]) -> str:
    return ", ".join(
        f"{pair['long_s'] / 3_600:g} h {pair['long']:.1f} ({pair['factor']:.3g})" for pair in pairs
    )


def _seconds(text: str, option: str) -> float:
    """A span such as 15m in seconds."""
    found = _SPAN.fullmatch(text)
    if not found:
        raise click.UsageError(
            f"{option} is a number with a unit, such as 90s, 15m, 2h or 7d, got {text!r:.40}"
        )
    return float(found[1]) * _UNITS[found[2]]


def _value(text: str) -> tuple[str, Any]:
    """A field of a channel: JSON where it is a number, a flag or a list, else as it stands."""
    name, given, value = text.partition("=")
    if not given:
        raise click.UsageError(f"--set is FIELD=VALUE, got {text!r:.80}")
    try:
        parsed = json.loads(value)
    except ValueError:
        return name, value
    return name, parsed if isinstance(parsed, int | float | bool | list) else value
