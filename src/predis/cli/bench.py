"""Verbs that measure: bench serving."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from predis.cli.output import as_json_option, client, console, cores, remote, save, show_json, urls
from predis.errors import InvalidInput, PredisError
from predis.settings import load as load_settings

if TYPE_CHECKING:
    from predis.client import Client
    from predis.loadtest import Load, Point, Result, Target
    from predis.loadtest.values import Profile


_MOST = 1e7


@click.group()
def bench() -> None:
    """Measure what an installation can do.

    \b
    predis bench serving --endpoint churn
    """


@bench.command()
@click.option("--endpoint", required=True, help="The endpoint to ask.")
@click.option("--version", default="", help="Ask this version, instead of whatever the Route picks.")
@click.option(
    "--connections",
    metavar="NUMBERS",
    help="Closed loop: so many connections, each sending when it was answered (64); several make several steps. "
    "With a rate: over how many connections it goes (512).",
)
@click.option(
    "--rate",
    metavar="NUMBER",
    help="Open loop: so many requests a second, whatever the server does.",
)
@click.option(
    "--rates",
    metavar="NUMBERS",
    help="Open loop with several rates, one after the other, to find the knee: 1000,2000,4000.",
)
@click.option(
    "--ramp",
    metavar="FROM:TO:STEPS",
    help="Open loop with rates from a lower to a higher one: 500:20000:6.",
)
@click.option(
    "--arrivals",
    type=click.Choice(["poisson", "constant"]),
    default="poisson",
    show_default=True,
    help="Open loop: when requests are due, at random as from many users, or evenly spaced.",
)
@click.option(
    "--duration",
    type=click.FloatRange(0.1),
    default=10.0,
    show_default=True,
    help="Seconds to measure, per step.",
)
@click.option(
    "--warmup",
    type=click.FloatRange(0.0),
    default=1.0,
    show_default=True,
    help="Seconds of the same load before that, not measured.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.001),
    default=10.0,
    show_default=True,
    help="Seconds after which a request has failed.",
)
@click.option("--rows", type=click.IntRange(1), default=1, show_default=True, help="Rows in each request.")
@click.option(
    "--rows-from",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take the values from this Parquet, CSV or JSON Lines file, instead of making them up.",
)
@click.option(
    "--distinct",
    type=click.IntRange(1),
    default=1_024,
    show_default=True,
    help="How many different requests to rotate over.",
)
@click.option("--binary", is_flag=True, help="Send and ask for binary tensors instead of JSON.")
@click.option("--grpc", is_flag=True, help="Ask over gRPC, at the port that the setting grpc_port names.")
@click.option(
    "--processes",
    type=click.IntRange(1),
    help="Processes that make the load; half the cores where not given.",
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the result as a page to this file.",
)
@click.option("--max-p99-ms", type=click.FloatRange(0.0), help="Exit with 1 where a p99 is above this.")
@click.option(
    "--max-error-rate",
    type=click.FloatRange(0.0, 1.0),
    help="Exit with 1 where a larger share of requests failed.",
)
@as_json_option
@remote
def serving(
    endpoint: str,
    *,
    html: Path | None,
    as_json: bool,
    max_p99_ms: float | None,
    max_error_rate: float | None,
    **options: Any,
) -> None:
    """Put load on an ENDPOINT and tell how it does: throughput, errors, latency percentiles.

    A closed loop (the default) has so many connections, each of which waits for its answer: it finds the most a server can do. An
    open loop (--rate) sends whatever the server does, and counts each latency from the moment its request was due: it finds what
    users who do not wait for each other meet.

    \b
    predis bench serving --endpoint churn
    predis bench serving --endpoint churn --connections 1,8,64
    predis bench serving --endpoint churn --rate 5000 --duration 30 --html report.html
    predis bench serving --endpoint churn --ramp 500:20000:6
    predis bench serving --endpoint churn --rate 500 --max-p99-ms 20 --max-error-rate 0.001
    """  # fmt: skip
    from predis import loadtest
    from predis.loadtest import probe, report, screen

    loads = _loads(options)
    target, about = _target(endpoint, options)
    probe.check(target, timeout_s=options["timeout"])
    processes = options["processes"] or max(1, cores() // 2)
    results = []
    for load in loads:
        with _progress(load, quiet=as_json) as on_second:
            results.append(loadtest.run(target, load, processes=processes, on_second=on_second))
    title = f"Load test of {endpoint}"
    if html is not None:
        save(html, report.html(title, results, about=about))
    broken = _broken(results, max_p99_ms=max_p99_ms, max_error_rate=max_error_rate)
    if as_json:
        show_json(
            {"endpoint": endpoint, "about": about, "steps": [r.to_dict() for r in results], "broken": broken}
        )
    else:
        console().print(about)
        screen.show(console(), results)
        if html is not None:
            click.echo(f"Report: {html}")
    for text in broken:
        click.echo(f"predis: {text}", err=True)
    if broken:
        sys.exit(1)


# -- what to do --------------------------------------------------------------------------------------------------------


def _loads(options: dict[str, Any]) -> list[Load]:
    """
    Raises:
        InvalidInput: options that contradict each other.
    """
    from predis.loadtest.load import DEFAULT_CONNECTIONS, OPEN_CONNECTIONS, Load

    given = [name for name in ("rate", "rates", "ramp") if options[name]]
    if len(given) > 1:
        raise InvalidInput(f"--{given[0]} and --{given[1]} exclude each other")
    if options["binary"] and options["grpc"]:
        raise InvalidInput("--binary and --grpc exclude each other; gRPC is always binary")
    common = {
        "duration_s": options["duration"],
        "warmup_s": options["warmup"],
        "timeout_s": options["timeout"],
    }
    connections = [max(int(number), 1) for number in _numbers(options["connections"], "connections")]
    if not given:
        return [Load(connections=number, **common) for number in connections or [DEFAULT_CONNECTIONS]]
    if len(connections) > 1:
        raise InvalidInput("with a rate, --connections is one number: over how many connections it goes")
    rates = (
        _ramp(options["ramp"]) if options["ramp"] else _numbers(options["rate"] or options["rates"], "rate")
    )
    most = connections[0] if connections else OPEN_CONNECTIONS
    poisson = options["arrivals"] == "poisson"
    return [Load(connections=most, rate=rate, poisson=poisson, **common) for rate in rates]


def _numbers(text: str | None, option: str) -> tuple[float, ...]:
    """Numbers separated by commas."""
    try:
        found = tuple(float(part) for part in (text or "").replace("_", "").split(",") if text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a number, nor several separated by commas", param_hint=f"--{option}"
        ) from None
    if any(not 0 < number < _MOST for number in found):
        raise click.BadParameter("give numbers above 0", param_hint=f"--{option}")
    return found


def _ramp(text: str) -> tuple[float, ...]:
    """``FROM:TO:STEPS``, each rate the same factor above the last."""
    try:
        low, high, steps = (float(part) for part in text.replace("_", "").split(":"))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not like 500:20000:6", param_hint="--ramp") from None
    if not 0 < low < high < _MOST or steps not in range(2, 51):
        raise click.BadParameter("it takes a lower and a higher rate, and 2 to 50 steps", param_hint="--ramp")
    return tuple(float(f"{low * (high / low) ** (step / (steps - 1)):.3g}") for step in range(int(steps)))


def _target(endpoint: str, options: dict[str, Any]) -> tuple[Target, str]:
    """The target, and where it is and what is sent to it in a line."""
    from predis.loadtest.preparation import Source, Wanted, prepare
    from predis.loadtest.values import Input, read_columns

    encoding = "grpc" if options["grpc"] else "binary" if options["binary"] else "json"
    url = options["serving"] or urls(load_settings())[1]
    server = client(options["control"], options["serving"], key=options["key"])
    described = server.metadata(endpoint)
    inputs = [Input.from_dict(document) for document in described["inputs"]]
    rows, file = options["rows"], options["rows_from"]
    if file is not None:
        source = Source(inputs, rows, table=read_columns(file, rows * options["distinct"]))
        values = f"rows of {file.name}"
    else:
        profile = _profile(server, described)
        source = Source(inputs, rows, profile=profile)
        values = "random values" + (" as in the training data" if profile else "")
    if encoding == "grpc":
        parts = urlsplit(url)
        url = urlunsplit(parts._replace(netloc=f"{parts.hostname}:{load_settings().grpc_port}"))
    wanted = Wanted(
        endpoint=endpoint, version=options["version"], encoding=encoding, distinct=options["distinct"], key=options["key"]
    )  # fmt: skip
    target = prepare(url, wanted, source=source)
    amount = f"{rows} row{'s' * (rows > 1)} a request"
    names = {"json": "JSON", "binary": "binary tensors", "grpc": "gRPC"}
    return (
        target,
        f"{endpoint} at {url}: {names[encoding]}, {amount}, {len(target.requests):,} different, {values}",
    )


def _profile(server: Client, described: dict[str, Any]) -> Profile | None:
    """The reference profile of the version described, where control answers and there is one."""
    from predis.loadtest.values import Profile

    about = described.get("parameters", {})
    if not about.get("model"):
        return None
    try:
        return Profile.from_dict(server.profile(about["model"], about["version"]))
    except (PredisError, LookupError):
        return None


# -- what to show ------------------------------------------------------------------------------------------------------


@contextmanager
def _progress(load: Load, *, quiet: bool) -> Iterator[Callable[[Point], None]]:
    """A line that follows a step, on standard error; nothing where that is no terminal."""
    from predis.loadtest.report import duration

    screen = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[now]}"))
    with Progress(
        *columns, console=screen, transient=True, disable=quiet or not screen.is_terminal
    ) as progress:
        task = progress.add_task(
            load.name, total=load.duration_s, now="warming up" if load.warmup_s else "starting"
        )

        def on_second(point: Point) -> None:
            failed = f", {point.failed:,} failed" if point.failed else ""
            now = f"{point.answered:,}/s{failed}, p50 {duration(point.p50)}, p99 {duration(point.p99)}"
            progress.update(task, completed=point.second + 1, now=now)

        yield on_second


def _broken(
    results: Sequence[Result], *, max_p99_ms: float | None, max_error_rate: float | None
) -> list[str]:
    """The limits that were not kept, in sentences."""
    found = []
    for result in results:
        p99_ms = result.latency.quantile(0.99) * 1e3
        if (
            max_p99_ms is not None and not p99_ms <= max_p99_ms
        ):  # NaN, where nothing was answered, keeps no limit
            found.append(f"{result.load.name}: the p99 of {p99_ms:.4g} ms is above {max_p99_ms:g} ms")
        if max_error_rate is not None and result.error_rate > max_error_rate:
            found.append(
                f"{result.load.name}: {result.error_rate:.3%} of the requests failed, more than {max_error_rate:.3%}"
            )
    return found
