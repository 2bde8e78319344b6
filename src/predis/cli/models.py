"""Verbs of the registry: ``predis model ...``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from predis.cli.output import as_json_option, client, remote, show_json, table, waiting
from predis.cli.provenance import git_revision, parameters_of
from predis.cli.trust import endorsement_of
from predis.errors import InvalidInput

# As the registry has them; it takes longer to import than most commands take.
FORMATS = ("catboost", "lightgbm", "onnx", "python", "sklearn", "torch", "xgboost")
SUFFIXES = {
    ".cbm": "catboost", ".joblib": "sklearn", ".json": "xgboost", ".onnx": "onnx", ".pickle": "sklearn", ".pkl": "sklearn", ".pt": "torch",
    ".pt2": "torch", ".py": "python", ".skops": "sklearn", ".txt": "lightgbm", ".ubj": "xgboost",
}  # fmt: skip
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def model() -> None:
    """Register, list, show, verify and alias models.

    \b
    predis model register churn model.txt --reference train.parquet --label churned --holdout test.parquet
    predis model list
    """


@model.command()
@click.argument("name")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    help="What the file is; by its ending where not given, and of a folder python.",
)
@click.option(
    "--reference",
    type=_FILE,
    help="Parquet table of training inputs: the drift reference, and where the signature comes from.",
)
@click.option(
    "--holdout", type=_FILE, help="Labelled Parquet table the model has not seen: the metrics come from it."
)
@click.option("--training", type=_FILE, help="Parquet table it was trained on: retraining adds to it.")
@click.option("--label", default="", help="Name of the label column in these tables.")
@click.option("--signature", type=_FILE, help="JSON file with the signature, instead of inferring it.")
@click.option(
    "--param",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="What it was trained with; may be repeated.",
)
@click.option(
    "--revision",
    help="State of the code that trained it; of the git work tree you are in, where not given.",
)
@click.option("--no-revision", is_flag=True, help="Do not note the state of this folder's code.")
@click.option("--parent", type=click.IntRange(min=1), help="The version of this model that it goes back to.")
@click.option(
    "--sign", "signing_key", type=_FILE, help="Private key to sign it with; see `predis model key`."
)
@click.option("--alias", default="", help="Point this alias at the new version.")
@as_json_option
@remote
def register(
    name: str,
    file: Path,
    *,
    kind: str | None,
    as_json: bool,
    control: str,
    serving: str,
    key: str,
    parameters: tuple[str, ...],
    revision: str | None,
    no_revision: bool,
    signing_key: Path | None,
    **details: Any,
) -> None:
    """Register FILE, or a folder of files, as a new version of model NAME.

    \b
    predis model register churn model.onnx --reference train.parquet --label churned
    predis model register churn model.txt --param max_depth=6 --param eta=.1 --parent 3 --sign ann.key
    """
    kind = kind or ("python" if file.is_dir() else SUFFIXES.get(file.suffix))
    if kind is None:
        raise InvalidInput(f"the format of {file.name} cannot be told from its ending; say --format")
    if details["signature"]:
        try:
            details["signature"] = json.loads(details["signature"].read_text())
        except ValueError as error:
            raise InvalidInput(f"the signature is not JSON: {error}") from None
    details["parameters"] = parameters_of(parameters)
    details["revision"] = "" if no_revision else git_revision() if revision is None else revision
    if signing_key:
        details["endorsements"] = endorsement_of(signing_key, file, model=name, format=kind)
    server = client(control, serving, key=key)
    with waiting(f"registering {name}"):
        version = server.register(name, file, format=kind, **details)
    if as_json:
        show_json(version)
        return
    click.echo(f"{name}@{version['version']} registered, digest {version['digest'][:12]}")
    metrics = version["metrics"]
    if metrics:
        click.echo(
            f"  AUC {metrics['auc']:.4f}, KS {metrics['ks']:.4f}, Gini {metrics['gini']:.4f} on {metrics['rows']:.0f} rows"
        )


@model.command("list")
@click.argument("name", required=False)
@as_json_option
@remote
def list_models(name: str | None, as_json: bool, *, control: str, serving: str, key: str) -> None:
    """List models, or the versions of model NAME."""
    server = client(control, serving, key=key)
    if name is None:
        rows = server.models()
        columns = {
            "model": "name",
            "newest": "newest",
            "versions": "versions",
            "aliases": "aliases",
            "created": "created_at",
        }
        empty = "No models yet. Register one: predis model register NAME FILE"
    else:
        rows = [
            {**row, "digest": row["digest"][:12], "auc": row["metrics"].get("auc")}
            for row in server.versions(name)
        ]
        columns = {
            "version": "version", "format": "format", "AUC": "auc", "aliases": "aliases", "digest": "digest", "bytes": "size_bytes",
            "created": "created_at", "by": "created_by",
        }  # fmt: skip
        empty = f"Model {name} has no versions."
    show_json(server.versions(name) if name else rows) if as_json else table(rows, columns, empty=empty)


@model.command()
@click.argument("name")
@click.argument("version", default="latest")
@as_json_option
@remote
def show(name: str, version: str, as_json: bool, *, control: str, serving: str, key: str) -> None:
    """Show one version of model NAME: a number, an alias, or latest."""
    found = client(control, serving, key=key).version(name, version)
    if as_json:
        show_json(found)
        return
    simple = ("model", "version", "format", "digest", "size_bytes", "metrics", "signed_by")
    shown = [{"what": what, "is": found[what]} for what in simple]
    shown[-1]["is"] = [f"{one['name']} ({one['key']})" for one in found["signed_by"]]
    table([*shown, *_provenance(found)], {"": "what", "is": "is"}, empty="")
    columns = {
        "input": "name",
        "datatype": "datatype",
        "shape": "shape",
        "nullable": "nullable",
        "levels": "levels",
    }
    rows = [
        {**field, "levels": len(field["levels"]) if "levels" in field else None}
        for field in found["signature"]["inputs"]
    ]
    table(rows, columns, empty="")


def _provenance(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where a version comes from, a row each: who and when, its parent, the code, the data, and whatever else its lineage says."""
    lineage = dict(found["lineage"])
    parent = lineage.pop("parent", None)
    rows = {
        "registered": f"{found['created_at']} by {found['created_by']}",
        "parent": parent and f"{found['model']}@{parent}",
        "retraining run": lineage.pop("retraining", None),
        "revision": lineage.pop("revision", None),
        "parameters": lineage.pop("parameters", None),
        "label": lineage.pop("label", None),
        **{f"{name} data": lineage.pop(name, None) for name in ("reference", "holdout", "training")},
        **lineage,
    }
    return [{"what": what, "is": value} for what, value in rows.items() if value is not None]


@model.command()
@click.argument("name")
@click.argument("version", default="latest")
@as_json_option
@remote
def verify(name: str, version: str, as_json: bool, *, control: str, serving: str, key: str) -> None:
    """Read every file of a version and compare its digest; exits with 1 where one differs."""
    report = client(control, serving, key=key).verify(name, version)
    if as_json:
        show_json(report)
    else:
        table(
            [{**file, "digest": file["digest"][:12]} for file in report["files"]],
            {"file": "name", "digest": "digest", "intact": "ok", "problem": "problem"}, empty="",
        )  # fmt: skip
    if not report["ok"]:
        sys.exit(1)


@model.command()
@click.argument("name")
@click.argument("alias")
@click.argument("version")
@remote
def alias(name: str, alias: str, *, version: str, control: str, serving: str, key: str) -> None:
    """Point ALIAS of model NAME at VERSION.

    \b
    predis model alias churn champion 7
    """
    moved = client(control, serving, key=key).alias(name, alias, version=version)
    click.echo(f"{name}@{alias} is version {moved['version']}")
