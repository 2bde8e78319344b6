"""One backtest, from the log to the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from predis.access.audit import Audit
from predis.clock import Clock
from predis.errors import InvalidInput, ModelFailure, PredisError
from predis.registry import Registry, Version
from predis.rollout.backtest import speed
from predis.rollout.backtest.replay import Batch, Replay
from predis.rollout.backtest.report import Asked, Found, document
from predis.rollout.backtest.scorer import Scorer
from predis.rollout.backtest.segments import Segments
from predis.rollout.backtest.store import BacktestStore
from predis.state.records import Matrix

_SAME = 1e-6


@dataclass(frozen=True)
class Parts:
    """What a backtest works with. ``folder`` holds the log's files, ``version`` finds a version of an endpoint by number.

    ``take_in`` brings the log, and the labels, up to now. ``fresh_s`` is how long a model's process is used before it is started anew.
    """

    registry: Registry
    store: BacktestStore
    audit: Audit
    folder: Path
    version: Callable[..., Version | None]
    take_in: Callable[[], None]
    clock: Clock
    fresh_s: float


@dataclass
class _Rows:
    """What is kept of every row: some forty bytes."""

    received_at: list[Any] = field(default_factory=list)
    baseline: list[Matrix] = field(default_factory=list)
    candidate: list[Matrix] = field(default_factory=list)
    labels: list[Matrix] = field(default_factory=list)
    ages_s: list[Matrix] = field(default_factory=list)

    def joined(self) -> dict[str, Any]:
        return {name: np.concatenate(parts) for name, parts in vars(self).items()}


class Backtest:
    """Replays one window.

    Args:
        told: called with the share that is done; raises what ends the backtest.
    """

    def __init__(self, parts: Parts, asked: Asked, *, told: Callable[[float], None]) -> None:
        self._parts = parts
        self._asked = asked
        self._told = told
        self._rows = _Rows()
        self._segments = Segments(asked.inputs)
        self._replays_baseline = asked.replay_baseline
        self._versions: Counter[int] = Counter()
        self._sample: pa.Table | None = None
        self._baseline: Scorer | None = None
        self._baseline_problem = ""
        self._fidelity: dict[str, Any] = {}
        self._read = 0
        self._unanswered = 0
        self._progress = 0.0

    def run(self) -> dict[str, Any]:
        """The report, as plain JSON.

        Raises:
            InvalidInput: nothing in the window can be replayed, or no row got a score.
            ModelFailure, IntegrityFailure, Untrusted: the candidate cannot be opened.
        """
        asked, parts = self._asked, self._parts
        parts.take_in()
        key = (asked.tenant, asked.endpoint)
        replay = Replay(parts.folder, asked.since, asked.until, asked.inputs, asked.rows)
        replay.look(parts.store.log_files(*key), version=lambda number: parts.version(*key, number=number))
        # Scores of several versions are no baseline: then the same one has to answer every row.
        self._replays_baseline |= replay.versions != {asked.baseline.number}
        with ExitStack() as stack:
            candidate = stack.enter_context(self._opened(asked.candidate))
            self._open_baseline(stack)
            for batch in replay.batches():
                self._take(batch, candidate)
                self._progress = 0.95 * self._read / replay.rows
            if self._sample is None:
                why = candidate.first_error or "its scores, or the baseline's, are no finite numbers"
                raise InvalidInput(
                    f"version {asked.candidate.number} gave no score for any of {self._read} rows: {why}"
                )
            measured = self._measured(candidate, self._sample)
        found = Found(
            versions=self._versions, segments=self._segments, fidelity=self._fidelity, speed=measured, unanswered=self._unanswered,
            baseline_problem=self._baseline_problem, replayed_baseline=self._replays_baseline, **self._rows.joined(),
        )  # fmt: skip
        usual = parts.store.counted(*key, version=asked.baseline.number)
        return document(asked, found, replay=replay, candidate=candidate, usual=usual)

    def _opened(self, version: Version) -> Scorer:
        return Scorer(
            lambda: self._parts.registry.open(version),
            clock=self._parts.clock,
            fresh_s=self._parts.fresh_s,
            beat=lambda: self._told(self._progress),
        )

    def _open_baseline(self, stack: ExitStack) -> None:
        """Where its logged scores are enough, a report without its latency is better than none."""
        try:
            self._baseline = stack.enter_context(self._opened(self._asked.baseline))
        except PredisError as error:
            self._do_without_baseline(error)

    def _do_without_baseline(self, error: PredisError) -> None:
        if self._replays_baseline:
            raise error
        self._baseline, self._baseline_problem = None, error.message

    def _take(self, batch: Batch, candidate: Scorer) -> None:
        asked = self._asked
        self._read += len(batch)
        new, old = candidate.score(batch.inputs), self._old_scores(batch)
        self._unanswered += int((~np.isfinite(old)).sum())
        good = np.isfinite(new) & np.isfinite(old)
        if self._sample is None and good.any():
            self._sample = batch.inputs.filter(pa.array(good)).slice(0, max(speed.SIZES)).combine_chunks()
        self._versions.update(batch.versions.tolist())
        flipped = (new[good] >= asked.threshold) != (old[good] >= asked.threshold)
        self._segments.add(batch.inputs.filter(pa.array(good)), flipped)
        labels, ages_s = self._labels(batch)
        kept = (batch.received_at, old, new, labels, ages_s)
        for part, values in zip(vars(self._rows).values(), kept, strict=True):
            part.append(values[good])

    def _old_scores(self, batch: Batch) -> Matrix:
        """The baseline's scores. The first logged ones are compared with what it says now."""
        if self._baseline is None or (self._fidelity and not self._replays_baseline):
            return batch.scores
        try:
            again = self._baseline.score(batch.inputs)
        except ModelFailure as error:
            self._do_without_baseline(error)
            return batch.scores
        if self._replays_baseline:
            return again
        apart = np.abs(again - batch.scores)
        known = apart[np.isfinite(apart)]
        if known.size:
            same = int((known <= _SAME).sum())
            self._fidelity = {"rows": int(known.size), "same": same, "worst": float(known.max())}
        return batch.scores

    def _labels(self, batch: Batch) -> tuple[Matrix, Matrix]:
        key = (self._asked.tenant, self._asked.endpoint)
        known = self._parts.store.labels(*key, ids=sorted(set(batch.ids)))
        labels, ages = np.full((2, len(batch)), np.nan)
        for place, (name, row) in enumerate(zip(batch.ids, batch.rows.tolist(), strict=True)):
            # Each label is used once, also where a request was sent and logged twice.
            found = known.pop((name, row), None)
            if found:
                labels[place] = found[0]
                ages[place] = (found[1] - int(batch.event_at[place])) / 1e9
        return labels, ages

    def _measured(self, candidate: Scorer, sample: pa.Table) -> list[dict[str, Any]]:
        try:
            return speed.measure(candidate, self._baseline, table=sample)
        except PredisError as error:
            # Both have scored these rows before: a report without speed is better than none.
            candidate.first_error = candidate.first_error or error.message
            return []
