"""What commands share: talking to a running installation, and printing tables or JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from predis.client import Client
from predis.errors import InvalidInput
from predis.settings import Settings, load

Command = Callable[..., Any]


def remote(command: Command) -> Command:
    """Options that say which installation a command talks to."""
    for option in (
        click.option(
            "--key",
            envvar="PREDIS_KEY",
            default="",
            help="API key, where the installation has keys.  [env: PREDIS_KEY]",
        ),
        click.option(
            "--serving",
            envvar="PREDIS_SERVING",
            default="",
            help="URL of the data plane; as the settings here say, where not given.  [env: PREDIS_SERVING]",
        ),
        click.option(
            "--control",
            envvar="PREDIS_CONTROL",
            default="",
            help="URL of the control API; as the settings here say, where not given.  [env: PREDIS_CONTROL]",
        ),
    ):
        command = option(command)
    return command


def as_json_option(command: Command) -> Command:
    """``--json`` for listings."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def client(control: str, serving: str, *, key: str, patience_s: float = 2.0) -> Client:
    """A client of the installation named, or of the one that the settings here describe. Little patience: a person is waiting."""
    here = urls(load())
    return Client(control or here[0], serving or here[1], key=key, retry_s=patience_s)


def client_of(where: Mapping[str, str]) -> Client:
    """The client of what the options of ``remote`` say."""
    return client(where["control"], where["serving"], key=where["key"])


def urls(settings: Settings) -> tuple[str, str]:
    """Where control and the data plane of an installation on this machine can be reached."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://{host}:{settings.control_port}", f"http://{host}:{settings.http_port}"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def show_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=2))


def save(path: Path, content: str | bytes) -> None:
    """Write a file that the command was told to.

    Raises:
        InvalidInput: it cannot be written.
    """
    try:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}") from None


_BETWEEN = 3  # columns of the screen between two of a table
_FOLDED = 20  # characters: words longer than this may be folded


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, empty: str) -> None:
    """Print rows as a table; ``columns`` maps titles to keys. Says what to do where there is nothing.

    Where the screen is too narrow for the words, each row is a list.
    """
    if not rows:
        click.echo(empty)
        return
    cells = [[text(row.get(key)) for key in columns.values()] for row in rows]
    screen = console()
    needed = [
        max(min(len(word), _FOLDED) for cell in column for word in cell.split() or [""])
        for column in zip(columns, *cells, strict=True)
    ]
    if sum(needed) + _BETWEEN * len(needed) > screen.width:
        screen.print(_lists(list(columns), cells))
        return
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in columns:
        made.add_column(title, overflow="fold")
    for row in cells:
        made.add_row(*row)
    screen.print(made)


def _lists(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    made = Table.grid(padding=(0, 2))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for row in rows:
        made.add_row()
        for title, cell in zip(titles, row, strict=True):
            made.add_row(title, cell)
    return made


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Shows on a terminal that something goes on, and for how long it has."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    screen = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as shown:
        shown.add_task(what, total=None)
        yield


def text(value: Any) -> str:
    """A value as people read it."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={text(v)}" for k, v in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(text(item) for item in value) or "-"
    return str(value)


def console() -> Console:
    return Console(highlight=False, soft_wrap=False)


def shares(weights: Mapping[str, float]) -> str:
    """A Route's weights in words.

    >>> shares({"3": 0.9, "4": 0.1})
    'v3 90%, v4 10%'
    """
    return ", ".join(f"v{version} {share:.0%}" for version, share in weights.items()) or "nothing yet"
