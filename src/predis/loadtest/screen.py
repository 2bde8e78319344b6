"""The result of a load test in a terminal: figures, a histogram drawn with block characters, errors, doubts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from predis.loadtest.histogram import Histogram
from predis.loadtest.report import duration
from predis.loadtest.result import QUANTILES, Result, knee

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_BAR_LETTERS = 40
_BARS = 12
_TAIL = 0.999


def show(console: Console, results: Sequence[Result]) -> None:
    """Print everything about the results."""
    best = knee(results) if len(results) > 1 else None
    console.print(_figures(results, best))
    if len(results) == 1 and results[0].latency.total:
        console.print(_histogram(results[0].latency))
    for result in results:
        _errors(console, result, named=len(results) > 1)
    for note in notes(results):
        console.print(Text(note, "dim"))
    for result in results:
        for doubt in result.doubts():
            named = f"{result.load.name}: " if len(results) > 1 else ""
            console.print(Text(named + doubt, "yellow"))


def notes(results: Sequence[Result]) -> Iterator[str]:
    """What a reader must know to read the figures right."""
    best = knee(results) if len(results) > 1 else None
    if best is not None:
        yield f"Most that was kept up with: {best.load.name}, {best.throughput:,.0f} answers/s."
    if any(result.load.rate is not None for result in results):
        yield "Open loop: latencies, in ms, count from the moment a request was due."
    if any(result.load.rate is None for result in results):
        yield "Closed loop: latencies, in ms, count from sending; a server that stalls is asked nothing meanwhile (--rate does)."


def bars(seen: Histogram) -> Iterator[tuple[str, str, int]]:
    """Rows of a histogram: from which latency to which, the bar, how many. The last row is the tail above p99.9."""
    low, high = seen.least, max(seen.quantile(_TAIL), seen.least * 1.01)
    step = (high / low) ** (1 / _BARS)
    edges = [0.0, *(low * step**place for place in range(1, _BARS + 1)), float("inf")]
    counts = [seen.between(edges[place], edges[place + 1]) for place in range(len(edges) - 1)]
    most = max(counts)
    for place, count in enumerate(counts):
        if place == _BARS:
            span = f"above {duration(high)}"
        else:
            span = f"{duration(max(edges[place], low))} - {duration(edges[place + 1])}"
        if count or place < _BARS:
            yield span, bar(count / most), count


def bar(share: float) -> str:
    """A bar for a share of 1, to an eighth of a letter.

    >>> bar(0.5), bar(0.01), bar(0.0)
    ('████████████████████', '▍', '')
    """
    eighths = round(share * _BAR_LETTERS * 8)
    whole, part = divmod(max(eighths, 1) if share > 0 else 0, 8)
    return _EIGHTHS[8] * whole + (_EIGHTHS[part] if part else "")


def _figures(results: Sequence[Result], best: Result | None) -> Table:
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    made.add_column("load", no_wrap=True)
    for title in ("answers/s", "errors", *(f"p{q * 100:g}" for q in QUANTILES), "max"):
        made.add_column(title, justify="right", no_wrap=True)
    for result in results:
        seen = result.latency
        made.add_row(
            result.load.name + (" ◆" if result is best else ""),
            f"{result.throughput:,.0f}",
            Text(f"{result.error_rate:.2%}", "red") if result.errors else "0",
            *(_ms(seen.quantile(q)) for q in (*QUANTILES, 1.0)),
        )
    return made


def _histogram(seen: Histogram) -> Table:
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(justify="right", no_wrap=True)
    made.add_column(no_wrap=True, min_width=_BAR_LETTERS)
    made.add_column(justify="right", no_wrap=True)
    for span, drawn, count in bars(seen):
        made.add_row(span, Text(drawn, "cyan"), f"{count / seen.total:.2%}" if count else "0")
    return made


def _errors(console: Console, result: Result, *, named: bool) -> None:
    for kind, count in result.errors.most_common():
        where = f"{result.load.name}: " if named else ""
        said = f": {result.samples[kind]}" if kind in result.samples else ""
        console.print(Text(f"{where}{count:,} × {kind}{said}", "red"))


def _ms(seconds: float) -> str:
    """Three digits.

    >>> [_ms(seconds) for seconds in (0.0000123, 0.00123, 0.1234, 1.234)]
    ['0.0123', '1.23', '123', '1,234']
    """
    if math.isnan(seconds):
        return "-"
    return f"{seconds * 1e3:,.0f}" if seconds >= 0.0995 else f"{seconds * 1e3:.3g}"
