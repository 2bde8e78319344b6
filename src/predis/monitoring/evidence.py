"""Evidence for rollouts: what two versions did over the same time, counted from the moment a rollout began."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from predis.monitoring.store import MonitoringStore, unpack_counts
from predis.state.engine import Database
from predis.stats import AucPairs, latency


@dataclass(frozen=True)
class Side:
    """One version since the mark.

    ``failed`` requests got no prediction, whoever was at fault: the router deals bad requests to both sides alike, so a side that
    refuses more than the other is worse. ``slow`` requests took longer than the limit the plan fixed before it looked.

    ``wins`` of ``pairs`` (neighbours in time with different labels, each label used once) were ordered rightly by the score.
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


@dataclass
class _Counted:
    """How far a version's labels have been read since a mark: ``next`` is the number of the next one."""

    mark: int
    next: int
    labels: int = 0
    pairs: AucPairs = field(default_factory=AucPairs)


class EvidenceReader:
    """Counts evidence per version since a mark."""

    def __init__(self, database: Database) -> None:
        self._store = MonitoringStore(database)
        self._counted: dict[tuple[str, str, int], _Counted] = {}

    def mark(self, tenant: str, endpoint: str, *, now: int) -> Mark:
        found = {}
        for row in self._store.all_counters(tenant, endpoint):
            found[str(row["version"])] = {
                "requests": row["requests"], "failed": row["failed"] + row["rejected"], "matured": row["matured"],
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
        counted = self._labels(tenant, endpoint, version=version, mark=mark, upto=row["matured"])
        return Side(
            requests=row["requests"] - before["requests"],
            failed=row["failed"] + row["rejected"] - before["failed"],
            slow=slow,
            labels=counted.labels,
            wins=counted.pairs.wins,
            pairs=counted.pairs.pairs,
        )

    def _labels(self, tenant: str, endpoint: str, *, version: int, mark: Mark, upto: int) -> _Counted:
        """What the labels since the mark say. Only those that are new since the last look are read; a restart reads them all."""
        counted = self._counted.get((tenant, endpoint, version))
        if counted is None or counted.mark != mark.at or counted.next > upto:
            before = mark.counters.get(str(version), {"matured": 0})
            counted = _Counted(mark.at, before["matured"])
            self._counted[tenant, endpoint, version] = counted
        key = {"tenant": tenant, "endpoint": endpoint, "version": version}
        new = (
            self._store.matured(key, start=counted.next, stop=upto, since=mark.at)
            if counted.next < upto
            else []
        )
        if new:
            counted.pairs.update([row.score for row in new], [row.label for row in new])
        counted.labels += len(new)
        counted.next = upto
        return counted
