"""What the demo shows while it runs: a live screen on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_REFRESH_S = 0.5
_PLAIN_EVERY_S = 10.0
_SEVERITY_STYLE = {
    "info": "cyan",
    "warning": "yellow",
    "critical": "bold red",
    "emergency": "bold white on red",
}


@dataclass(frozen=True)
class Milestone:
    """Something that happened in the story: at which second of the run, at which moment of 2013, what."""

    seconds: float
    moment: str
    text: str


@dataclass
class Scene:
    """What there is to show now."""

    act: str = "getting ready"
    moment: str = ""
    sent: int = 0
    total: int = 0
    per_second: float = 0.0
    overview: dict[str, Any] | None = None
    milestones: list[Milestone] = field(default_factory=list)


class Screen:
    """Shows scenes until closed. ``scene`` is asked for the present one, from a thread of the screen's own."""

    def __init__(self, scene: Callable[[], Scene], console: Console | None = None) -> None:
        self._scene = scene
        self._console = console or Console(highlight=False)
        self._live: Live | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="screen", daemon=True)
        self._told = 0

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._live is not None:
            self._live.stop()
        self._tell_new(self._scene())

    def _run(self) -> None:
        spoke_at = time.monotonic()
        while not self._stop.wait(_REFRESH_S):
            scene = self._scene()
            if self._live is not None:
                self._live.update(render(scene), refresh=True)
                continue
            self._tell_new(scene)
            if scene.sent and time.monotonic() - spoke_at >= _PLAIN_EVERY_S:
                spoke_at = time.monotonic()
                self._console.print(
                    f"   ...   {scene.moment}  {scene.sent:,} flights, {scene.per_second:,.0f}/s"
                )

    def _tell_new(self, scene: Scene) -> None:
        for milestone in scene.milestones[self._told :]:
            self._console.print(line(milestone))
        self._told = len(scene.milestones)


def line(milestone: Milestone) -> str:
    """A milestone as one line of text."""
    return f"{milestone.seconds:6.1f} s  {milestone.moment:16}  {milestone.text}"


def render(scene: Scene) -> RenderableType:
    """The whole live screen."""
    parts: list[RenderableType] = [_header(scene)]
    endpoint = (scene.overview or {}).get("endpoints", [None])[0] if scene.overview else None
    if endpoint:
        parts += [_figures(endpoint), _versions(endpoint), _drift(endpoint)]
        parts += [_alerts(scene.overview or {})]
    parts.append(_story(scene))
    return Panel(Group(*parts), title="Predis: real flights, faster than real time", border_style="blue")


def _header(scene: Scene) -> RenderableType:
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True)
    bar: RenderableType = (
        ProgressBar(total=max(scene.total, 1), completed=scene.sent) if scene.total else Text("")
    )
    count = f"{scene.sent:,} of {scene.total:,} flights, {scene.per_second:,.0f}/s" if scene.total else ""
    grid.add_row(Text(scene.act, style="bold"), bar, count)
    if scene.moment:
        grid.add_row(f"it is {scene.moment}", "", "")
    return grid


def _figures(endpoint: dict[str, Any]) -> RenderableType:
    traffic, latency, labels = endpoint["traffic"], endpoint["latency_ms"], endpoint["labels"]
    shares = ", ".join(f"v{v} {share:.0%}" for v, share in endpoint["route"]["weights"].items())
    quantiles = " / ".join("-" if latency[q] is None else f"{latency[q]:.2f}" for q in ("p50", "p95", "p99"))
    coverage = "-" if labels["coverage"] is None else f"{labels['coverage']:.0%}"
    return Text(
        f"route {shares}   requests {traffic['requests']:,}  failed {traffic['failed']}   "
        f"latency p50/p95/p99 {quantiles} ms   labels {labels['matured']:,} ({coverage})"
    )


def _versions(endpoint: dict[str, Any]) -> RenderableType:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for title in ("version", "share", "AUC now", "95 % interval", "KS", "Gini", "reference AUC"):
        table.add_column(title)
    for version in endpoint["versions"]:
        newest = version["performance"][-1] if version["performance"] else None
        reference = (version["reference"] or {}).get("auc")
        figures = ("-", "-", "-", "-")
        if newest and newest["auc"] is not None:
            interval = f"{newest['auc_low']:.3f} to {newest['auc_high']:.3f}"
            figures = (f"{newest['auc']:.3f}", interval, f"{newest['ks']:.3f}", f"{newest['gini']:.3f}")
        known = "-" if reference is None else f"{reference:.3f}"
        table.add_row(f"v{version['version']} {version['role']}", f"{version['weight']:.0%}", *figures, known)
    return table


def _drift(endpoint: dict[str, Any]) -> RenderableType:
    champion = next((v for v in endpoint["versions"] if v["role"] == "champion"), None)
    if champion is None or not champion["drift"]:
        return Text("drift: the first window is filling", style="dim")
    shown = [f for f in champion["drift"]["features"] if f["kind"] != "score"][:6]
    words = ", ".join(f"{f['feature']} {f['psi']:.2f}{' drifted' if f['persistent'] else ''}" for f in shown)
    return Text(f"drift (PSI) of v{champion['version']}: {words}")


def _alerts(overview: dict[str, Any]) -> RenderableType:
    lines = [
        Text(f"{alert['severity']}: {alert['message']}", style=_SEVERITY_STYLE[alert["severity"]])
        for alert in overview["alerts"]
        if alert["state"] == "open"
    ]
    return Group(*lines[:3])


def _story(scene: Scene) -> RenderableType:
    return Group(Text(""), *(Text(line(milestone), style="green") for milestone in scene.milestones[-9:]))
