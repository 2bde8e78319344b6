"""The verb that replays the prediction log through a candidate."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from predis.cli.output import as_json_option, client, remote, save, show_json, table
from predis.client import Client
from predis.errors import InvalidInput, NotFound, PredisError

_POLL_S = 0.3
_PATIENCE_S = 30.0  # control may be started again meanwhile
_WOULD_FAIL, _ERROR, _INTERRUPTED = 1, 2, 130
_TITLES = {"auc": "AUC", "mae": "mean absolute error", "accuracy": "accuracy"}
_COLOURS = {"pass": "green", "fail": "red", "unknown": "yellow"}


@click.command()
@click.argument("endpoint")
@click.option("--candidate", default="", help="The version to try: a number, an alias, or latest.")
@click.option(
    "--since", default="7d", show_default=True, help="How far back: 30m, 12h, 7d, or a moment (RFC 3339)."
)
@click.option(
    "--baseline",
    default="",
    help="Score this version again, instead of taking the scores that were answered.",
)
@click.option(
    "--rows",
    type=click.IntRange(1),
    default=200_000,
    show_default=True,
    help="Most rows to replay; of more, every n-th is taken.",
)
@click.option(
    "--threshold",
    type=float,
    default=0.5,
    show_default=True,
    help="The score from which a row counts as positive.",
)
@click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as one HTML page."
)
@click.option("--last", is_flag=True, help="Show the newest backtest of ENDPOINT; follow it if it runs.")
@click.option("--cancel", is_flag=True, help="End the backtest that runs on ENDPOINT.")
@as_json_option
@remote
def backtest(
    endpoint: str, *, html: Path | None, last: bool, cancel: bool, as_json: bool, control: str, serving: str, key: str,
    **wanted: Any,
) -> None:  # fmt: skip
    """Replay what ENDPOINT was asked through a candidate, before any user meets it.

    Reports how scores shift, which rows change sides, latency, quality on labels, and what the gates of a canary would probably say.
    It runs in the control role and goes on if this command is stopped; --last finds it again. Exits with 0; with 1 where the candidate
    would likely fail a gate; with 2 where there is no report.

    \b
    predis rollout backtest churn --candidate 7 --since 7d
    predis rollout backtest churn --candidate latest --rows 50000 --html report.html
    predis rollout backtest churn --last --json
    """
    server = client(control, serving, key=key, patience_s=_PATIENCE_S)
    try:
        if cancel:
            ended = server.cancel_backtest(_newest(server, endpoint)["id"])
            click.echo(f"backtest {ended['id']} is cancelled")
            return
        found = _newest(server, endpoint) if last else _started(server, endpoint, wanted=wanted)
        found = _followed(server, found["id"], endpoint=endpoint)
        if found["state"] != "done":
            raise PredisError(f"backtest {found['id']} {found['state']}: {found['error']}")
        _written(found["report"], html)
    except PredisError as error:
        click.echo(f"predis: {error.message} [{error.code}]", err=True)
        sys.exit(_ERROR)
    show_json(found) if as_json else _show(found["report"])
    if found["report"]["conclusion"]["outcome"] == "fail":
        sys.exit(_WOULD_FAIL)


def _started(server: Client, endpoint: str, *, wanted: dict[str, Any]) -> dict[str, Any]:
    if not wanted["candidate"]:
        raise InvalidInput("name the version to try with --candidate, or say --last")
    given = {name: value for name, value in wanted.items() if value != ""}
    return server.backtest(endpoint, given.pop("candidate"), **given)


def _newest(server: Client, endpoint: str) -> dict[str, Any]:
    known = server.backtests(endpoint)
    if not known:
        raise NotFound(f"there was no backtest on {endpoint!r} yet; start one with --candidate")
    return known[0]


def _followed(server: Client, backtest: int, *, endpoint: str) -> dict[str, Any]:
    """Wait for the end, with a line on standard error if that is a terminal."""
    screen = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(30), TaskProgressColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
            task = bar.add_task(f"backtest {backtest}", total=1.0)
            while (found := server.show_backtest(backtest))["state"] == "running":
                bar.update(task, completed=found["progress"])
                time.sleep(_POLL_S)
            return found
    except KeyboardInterrupt:
        click.echo(
            f"\nbacktest {backtest} goes on; see it with: predis rollout backtest {endpoint} --last", err=True
        )
        sys.exit(_INTERRUPTED)


def _written(report: dict[str, Any], path: Path | None) -> None:
    if path is None:
        return
    from predis.rollout.backtest.page import render

    save(path, render(report))
    click.echo(f"report written to {path}", err=True)


def _show(report: dict[str, Any]) -> None:
    conclusion, window, shift, flips = (report[name] for name in ("conclusion", "window", "shift", "flips"))
    click.secho(
        f"version {report['candidate']} on {report['endpoint']}: {conclusion['text']}",
        fg=_COLOURS[conclusion["outcome"]],
        bold=True,
    )
    sampled = f" evenly sampled from {window['logged_rows']:,}" if window["sampled"] else ""
    versions = ", ".join(f"v{number}: {count:,}" for number, count in window["versions"].items())
    click.echo(
        f"{window['rows']:,} rows{sampled}, {window['first']} to {window['last']}, answered by {versions}"
    )
    click.echo(f"compared with version {report['baseline']} ({report['baseline_scores']} scores)")
    _show_problems(report)
    old, new = shift["baseline"], shift["candidate"]
    click.echo(
        f"scores   mean {old['mean']:.4f} -> {new['mean']:.4f}, median {old['quantiles']['0.5']:.4f} -> {new['quantiles']['0.5']:.4f}; "
        f"PSI {_number(shift['psi'])}, Kolmogorov {shift['ks']:.3f}, correlation {_number(shift['correlation'])}; "
        f"{shift['share_far']:.1%} differ by more than {shift['far']:g}"
    )
    click.echo(
        f"flips    {flips['flips']:,} at {flips['threshold']:g} ({flips['rate']:.2%}): {flips['up']:,} up, {flips['down']:,} down"
    )
    _show_quality(report["quality"])
    _show_speed(report["speed"])
    _show_segments(report["segments"])
    click.echo("\nWhat the gates of a canary would probably say (an estimate from the replay):")
    gates = [{**gate, "after": _after(gate["requests"])} for gate in report["gates"]]
    columns = {"gate": "gate", "estimate": "estimate", "decides after": "after", "why": "message"}
    table(gates, columns, empty="no gates")


def _show_problems(report: dict[str, Any]) -> None:
    errors, fidelity = report["errors"], report["fidelity"]
    for each in report["left_out"][:5]:
        click.echo(f"left out {each['what']} ({each['rows']:,} rows): {each['why']}")
    if len(report["left_out"]) > 5:
        click.echo(f"left out {len(report['left_out']) - 5} more; --json names them")
    if errors["failed"] or errors["unscored"]:
        click.secho(
            f"errors   the candidate failed on {errors['failed']:,} of {errors['tried']:,} rows ({errors['rate']:.2%}), "
            f"{errors['unscored']:,} more not tried one by one; first: {errors['first']}",
            fg="red",
        )
    if errors["not_finite"]:
        click.secho(f"errors   {errors['not_finite']:,} scores are no finite numbers", fg="red")
    if errors["baseline_unscored"]:
        click.echo(f"left out {errors['baseline_unscored']:,} rows without a score of the baseline")
    if report["baseline_problem"]:
        click.echo(f"latency  the baseline could not be opened: {report['baseline_problem']}")
    if fidelity and fidelity["same"] < fidelity["rows"]:
        click.secho(
            f"replay   the baseline, asked again, differs on {fidelity['rows'] - fidelity['same']:,} of {fidelity['rows']:,} rows "
            f"(by {fidelity['worst']:.3g} at most): the log does not hold all that the models saw",
            fg="yellow",
        )


def _show_quality(found: dict[str, Any]) -> None:
    click.echo(f"labels   {found['labels']:,} of {found['rows']:,} rows ({found['coverage']:.1%})", nl=False)
    click.echo(f"; {found['problem']}" if "problem" in found else "")
    if "difference" in found:
        old, new, apart = found["baseline"], found["candidate"], found["difference"]
        name = apart["measure"]
        click.echo(
            f"quality  {_TITLES[name]} {old[name]:.4f} -> {new[name]:.4f} ({apart[name]:+.4f}, "
            f"95 % {_number(apart['low'])} to {_number(apart['high'])}), "
            + ", ".join(
                f"{each} {_number(old[each])} -> {_number(new[each])}" for each in old if each != name
            )
        )


def _show_speed(found: list[dict[str, Any]]) -> None:
    shown = []
    for each in found:
        against = f", {each['ratio']:.2f} x the baseline" if each["ratio"] is not None else ""
        shown.append(f"{each['rows']} at once {each['candidate']['p50_ms']:.3g} ms{against}")
    if shown:
        click.echo(f"latency  {'; '.join(shown)} (medians, predicting alone)")


def _show_segments(found: dict[str, Any]) -> None:
    rows = [
        {
            "segment": f"{each['input']} {each['segment']}",
            "flips": f"{each['flips']:,} of {each['rows']:,}",
            "rate": f"{each['rate']:.2%}",
            "interval": f"{each['low']:.2%} to {each['high']:.2%}",
            "rest": f"{each['rest_rate']:.2%}",
        }
        for each in found["rows"]
        if each["stands_out"]
    ]
    looked = (
        f"{found['looked_at']} segments looked at, intervals and tests corrected for that many (Bonferroni)"
    )
    if not rows:
        click.echo(f"segments none stands out; {looked}")
        return
    click.echo(f"\nSegments that flip more than the rest ({looked}):")
    columns = {"segment": "segment", "flips": "flips", "rate": "rate", "interval": "interval", "rest": "rest"}
    table(rows[:8], columns, empty="")


def _after(requests: int | None) -> str:
    return f"about {requests:,} requests" if requests else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
