"""Verbs that move endpoints from version to version: deploy, rollout, freeze."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from predis.cli.output import as_json_option, client, remote, show_json, table
from predis.errors import InvalidInput

# As the plan has them; it takes longer to import than most commands take.
STRATEGIES = ("direct", "blue-green", "canary", "ab", "shadow", "bandit")
_POLL_S = 0.2
_PATIENCE_S = 30.0  # of verbs that stay with a rollout: control may be started again meanwhile


@click.command()
@click.argument("endpoint")
@click.argument("version")
@click.option(
    "--strategy", type=click.Choice(STRATEGIES), default="canary", show_default=True, help="How to get there."
)
@click.option("--steps", default="", help="Shares of a canary's steps, such as 0.05,0.25,0.5.")
@click.option(
    "--where",
    "segment",
    default="",
    metavar="EXPRESSION",
    help="Only requests for which this holds, such as header.x_country == 'CH'.",
)
@click.option(
    "--approve", default="", help="What wants a person's yes: start, steps, promote; several by commas."
)
@click.option(
    "--set",
    "values",
    multiple=True,
    metavar="NAME=VALUE",
    help="Another value of the plan, such as auc_margin=0.05.",
)
@click.option("--override-freeze", is_flag=True, help="Deploy in a freeze window; for administrators.")
@click.option("--wait/--no-wait", default=True, help="Stay until the rollout has ended.")
@as_json_option
@remote
def deploy(
    endpoint: str,
    version: str,
    *,
    strategy: str,
    steps: str,
    segment: str,
    approve: str,
    values: tuple[str, ...],
    override_freeze: bool,
    wait: bool,
    as_json: bool,
    **where: str,
) -> None:
    """Move ENDPOINT to VERSION; exits with 1 where the rollout turned back.

    \b
    predis deploy churn 4
    predis deploy churn latest --strategy direct
    predis deploy churn 4 --steps 0.05,0.25 --set bake_s=600 --approve promote
    predis deploy churn 4 --strategy blue-green --set keep_s=3600
    predis deploy churn 4 --strategy shadow
    predis deploy churn 4 --strategy ab --set reward='value' --where "parameter.tier == 'gold'"
    """
    plan: dict[str, Any] = dict(_plan_value(value) for value in values)
    if steps:
        plan["steps"] = [_number(part, "--steps") for part in steps.split(",")]
    if segment:
        plan["where"] = segment
    if approve:
        plan["approve"] = approve.split(",")
    server = client(**where, patience_s=_PATIENCE_S)
    started = server.deploy(endpoint, version, strategy=strategy, plan=plan, override_freeze=override_freeze)
    if not wait:
        show_json(started) if as_json else click.echo(
            f"rollout {started['id']} to version {started['candidate']} started"
        )
        return
    ended = follow(server, started, quiet=as_json)
    if as_json:
        show_json(ended)
    if ended["state"] not in ("promoted", "concluded"):
        sys.exit(1)


@click.group()
def rollout() -> None:
    """List and show rollouts; pause, resume, approve, promote and abort them.

    \b
    predis rollout list
    predis rollout show 12
    predis rollout abort 12 --note "support calls"
    """


@rollout.command("list")
@click.option("--endpoint", default="", help="Only this endpoint's.")
@as_json_option
@remote
def list_rollouts(endpoint: str, as_json: bool, *, control: str, serving: str, key: str) -> None:
    """List rollouts, newest first."""
    rows = client(control, serving, key=key).rollouts(endpoint)
    if as_json:
        show_json(rows)
        return
    columns = {
        "id": "id", "endpoint": "endpoint", "from": "baseline", "to": "candidate", "strategy": "strategy", "state": "state",
        "share": "weight", "why": "reason", "started": "created_at",
    }  # fmt: skip
    table(rows, columns, empty="No rollouts yet. Start one: predis deploy ENDPOINT VERSION")


@rollout.command("show")
@click.argument("number", type=int)
@as_json_option
@remote
def show_rollout(number: int, as_json: bool, *, control: str, serving: str, key: str) -> None:
    """Show one rollout: what its gates say, and every move it made."""
    found = client(control, serving, key=key).rollout(number)
    if as_json:
        show_json(found)
        return
    what = (
        "endpoint", "baseline", "candidate", "strategy", "where", "steps", "state", "step", "weight", "reason", "created_at", "ended_at",
        "created_by",
    )  # fmt: skip
    table(
        [{"what": name, "is": found[name]} for name in what],
        {"": "what", f"rollout {number}": "is"},
        empty="",
    )
    columns = {
        "gate": "gate", "verdict": "verdict", "baseline": "baseline", "candidate": "candidate", "low": "low", "high": "high",
        "margin": "margin", "": "message",
    }  # fmt: skip
    table(found["verdicts"], columns, empty="No gate has spoken yet.")
    moves = {"at": "at", "state": "state", "share": "share", "why": "reason"}
    table(found["moves"], moves, empty="")


def _wish(name: str, summary: str, *, freezes: bool = False) -> None:
    """Add the verb of a wish."""

    @click.argument("number", type=int)
    @click.option("--note", default="", help="Why; for the audit log.")
    @remote
    def verb(number: int, *, note: str, control: str, serving: str, key: str, **options: bool) -> None:
        server = client(control, serving, key=key, patience_s=_PATIENCE_S)
        said = {
            **({"note": note} if note else {}),
            **{name: True for name, given in options.items() if given},
        }
        asked = server.ask(number, name, **said)
        if name in ("promote", "abort", "reject"):
            follow(server, asked)
        else:
            click.echo(f"rollout {number}: asked to {name}; it was {asked['state']}")

    verb.__doc__ = f"{summary}\n\n\b\npredis rollout {name} 12"
    command: Callable[..., Any] = verb
    if freezes:
        command = click.option(
            "--override-freeze", is_flag=True, help="In a freeze window; for administrators."
        )(command)
    rollout.command(name)(command)


_wish("promote", "Give the candidate everything, whatever the gates still wait for.", freezes=True)
_wish("abort", "Put the baseline back.")
_wish("pause", "Leave the shares as they are until somebody resumes. Gates still turn it back.")
_wish("resume", "Go on after a pause; the step bakes anew.")
_wish("approve", "Say yes to the move that a rollout waits for.")
_wish("reject", "Say no to it: the baseline is put back.")


@click.group()
def freeze() -> None:
    """Windows in which rollouts do not go forward. They still turn back, and people may still stop them.

    \b
    predis freeze add --weekly "fri 16:00-mon 06:00" --zone Europe/Zurich --reason weekend
    predis freeze list
    """


@freeze.command("add")
@click.option("--endpoint", default="", help="Only this endpoint; all where not given.")
@click.option(
    "--from", "starts_at", default=None, help="When it starts, as 2026-12-20T00:00:00Z; now where not given."
)
@click.option("--to", "ends_at", default=None, help="When it ends.")
@click.option("--weekly", default="", help="Every week, as 'fri 16:00-mon 06:00'.")
@click.option("--zone", default="UTC", show_default=True, help="Time zone of a weekly window.")
@click.option("--reason", default="", help="What to tell people who meet it.")
@remote
def add_freeze(*, control: str, serving: str, key: str, **window: str | None) -> None:
    """Add a window.

    \b
    predis freeze add --from 2026-12-20T00:00:00Z --to 2027-01-04T06:00:00Z --reason "end of year"
    predis freeze add --endpoint churn --weekly "sat 00:00-mon 06:00"
    """
    made = client(control, serving, key=key).add_freeze(
        **{name: value for name, value in window.items() if value}
    )
    click.echo(f"freeze {made['id']} added; it is {'open now' if made['open'] else 'not open now'}")


@freeze.command("list")
@as_json_option
@remote
def list_freezes(as_json: bool, *, control: str, serving: str, key: str) -> None:
    """List the windows, and which are open now."""
    rows = client(control, serving, key=key).freezes()
    if as_json:
        show_json(rows)
        return
    shown = [{**row, "endpoint": row["endpoint"] or "all"} for row in rows]
    columns = {
        "id": "id", "endpoint": "endpoint", "from": "starts_at", "to": "ends_at", "weekly": "weekly", "zone": "zone", "open": "open",
        "until": "until", "reason": "reason", "by": "created_by",
    }  # fmt: skip
    table(shown, columns, empty="No freeze windows. Add one: predis freeze add --to MOMENT")


@freeze.command("remove")
@click.argument("number", type=int)
@remote
def remove_freeze(number: int, *, control: str, serving: str, key: str) -> None:
    """Remove a window.

    \b
    predis freeze remove 3
    """
    client(control, serving, key=key).remove_freeze(number)
    click.echo(f"freeze {number} removed")


def follow(server: Any, rollout: dict[str, Any], *, quiet: bool = False) -> dict[str, Any]:
    """Stay with a rollout until it ends, printing each move."""
    said = ""
    while True:
        rollout = server.rollout(rollout["id"])
        line = f"rollout {rollout['id']}: version {rollout['candidate']} {rollout['state']} at {rollout['weight']:.0%}"
        told = rollout["ended_at"] or rollout["state"] in ("waiting", "paused")
        if line != said and not quiet:
            click.echo(line + (f": {rollout['reason']}" if told else ""))
            said = line
        if rollout["ended_at"]:
            return rollout
        time.sleep(_POLL_S)


def _plan_value(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput(f"--set takes NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(f"{where} must be numbers, got {text!r}") from None
