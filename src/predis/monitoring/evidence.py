"""Evidence for rollouts: what two versions did over the same time, counted from the moment a rollout began."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from predis.monitoring.store import MonitoringStore, unpack_counts
from predis.state.engine import Database
from predis.stats import auc_pairs, latency


@dataclass(frozen=True)
class Side:
    """One version since the mark. ``slow`` requests took longer than the limit the plan fixed before it looked.

    ``wins`` of ``pairs`` (a positive and a negative label each, every label used once) were ordered rightly by the score.
    """

    requests: int = 0
    failed: int = 0
    slow: int = 0
    labels: int = 0
    wins: float = 0.0
    pairs: int = 0


@dataclass(frozen=True)
class Mark:
    """The counters of both versions when a rollout began, so that what came before does not count."""

    at: int
    counters: dict[str, dict[str, Any]] = field(default_factory=dict)


class EvidenceReader:
    """Counts evidence per version since a mark."""

    def __init__(self, database: Database) -> None:
        self._store = MonitoringStore(database)

    def mark(self, tenant: str, endpoint: str, *, now: int) -> Mark:
        found = {}
        for row in self._store.all_counters(tenant, endpoint):
            found[str(row["version"])] = {
                "requests": row["requests"], "failed": row["failed"], "matured": row["matured"],
                "latency": unpack_counts(row["latency"]).tolist(),
            }  # fmt: skip
        return Mark(now, found)

    def p99_s(self, tenant: str, endpoint: str, *, version: int) -> float | None:
        """p99 latency of a version so far, in seconds; None before its first answer."""
        for row in self._store.all_counters(tenant, endpoint):
            if row["version"] == version:
                found = latency.quantile(unpack_counts(row["latency"]), 0.99)
                return found if np.isfinite(found) else None
        return None

    def side(self, tenant: str, endpoint: str, *, version: int, mark: Mark, slow_s: float) -> Side:
        """What a version did since the mark."""
        row = next((r for r in self._store.all_counters(tenant, endpoint) if r["version"] == version), None)
        if row is None:
            return Side()
        before = mark.counters.get(str(version), {"requests": 0, "failed": 0, "matured": 0, "latency": 0})
        counts = unpack_counts(row["latency"]) - np.asarray(before["latency"])
        slow = int(counts[np.searchsorted(latency.EDGES, slow_s) + 1 :].sum())
        key = {"tenant": tenant, "endpoint": endpoint, "version": version}
        labelled = self._store.matured(key, start=before["matured"], stop=row["matured"], since=mark.at)
        wins_twice, pairs = (
            auc_pairs([r.score for r in labelled], [r.label for r in labelled]) if labelled else (0, 0)
        )
        return Side(
            requests=row["requests"] - before["requests"],
            failed=row["failed"] - before["failed"],
            slow=slow,
            labels=len(labelled),
            wins=wins_twice / 2,
            pairs=pairs,
        )
