"""Verbs that set up what watches Predis: ``predis export``."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import orjson

from predis.errors import PredisError, SetupError
from predis.settings import load


@click.group()
def export() -> None:
    """Set up Prometheus and Grafana, and try the exporters that the settings name.

    \b
    predis export prometheus-rules /etc/prometheus/predis.yml
    predis export grafana /var/lib/grafana/dashboards
    predis export check
    """


@export.command("prometheus-rules")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True))
@click.option(
    "--objective",
    type=click.FloatRange(0.5, 1, max_open=True),
    default=0.999,
    show_default=True,
    help="Share of requests that are to succeed; alerts fire when its error budget burns too fast.",
)
@click.option(
    "--job",
    default="predis",
    show_default=True,
    help="Name of the job under which Prometheus scrapes Predis.",
)
def prometheus_rules(out: Path, *, objective: float, job: str) -> None:
    """Write recording and alerting rules to OUT, a YAML file; '-' prints them.

    \b
    predis export prometheus-rules predis-rules.yml && promtool check rules predis-rules.yml
    """
    from predis.monitoring.exporters.rules import rules

    text = rules(objective=objective, job=job)
    if str(out) == "-":
        click.echo(text, nl=False)
    else:
        _write(out, text.encode())


@export.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
def grafana(out: Path) -> None:
    """Write dashboards into the folder OUT: overview, endpoint, inside. Grafana imports each file as it is.

    \b
    predis export grafana dashboards
    """
    from predis.monitoring.exporters.grafana import dashboards

    for name, dashboard in dashboards().items():
        _write(out / name, orjson.dumps(dashboard, option=orjson.OPT_INDENT_2) + b"\n")


@export.command()
def check() -> None:
    """Send one number to every exporter that the settings here name, and say what became of it.

    \b
    PREDIS_EXPORTERS=statsd predis export check
    """
    from predis.clock import SystemClock
    from predis.monitoring.exporters.exporting import exporters_of, sign_of_life

    exporters = exporters_of(load())
    if not exporters:
        raise SetupError("the settings name no exporters; set for example: PREDIS_EXPORTERS=otlp")
    failed = False
    for exporter in exporters:
        try:
            exporter.send(sign_of_life(SystemClock()))
            click.echo(f"{exporter.name}: sent")
        except PredisError as error:
            failed = True
            click.echo(f"{exporter.name}: {error.message} [{error.code}]", err=True)
        finally:
            exporter.close()
    sys.exit(failed)


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror}") from error
    click.echo(f"wrote {path}")
