"""Verbs that watch: monitor, retrain."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from predis.cli.alerts import show_alerts
from predis.cli.output import as_json_option, client, remote, shares, show_json, table

_REFRESH_S = 1.0


@click.command()
@click.argument("endpoint", required=False, default="")
@click.option("--drift", is_flag=True, help="Every feature's drift, not only what moved.")
@click.option(
    "--why", is_flag=True, help="What is estimated, which moved inputs explain it, which segments are worst."
)
@click.option("--watch", is_flag=True, help="Refresh every second until Ctrl-C.")
@as_json_option
@remote
def monitor(
    endpoint: str, *, drift: bool, why: bool, watch: bool, as_json: bool, control: str, serving: str, key: str
) -> None:
    """Show how ENDPOINT, or every endpoint, does: traffic, latency, quality on matured labels, drift, alerts.

    \b
    predis monitor
    predis monitor flight-delay --drift
    predis monitor flight-delay --why
    """
    if why:
        if not endpoint:
            raise click.UsageError("name the ENDPOINT to look into")
        reasons = client(control, serving, key=key, patience_s=30.0).why(endpoint)
        show_json(reasons) if as_json else _show_why(reasons)
        return
    server = client(control, serving, key=key)
    while True:
        found = server.overview(endpoint)
        if as_json:
            show_json(found)
        else:
            if watch:
                click.clear()
            for shown in found["endpoints"]:
                _show(shown, drift=drift)
            if not found["endpoints"]:
                click.echo(
                    "No endpoints yet. Create one: predis endpoint create NAME --model MODEL --version 1"
                )
            show_alerts(
                [alert for alert in found["alerts"] if alert["state"] == "open"], empty="No open alerts."
            )
        if not watch:
            return
        time.sleep(_REFRESH_S)


@click.command()
@click.argument("endpoint", required=False, default="")
@click.option("--list", "only_list", is_flag=True, help="List retraining runs instead of starting one.")
@click.option("--wait", is_flag=True, help="Stay until the run has ended.")
@as_json_option
@remote
def retrain(
    endpoint: str, *, only_list: bool, wait: bool, as_json: bool, control: str, serving: str, key: str
) -> None:
    """Renew ENDPOINT's model on the newest matured data: train, compare, register, roll out.

    With --wait it exits with 1 where the model was not renewed.

    \b
    predis retrain churn --wait
    predis retrain --list
    """
    server = client(control, serving, key=key, patience_s=30.0 if wait else 2.0)
    if only_list:
        _show_runs(server.retrainings(endpoint), as_json=as_json)
        return
    if not endpoint:
        raise click.UsageError("name the ENDPOINT to retrain, or say --list")
    run = server.retrain(endpoint)
    said = ""
    while wait and not run["ended_at"]:
        run = next(r for r in server.retrainings(endpoint) if r["id"] == run["id"])
        line = f"{run['state']}: {run['step']}"
        if line != said and not as_json:
            click.echo(line)
            said = line
        time.sleep(_REFRESH_S / 4)
    _show_runs([run], as_json=as_json)
    if wait and run["state"] != "promoted":
        sys.exit(1)


def _show(endpoint: dict[str, Any], *, drift: bool) -> None:
    traffic, latency, labels = endpoint["traffic"], endpoint["latency_ms"], endpoint["labels"]
    click.secho(
        f"{endpoint['name']}: {endpoint['health']}, {shares(endpoint['route']['weights'])}", bold=True
    )
    quantiles = ", ".join(f"{name} {value:.2f} ms" for name, value in latency.items() if value is not None)
    click.echo(
        f"  {traffic['requests']} requests, {traffic['failed']} failed, {traffic['per_second']:.0f}/s; {quantiles or 'no latency yet'}"
    )
    coverage = f"{labels['coverage']:.0%}" if labels["coverage"] is not None else "none"
    click.echo(f"  {labels['matured']} of {labels['predictions']} predictions have labels ({coverage})")
    _show_performance(endpoint["versions"])
    for version in endpoint["versions"]:
        if version["drift"] and version["weight"]:
            moved = [f for f in version["drift"]["features"] if drift or f["persistent"]]
            click.echo(
                f"  drift of version {version['version']} in {version['drift']['rows']} rows until {version['drift']['last_event']}"
            )
            shown = [
                {**f, "verdict": "drifted" if f["persistent"] else "moved once" if f["drifted"] else "stable"}
                for f in moved
            ]
            table(
                shown,
                {"feature": "feature", "PSI": "psi", "threshold": "threshold", "": "verdict"},
                empty="  no feature drifted",
            )


# What each kind of model is shown by; the first has an interval beside it.
_MEASURES = {
    "binary": {"AUC": "auc", "KS": "ks", "Gini": "gini", "log loss": "log_loss", "calibration": "calibration_error", "F1": "f1"},
    "multiclass": {
        "accuracy": "accuracy", "macro F1": "macro_f1", "log loss": "log_loss", "AUC one vs rest": "ovr_auc",
        "calibration": "calibration_error",
    },
    "regression": {"MAE": "mae", "RMSE": "rmse", "MAPE": "mape", "R2": "r2", "bias": "bias"},
}  # fmt: skip


def _show_performance(versions: list[dict[str, Any]]) -> None:
    """The newest window of each version, a table for each kind of model."""
    for task, measures in _MEASURES.items():
        rows = []
        for version in versions:
            newest = version["performance"][-1] if version["performance"] else {"measures": {}}
            newest = {**newest, **newest["measures"]}
            if newest.get("task", "binary") != task:
                continue
            first = next(iter(measures.values()))
            rows.append({
                **newest, "version": version["version"], "role": version["role"], "until": newest.get("last_event"),
                "low": newest.get(f"{first}_low"), "high": newest.get(f"{first}_high"), "reference": version["metrics"].get(first),
            })  # fmt: skip
        (title, first), *others = measures.items()
        columns = {
            "version": "version", "role": "role", title: first, "from": "low", "to": "high", f"reference {title}": "reference",
            **dict(others), "labels until": "until",
        }  # fmt: skip
        if rows:
            table(rows, columns, empty="")


def _show_why(found: dict[str, Any]) -> None:
    click.secho(
        f"{found['endpoint']}, version {found['version']}: {found['rows']} newest predictions, {found['labels']} with labels",
        bold=True,
    )
    estimate = found["estimate"]
    if estimate:
        names = ("auc", "accuracy", "f1", "positive_rate", "mae")
        shown = [
            {
                "measure": name,
                "estimate": estimate[name],
                "from": estimate[f"{name}_low"],
                "to": estimate[f"{name}_high"],
            }
            for name in names
            if estimate.get(name) is not None
        ]
        table(shown, {each: each for each in ("measure", "estimate", "from", "to")}, empty="")
        error = estimate["error_so_far"]
        so_far = (
            f"off by {error['mean']:.3f} on average ({error['measure']}, {error['windows']} windows)"
            if error
            else "not known yet"
        )
        click.echo(f"  {estimate['method']} is {estimate['assumption']}; its error so far: {so_far}")
    click.echo("  What moved inputs do to the answers (against values of the reference):")
    columns = {
        "input": "input",
        "PSI": "psi",
        "mean score": "score_shift",
        "single scores": "score_moved",
        "expected AUC": "auc_shift",
    }
    table(found["inputs"], columns, empty="  no inputs")
    click.echo("  Segments, the worst first:")
    judged = {"binary": "auc", "multiclass": "accuracy", "regression": "mae"}[found["task"]]
    columns = {
        "segment": "segment", "is": "level", "rows": "rows", "labels": "labels", judged: judged, "from": f"{judged}_low",
        "to": f"{judged}_high", "score": "score", "missing": "missing", "out of range": "out_of_range", "unseen": "unseen",
    }  # fmt: skip
    table(found["segments"], columns, empty="  none")


def _show_runs(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        show_json(rows)
        return
    shown = []
    for run in rows:
        detail = run["detail"]
        aucs = (
            f"{detail['champion_auc']:.4f} -> {detail['challenger_auc']:.4f}"
            if "champion_auc" in detail
            else None
        )
        why = detail.get("error") or detail.get("rollout_reason") or detail.get("decision")
        shown.append({**run, "aucs": aucs, "why": why})
    columns = {
        "run": "id", "endpoint": "endpoint", "trigger": "trigger", "state": "state", "step": "step", "from": "champion",
        "to": "challenger", "AUC out of time": "aucs", "why": "why",
    }  # fmt: skip
    table(shown, columns, empty="No retraining runs yet. Start one: predis retrain ENDPOINT")
