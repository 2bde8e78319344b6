"""Verbs about what the cache has learnt to foretell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from predis.cli.output import as_json_option, client, remote, show_json

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
    found = client(control, serving, key=key).cache_predictor()
    if as_json:
        show_json(found)
        return
    learned = {entry["rule"]: entry for entry in found["learned"]}
    worth = {entry["rule"]: entry for entry in found["rules"]}
    if not learned and not worth:
        click.echo(_NOTHING)
        return
    number = (found["predictor"] or {}).get("number")
    click.echo(
        f"Predictor {number}: {_count(len(learned), 'rule')}, at work in {_count(found['workers'], 'worker')}."
    )
    for rule in [*learned, *(rule for rule in worth if rule not in learned)]:
        click.secho(f"\n{rule}", bold=True)
        for line in _told(learned.get(rule), worth.get(rule)):
            click.echo(f"  {line}")
    total = found["total"]
    if total["gain"] is not None:
        click.echo(f"\nIn all, a foretold key is spared {total['gain']:.2f} misses ({_range(total)}).")
    if found["dropped"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(found["dropped"].items()))
        click.echo(f"Foretold and not loaded: {reasons}.")


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


def _range(entry: Mapping[str, Any]) -> str:
    return f"{entry['gain_low']:.2f} to {entry['gain_high']:.2f}"


def _ahead(seconds: float) -> str:
    return f"{seconds * 1_000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
