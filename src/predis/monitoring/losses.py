"""Has a version's loss risen? Detectors on the loss of each matured label, in the order in which labels come.

A performance window needs thousands of labels; a concept that flips shows in the losses of a few dozen. `LossDetector` decides, since it
stays quiet where errors cluster, as in most real streams. ADWIN (where river is installed) and Page-Hinkley run beside it: at
which label each saw a rise last is part of the evidence.

Losses: of two classes the squared error of the score, kept within 0 and 1; of more whether the chosen class was wrong; of numbers the
absolute error. All that is remembered goes to the database with the number of the next label, so a restart goes on where it was: what was
not yet written is read again and gives the same. ADWIN alone, whose insides are its library's, begins anew with the newest losses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from predis.clock import Clock
from predis.errors import InvalidInput
from predis.monitoring.alerts import Finding, Severity
from predis.monitoring.checks import Watched
from predis.monitoring.store import Key, MonitoringStore
from predis.state.engine import Database
from predis.stats import Task
from predis.stats.drift import AdwinDetector, LossDetector, PageHinkleyDetector

_LABELS = 20_000  # read in a look
_ADWIN_AGAIN = 5_000  # losses that ADWIN begins with after a restart
_SAVE_S = 5.0
_RECENT = 1 / 128  # weight of the newest loss in the recent mean
_EFFECT = 0.2  # of the loss before: the least rise that is told
_LASTS = 20_000  # labels after which a rise is old news: performance windows know it by then


@dataclass
class _Watch:
    """One version. ``alarm``: the newest rise, None once the loss is back or the rise is old."""

    next: int = 0
    loss: LossDetector = field(default_factory=lambda: LossDetector(effect=_EFFECT))
    page_hinkley: PageHinkleyDetector = field(default_factory=PageHinkleyDetector)
    adwin: AdwinDetector | None = None
    seen: dict[str, int] = field(default_factory=dict)  # by detector: at which label it saw a rise last
    recent: float = 0.0
    alarm: dict[str, Any] | None = None
    saved: int = 0  # ``next`` when it was written last, and when that was
    saved_at: float = -math.inf

    def add(self, number: int, loss: float, *, event_at: int) -> None:
        self.recent += _RECENT * (loss - self.recent)
        detectors: dict[str, LossDetector | PageHinkleyDetector | AdwinDetector | None]
        detectors = {"loss": self.loss, "page_hinkley": self.page_hinkley, "adwin": self.adwin}
        for name, detector in detectors.items():
            if detector is None:
                continue
            detector.update(loss)
            if detector.drift_detected:
                self.seen[name] = number
        verdict = self.loss.verdict
        if self.loss.drift_detected and verdict is not None:
            self.recent = verdict.recent
            self.alarm = {
                "number": number, "event_at": event_at, "before": verdict.before, "recent": verdict.recent, "p_value": verdict.p_value,
            }  # fmt: skip
        elif self.alarm and (
            self.recent <= self.alarm["before"] * (1 + _EFFECT) or number - self.alarm["number"] > _LASTS
        ):
            self.alarm = None
        self.next = number + 1

    def state(self) -> dict[str, Any]:
        return {
            "loss": self.loss.to_dict(), "page_hinkley": self.page_hinkley.to_dict(), "seen": self.seen, "recent": self.recent,
            "alarm": self.alarm,
        }  # fmt: skip

    def restore(self, next_number: int, state: dict[str, Any]) -> None:
        self.next = self.saved = next_number
        self.seen, self.recent, self.alarm = (state[name] for name in ("seen", "recent", "alarm"))
        self.loss.restore(state["loss"])
        self.page_hinkley.restore(state["page_hinkley"])


class LossWatches:
    """Watches the losses of every version. Not for several threads at once."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._store = MonitoringStore(database)
        self._clock = clock
        self._watches: dict[tuple[str, str, int], _Watch] = {}

    def look(self, watched: Watched) -> Finding | None:
        """Take in the labels that are new, some thousands at most; what is wrong, if the loss has risen and is not back."""
        key = {"tenant": watched.tenant, "endpoint": watched.endpoint, "version": watched.version}
        watch = self._watch(key, watched)
        rows = self._store.labels_from(key, start=watch.next, limit=_LABELS)
        if rows:
            losses = _losses(rows, task=watched.task)
            for row, loss in zip(rows, losses, strict=True):
                watch.add(row.number, loss, event_at=row.event_at)
        self._save(key, watch)
        return _finding(watched, watch) if watch.alarm else None

    def _watch(self, key: Key, watched: Watched) -> _Watch:
        place = (watched.tenant, watched.endpoint, watched.version)
        watch = self._watches.get(place)
        if watch is None:
            watch = self._watches[place] = _Watch(adwin=_adwin())
            row = self._store.loss_watch(key)
            if row is not None:
                watch.restore(row["next"], row["state"])
                self._begin_adwin(key, watch, task=watched.task)
        return watch

    def _begin_adwin(self, key: Key, watch: _Watch, *, task: str | None) -> None:
        rows = self._store.labels_from(key, start=max(0, watch.next - _ADWIN_AGAIN), limit=_ADWIN_AGAIN)
        earlier = [row for row in rows if row.number < watch.next]
        if watch.adwin is not None and earlier:
            for loss in _losses(earlier, task=task):
                watch.adwin.update(loss)

    def _save(self, key: Key, watch: _Watch) -> None:
        """Write what is new: now and then, and at once while there is an alarm that people are told of."""
        now = self._clock.monotonic_s()
        if watch.next == watch.saved or (now - watch.saved_at < _SAVE_S and not watch.alarm):
            return
        self._store.put_loss_watch({**key, "next": watch.next, "state": watch.state()})
        watch.saved, watch.saved_at = watch.next, now


def _adwin() -> AdwinDetector | None:
    try:
        return AdwinDetector()
    except InvalidInput:  # river is an extra
        return None


def _losses(rows: list[Any], *, task: str | None) -> list[float]:
    """The loss of each label."""
    scores, labels = np.array([(row.score, row.label) for row in rows], np.float64).T
    kind: Task = task or ("binary" if np.isin(labels, (0.0, 1.0)).all() else "regression")  # type: ignore[assignment]  # of those
    if kind == "multiclass":
        found = (np.floor(scores) != labels).astype(np.float64)
    elif kind == "binary":
        found = np.square(np.clip(scores, 0.0, 1.0) - labels)
    else:
        found = np.abs(scores - labels)
    return [float(each) for each in np.nan_to_num(found, nan=0.0, posinf=1e300)]


def _finding(watched: Watched, watch: _Watch) -> Finding:
    alarm = watch.alarm or {}
    return Finding(
        tenant=watched.tenant,
        endpoint=watched.endpoint,
        version=watched.version,
        kind="loss",
        severity=Severity.WARNING,  # a day of hard cases looks like this too; performance windows tell the two apart
        message=(
            f"the loss of version {watched.version} rose from {alarm['before']:.3g} to {alarm['recent']:.3g} on its newest labels: "
            "what its inputs mean may have changed"
        ),
        command=f"predis monitor {watched.endpoint} --why",
        event_at=alarm["event_at"],
        evidence={
            **{name: alarm[name] for name in ("before", "recent", "p_value")},
            "label": alarm["number"],
            "seen_at": dict(watch.seen),
        },
    )
