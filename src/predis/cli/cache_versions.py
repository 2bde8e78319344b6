"""Verbs about the versions of the cache's predictor: train, try, promote, roll back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from predis.cli.output import as_json_option, client, remote, show_json, table

_NONE = (
    "No version has been trained yet; what the learner finds by itself is in use. The first is trained once some thousand reads are "
    "recorded, or at once: predis cache predictor train"
)


@click.command()
@as_json_option
@remote
def versions(*, as_json: bool, control: str, serving: str, key: str) -> None:
    """List the predictor's versions: the simulator's report on each, which is in use, and what was decided why.

    The report is of reads that the version was not trained on: misses, those that LRU and S3-FIFO would have had, how much of what it would
    have prefetched was read, and loads of the sources, in LRU's.

    \b
    predis cache predictor versions
    predis cache predictor versions --json
    """
    found = client(control, serving, key=key).cache_predictors()
    if as_json:
        show_json(found)
        return
    columns = {title: title for title in _TITLES}
    table([_row(version) for version in found["versions"]], columns, empty=_NONE)
    for line in told(found):
        click.echo(line)
    if found["decisions"]:
        click.secho("\nDecisions, newest first", bold=True)
    for one in found["decisions"]:
        click.echo(
            f"  {one['at'][:19]}  version {one['version']}: {one['decision']} ({one['actor']}): {one['why']}"
        )


@click.command()
@as_json_option
@remote
def train(*, as_json: bool, control: str, serving: str, key: str) -> None:
    """Begin to train a version from the reads that the learner has recorded.

    It is tried with a share of the keys, and takes over once the hold-back has shown that it spares no fewer misses.

    \b
    predis cache predictor train
    """
    run = client(control, serving, key=key).train_cache_predictor()
    show_json(run) if as_json else click.echo(
        f"run {run['id']} trains a version; follow it with: predis cache predictor versions"
    )


@click.command()
@as_json_option
@remote
def promote(*, as_json: bool, control: str, serving: str, key: str) -> None:
    """Let the version on trial take over now, whatever its trial has shown.

    \b
    predis cache predictor promote
    """
    _changed(client(control, serving, key=key).promote_cache_predictor(), as_json=as_json)


@click.command()
@click.argument("version", type=click.IntRange(0), required=False)
@as_json_option
@remote
def rollback(version: int | None, *, as_json: bool, control: str, serving: str, key: str) -> None:
    """End the trial, where one is under way; else go back to the version before, or to VERSION.

    0 is what the learner finds by itself, without any trained version.

    \b
    predis cache predictor rollback
    predis cache predictor rollback 3
    predis cache predictor rollback 0
    """
    _changed(client(control, serving, key=key).roll_back_cache_predictor(version), as_json=as_json)


def told(found: Mapping[str, Any]) -> list[str]:
    """Sentences about the trial, the training and clients' habits."""
    lines = []
    trial, training, habits = found["candidate"], found["training"], found["habits"]
    lines += _of_late(found["champion"])
    if trial:
        lines.append(
            f"Version {trial['version']} is on trial with {trial['share']:.0%} of the keys since {trial['since'][:19]}: {trial['verdict']}."
        )
    if training and training["ended_at"] is None and training["state"] == "running":
        lines.append(f"A version is being trained ({training['trigger']}): {training['step']}.")
    elif training and training["state"] in ("failed", "rejected"):
        reason = training["detail"].get("error") or training["detail"].get("decision", "")
        lines.append(
            f"The last training came to nothing: {training['detail'].get('rollout_reason', reason)}."
        )
    if found["problem"]:
        lines.append(f"No version can be trained: {found['problem']}")
    if habits and habits["moved"]:
        moved = habits["moved"][0]
        was = (
            f"{moved['kind']} is {moved['share']:.0%} of the reads, {moved['before']:.0%} when it was trained"
        )
        shift = (
            "have drifted"
            if habits["drifted"]
            else "have shifted of late"
            if habits["shifted"]
            else "are as they were"
        )
        lines.append(f"Clients' habits {shift} (PSI {habits['psi']:.2f}, {habits['floor']} counts): {was}.")
    return lines


def _of_late(champion: Mapping[str, Any]) -> list[str]:
    """What the version in use is worth now, and was when it took over."""
    latest, before = champion["latest"], champion["gain_at_promotion"]
    if not champion["version"] or latest["gain"] is None:
        return []
    was = f"; it took over with {before:.2f}" if before is not None else ""
    return [
        f"Of late {latest['precision']:.0%} of the keys it foretold were read, and it spares {latest['gain']:.2f} misses a key{was}."
    ]


_TITLES = ("no", "state", "trained", "misses", "lru", "s3-fifo", "read", "timely", "loads")


def _row(version: Mapping[str, Any]) -> dict[str, str]:
    metrics = version["metrics"]

    def share(name: str) -> str:
        return f"{metrics[name]:.1%}" if name in metrics else ""

    decision = version["decision"]
    return {
        "no": str(version["version"]),
        "state": version["state"] or (f"({decision['decision']})" if decision else ""),
        "trained": version["created_at"][5:16].replace("T", " "),
        "misses": share("miss_ratio"),
        "lru": share("lru_miss_ratio"),
        "s3-fifo": share("s3fifo_miss_ratio"),
        "read": share("precision"),
        "timely": share("on_time"),
        "loads": f"{metrics['loads_to_lru']:.2f}" if "loads_to_lru" in metrics else "",
    }


def _changed(found: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    version = found["champion"]["version"]
    click.echo(f"Version {version} is in use." if version else "What the learner finds by itself is in use.")
