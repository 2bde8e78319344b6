"""The comparison as a page of HTML: no script, no other file, plots as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from predis.drift.result import Comparison, FeatureDrift, Severity
from predis.drift.words import percent

_PLOTTED = 60
_LISTED = 2_000
_WIDTH, _HEIGHT, _FOOT = 420, 130, 34
_MOST_BARS = 24
_STYLE = """
.predis{font:15px/1.45 system-ui,sans-serif;color:#1c2733;max-width:1000px;margin:0 auto;padding:1em}
.predis h1{font-size:1.5em;margin:.2em 0}.predis h2{font-size:1.1em;margin:0}
.predis .lead{font-size:1.15em}.predis .muted{color:#5b6b7b}
.predis .card{border:1px solid #d5dde5;border-left:6px solid #9fb0c0;border-radius:4px;padding:.7em 1em;margin:.8em 0}
.predis .critical{border-left-color:#b3261e}.predis .warning{border-left-color:#d98200}.predis .info{border-left-color:#2f6db5}
.predis table{border-collapse:collapse;width:100%;font-size:.93em}.predis td,.predis th{padding:.25em .6em;text-align:left}
.predis tr{border-bottom:1px solid #e4eaf0}.predis td.n,.predis th.n{text-align:right;font-variant-numeric:tabular-nums}
@media(max-width:760px){.predis table{display:block;overflow-x:auto}}
.predis svg{max-width:100%;height:auto}.predis .plots{display:flex;flex-wrap:wrap;gap:1em}
"""


def page(found: Comparison) -> str:
    """The whole page."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Drift: {escape(found.summary)}</title></head><body>{body(found)}</body></html>"
    )


def body(found: Comparison) -> str:
    """The part that notebooks show."""
    domain = ""
    if found.domain_auc is not None:
        auc, low, high = found.domain_auc
        domain = f" A model tells rows of the two apart with an AUC of {auc:.2f} ({low:.2f} to {high:.2f}; .5 is not at all)."
    head = (
        f"<h1>Drift report</h1><p class='lead'><b>{escape(found.severity.word)}</b>: {escape(found.summary)}</p>"
        f"<p class='muted'>{found.current_rows:,} rows in {found.windows} windows, against a reference of "
        f"{found.reference_rows:,} rows.{domain}</p>"
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes)
    plotted = [feature for feature in found.features if feature.severity > Severity.OK][:_PLOTTED]
    cards = "".join(map(_card, plotted))
    rows = "".join(map(_row, found.features[:_LISTED]))
    return (
        f"<div class='predis'><style>{_STYLE}</style>{head}{f'<ul>{notes}</ul>' if notes else ''}{cards}"
        "<h2>All columns</h2><table><tr><th>column</th><th>finding</th><th class='n'>PSI</th><th class='n'>threshold</th>"
        "<th class='n'>KS</th><th class='n'>JS</th><th class='n'>Wasserstein</th><th class='n'>p</th><th>PSI by window</th></tr>"
        f"{rows}</table></div>"
    )


def _card(feature: FeatureDrift) -> str:
    role = " (target)" if feature.role == "target" else ""
    plots = f"<div class='plots'>{_bars(feature)}{_line(feature)}</div>" if feature.labels else ""
    return (
        f"<div class='card {feature.severity.word}'><h2>{escape(feature.name)}{role}</h2>"
        f"<p>{escape(feature.message)}</p>{plots}</div>"
    )


def _row(feature: FeatureDrift) -> str:
    figures = (
        feature.psi, feature.threshold, feature.kolmogorov_smirnov, feature.jensen_shannon, feature.wasserstein, feature.p_value,
    )  # fmt: skip
    cells = "".join(f"<td class='n'>{_number(value)}</td>" for value in figures)
    title = escape(feature.message, quote=True)
    return f"<tr><td>{escape(feature.name)}</td><td title='{title}'>{feature.finding}</td>{cells}<td>{_spark(feature.history)}</td></tr>"


def _bars(feature: FeatureDrift) -> str:
    """Shares of the bins that hold anything, the reference beside the current rows."""
    pairs = [
        pair for pair in zip(feature.labels, feature.reference, feature.current, strict=True) if max(pair[1:]) > 0.0
    ]  # fmt: skip
    if len(pairs) > _MOST_BARS:
        kept = sorted(range(len(pairs)), key=lambda at: -max(pairs[at][1:]))[:_MOST_BARS]
        pairs = [pairs[at] for at in sorted(kept)]
    top = max((max(p, q) for _, p, q in pairs), default=1.0)
    step = _WIDTH / max(len(pairs), 1)
    wide = step * 0.4
    parts = []
    for at, (label, p, q) in enumerate(pairs):
        said = f"<title>{escape(label)}: {percent(p)} before, {percent(q)} now</title>"
        for side, (share, colour) in enumerate(((p, "#9fb0c0"), (q, "#d98200"))):
            high = share / top * _HEIGHT
            x = at * step + step * 0.1 + side * wide
            parts.append(
                f"<rect x='{x:.1f}' y='{_HEIGHT - high:.1f}' width='{wide:.1f}' height='{high:.1f}' fill='{colour}'>{said}</rect>"
            )
        short = escape(label if len(label) <= 12 else f"{label[:11]}…")
        x, y = at * step + step / 2, _HEIGHT + 9
        parts.append(
            f"<text x='{x:.1f}' y='{y}' font-size='8' text-anchor='end' transform='rotate(-25 {x:.1f} {y})'>{short}</text>"
        )
    return (
        f"<figure style='margin:0'><svg viewBox='0 0 {_WIDTH} {_HEIGHT + _FOOT}' width='{_WIDTH}' role='img' "
        f"aria-label='shares by bin'>{''.join(parts)}</svg><figcaption class='muted'>shares of rows: grey the reference, "
        "orange now</figcaption></figure>"
    )


def _line(feature: FeatureDrift) -> str:
    """PSI of each window, and the threshold."""
    if len(feature.history) < 2:
        return ""
    wide, high = _WIDTH * 0.75, _HEIGHT
    top = max([*feature.history, feature.threshold if math.isfinite(feature.threshold) else 0.0]) * 1.1 or 1.0
    points = " ".join(_points(feature.history, wide=wide, high=high, top=top))
    level = high - feature.threshold / top * high if math.isfinite(feature.threshold) else high
    return (
        f"<figure style='margin:0'><svg viewBox='0 0 {wide} {high + _FOOT}' width='{wide}' role='img' aria-label='PSI by window'>"
        f"<line x1='0' x2='{wide}' y1='{level:.1f}' y2='{level:.1f}' stroke='#b3261e' stroke-dasharray='4 3'/>"
        f"<polyline points='{points}' fill='none' stroke='#2f6db5' stroke-width='2'/></svg>"
        "<figcaption class='muted'>PSI by window; dashed: the threshold</figcaption></figure>"
    )


def _spark(history: Sequence[float]) -> str:
    if len(history) < 2:
        return ""
    points = " ".join(_points(history, wide=80, high=16, top=max(*history, 0.1)))
    return f"<svg viewBox='0 0 80 16' width='80' height='16'><polyline points='{points}' fill='none' stroke='#2f6db5'/></svg>"


def _points(history: Sequence[float], *, wide: float, high: float, top: float) -> list[str]:
    step = wide / max(len(history) - 1, 1)
    return [f"{at * step:.1f},{high - value / top * high:.1f}" for at, value in enumerate(history)]


def _number(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.3f}" if value >= 0.001 or value == 0.0 else f"{value:.0e}"
