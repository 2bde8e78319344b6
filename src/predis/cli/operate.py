"""Verbs of endpoints, predictions and feedback."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from predis.cli.output import as_json_option, client, remote, shares, show_json, table
from predis.cli.rollouts import follow
from predis.errors import InvalidInput

_PATIENCE_S = 30.0  # of verbs that stay with a rollout: control may be started again meanwhile


@click.group()
def endpoint() -> None:
    """Create, list and show endpoints.

    \b
    predis endpoint create churn --model churn --version 1
    """


@endpoint.command()
@click.argument("name")
@click.option("--model", required=True, help="The model that answers.")
@click.option("--version", default="", help="Deploy this version at once: a number, an alias, or latest.")
@click.option("--train", default="", help="Train function for renewing the model, as module:function.")
@click.option("--label", default="", help="Name of the label column for the train function.")
@remote
def create(
    name: str, *, model: str, version: str, train: str, label: str, control: str, serving: str, key: str
) -> None:
    """Create endpoint NAME.

    \b
    predis endpoint create churn --model churn --version latest
    predis endpoint create churn --model churn --train churn.training:train --label churned
    """
    if bool(train) != bool(label):
        raise InvalidInput("--train and --label go together")
    server = client(control, serving, key=key, patience_s=_PATIENCE_S)
    config = {"retraining": {"train": train, "label": label}} if train else {}
    server.create_endpoint(name, model, config=config)
    click.echo(f"endpoint {name} created")
    if version:
        follow(server, server.deploy(name, version, strategy="direct"))


@endpoint.command("list")
@as_json_option
@remote
def list_endpoints(as_json: bool, *, control: str, serving: str, key: str) -> None:
    """List endpoints with what answers them."""
    rows = client(control, serving, key=key).endpoints()
    if as_json:
        show_json(rows)
        return
    shown = [
        {**row, "answers": shares(row["route"]["weights"]), "number": row["route"]["number"]} for row in rows
    ]
    columns = {
        "endpoint": "name",
        "model": "model",
        "answers": "answers",
        "route": "number",
        "created": "created_at",
    }
    table(
        shown,
        columns,
        empty="No endpoints yet. Create one: predis endpoint create NAME --model MODEL --version 1",
    )


@endpoint.command()
@click.argument("name")
@as_json_option
@remote
def show(name: str, as_json: bool, *, control: str, serving: str, key: str) -> None:
    """Show endpoint NAME, its Route and configuration."""
    found = client(control, serving, key=key).endpoint(name)
    if as_json:
        show_json(found)
        return
    route = found["route"]
    rows = [
        {"what": "model", "is": found["model"]},
        {"what": "answers", "is": shares(route["weights"])},
        *({"what": f"where {part['when']}", "is": shares(part["weights"])} for part in route["segments"]),
        *([{"what": "shadows", "is": shares(route["shadows"])}] if route["shadows"] else []),
        {"what": "route", "is": f"{route['number']}: {route['reason']}"},
        {"what": "config", "is": json.dumps(found["config"])},
        {"what": "created", "is": found["created_at"]},
    ]
    table(rows, {"": "what", name: "is"}, empty="")


@endpoint.command()
@click.argument("name")
@click.argument("changes", nargs=-1, required=True, metavar="KEY=JSON...")
@remote
def configure(name: str, changes: tuple[str, ...], *, control: str, serving: str, key: str) -> None:
    """Change the configuration of endpoint NAME: the keys given replace those there.

    \b
    predis endpoint configure churn cache='{"store": "memory", "ttl_s": 60}'
    predis endpoint configure churn batching='{"rows": 64, "ms": 5}'
    predis endpoint configure churn capture=false
    """
    config = dict(_setting(change) for change in changes)
    found = client(control, serving, key=key).configure_endpoint(name, config)
    click.echo(f"endpoint {name} is configured with {json.dumps(found['config'])}")


@endpoint.command()
@click.argument("name")
@remote
def unload(name: str, *, control: str, serving: str, key: str) -> None:
    """Take the models of endpoint NAME out of every worker's memory. Its Route stays; `load` brings it back.

    \b
    predis endpoint unload churn
    """
    client(control, serving, key=key).configure_endpoint(name, {"loaded": False})
    click.echo(f"endpoint {name} is unloaded; it answers again after: predis endpoint load {name}")


@endpoint.command()
@click.argument("name")
@remote
def load(name: str, *, control: str, serving: str, key: str) -> None:
    """Have endpoint NAME answer again after `unload`.

    \b
    predis endpoint load churn
    """
    client(control, serving, key=key).configure_endpoint(name, {"loaded": True})
    click.echo(f"endpoint {name} is being loaded")


@endpoint.command("drop-segment")
@click.argument("name")
@click.argument("when", metavar="EXPRESSION")
@remote
def drop_segment(name: str, when: str, *, control: str, serving: str, key: str) -> None:
    """Answer the requests of a segment of endpoint NAME as all others are.

    \b
    predis endpoint drop-segment churn "header.x_country == 'CH'"
    """
    route = client(control, serving, key=key).drop_segment(name, when)
    click.echo(f"endpoint {name} answers without it since route {route['number']}")


def _setting(change: str) -> tuple[str, Any]:
    name, sign, text = change.partition("=")
    if not sign or not name:
        raise InvalidInput(f"a change is KEY=JSON, got {change!r:.80}")
    try:
        return name, json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidInput(
            f"{name}: {text!r:.80} is not JSON ({error}); quote it: {name}='{{...}}'"
        ) from None


@click.command()
@click.argument("endpoint")
@click.argument("rows")
@click.option(
    "--id", "prediction_id", default="", help="The prediction's id, for feedback; made up where not given."
)
@click.option(
    "--routing-key", default="", help="Rows with the same key meet the same version during a rollout."
)
@as_json_option
@remote
def predict(
    endpoint: str,
    rows: str,
    *,
    prediction_id: str,
    routing_key: str,
    as_json: bool,
    control: str,
    serving: str,
    key: str,
) -> None:
    """Predict ROWS: a JSON object of input values, a list of such, or - for standard input.

    \b
    predis predict churn '{"age": 41, "plan": "basic"}'
    predis predict churn - < rows.json
    """
    try:
        found = json.loads(sys.stdin.read() if rows == "-" else rows)
    except ValueError as error:
        raise InvalidInput(f"ROWS is not JSON: {error}") from None
    if not isinstance(found, dict) and not (
        isinstance(found, list) and found and all(isinstance(row, dict) for row in found)
    ):
        raise InvalidInput("ROWS must be a JSON object of input values, or a list of at least one")
    answer = client(control, serving, key=key).predict(
        endpoint, found, id=prediction_id, routing_key=routing_key
    )
    if as_json:
        show_json({"id": answer.id, "version": answer.version, "outputs": dict(answer.outputs)})
        return
    click.echo(f"prediction {answer.id} by version {answer.version}")
    for name, values in answer.outputs.items():
        click.echo(f"  {name}: {', '.join(f'{v:.6g}' if isinstance(v, float) else str(v) for v in values)}")


@click.command()
@click.argument("endpoint")
@click.argument("prediction")
@click.argument("label", type=click.IntRange(0, 1))
@click.option("--row", default=0, help="Row of a request with several, from 0.")
@click.option("--value", type=float, help="What the case brought in or cost.")
@remote
def feedback(
    endpoint: str,
    prediction: str,
    *,
    label: int,
    row: int,
    value: float | None,
    control: str,
    serving: str,
    key: str,
) -> None:
    """Tell the LABEL (0 or 1) that PREDICTION turned out to have.

    \b
    predis feedback churn 6f1c2a 1
    predis feedback churn 6f1c2a 1 --value 129.90
    """
    stored = client(control, serving, key=key).feedback(
        endpoint, [{"id": prediction, "row": row, "label": label, "value": value}]
    )
    click.echo("stored" if stored["stored"] else "this prediction has a label already; nothing was changed")
