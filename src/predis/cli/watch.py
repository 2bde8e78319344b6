"""Verbs that watch: monitor, alerts, retrain."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from predis.cli.output import as_json_option, client, remote, shares, show_json, table

_REFRESH_S = 1.0


@click.command()
@click.argument("endpoint", required=False, default="")
@click.option("--drift", is_flag=True, help="Every feature's drift, not only what moved.")
@click.option("--watch", is_flag=True, help="Refresh every second until Ctrl-C.")
@as_json_option
@remote
def monitor(
    endpoint: str, *, drift: bool, watch: bool, as_json: bool, control: str, serving: str, key: str
) -> None:
    """Show how ENDPOINT, or every endpoint, does: traffic, latency, quality on matured labels, drift, alerts.

    \b
    predis monitor
    predis monitor flight-delay --drift
    """
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
            _show_alerts(
                [alert for alert in found["alerts"] if alert["state"] == "open"], empty="No open alerts."
            )
        if not watch:
            return
        time.sleep(_REFRESH_S)


@click.command()
@click.option("--endpoint", default="", help="Only this endpoint's.")
@click.option("--open", "only_open", is_flag=True, help="Only those that last.")
@as_json_option
@remote
def alerts(endpoint: str, *, only_open: bool, as_json: bool, control: str, serving: str, key: str) -> None:
    """List alerts, newest first."""
    found = [
        a for a in client(control, serving, key=key).alerts(endpoint) if not only_open or a["state"] == "open"
    ]
    show_json(found) if as_json else _show_alerts(found, empty="No alerts.")


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
    rows = []
    for version in endpoint["versions"]:
        newest = version["performance"][-1] if version["performance"] else {}
        reference = version["reference"] or {}
        rows.append(
            {
                **newest,
                "version": version["version"],
                "role": version["role"],
                "reference": reference.get("auc"),
                "until": newest.get("last_event"),
            }
        )
    columns = {
        "version": "version", "role": "role", "AUC": "auc", "from": "auc_low", "to": "auc_high", "KS": "ks", "Gini": "gini",
        "reference AUC": "reference", "labels until": "until",
    }  # fmt: skip
    table(rows, columns, empty="")
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


def _show_alerts(rows: list[dict[str, Any]], *, empty: str) -> None:
    columns = {
        "id": "id", "severity": "severity", "state": "state", "endpoint": "endpoint", "what": "message", "look with": "command",
        "opened": "opened_at",
    }  # fmt: skip
    table(rows, columns, empty=empty)


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
