"""The report as one HTML page: tables and plots in SVG, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT = 560, 220
_LEFT, _BOTTOM, _TOP = 46, 30, 12
_OLD, _NEW = "#8a94a6", "#2f6fde"
_TICKS = 5
_SEGMENTS, _NAME = 12, 34

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --soft: #667085; --line: #d5dae3; --paper: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a2b3; --line: #3a4252; --paper: #14181f; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1180px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .25rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
.verdict { border-left: 6px solid; padding: .6rem 1rem; margin: 1rem 0; font-size: 1.1rem; font-weight: 600; }
.pass { border-color: #1a9c5b; } .fail { border-color: #d3392f; } .unknown { border-color: #c98a10; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 500; } .soft { color: var(--soft); }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; flex: 0 1 560px; } svg { width: 100%; height: auto; }
@media (max-width: 760px) { table { display: block; overflow-x: auto; } }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); } .axis { stroke: var(--line); }
"""


def render(report: Mapping[str, Any]) -> str:
    """The page of a report as ``Backtest.run`` gives it."""
    window, conclusion = report["window"], report["conclusion"]
    title = f"Backtest of {report['model']} version {report['candidate']} on {report['endpoint']}"
    sampled = f", evenly sampled from {window['logged_rows']:,}" if window["sampled"] else ""
    about = (
        f"against version {report['baseline']} ({report['baseline_scores']} scores), {window['rows']:,} rows{sampled}, "
        f"{window['first']} to {window['last']}"
    )
    body = [
        f"<h1>{escape(title)}</h1><p class=soft>{escape(about)}</p>",
        f'<div class="verdict {conclusion["outcome"]}">{escape(conclusion["text"])}</div>',
        _remarks(report),
        "<h2>What the gates of a canary would probably say (an estimate)</h2>",
        _table(
            ("gate", "estimate", "after", "why"),
            [(g["gate"], g["estimate"], _after(g["requests"]), g["message"]) for g in report["gates"]],
        ),
        "<h2>Scores</h2>",
        _scores(report),
        "<h2>Flips by segment</h2>",
        _segments(report),
        "<h2>Quality on labels</h2>",
        _quality(report["quality"]),
        "<h2>Latency</h2>",
        _speed(report["speed"]),
    ]
    return (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><body>{''.join(body)}</body></html>\n"
    )


def _remarks(report: Mapping[str, Any]) -> str:
    errors, fidelity = report["errors"], report["fidelity"]
    found = [
        f"left out: {each['what']} ({each['rows']:,} rows): {each['why']}" for each in report["left_out"]
    ]
    if errors["failed"] or errors["unscored"]:
        found.append(
            f"the candidate failed on {errors['failed']:,} of {errors['tried']:,} rows, and {errors['unscored']:,} more were not tried "
            f"one by one: {errors['first']}"
        )
    if errors["not_finite"]:
        found.append(f"{errors['not_finite']:,} scores of the candidate are no finite numbers")
    if errors["baseline_unscored"]:
        found.append(
            f"{errors['baseline_unscored']:,} rows have no score of the baseline, and are not compared"
        )
    if report["baseline_problem"]:
        found.append(
            f"the baseline could not be opened, so its latency is not known: {report['baseline_problem']}"
        )
    if fidelity and fidelity["same"] < fidelity["rows"]:
        found.append(
            f"the baseline, asked again, says something else on {fidelity['rows'] - fidelity['same']:,} of {fidelity['rows']:,} rows "
            f"(by {fidelity['worst']:.3g} at most): the log does not hold all that the models saw"
        )
    return f"<ul>{''.join(f'<li>{escape(each)}</li>' for each in found)}</ul>" if found else ""


def _scores(report: Mapping[str, Any]) -> str:
    shift, flips = report["shift"], report["flips"]
    rows = [
        (name, _number(shift["baseline"][name]), _number(shift["candidate"][name]))
        for name in ("mean", "std")
    ]
    rows += [
        (f"quantile {q}", _number(old), _number(shift["candidate"]["quantiles"][q]))
        for q, old in shift["baseline"]["quantiles"].items()
    ]
    rows.append(
        (
            f"share at or above {flips['threshold']:g}",
            f"{flips['baseline_share']:.2%}",
            f"{flips['candidate_share']:.2%}",
        )
    )
    text = (
        f"PSI {_number(shift['psi'])}, Kolmogorov distance {_number(shift['ks'])}, correlation {_number(shift['correlation'])} "
        f"(of ranks {_number(shift['rank_correlation'])}), {shift['share_far']:.2%} differ by more than {shift['far']:g}, "
        f"{flips['flips']:,} flips ({flips['rate']:.2%}): {flips['up']:,} up, {flips['down']:,} down"
    )
    times = [
        [(place, each[name]) for place, each in enumerate(report["over_time"])]
        for name in ("baseline", "candidate")
    ]
    ends = (report["window"]["first"], report["window"]["last"])
    plots = (
        _bars("Scores: baseline grey, candidate blue", shift["scores"], colours=(_OLD, _NEW)),
        _bars("Candidate - baseline, row by row", shift["differences"], colours=(_NEW,)),
        _lines("Mean score over time: baseline grey, candidate blue", times, ends=ends),
    )
    return f"<p>{escape(text)}</p><div class=plots>{''.join(plots)}</div>{_table(('', 'baseline', 'candidate'), rows)}"


def _segments(report: Mapping[str, Any]) -> str:
    found = report["segments"]
    rows = [
        (
            f"{'● ' if each['stands_out'] else ''}{each['input']} {each['segment']}",
            f"{each['flips']:,} of {each['rows']:,}",
            f"{each['rate']:.2%}",
            f"{each['low']:.2%} to {each['high']:.2%}",
            f"{each['rest_rate']:.2%}",
            f"{each['p_value']:.2g}",
        )
        for each in found["rows"]
    ]
    text = (
        f"{found['looked_at']} segments of {found['least_rows']} rows or more were looked at; intervals and p-values are corrected for "
        f"that many (Bonferroni at {found['alpha']:g}). ● stands out."
    )
    heads = ("segment", "flips", "rate", "interval", "rest", "p")
    plot = _intervals("Flip rate with its interval; the line is the rest's", found["rows"][:_SEGMENTS])
    return f"<p class=soft>{escape(text)}</p><div class=plots>{plot}</div>{_table(heads, rows)}"


def _quality(found: Mapping[str, Any]) -> str:
    text = f"{found['labels']:,} of {found['rows']:,} rows have a label ({found['coverage']:.1%})"
    if "age_s" in found:
        text += f"; it came {_duration(found['age_s']['median'])} after the prediction (median)"
    if "problem" in found:
        text += f". {found['problem']}"
    rows = [
        (name, _number(found["baseline"][name]), _number(found["candidate"][name]))
        for name in found.get("baseline", {})
    ]
    difference = found.get("difference")
    if difference:
        reach = f"{_number(difference['low'])} to {_number(difference['high'])}"
        name = difference["measure"]
        what = (
            "difference of the AUCs (DeLong, 95 %)"
            if name == "auc"
            else f"difference of {name} (paired, 95 %)"
        )
        rows.append((what, "", f"{difference[name]:+.4f} ({reach})"))
    return f"<p>{escape(text)}</p>" + (_table(("", "baseline", "candidate"), rows) if rows else "")


def _speed(found: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for each in found:
        sides = [each[name] for name in ("baseline", "candidate") if name in each]
        shown = [
            f"{side['p50_ms']:.3g} / {side['p99_ms']:.3g} ms ({side['row_us']:.3g} µs a row)"
            for side in sides
        ]
        rows.append((_at_once(each["rows"]), *(["-"] * (2 - len(shown))), *shown, _number(each["ratio"])))
    heads = ("at once", "baseline p50 / p99", "candidate p50 / p99", "ratio")
    return "<p class=soft>Predicting alone, measured in turns on the same rows.</p>" + _table(heads, rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _bars(title: str, histogram: Mapping[str, Any], *, colours: Sequence[str]) -> str:
    edges, sides = histogram["edges"], histogram["shares"]
    top = max(max(side) for side in sides) or 1.0
    across = (_WIDTH - _LEFT) / (len(edges) - 1)
    marks = []
    for side, colour in zip(sides, colours, strict=True):
        for place, share in enumerate(side):
            tall = share / top * (_HEIGHT - _BOTTOM - _TOP)
            marks.append(
                f'<rect x="{_LEFT + place * across:.1f}" y="{_HEIGHT - _BOTTOM - tall:.1f}" width="{across * 0.92:.1f}" '
                f'height="{tall:.1f}" fill="{colour}" fill-opacity=".55"/>'
            )
    step = (edges[-1] - edges[0]) / (_TICKS - 1)
    ticks = [f"{edges[0] + at * step:.3g}" for at in range(_TICKS)]
    return _plot(title, "".join(marks), ticks=ticks, heights=("0", f"{top:.1%}"))


def _lines(title: str, sides: Sequence[Sequence[tuple[int, float]]], *, ends: tuple[str, str]) -> str:
    values = [value for side in sides for _place, value in side]
    low, high = min(values), max(values)
    span = high - low or 1.0
    last = max(place for side in sides for place, _value in side) or 1
    marks = []
    for side, colour in zip(sides, (_OLD, _NEW), strict=True):
        points = " ".join(
            f"{_LEFT + place / last * (_WIDTH - _LEFT):.1f},"
            f"{_HEIGHT - _BOTTOM - (value - low) / span * (_HEIGHT - _BOTTOM - _TOP):.1f}"
            for place, value in side
        )
        marks.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return _plot(title, "".join(marks), ticks=ends, heights=(f"{low:.3g}", f"{high:.3g}"))


def _intervals(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """A row for each segment: its rate as a dot on its interval, and the rate of all other rows as a line."""
    if not rows:
        return ""
    left, tall = 2 * _WIDTH // 5, 20
    top = max(each["high"] for each in rows) or 1.0

    def across(rate: float) -> str:
        return f"{left + rate / top * (_WIDTH - left - 8):.1f}"

    marks = []
    for place, each in enumerate(rows):
        y, colour = place * tall + tall // 2, _NEW if each["stands_out"] else _OLD
        name = escape(f"{each['input']} {each['segment']}"[:_NAME])
        marks.append(
            f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{name}</text>'
            f'<line x1="{across(each["low"])}" x2="{across(each["high"])}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>'
            f'<circle cx="{across(each["rate"])}" cy="{y}" r="4" fill="{colour}"/>'
            f'<line x1="{across(each["rest_rate"])}" x2="{across(each["rest_rate"])}" y1="{y - 6}" y2="{y + 6}" stroke="currentColor"/>'
        )
    base = len(rows) * tall
    axis = f'<line class=axis x1="{left}" x2="{_WIDTH}" y1="{base}" y2="{base}"/>'
    ticks = f'<text x="{left}" y="{base + 16}">0</text><text x="{_WIDTH - 8}" y="{base + 16}" text-anchor="end">{top:.1%}</text>'
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {base + 22}" role="img" aria-label="{escape(title)}">{axis}{"".join(marks)}{ticks}</svg>'
        f"<figcaption class=soft>{escape(title)}</figcaption></figure>"
    )


def _plot(title: str, marks: str, *, ticks: Sequence[str], heights: tuple[str, str]) -> str:
    """Marks in a frame; ticks stand evenly below it, the heights of bottom and top beside it."""
    base = _HEIGHT - _BOTTOM
    across = (_WIDTH - _LEFT) / (len(ticks) - 1)
    anchors = ["start", *["middle"] * (len(ticks) - 2), "end"]
    below = "".join(
        f'<text x="{_LEFT + at * across:.1f}" y="{base + 18}" text-anchor="{anchor}">{escape(tick)}</text>'
        for at, (tick, anchor) in enumerate(zip(ticks, anchors, strict=True))
    )
    beside = "".join(
        f'<text x="{_LEFT - 6}" y="{y}" text-anchor="end">{escape(text)}</text>'
        for text, y in zip(heights, (base, _TOP + 8), strict=True)
    )
    axis = f'<line class=axis x1="{_LEFT}" y1="{base}" x2="{_WIDTH}" y2="{base}"/>'
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{axis}{marks}{below}{beside}</svg>'
        f"<figcaption class=soft>{escape(title)}</figcaption></figure>"
    )


def _at_once(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows} rows"


def _after(requests: int | None) -> str:
    return f"about {requests:,} requests" if requests else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _duration(seconds: float) -> str:
    """A span in the unit that fits.

    >>> _duration(90), _duration(200_000)
    ('1.5 min', '2.3 d')
    """
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if abs(seconds) >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
