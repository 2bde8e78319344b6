"""The ``predis`` command: verbs that parse, call one thing, and print."""

from __future__ import annotations

import sys

import click

from predis import __version__
from predis.cli import (
    access,
    alerts,
    backtest,
    bench,
    cache,
    drift,
    environments,
    exporters,
    models,
    move,
    operate,
    processes,
    query,
    rollouts,
    score,
    trust,
    upkeep,
    watch,
    windows,
)
from predis.errors import PredisError


class Main(click.Group):
    """The top command: errors of ours are one line with their code, never a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except PredisError as error:
            click.echo(f"predis: {error.message} [{error.code}]", err=True)
            sys.exit(1)
        except BrokenPipeError:  # the reader of our output has gone
            sys.stderr.close()
            sys.exit(1)


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="predis")
def main() -> None:
    """Takes trained models to production and keeps them good there.

    \b
    predis demo                      the whole story on real flights, in under four minutes
    predis up                        start everything; console on http://127.0.0.1:8000
    predis model register NAME FILE  register a version
    predis endpoint create NAME --model NAME
    predis deploy ENDPOINT VERSION   move an endpoint to a version, with gates
    """


for command in (
    processes.up,
    processes.run,
    processes.doctor,
    processes.get,
    processes.completion,
    processes.demo,
    models.model,
    environments.promote,
    operate.endpoint,
    rollouts.deploy,
    rollouts.rollout,
    rollouts.freeze,
    operate.predict,
    score.score,
    operate.feedback,
    drift.drift,
    watch.monitor,
    query.query,
    cache.cache,
    alerts.alerts,
    alerts.slo,
    watch.retrain,
    windows.windows,
    exporters.export,
    access.key,
    access.audit,
    bench.bench,
):
    main.add_command(command)
for command in (
    trust.key,
    trust.sign,
    trust.policy,
    upkeep.aliases,
    upkeep.diff,
    upkeep.delete,
    upkeep.gc,
    move.export_version,
    move.import_version,
    move.export_mlflow,
    move.import_mlflow,
):
    models.model.add_command(command)
rollouts.rollout.add_command(backtest.backtest)
