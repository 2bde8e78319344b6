"""A report as a picture: miss-ratio curves over sizes, or bars where there is one size. Self-contained HTML or SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from predis.cache.simulator.report import Report

_WIDTH, _HEIGHT = 860, 440
_LEFT, _TOP, _FOOT, _LEGEND = 52, 12, 34, 210
_ROW = 20
_NAMES = 170
_COLOURS = (
    "#2f6db5", "#d98200", "#2e7d32", "#b3261e", "#6a4fb3", "#8d6e63", "#c2569b", "#5f6b73", "#9e9d24", "#00838f", "#ad1457", "#33691e",
)  # fmt: skip
_STYLE = """
.predis{font:15px/1.45 system-ui,sans-serif;color:#1c2733;max-width:1000px;margin:0 auto;padding:1em}
.predis h1{font-size:1.5em;margin:.2em 0}.predis .muted{color:#5b6b7b}
.predis table{border-collapse:collapse;width:100%;font-size:.93em;margin-top:1em}.predis td,.predis th{padding:.25em .6em;text-align:right;
font-variant-numeric:tabular-nums}.predis td:first-child,.predis th:first-child{text-align:left}.predis tr{border-bottom:1px solid #e4eaf0}
.predis svg{max-width:100%;height:auto}
"""
_COLUMNS = (
    ("size", "size"), ("miss_ratio", "miss ratio"), ("coverage", "coverage of LRU's misses"), ("precision", "precision"),
    ("on_time", "on time"), ("loads_to_lru", "loads / LRU's misses"),
)  # fmt: skip


def draw(found: Report, *, svg: bool = False) -> str:
    """The page, or its picture alone."""
    rows = found.rows()
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    picture = _curves(rows, sizes) if len(sizes) > 1 else _bars(rows)
    if svg:
        return picture
    facts = found.trace
    title = f"{facts['name']}: miss ratios"
    said = f"{facts['requests']:,} requests for {facts['distinct_keys']:,} keys; delay of a prefetch {found.delay}; sizes in {found.unit}."
    said += (
        " Dotted: with a prefetcher. Dashed: bounds."
        if len(sizes) > 1
        else " Orange: with a prefetcher. Grey: bounds."
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title></head><body><div class='predis'><style>{_STYLE}</style><h1>{escape(title)}</h1>"
        f"<p class='muted'>{escape(said)}</p>{picture}{_table(rows)}</div></body></html>"
    )


def _curves(rows: Sequence[dict[str, Any]], sizes: Sequence[str]) -> str:
    """Miss ratio over the size, which has a logarithmic scale. Dotted: with a prefetcher. Dashed: bounds."""
    capacity = {row["size"]: row["capacity"] for row in rows if row["capacity"]}
    places = sorted(sizes, key=lambda size: capacity[size])
    low, high = math.log(capacity[places[0]]), math.log(capacity[places[-1]])
    wide, tall = _WIDTH - _LEFT - _LEGEND, _HEIGHT - _TOP - _FOOT

    def x(size: str) -> float:
        return _LEFT + (math.log(capacity[size]) - low) / (high - low or 1.0) * wide

    parts = [_grid(wide, tall)]
    parts += [
        f"<text x='{x(size):.1f}' y='{_HEIGHT - 14}' text-anchor='middle'>{escape(size)} ({capacity[size]:,})</text>"
        for size in places
    ]
    names = list(dict.fromkeys(row["run"] for row in rows))
    for at, name in enumerate(names):
        of_name = {row["size"]: row for row in rows if row["run"] == name}
        points = [(x(size), _TOP + (1.0 - of_name[size]["miss_ratio"]) * tall) for size in places]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        row = of_name[places[0]]
        dashes = (
            " stroke-dasharray='6 4'"
            if row["bound"]
            else " stroke-dasharray='2 3'"
            if row["prefetcher"]
            else ""
        )
        colour = _COLOURS[at % len(_COLOURS)]
        y = _TOP + 8 + at * min(16, tall / len(names))
        parts.append(
            f"<polyline points='{line}' fill='none' stroke='{colour}' stroke-width='2'{dashes}><title>{escape(name)}</title></polyline>"
            f"<line x1='{_WIDTH - _LEGEND + 16}' x2='{_WIDTH - _LEGEND + 38}' y1='{y:.1f}' y2='{y:.1f}' stroke='{colour}' "
            f"stroke-width='2'{dashes}/><text x='{_WIDTH - _LEGEND + 44}' y='{y + 4:.1f}'>{escape(name)}</text>"
        )
    return _svg("".join(parts), _HEIGHT, label="miss ratio by cache size")


def _grid(wide: float, tall: float) -> str:
    lines = []
    for tenth in range(0, 11, 2):
        y = _TOP + (1.0 - tenth / 10) * tall
        lines.append(
            f"<line x1='{_LEFT}' x2='{_LEFT + wide}' y1='{y:.1f}' y2='{y:.1f}' stroke='#e4eaf0'/>"
            f"<text x='{_LEFT - 8}' y='{y + 4:.1f}' text-anchor='end'>{tenth / 10:.1f}</text>"
        )
    return "".join(lines)


def _bars(rows: Sequence[dict[str, Any]]) -> str:
    """One bar a run, the best first; bounds are grey."""
    best_first = sorted(rows, key=lambda row: row["miss_ratio"])
    wide = _WIDTH - _NAMES - 60
    parts = []
    for at, row in enumerate(best_first):
        y = at * _ROW
        length = row["miss_ratio"] * wide
        colour = "#9fb0c0" if row["bound"] else "#d98200" if row["prefetcher"] else "#2f6db5"
        parts.append(
            f"<text x='{_NAMES - 8}' y='{y + 14}' text-anchor='end'>{escape(row['run'])}</text>"
            f"<rect x='{_NAMES}' y='{y + 3}' width='{length:.1f}' height='{_ROW - 6}' fill='{colour}'/>"
            f"<text x='{_NAMES + length + 6:.1f}' y='{y + 14}'>{row['miss_ratio']:.4f}</text>"
        )
    return _svg("".join(parts), len(best_first) * _ROW, label="miss ratio by run")


def _svg(content: str, height: int, *, label: str) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {height}' width='{_WIDTH}' role='img' "
        f"aria-label='{label}' font-family='system-ui,sans-serif' font-size='12' fill='#1c2733'>{content}</svg>"
    )


def _table(rows: Sequence[dict[str, Any]]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for _, title in _COLUMNS)
    body = "".join(
        f"<tr><td>{escape(row['run'])}</td>{''.join(f'<td>{_number(row[key])}</td>' for key, _ in _COLUMNS)}</tr>"
        for row in rows
    )
    return f"<table><tr><th>run</th>{head}</tr>{body}</table>"


def _number(value: Any) -> str:
    return "" if value is None else escape(value) if isinstance(value, str) else f"{value:.4f}"
