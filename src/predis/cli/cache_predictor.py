"""Verbs about what the cache has learnt to foretell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from predis.cli.cache_versions import told
from predis.cli.output import as_json_option, client, remote, show_json

_SCHEDULES = 10
_NOTHING = (
    "Nothing has been learnt yet. The learner looks for keys of sources that are read one after the other (predis cache source list); "
    "let clients read through the cache's port for a while."
)


@click.group()
def predictor() -> None:
    """What the cache foretells, and what that is worth."""


@predictor.command()
@as_json_option
@remote
def show(*, as_json: bool, control: str, serving: str, key: str) -> None:
    """Tell in words what has been learnt: which rule, how often right, how early, what it saves.

    A share of what is foretold is held back on purpose; the gain is what these keys missed more than the others. Its range holds
    with 95 %, however often one looks.

    \b
    predis cache predictor show
    predis cache predictor show --json
    """
    server = client(control, serving, key=key)
    found, managed = server.cache_predictor(), server.cache_predictors()
    if as_json:
        show_json({**found, "managed": managed})
        return
    trial = managed["candidate"]
    learned = {entry["rule"]: entry for entry in found["learned"]}
    worth = {
        entry["rule"]: entry for entry in found["rules"] if not trial or entry["version"] != trial["version"]
    }
    followed = (found["predictor"] or {}).get("followed", 0)
    if not (learned or worth or followed or found["schedules"] or managed["champion"]["version"]):
        click.echo(_NOTHING)
        for line in told(managed):
            click.echo(line)
        return
    for line in _headed(found, managed):
        click.echo(line)
    for rule in [*learned, *(rule for rule in worth if rule not in learned)]:
        click.secho(f"\n{rule}", bold=True)
        for line in _told(learned.get(rule), worth.get(rule)):
            click.echo(f"  {line}")
    for line in _scheduled(found["schedules"]):
        click.echo(line)
    total = found["total"]
    if total["gain"] is not None:
        click.echo(f"\nIn all, a foretold key is spared {total['gain']:.2f} misses ({_range(total)}).")
    if found["dropped"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(found["dropped"].items()))
        click.echo(f"Foretold and not loaded: {reasons}.")


def _headed(found: Mapping[str, Any], managed: Mapping[str, Any]) -> list[str]:
    """Which version is in use, what the learner has added to it, what is on trial."""
    version, online = managed["champion"]["version"], found["predictor"] or {}
    name = f"Version {version}" if version else "No trained version"
    refreshed = f", refreshed {online['number']:,} times by the learner" if online else ""
    rules, followed = _count(len(found["learned"]), "rule"), _count(online.get("followed", 0), "key")
    workers = _count(found["workers"], "worker")
    return [
        f"{name}{refreshed}: {rules}, {followed} that others follow; at work in {workers}.",
        *told(managed),
    ]


def _told(learned: Mapping[str, Any] | None, worth: Mapping[str, Any] | None) -> list[str]:
    """Sentences about one rule."""
    lines = []
    if learned is not None:
        lines.append(
            f"right {learned['confidence']:.0%} of the time, {_ahead(learned['lead_s'])} ahead; early enough {learned['on_time']:.0%} "
            f"of the time (seen {learned['support']:,} times)"
        )
    if worth is None:
        lines.append("nothing prefetched yet")
        return lines
    if worth["given"]:
        lines.append(
            f"{_count(worth['given'], 'key')} prefetched: {worth['used']:,} read in time, {worth['late']:,} too late, "
            f"{worth['given'] - worth['used'] - worth['late']:,} not read"
        )
    if worth["gain"] is not None:
        lines.append(
            f"spares {worth['gain']:.2f} misses a key ({_range(worth)}), against {_count(worth['held'], 'key')} held back"
        )
    if not worth["on"]:
        lines.append("switched off for now: it does not pay")
    return lines


def _scheduled(schedules: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that are read at a steady period, the next due first."""
    if not schedules:
        return []
    lines = ["", f"Read on a schedule, and loaded just before: {_count(len(schedules), 'key')}."]
    for one in schedules[:_SCHEDULES]:
        due = datetime.fromtimestamp(one["due_s"]).astimezone()
        lines.append(
            f"  {one['key']}: every {one['period_s']:.3g} s ± {one['tolerance_s']:.2g}, next at {due:%H:%M:%S}"
        )
    if len(schedules) > _SCHEDULES:
        lines.append(f"  and {_count(len(schedules) - _SCHEDULES, 'key')} more (--json)")
    return lines


def _range(entry: Mapping[str, Any]) -> str:
    return f"{entry['gain_low']:.2f} to {entry['gain_high']:.2f}"


def _ahead(seconds: float) -> str:
    return f"{seconds * 1_000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
