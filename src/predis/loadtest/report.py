"""The result of a load test as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape

from predis.loadtest.result import QUANTILES, Result, knee

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 860, 320, 64, 36, 14, 20
_ACROSS, _UP = (_LEFT, _WIDTH - _RIGHT), (_HEIGHT - _BOTTOM, _TOP)
_COLOURS = ("#1d5fc0", "#b04a06", "#13714a", "#7a3db8", "#0b6e80", "#a82c68")
_NINES = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
_STYLE = """
:root { color-scheme: light dark; --page: #f5f6f8; --card: #fff; --line: #dce0e6; --text: #18202b; --muted: #556070; --bad: #b3202c;
  --warn-back: #fdf1dd; font: 14px/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
@media (prefers-color-scheme: dark) { :root { --page: #0f1319; --card: #171c24; --line: #2b323e; --text: #e6eaf0; --muted: #9ca8b8;
  --bad: #ff8f8f; --warn-back: #35270f; } .plot path { filter: brightness(1.6); } }
body { background: var(--page); color: var(--text); margin: 0 auto; max-width: 940px; padding: 24px 16px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; margin: 0 0 16px;
  padding: 12px 16px; overflow-x: auto; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 16px; margin: 0 0 8px; } p { margin: 4px 0 12px; color: var(--muted); }
table { border-collapse: collapse; width: 100%; } th, td { text-align: right; padding: 4px 8px; white-space: nowrap; }
th { color: var(--muted); font-weight: 500; border-bottom: 1px solid var(--line); } th:first-child, td:first-child { text-align: left; }
.bad { color: var(--bad); } .doubt { background: var(--warn-back); color: var(--text); border-radius: 6px; padding: 6px 10px; }
.plot { width: 100%; height: auto; } .plot text { fill: var(--muted); font-size: 12px; } .plot line { stroke: var(--line); }
.legend span { margin-right: 16px; white-space: nowrap; }
.legend i { display: inline-block; width: 12px; height: 3px; margin: 0 6px 3px 0; }
"""


def html(title: str, results: Sequence[Result], *, about: str) -> str:
    """The whole page. ``about``: what was tested with what, in a line."""
    best = knee(results) if len(results) > 1 else None
    doubts = dict.fromkeys(f"{result.load.name}: {text}" for result in results for text in result.doubts())
    parts = [
        f"<h1>{escape(title)}</h1><p>{escape(about)}</p>",
        *(f'<p class="doubt">{escape(text)}</p>' for text in doubts),
        f"<section><h2>Figures</h2>{_table(results, best)}{_note(results)}</section>",
        f"<section><h2>Latency by percentile</h2>{_legend(results)}{_percentiles(results)}</section>",
        f"<section><h2>Answers a second, over the test</h2>{_legend(results)}{_over_time(results)}</section>",
        _errors(results),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>{''.join(parts)}</body></html>\n"
    )


def _table(results: Sequence[Result], best: Result | None) -> str:
    heads = ["load", "answers/s", "errors", *(f"p{q * 100:g}" for q in QUANTILES), "max"]
    rows = []
    for result in results:
        seen = result.latency
        name = escape(result.load.name) + (" ◆" if result is best else "")
        errors = f"{result.error_rate:.2%}" if result.errors else "0"
        cells = [
            name, f"{result.throughput:,.0f}", f'<span class="bad">{errors}</span>' if result.errors else errors,
            *(duration(seen.quantile(q)) for q in QUANTILES), duration(seen.quantile(1.0)),
        ]  # fmt: skip
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{''.join(rows)}</table>"


def _note(results: Sequence[Result]) -> str:
    loops = {result.load.rate is None for result in results}
    notes = []
    if len(results) > 1:
        notes.append("◆ the most that was kept up with.")
    if False in loops:
        notes.append("Open loop: latencies count from the moment a request was due.")
    if True in loops:
        notes.append(
            "Closed loop: latencies count from the moment a request was sent; while the server stalls, nothing is asked."
        )
    return f"<p>{' '.join(notes)}</p>"


def _legend(results: Sequence[Result]) -> str:
    marks = (
        f'<span><i style="background:{_colour(n)}"></i>{escape(r.load.name)}</span>'
        for n, r in enumerate(results)
    )
    return f'<p class="legend">{"".join(marks)}</p>' if len(results) > 1 else ""


def _percentiles(results: Sequence[Result]) -> str:
    """Latency over 1/(1-p), both logarithmic, so that each nine gets as much room as the one before it."""
    seen = [result.latency for result in results if result.latency.total]
    if not seen:
        return "<p>No request was answered.</p>"
    # The highest percentile that as many requests can tell.
    nines = [q for q in _NINES if q < 1 - 1 / max(each.total for each in seen)] or [0.5]
    last = -math.log10(1 - nines[-1]) * 1.05
    shares = [1 - 10 ** -(last * step / 240) for step in range(241)]
    low, high = _decades(
        min(each.quantile(0.0) for each in seen), max(each.quantile(shares[-1]) for each in seen)
    )
    x = _scale((0.0, last), _ACROSS)
    y = _scale((low, high), _UP)
    grid = [_across(y(decade), duration(10.0**decade)) for decade in range(int(low), int(high) + 1)]
    grid += [_down(x(-math.log10(1 - q)), f"p{q * 100:g}") for q in nines]
    lines = [
        _path(
            ((x(-math.log10(1 - q)), y(math.log10(max(result.latency.quantile(q), 1e-6)))) for q in shares),
            number,
        )
        for number, result in enumerate(results)
        if result.latency.total
    ]
    return _plot([*grid, *lines], "Latency by percentile")


def _over_time(results: Sequence[Result]) -> str:
    points = [point for result in results for point in result.points]
    if not points:
        return "<p>The test was shorter than a second.</p>"
    most = max(point.answered for point in points) or 1
    seconds = max(point.second for point in points) or 1
    x = _scale((0, seconds), _ACROSS)
    y = _scale((0, most * 1.05), _UP)
    grid = [_across(y(value), f"{value:,.0f}") for value in _round_steps(most)]
    grid += [_down(x(value), f"{value:g} s") for value in _round_steps(seconds)]
    lines = [
        _path(
            ((x(p.second), y(p.answered)) for p in result.points if p.second + 1 <= result.load.duration_s),
            number,
        )
        for number, result in enumerate(results)
    ]
    return _plot([*grid, *lines], "Answers a second over the test")


def _errors(results: Sequence[Result]) -> str:
    rows = [
        f"<tr><td>{escape(result.load.name)}</td><td>{escape(kind)}</td><td>{count:,}</td>"
        f"<td>{escape(result.samples.get(kind, ''))}</td></tr>"
        for result in results
        for kind, count in result.errors.most_common()
    ]
    if not rows:
        return ""
    heads = "<tr><th>load</th><th>kind</th><th>requests</th><th>what the server said</th></tr>"
    return f"<section><h2>Errors</h2><table>{heads}{''.join(rows)}</table></section>"


def duration(seconds: float) -> str:
    """A time as people read it, three digits.

    >>> [duration(s) for s in (0.0000123, 0.00123, 0.1234, 12.3, float("nan"))]
    ['12.3 µs', '1.23 ms', '123 ms', '12.3 s', '-']
    """
    if math.isnan(seconds):
        return "-"
    for unit, factor in (("µs", 1e6), ("ms", 1e3)):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _scale(values: tuple[float, float], places: tuple[float, float]) -> Callable[[float], float]:
    """A linear scale: from values to places."""
    (low, high), (start, stop) = values, places
    return lambda value: start + (value - low) / (high - low) * (stop - start)


def _decades(least_s: float, most_s: float) -> tuple[float, float]:
    """The powers of ten around two times."""
    low = math.floor(math.log10(max(least_s, 1e-6)))
    return low, max(math.ceil(math.log10(max(most_s, 1e-6))), low + 1)


def _round_steps(most: float) -> list[float]:
    """A few round numbers from 0 to ``most``.

    >>> _round_steps(23_400)
    [0, 5000, 10000, 15000, 20000]
    """
    unit = 10 ** math.floor(math.log10(most))
    step = next(unit * part for part in (0.1, 0.2, 0.5, 1, 2) if most / (unit * part) <= 6)
    return [int(step * n) if step >= 1 else step * n for n in range(int(most / step) + 1)]


def _across(y: float, label: str) -> str:
    line = f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'


def _down(x: float, label: str) -> str:
    line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
    return f'{line}<text x="{x:.1f}" y="{_HEIGHT - 14}" text-anchor="middle">{label}</text>'


def _path(points: Iterable[tuple[float, float]], number: int) -> str:
    drawn = " L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<path d="M{drawn}" fill="none" stroke="{_colour(number)}" stroke-width="2"/>' if drawn else ""


def _plot(parts: Iterable[str], label: str) -> str:
    return f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
