"""Drift of one version's inputs: its closed windows, fed to the ensemble one after the other, and what follows from them.

Moved inputs inform or warn, whatever they are; only broken data is critical. A change warns once: for five windows, or until it is
over. After that the new level is known and informs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from predis.clock import NANOSECONDS
from predis.drift.words import how_moved
from predis.monitoring.alerts import Finding, Severity
from predis.monitoring.checks import Rules, Watched
from predis.monitoring.store import unpack_counts
from predis.monitoring.tally import Counts, split_features
from predis.stats import Ensemble, Level, Profile, PsiDetector, Verdict
from predis.stats.drift import LEAST_SEASON, LEAST_WINDOWS, Break, FeatureVerdict, find_breaks

HISTORY = 12  # windows that people see
REPLAYED = 50  # windows of an earlier process that are fed again
# The same season before: how long ago, and how far around; a year of whole weeks, so that weekdays agree.
SEASONS = {
    "week_ago": (7 * 86_400 * NANOSECONDS, 2 * 3_600 * NANOSECONDS),
    "year_ago": (364 * 86_400 * NANOSECONDS, 3 * 86_400 * NANOSECONDS),
}
_WARNED = 5  # windows for which a change warns
_NAMED = 3


class DriftWatch:
    """The windows of one version against its reference profile.

    Args:
        profile: bins, counts and blocks of the reference.
        rules: the limits.
    """

    def __init__(self, profile: Profile, rules: Rules) -> None:
        self._profile = profile
        self._ensemble = Ensemble(
            profile.bins, profile.counts, blocks=profile.blocks, alpha=rules.drift_alpha, floor=rules.drift_floor
        )  # fmt: skip
        self._scores = PsiDetector(profile.score_counts, alpha=rules.drift_alpha, floor=rules.drift_floor)
        self._history: dict[str, deque[float]] = {}
        self._counts: list[Counts] = []
        self._breaks: tuple[Break, ...] = ()
        self._changed: dict[str, int] = {}  # features that moved, and in which window
        self._fed = 0
        self.references: dict[str, int] = {}  # what the newest window was judged against
        self.window: Mapping[str, Any] | None = None

    @property
    def number(self) -> int:
        """Of the newest window fed; 0 before the first."""
        return self.window["number"] if self.window else 0

    def feed(
        self, window: Mapping[str, Any], *, seasons: Mapping[str, Sequence[bytes]] | None = None
    ) -> None:
        """Add the next closed window, a row of the store.

        ``seasons``: features of the windows of the same season before, by when that was.
        """
        self.window = window
        self._fed += 1
        before = {
            name: [counts for counts in map(unpack_counts, found) if counts.any()]
            for name, found in (seasons or {}).items()
        }
        self.references = {
            "training": self._profile.rows, "training_blocks": len(self._profile.blocks), "rolling_windows": min(self._fed - 1, REPLAYED),
            **{name: len(found) for name, found in before.items()}, "least_windows_of_a_season": LEAST_SEASON,
        }  # fmt: skip
        season = [counts for found in before.values() if len(found) >= LEAST_SEASON for counts in found]
        scores = unpack_counts(window["scores"])
        self._scores.update(scores)
        self._note("(score)", self._scores.verdict.effect if self._scores.verdict else 0.0)
        counts = split_features(self._profile, window["features"])
        if not counts or not counts[0].any():  # every row has its bin in every feature: nothing was captured
            return
        self._counts = counts
        self._ensemble.update(np.concatenate(counts), season=season)
        self._breaks = find_breaks(
            self._profile.bins, self._profile.counts, counts=counts, blocks=self._profile.blocks
        )
        for feature in self._verdicts():
            self._note(feature.name, feature.psi)
            if feature.level == Level.DRIFTED:
                self._changed[feature.name] = self.number
            elif feature.level == Level.STABLE and not feature.moved:
                self._changed.pop(feature.name, None)

    def findings(self, watched: Watched) -> list[Finding]:
        """What is wrong now."""
        return [found for found in (self._broken(watched), self._drifted(watched)) if found is not None]

    def table(self) -> list[dict[str, Any]]:
        """Each feature in the newest window, and the score: what matters most first."""
        broken = {each.feature: each.message for each in self._breaks}
        rows = [
            {
                "feature": feature.name,
                "kind": self._profile.bins[at].kind,
                "psi": feature.psi,
                "threshold": feature.threshold,
                "drifted": feature.moved or feature.level > Level.STABLE,
                "persistent": feature.level > Level.STABLE,
                "seasonal": feature.seasonal,
                "broken": broken.get(feature.name),
                "history": list(self._history[feature.name]),
            }
            for at, feature in enumerate(self._verdicts())
        ]
        if (verdict := self._scores.verdict) is not None:
            rows.append(self._score_row(verdict))
        return sorted(rows, key=lambda row: (row["broken"] is None, -row["psi"]))

    def _score_row(self, verdict: Verdict) -> dict[str, Any]:
        return {
            "feature": "(score)", "kind": "score", "psi": verdict.effect, "threshold": max(verdict.threshold, verdict.floor),
            "drifted": verdict.drifted, "persistent": self._scores.drift_detected, "seasonal": False, "broken": None,
            "history": list(self._history["(score)"]),
        }  # fmt: skip

    def _verdicts(self) -> tuple[FeatureVerdict, ...]:
        return self._ensemble.verdict.features if self._ensemble.verdict else ()

    def _note(self, name: str, psi: float) -> None:
        self._history.setdefault(name, deque(maxlen=HISTORY)).append(psi)

    def _broken(self, watched: Watched) -> Finding | None:
        if not self._breaks or self.window is None:
            return None
        words = "; ".join(f"{each.feature}: {each.message}" for each in self._breaks[:_NAMED])
        return Finding(
            tenant=watched.tenant,
            endpoint=watched.endpoint,
            version=watched.version,
            kind="data_break",
            severity=Severity.CRITICAL,
            message=f"inputs of version {watched.version} broke: {words}{_more(len(self._breaks))}",
            command=f"predis monitor {watched.endpoint} --drift",
            event_at=self.window["last_event"],
            evidence={"features": {each.feature: each.kind for each in self._breaks}, "window": self.number},
        )

    def _drifted(self, watched: Watched) -> Finding | None:
        """A warning while a change is new, information while inputs stay away."""
        broken = {each.feature for each in self._breaks}
        standing = {
            at: feature
            for at, feature in enumerate(self._verdicts())
            if feature.name not in broken and (feature.level > Level.STABLE or feature.name in self._changed)
        }
        if not standing or self.window is None:
            return None
        new = {
            at: f for at, f in standing.items() if self.number - self._changed.get(f.name, -_WARNED) < _WARNED
        }
        shown = sorted((new or standing).items(), key=lambda pair: -pair[1].psi)
        words = "; ".join(self._words(at, feature) for at, feature in shown[:_NAMED])
        what = "moved away from" if new else "are away from"
        message = f"inputs of version {watched.version} {what} its reference: {words}{_more(len(shown))}"
        verdict = self._ensemble.verdict
        windows = verdict.reference_windows if verdict else 0.0
        if windows < LEAST_WINDOWS:
            message += f" (the reference holds only {windows:.1f} such windows: how much inputs vary by themselves is hardly known)"
        return Finding(
            tenant=watched.tenant,
            endpoint=watched.endpoint,
            version=watched.version,
            kind="drift",
            severity=Severity.WARNING if new else Severity.INFO,
            message=message,
            command=f"predis monitor {watched.endpoint} --drift",
            event_at=self.window["last_event"],
            evidence={
                "features": {feature.name: feature.psi for _, feature in shown},
                "window": self.number,
                "references": self.references,
            },
        )

    def _words(self, at: int, feature: FeatureVerdict) -> str:
        moved = how_moved(
            self._profile.bins[at], self._profile.counts[at].tolist(), current=self._counts[at].tolist()
        )
        return f"{feature.name} (PSI {feature.psi:.2f}): {moved}"


def _more(count: int) -> str:
    return f"; and {count - _NAMED} more" if count > _NAMED else ""
