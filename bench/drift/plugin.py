"""Plugs what users get by default into a bench that compares drift monitors: ``--plugin bench/drift/plugin.py``.

Nothing here depends on the data set. ``check`` is True when an alarm at WARNING or above is raised: once per change, as an alert is
opened once and not again in each window while it lasts. ``predis_windows_away`` counts the other way: each window in which some
feature is away from its reference is an alarm, announced or not.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from predis.stats import Level, build_profile, drift


class Alarms:
    """The ensemble as the live monitor runs it, on a profile of the reference."""

    def fit(self, reference: pd.DataFrame) -> None:
        self._profile = build_profile(
            reference.to_numpy(float), names=list(reference), levels={}, scores=np.zeros(len(reference)), labels=None
        )  # fmt: skip
        profile = self._profile
        self._ensemble = drift.Ensemble(profile.bins, profile.counts, blocks=profile.blocks)

    def check(self, batch: pd.DataFrame) -> bool:
        self._ensemble.update(np.concatenate(self._profile.count(batch.to_numpy(float))))
        return self._ensemble.drift_detected


class Away(Alarms):
    """Every window in which some feature is away from its reference, announced or not."""

    def check(self, batch: pd.DataFrame) -> bool:
        super().check(batch)
        verdict = self._ensemble.verdict
        return verdict is not None and verdict.level >= Level.AWAY


class Loss:
    """The detector of losses."""

    def __init__(self) -> None:
        self._detector = drift.LossDetector()

    def update(self, value: float) -> bool:
        self._detector.update(value)
        return self._detector.drift_detected


BATCH = {"predis": Alarms, "predis_windows_away": Away}
STREAM = {"predis_loss": Loss}
