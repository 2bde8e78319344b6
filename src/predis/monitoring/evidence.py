"""Evidence for rollouts: what two versions did since a rollout's mark, each request counted with the arm it came in.

Whatever is counted is kept cumulated over all time. A mark remembers the counts of one moment, and evidence is what was added since. Labels
are numbered in the order in which they came, so a mark remembers a number, and a look reads only those that are new since the last look; a
restart reads them again from the mark.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.expressions import Expression
from predis.monitoring.store import MonitoringStore, Row, unpack_counts
from predis.state.engine import Database
from predis.state.records import Arm
from predis.stats import AucPairs, Moments, latency, score_buckets

Counts = NDArray[np.int64]

_ANSWERED = (Arm.ORDINARY, Arm.COMPARED)
_REWARD_MAX = 1e100  # beyond it a square is no number


def _no_latencies() -> Counts:
    return np.zeros(latency.BUCKETS, np.int64)


def _no_scores() -> Counts:
    return np.zeros(score_buckets.BUCKETS, np.int64)


@dataclass(frozen=True, eq=False)
class Side:
    """One version since the mark.

    ``failed`` requests got no prediction, whoever was at fault: the router deals bad requests to both sides alike, so a side that
    refuses more than the other is worse. ``latency`` counts the answered requests in the buckets of ``stats.latency``, ``scores`` the
    scores in those of ``stats.score_buckets``.

    ``labels`` have come for requests since the mark. ``wins`` of ``pairs`` (neighbours in time with different labels, each label used once)
    were ordered rightly by the score. ``rewards`` are of those labels for which the reward expression gave a number.
    """

    requests: int = 0
    failed: int = 0
    latency: Counts = field(default_factory=_no_latencies)
    scores: Counts = field(default_factory=_no_scores)
    labels: int = 0
    wins: float = 0.0
    pairs: int = 0
    rewards: Moments = field(default_factory=Moments)


@dataclass(frozen=True)
class Compared:
    """A shadow's scores against the answers to the same rows, since the mark.

    ``flips``: rows whose scores lie on different sides of 0.5. ``difference``: moments of (its score - the answer). ``worst``: the largest
    size of a difference; where the shadow had a larger one before the mark, as near as the buckets of ``stats.score_buckets`` tell.
    """

    rows: int = 0
    flips: int = 0
    difference: Moments = field(default_factory=Moments)
    worst: float = 0.0


@dataclass(frozen=True, eq=False)
class Recent:
    """What a version answered within the last seconds, the fields as those of ``Side``."""

    requests: int = 0
    failed: int = 0
    latency: Counts = field(default_factory=_no_latencies)


@dataclass(frozen=True)
class Mark:
    """What was counted when a rollout began, so that what came before does not count. Plain JSON.

    ``counters`` by ``"VERSION:ARM"``; counts in buckets are packed, some hundred bytes each.
    """

    at: int
    counters: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class _Labels:
    """How far labels have been read since a mark, and what they say: ``next`` is the number of the next one."""

    mark: int
    reward: Expression | None
    next: int
    count: int = 0
    pairs: AucPairs = field(default_factory=AucPairs)
    rewards: Moments = field(default_factory=Moments)

    def add(self, rows: list[tuple[float, float, float | None]]) -> None:
        """Rows are score, label and value."""
        if not rows:
            return
        self.count += len(rows)
        # Only labels of two classes make pairs; those of regressors count by the reward expression.
        pairs = [(score, label) for score, label, _ in rows if label in (0.0, 1.0)]
        self.pairs.update([score for score, _ in pairs], [label for _, label in pairs])
        if self.reward is not None:
            self.rewards += Moments.of(_rewards(self.reward, rows))


class EvidenceReader:
    """Reads evidence per version since a mark. Not for several threads at once."""

    def __init__(self, database: Database) -> None:
        self._store = MonitoringStore(database)
        self._labels: dict[tuple[str, str, int, str], _Labels] = {}

    def mark(self, tenant: str, endpoint: str, *, now: int, versions: Collection[int] | None = None) -> Mark:
        """What is counted so far; ``versions``: of these only, where nobody will ask for others."""
        found: dict[str, dict[str, Any]] = {}
        for row in self._store.counters_by_arm(tenant, endpoint):
            found[_name(row["version"], row["arm"])] = {
                "requests": row["requests"], "failed": row["failed"] + row["rejected"], "matured": row["matured"],
                "latency": _packed(unpack_counts(row["latency"])), "scores": _packed(unpack_counts(row["scores"])),
            }  # fmt: skip
        for row in self._store.all_differences(tenant, endpoint):
            found[_name(row["version"], Arm.SHADOW)] |= {
                "flips": row["flips"], "difference": Moments(row["rows"], row["mean"], row["m2"]).to_list(),
                "sizes": _packed(unpack_counts(row["sizes"])),
            }  # fmt: skip
        wanted = None if versions is None else {_name(version, arm) for version in versions for arm in Arm}
        return Mark(now, {name: row for name, row in found.items() if wanted is None or name in wanted})

    def sides(
        self,
        tenant: str,
        endpoint: str,
        *,
        versions: tuple[int, int],
        arm: Arm | None,
        mark: Mark,
        reward: Expression | None = None,
    ) -> tuple[Side, Side]:
        """What baseline and candidate did since the mark.

        Args:
            versions: baseline and candidate.
            arm: COMPARED counts on both sides what was dealt by chance; None all that was answered; SHADOW what the candidate made of
                copies against all that the baseline answered, and labels of copied requests only: on both sides of the same rows.
            reward: of ``label``, ``score`` and ``value``; labels for which it gives no finite number are not counted in ``rewards``.
        """
        look = _Look(tenant, endpoint, self._store.counters_by_arm(tenant, endpoint), mark, reward)
        baseline, candidate = versions
        if arm == Arm.SHADOW:
            answers, scores = self._shadow_labels(look, candidate)
            return look.side(baseline, _ANSWERED, labels=answers), look.side(candidate, (arm,), labels=scores)
        arms = _ANSWERED if arm is None else (arm,)
        base, other = (
            look.side(version, arms, labels=self._answer_labels(look, version, arm=arm))
            for version in versions
        )
        return base, other

    def shadow(self, tenant: str, endpoint: str, *, version: int, mark: Mark) -> Compared:
        """How a shadow's scores differ from the answers, since the mark."""
        row = next(
            (r for r in self._store.all_differences(tenant, endpoint) if r["version"] == version), None
        )
        if row is None:
            return Compared()
        before = mark.counters.get(_name(version, Arm.SHADOW), {})
        earlier = Moments.from_list(before.get("difference", (0, 0.0, 0.0)))
        difference = _without(Moments(row["rows"], row["mean"], row["m2"]), earlier)
        sizes = unpack_counts(row["sizes"]) - _unpacked(before.get("sizes"))
        edges = np.append(score_buckets.EDGES, math.inf)
        largest = float(edges[np.flatnonzero(sizes).max()]) if sizes.any() else 0.0
        return Compared(
            rows=difference.n,
            flips=row["flips"] - before.get("flips", 0),
            difference=difference,
            worst=min(largest, row["worst"]),
        )

    def latency(self, tenant: str, endpoint: str, *, version: int) -> Counts | None:
        """Latencies of all that a version has ever answered; None before its first answer."""
        for row in self._store.all_counters(tenant, endpoint):
            if row["version"] == version:
                counts = unpack_counts(row["latency"])
                return counts if counts.any() else None
        return None

    def recent(self, tenant: str, endpoint: str, *, version: int, since: int) -> Recent:
        """What a version answered in the whole seconds that began at a moment or later. Kept for an hour."""
        slots = [
            slot
            for slot in self._store.recent_slots(tenant, endpoint, since=since)
            if slot["version"] == version
        ]
        return Recent(
            requests=sum(slot["requests"] for slot in slots),
            failed=sum(slot["failed"] + slot["rejected"] for slot in slots),
            latency=sum((unpack_counts(slot["latency"]) for slot in slots), _no_latencies()),
        )

    def _answer_labels(self, look: _Look, version: int, *, arm: Arm | None) -> _Labels:
        """What labels of a version's answers say, of all or those of one arm."""
        start, stop = look.numbers(version, _ANSWERED)
        found = self._read(look, version, of="all" if arm is None else arm.name, start=start, stop=stop)
        if found.next < stop:
            rows = self._store.rewards(
                look.key(version), start=found.next, stop=stop, since=look.mark.at, arm=arm
            )
            found.add([(row.score, row.label, row.value) for row in rows])
            found.next = stop
        return found

    def _shadow_labels(self, look: _Look, version: int) -> tuple[_Labels, _Labels]:
        """What labels of copied requests say of the answers, and of a shadow's scores."""
        start, stop = look.numbers(version, (Arm.SHADOW,))
        answers = self._read(look, version, of="answers", start=start, stop=stop)
        scores = self._read(look, version, of="copies", start=start, stop=stop)
        if scores.next < stop:
            rows = self._store.shadow_rewards(
                look.key(version), start=scores.next, stop=stop, since=look.mark.at
            )
            answers.add([(row.answered, row.label, row.value) for row in rows])
            scores.add([(row.score, row.label, row.value) for row in rows])
            answers.next = scores.next = stop
        return answers, scores

    def _read(self, look: _Look, version: int, *, of: str, start: int, stop: int) -> _Labels:
        """What has been read of a kind of labels since the mark; nothing yet where it was since another, or of another reward."""
        place = (look.tenant, look.endpoint, version, of)
        found = self._labels.get(place)
        if found is None or (found.mark, found.reward) != (look.mark.at, look.reward) or found.next > stop:
            found = self._labels[place] = _Labels(look.mark.at, look.reward, start)
        return found


@dataclass(frozen=True)
class _Look:
    """The counters of an endpoint at one moment, and what is asked of them."""

    tenant: str
    endpoint: str
    counters: list[Row]
    mark: Mark
    reward: Expression | None

    def key(self, version: int) -> Row:
        return {"tenant": self.tenant, "endpoint": self.endpoint, "version": version}

    def side(self, version: int, arms: Collection[Arm], *, labels: _Labels) -> Side:
        """What a version did in some arms since the mark."""
        rows = self._rows(version, arms)
        requests = failed = 0
        latencies, scores = _no_latencies(), _no_scores()
        for row, before in rows:
            requests += row["requests"] - before.get("requests", 0)
            failed += row["failed"] + row["rejected"] - before.get("failed", 0)
            latencies += unpack_counts(row["latency"]) - _unpacked(before.get("latency"))
            scores += unpack_counts(row["scores"]) - _unpacked(before.get("scores"))
        return Side(
            requests,
            failed,
            latencies,
            scores,
            labels.count,
            labels.pairs.wins,
            labels.pairs.pairs,
            labels.rewards,
        )

    def numbers(self, version: int, arms: Collection[Arm]) -> tuple[int, int]:
        """The number of the first label that came after the mark, and of the one that will come next."""
        rows = self._rows(version, arms)
        return sum(before.get("matured", 0) for _, before in rows), sum(row["matured"] for row, _ in rows)

    def _rows(self, version: int, arms: Collection[Arm]) -> list[tuple[Row, Mapping[str, Any]]]:
        """Counters now and at the mark."""
        return [
            (row, self.mark.counters.get(_name(version, row["arm"]), {}))
            for row in self.counters
            if row["version"] == version and row["arm"] in arms
        ]


def _name(version: int, arm: int) -> str:
    return f"{version}:{int(arm)}"


def _packed(counts: Counts) -> str:
    """Counts as a text, short where most are 0."""
    return base64.b85encode(zlib.compress(counts.astype("<i8").tobytes())).decode()


def _unpacked(text: str | None) -> Counts | int:
    """What was packed; 0 of nothing."""
    return 0 if text is None else unpack_counts(zlib.decompress(base64.b85decode(text)))


def _without(every: Moments, first: Moments) -> Moments:
    """The moments of the values that came after the first ones."""
    n = every.n - first.n
    if n <= 0:
        return Moments()
    mean = (every.n * every.mean - first.n * first.mean) / n
    gap = mean - first.mean
    return Moments(n, mean, max(0.0, every.m2 - first.m2 - gap * gap * first.n * n / every.n))


def _rewards(reward: Expression, rows: Iterable[tuple[float, float, float | None]]) -> list[float]:
    """The rewards that are numbers."""
    found = []
    for score, label, value in rows:
        worth = reward({"score": score, "label": label, "value": value}.get)
        if isinstance(worth, int | float) and abs(worth) <= _REWARD_MAX:
            found.append(float(worth))
    return found
