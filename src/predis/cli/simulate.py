"""``predis cache simulate``: what a cache would have done with a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from predis.cli.output import as_json_option, cores, save, show_json, table
from predis.errors import InvalidInput

if TYPE_CHECKING:
    from predis.cache.simulator.report import Report

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("trace", type=_FILE)
@click.option(
    "--size",
    "sizes",
    default="1%",
    show_default=True,
    help="Of the cache: share of the distinct keys, or a number of objects (with --bytes: of bytes, 64MiB). Several with commas.",
)
@click.option(
    "--delay", default="0", show_default=True, help="How long a prefetch is under way: requests, or a time such as 5ms."
)  # fmt: skip
@click.option(
    "--policy",
    "policies",
    metavar="NAME[+PREFETCHER],...",
    help="What to run, such as s3-fifo,lru+mithril,belady; everything if left out. LRU always runs.",
)
@click.option(
    "--bytes", "in_bytes", is_flag=True, help="Let the sizes of the trace count; all but predis can."
)
@click.option(
    "--clock", type=click.Choice(["s", "ms", "us", "ns"]), default="s", show_default=True, help="Unit of a ts that is a number."
)  # fmt: skip
@click.option("--plot", type=_NEW_FILE, help="Draw the result there, .html or .svg.")
@click.option("--events", type=_NEW_FILE, help="Write there what the one policy of --policy did, Parquet.")
@click.option("--processes", type=click.IntRange(1), help="Runs at a time; as many as cores if left out.")
@as_json_option
def simulate(
    trace: Path, sizes: str, *, delay: str, policies: str | None, in_bytes: bool, clock: str, plot: Path | None,
    events: Path | None, processes: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Replay a TRACE (Parquet or CSV) against policies, prefetchers and bounds.

    The trace has a column key (whole numbers or strings), a row a request, and may have ts, size and client.

    \b
    predis cache simulate trace.parquet --size 1% --delay 10
    predis cache simulate trace.parquet --size 0.1%,1%,10% --plot curves.html
    predis cache simulate trace.csv --size 64MiB --bytes --policy s3-fifo,arc,belady
    predis cache simulate trace.parquet --policy lru+mithril --delay 5ms --events events.parquet
    """
    from predis.cache.simulator.page import draw
    from predis.cache.simulator.report import Plan
    from predis.cache.simulator.report import simulate as run
    from predis.cache.simulator.setup import Delay
    from predis.cache.simulator.trace import read

    plan = Plan(
        sizes=_listed(sizes), names=_listed(policies or ""), delay=Delay.parse(delay), in_bytes=in_bytes, events=events
    )  # fmt: skip
    if plot is not None and plot.suffix.lower() not in (".html", ".svg"):
        raise InvalidInput(f"{plot} cannot be drawn: a plot is an .html or .svg file")
    for file in (plot, events):
        if file is not None and not file.parent.is_dir():  # said before, not after the work
            raise InvalidInput(f"{file} cannot be written: there is no folder {file.parent}")
    given = read(trace, clock_unit=clock)
    with _bar(given.name) as begin:
        found = run(given, plan, processes=processes or cores(), begin=begin)
    if plot is not None:
        save(plot, draw(found, svg=plot.suffix.lower() == ".svg"))
    show_json(found.to_dict()) if as_json else _show(found)
    for written in (plot, events):
        if written is not None:
            click.echo(f"written: {written}", err=True)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int], Callable[[int], None]]]:
    """A bar that follows the replays, on standard error; nothing where that is no terminal."""
    screen = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(30), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:

        def begin(requests: int) -> Callable[[int], None]:
            task = bar.add_task(name, total=requests)
            return lambda done: bar.advance(task, done)

        yield begin


def _show(found: Report) -> None:
    facts = found.trace
    click.secho(
        f"{facts['name']}: {facts['requests']:,} requests for {facts['distinct_keys']:,} keys", bold=True
    )
    if facts["clock_went_back"]:
        click.echo(f"The clock went back {facts['clock_went_back']:,} times; it was held there.")
    rows = found.rows()
    for size in dict.fromkeys(row["size"] for row in rows):
        of_size = [row for row in rows if row["size"] == size]
        click.echo(
            f"\nCache of {of_size[0]['capacity']:,} {found.unit} ({size}), delay of a prefetch {found.delay}"
        )
        table([_in_words(row) for row in of_size], {title: title for title in _TITLES}, empty="")
    click.echo(
        "coverage: share of LRU's misses avoided. precision: share of the prefetches that were asked for afterwards; on time:\n"
        "share of those that were there by then. loads: of the backend, in LRU's misses."
    )


_TITLES = ("run", "miss ratio", "coverage", "precision", "on time", "loads")


def _in_words(row: dict[str, Any]) -> dict[str, str | None]:
    def share(name: str, digits: int = 1) -> str | None:
        return None if row[name] is None else f"{row[name]:.{digits}%}"

    return {
        "run": f"{row['run']} (bound)" if row["bound"] else row["run"],
        "miss ratio": f"{row['miss_ratio']:.4f}",
        "coverage": share("coverage"),
        "precision": share("precision"),
        "on time": share("on_time"),
        "loads": f"{row['loads_to_lru']:.3f}",
    }
