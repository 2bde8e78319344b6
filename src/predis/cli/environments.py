"""``predis promote``: from environment to environment, as ``predis.toml`` names them."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import Any

import click

from predis.cli.move import named
from predis.cli.output import as_json_option, client, remote, show_json, table
from predis.client import Client
from predis.errors import InvalidSetting
from predis.settings import Environment, environments

_PATIENCE_S = 15.0


@click.command()
@click.argument("version", metavar="NAME@VERSION")
@click.option("--to", "environment", required=True, help="Environment of predis.toml to move it to.")
@click.option("--alias", default="", help="Point this alias at the version there.")
@click.option(
    "--trust",
    is_flag=True,
    help="Stand there for a program that no key trusted there has signed; administrators only.",
)
@click.option("--dry-run", is_flag=True, help="Look at what is demanded, and move nothing.")
@as_json_option
@remote
def promote(
    version: str,
    *,
    environment: str,
    alias: str,
    trust: bool,
    dry_run: bool,
    as_json: bool,
    control: str,
    serving: str,
    key: str,
) -> None:
    """Move the identical version to another environment, if it meets what that demands; exits with 1 where it does not.

    \b
    [environments.staging]                       # in predis.toml
    control = "https://staging.internal:8000"
    key_env = "PREDIS_STAGING_KEY"
    requires = ["verify", "signature", "metrics.auc >= 0.7", "alias:approved", "served"]

    \b
    predis promote churn@7 --to staging --alias candidate
    predis promote churn@champion --to prod --dry-run
    """
    from predis.registry import promotion

    name, number = named(version)
    target = _target(environment)
    here = client(control, serving, key=key, patience_s=_PATIENCE_S)
    with here, Client(target.control, key=_key(target), retry_s=_PATIENCE_S) as there:
        found = here.version(name, number)
        outcomes = promotion.check(here, found, requires=target.requires)
        refused = [outcome.demand for outcome in outcomes if not outcome.ok]
        report: dict[str, Any] = {
            "model": name, "version": found["version"], "digest": found["digest"], "to": environment,
            "checks": [asdict(outcome) for outcome in outcomes], "ok": not refused, "promoted": None,
        }  # fmt: skip
        if not refused and dry_run:
            report["there"] = promotion.find(there, found)
        elif not refused:
            moved = promotion.move(here, there, version=found, alias=alias, trust=trust, source=here.url)
            report["promoted"] = asdict(moved)
            said = {"to": environment, "control": target.control, "version": moved.version}
            here.note_promotion(name, found["version"], promoted=said)
    show_json(report) if as_json else _show(report, refused)
    if refused:
        sys.exit(1)


def _target(name: str) -> Environment:
    known = environments()
    if name not in known:
        named = f"it names {', '.join(known)}" if known else f"it names none; add [environments.{name}]"
        raise InvalidSetting(f"predis.toml has no environment {name!r}: {named}")
    return known[name]


def _key(target: Environment) -> str:
    if not target.key_env:
        return ""
    key = os.environ.get(target.key_env)
    if not key:
        raise InvalidSetting(
            f"environments.{target.name}: the environment variable {target.key_env} is to hold its API key, and is not set"
        )
    return key


def _show(report: dict[str, Any], refused: list[str]) -> None:
    columns = {"demanded": "demand", "met": "ok", "found": "found"}
    table(report["checks"], columns, empty=f"Nothing is demanded for {report['to']}.")
    name = f"{report['model']}@{report['version']}"
    if refused:
        click.echo(f"{name} was not moved to {report['to']}: it does not meet {', '.join(refused)}", err=True)
    elif report["promoted"] is None:
        there = report["there"]
        outlook = "it would be moved" if there is None else f"it is there already, as version {there}"
        click.echo(f"{name} meets all that {report['to']} demands; {outlook}")
    else:
        moved = report["promoted"]
        told = "moved" if moved["is_new"] else "was there already"
        there = f"{report['model']}@{moved['version']} of {report['to']}"
        click.echo(f"{name} {told}: it is {there}, digest {report['digest'][:12]}")
