"""The verb that scores a whole data set."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from predis.cli.output import as_json_option, cores, show_json
from predis.cli.processes import settings_options
from predis.errors import InvalidInput, SetupError
from predis.settings import Settings, load

if TYPE_CHECKING:
    from predis.registry import Version
    from predis.serving.scoring import Progress as Following
    from predis.serving.scoring import Summary


@click.command()
@click.argument("endpoint")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option(
    "--version",
    default="",
    help="A version's number, an alias or latest; where not given, the one that ENDPOINT's Route gives most.",
)
@click.option(
    "--keep",
    "--columns",
    multiple=True,
    metavar="NAMES",
    help="Columns of IN to pass through, separated by commas; * for all of them.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Processes that score; as many as there are cores where not given.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Score in processes of this machine, or on a Ray cluster: that of RAY_ADDRESS, or this machine's.",
)
@click.option("--fresh", is_flag=True, help="Forget what was scored before, and replace OUT.")
@as_json_option
@settings_options("home", "state_url", "artifacts_url")
def score(
    endpoint: str,
    source: str,
    target: str,
    *,
    version: str,
    keep: tuple[str, ...],
    workers: int | None,
    engine: str,
    fresh: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Score a data set: write the predictions for the rows of IN to the Parquet file OUT.

    IN is a Parquet or CSV file, a folder or a pattern of such, or the URL of one in an object store. No server is needed: the model
    comes from the registry and the artifact store that the settings name. Memory does not grow with the data. A run that was
    interrupted, at any moment, goes on where it was when the same command is given again; OUT appears when it is whole.

    \b
    predis score churn customers.parquet scores.parquet --keep customer_id
    predis score churn 's3://lake/customers/*.parquet' s3://lake/scores.parquet --version 7
    predis score churn customers/ scores.parquet --engine ray --workers 16
    """
    from predis.serving.scoring import Batch
    from predis.serving.scoring import score as run

    names = tuple(name.strip() for part in keep for name in part.split(",") if name.strip())
    settings = load(flags)
    chosen, contents, why = _version(settings, endpoint, reference=version)
    batch = Batch(
        version=chosen, contents=contents, source=source, target=target, keep=names, fresh=fresh,
        workers=workers or cores(), engine="ray" if engine == "ray" else "local",
    )  # fmt: skip
    try:
        with _following(f"{chosen.model}@{chosen.number}", quiet=as_json) as progress:
            summary = run(batch, progress)
    except KeyboardInterrupt:
        click.echo("\nstopped; give the same command again to go on", err=True)
        sys.exit(130)
    if as_json:
        show_json(_as_document(summary, chosen, endpoint=endpoint, target=target))
    else:
        click.echo(_in_words(summary, f"{chosen.model}@{chosen.number}{why}", target=target))


def _version(
    settings: Settings, endpoint: str, *, reference: str
) -> tuple[Version, Mapping[str, bytes], str]:
    """The version to score with, its files, and why it is this one, in words.

    Raises:
        SetupError: there is no installation here.
        EndpointNotFound, VersionNotFound, AliasNotFound
        InvalidInput: the endpoint serves nothing yet.
    """
    from predis.access import DEFAULT_TENANT
    from predis.app.home import open_registry, prepare
    from predis.clock import SystemClock
    from predis.events import Bus
    from predis.serving.endpoints import Endpoints
    from predis.state import Database

    if not settings.state_url and not (settings.home / "state.sqlite").exists():
        raise SetupError(
            f"there is no installation in {settings.home}; name its home with --home, or its state with --state-url"
        )
    prepare(settings)
    database, clock = Database(settings.database_url), SystemClock()
    try:
        registry = open_registry(settings, database, clock=clock, bus=Bus())
        endpoints = Endpoints(database, registry, clock=clock)
        found = endpoints.get(DEFAULT_TENANT, endpoint)
        weights = endpoints.current_route(found).weights
        if not reference and not weights:
            raise InvalidInput(
                f"endpoint {endpoint!r} serves no version yet; deploy one, or choose one with --version"
            )
        heaviest = max(weights, key=lambda number: weights[number], default=0)
        why = "" if reference else f" (to which {endpoint} gives {weights[heaviest]:.0%})"
        version = registry.version(DEFAULT_TENANT, found.model, reference=reference or heaviest)
        return version, registry.read_files(version), why
    finally:
        database.close()


@contextmanager
def _following(name: str, *, quiet: bool) -> Iterator[Following]:
    """A line that follows the batch, on standard error; nothing where that is no terminal."""
    from predis.serving.scoring import Progress as Base

    screen = Console(stderr=True, highlight=False)
    columns = (
        TextColumn("{task.description}"), BarColumn(30), TaskProgressColumn(), TextColumn("{task.fields[rows]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=screen, transient=True, disable=quiet or not screen.is_terminal) as bar:

        class Shown(Base):
            """The batch's progress, on the screen."""

            def begin(self, rows: int, *, done: int) -> None:
                if done and not quiet:
                    screen.print(f"going on: {done:,} of {rows:,} rows were scored before")
                self._task = bar.add_task(name, total=rows, completed=done, rows="")

            def advance(self, rows: int) -> None:
                bar.advance(self._task, rows)
                task = bar.tasks[self._task]
                speed = f" {task.speed:,.0f} rows/s" if task.speed else ""
                bar.update(self._task, rows=f"{task.completed:,.0f} of {task.total:,.0f} rows{speed}")

            def assembling(self) -> None:
                bar.update(self._task, rows="writing the result")

        yield Shown()


def _as_document(summary: Summary, version: Version, *, endpoint: str, target: str) -> dict[str, Any]:
    return {
        "endpoint": endpoint,
        "model": version.model,
        "version": version.number,
        "digest": version.digest,
        "out": target,
        "rows": summary.rows,
        "scored_before": summary.rows - summary.scored,
        "seconds": round(summary.seconds, 3),
        "rows_per_s": round(summary.scored / summary.seconds, 1) if summary.seconds else None,
        "files": summary.files,
        "bytes": summary.size_bytes,
    }


def _in_words(summary: Summary, version: str, *, target: str) -> str:
    if summary.rows and not summary.scored:
        return f"{target} is there already, {summary.rows:,} rows by {version}; nothing to do (--fresh scores again)"
    speed = f", {summary.scored / summary.seconds:,.0f} rows/s" if summary.scored else ""
    return f"{summary.rows:,} rows scored by {version} in {summary.seconds:.1f} s{speed}: {target}"
