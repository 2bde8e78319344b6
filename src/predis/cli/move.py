"""Verbs that move versions between installations, and between Predis and MLflow: of ``predis model``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from predis.cli.output import as_json_option, client, remote, show_json
from predis.errors import InvalidInput

_PATIENCE_S = 15.0
_TABLE = click.Path(exists=True, dir_okay=False, path_type=Path)
_TRACKING = click.option(
    "--tracking-uri",
    envvar="MLFLOW_TRACKING_URI",
    required=True,
    help="URL of the MLflow server.  [env: MLFLOW_TRACKING_URI]",
)


def named(reference: str) -> tuple[str, str]:
    """Model and version of ``NAME@VERSION``; the version may be an alias, and is the latest where none is given.

    >>> named("churn@7"), named("churn")
    (('churn', '7'), ('churn', 'latest'))
    """
    name, _, version = reference.partition("@")
    if not name or reference.endswith("@"):
        raise InvalidInput(f"{reference!r} names no version; write NAME@VERSION, as in churn@7")
    return name, version or "latest"


@click.command("export")
@click.argument("version", metavar="NAME@VERSION")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@remote
def export_version(version: str, file: Path, *, control: str, serving: str, key: str) -> None:
    """Write one version to FILE: a tar of its manifest and its files, the same bytes each time.

    \b
    predis model export churn@7 churn-7.predis
    tar -xOf churn-7.predis manifest.json
    """
    name, number = named(version)
    size = client(control, serving, key=key).export_version(name, number, to=file)
    click.echo(f"{version} written to {file}, {size} bytes")


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", default="", help="The model's name here; as in the archive, where not given.")
@click.option("--alias", default="", help="Point this alias at the version.")
@click.option(
    "--trust", is_flag=True, help="Stand for a program that no trusted key has signed; administrators only."
)
@as_json_option
@remote
def import_version(
    file: Path, *, name: str, alias: str, trust: bool, as_json: bool, control: str, serving: str, key: str
) -> None:
    """Make a version of FILE, an archive that was exported here or elsewhere. One that is here already is found.

    \b
    predis model import churn-7.predis --alias challenger
    """
    server = client(control, serving, key=key, patience_s=_PATIENCE_S)
    found = server.import_version(file, name=name, alias=alias, trust=trust, source=file.name)
    if as_json:
        show_json(found)
        return
    told = "imported" if found["is_new"] else "was here already"
    click.echo(f"{found['model']}@{found['version']} {told}, digest {found['digest'][:12]}")


@click.command("import-mlflow")
@click.argument("uri")
@_TRACKING
@click.option("--name", default="", help="The model's name here; as in MLflow, where not given.")
@click.option("--reference", type=_TABLE, help="Parquet table of training inputs: the drift reference.")
@click.option(
    "--holdout", type=_TABLE, help="Labelled Parquet table the model has not seen: the metrics come from it."
)
@click.option("--label", default="", help="Name of the label column in these tables.")
@click.option("--alias", default="", help="Point this alias at the new version.")
@as_json_option
@remote
def import_mlflow(
    uri: str,
    *,
    tracking_uri: str,
    name: str,
    as_json: bool,
    control: str,
    serving: str,
    key: str,
    **data: Any,
) -> None:
    """Register a version of MLflow's: models:/NAME/3, models:/NAME@ALIAS or models:/NAME/latest.

    \b
    predis model import-mlflow models:/churn/3 --tracking-uri http://mlflow:5000 --reference train.parquet
    """
    from predis.registry import mlflow

    server = client(control, serving, key=key, patience_s=_PATIENCE_S)
    version = mlflow.import_version(server, mlflow.Tracking(tracking_uri), uri=uri, name=name, **data)
    if as_json:
        show_json(version)
        return
    click.echo(
        f"{version['model']}@{version['version']} registered from {uri}, digest {version['digest'][:12]}"
    )


@click.command("export-mlflow")
@click.argument("version", metavar="NAME@VERSION")
@_TRACKING
@click.option("--mlflow-name", default="", help="The model's name in MLflow; as here, where not given.")
@as_json_option
@remote
def export_mlflow(
    version: str, *, tracking_uri: str, mlflow_name: str, as_json: bool, control: str, serving: str, key: str
) -> None:
    """Make a version of MLflow's registry of one here, with its metrics, parameters and tags.

    \b
    predis model export-mlflow churn@7 --tracking-uri http://mlflow:5000
    """
    from predis.registry import mlflow

    name, number = named(version)
    server = client(control, serving, key=key, patience_s=_PATIENCE_S)
    tracking = mlflow.Tracking(tracking_uri)
    made = mlflow.export_version(server, tracking, model=name, version=number, name=mlflow_name)
    if as_json:
        show_json(made)
        return
    click.echo(f"{version} is models:/{made['name']}/{made['version']} of {tracking.uri}")
