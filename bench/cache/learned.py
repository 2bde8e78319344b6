"""What boosted confidence and an LSTM add to prefetching by tables alone, trace by trace.

    python -m bench.cache.learned FOLDER --out bench/results/NAME.json --plot docs/explanation/images/learned.svg
    python -m bench.cache.learned versions FOLDER --out bench/results/NAME.json     what they add to a version's tables

FOLDER holds NAME.parquet files. Of each trace the first requests are taken (``--requests``). The second half is what is counted. It falls
into stretches (``--trainings``); before each, everything is trained anew on the latest requests that are over, at most as many as ``LEARN``
says. All variants run on LRU at 1% of the keys, with the same delay, through the simulator's replay:

- tables: each candidate's share, calibrated (isotonic) on the latest 30% of what is learned from;
- boosting: the same candidates, judged by trees over the 64 features and the tables' columns, calibrated on the same 30%;
- lstm: the tables, and the four likeliest keys of a network trained on the older 70%, calibrated on the rest;
- both: boosting, and the network's keys.

All keep to the budget of the predictor that is shipped: at most 1.085 loads for each miss of LRU, some saved up, and a price that
rises where precision is poor.

Then the question that decides the default: ``predis`` is that predictor itself (own policy, several tables, learning online, no model);
``predis+boosting`` and ``predis+lstm`` ask beside it for what the models name, both trained on what *it* misses. Differences have a 95%
interval (Student's t) over blocks of 1,000 requests. What a computation takes is processor time of one thread: other work on the machine
does not count.

``versions`` asks it of the training of a version (``training.train``): each trace is written down as the learner writes reads, one each
millisecond where the trace does not go by its clock, and trained on with no model, with each, and with both.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import t as student

from bench.cache.simulator import BY_CLOCK, first_of
from predis.cache.predictor import boosting, lstm, next_keys, recorded, training
from predis.cache.predictor.boosting import Confidence, Isotonic, reliability, worth_it
from predis.cache.predictor.ensemble import Ensemble
from predis.cache.predictor.features.batch import Batch, Shapes
from predis.cache.predictor.features.features import Features
from predis.cache.predictor.features.table import NAMES
from predis.cache.predictor.next_keys import NextKeys
from predis.cache.predictor.proposals import COLUMNS, Proposer, outcomes
from predis.cache.predictor.purse import Purse
from predis.cache.predictor.tuning import Tuning
from predis.cache.simulator import registry
from predis.cache.simulator.prefetchers.base import Prefetcher
from predis.cache.simulator.replay import replay
from predis.cache.simulator.setup import Delay, Key, Setup
from predis.cache.simulator.trace import Trace, read
from predis.errors import InvalidInput

TRACES = ("orm_busy", "lirs_sprite", "llm_kv_synthetic", "nasa_http", "twitter_c52_a")
REVIEW = 1_024  # requests
LATER = 0.3
BLOCK = 1_000
LEARN = {"candidates": 200_000, "reads": 60_000}  # that one training is given at most, the latest
MODELS: tuple[tuple[str, ...], ...] = ((), ("boosting",), ("lstm",), ("boosting", "lstm"))
PATTERN = ("k:{n:path}", "default")  # that all keys of a trace are written under
REQUEST_S = 0.001


class Counted(Prefetcher):
    """Another prefetcher, counted in the second half only."""

    def __init__(self, inner: Prefetcher, *, half: int, requests: int) -> None:
        super().__init__(inner.setup)
        self.inner, self.half = inner, half
        self.misses = np.zeros(-(-(requests - half) // BLOCK), np.int64)
        self.missed = np.zeros(requests, bool)
        self.counts = {"asked": 0, "used": 0, "late": 0}
        self._i = 0

    def attach(self, policy: Any) -> None:
        self.inner.attach(policy)

    def observe(self, i: int, key: Key, *, client: int, hit: bool, ts: float) -> Iterable[Key]:
        self._i = i
        self.missed[i] = not hit
        if i >= self.half and not hit:
            self.misses[(i - self.half) // BLOCK] += 1
        return self.inner.observe(i, key, client=client, hit=hit, ts=ts)

    def asked(self, key: Key) -> None:
        self._count("asked")
        self.inner.asked(key)

    def used(self, key: Key) -> None:
        self._count("used")
        self.inner.used(key)

    def late(self, key: Key) -> None:
        self._count("late")
        self.inner.late(key)

    def wasted(self, key: Key) -> None:
        self.inner.wasted(key)

    def _count(self, what: str) -> None:
        if self._i >= self.half:
            self.counts[what] += 1


Wanted = dict[int, list[tuple[float, Key]]]


class Scripted(Prefetcher):
    """Asks for what was worked out before from the past of each request, as far as the predictor's budget goes."""

    def __init__(self, setup: Setup, wanted: Wanted, *, missed: np.ndarray) -> None:
        super().__init__(setup)
        self._wanted, self._missed = wanted, missed
        self._purse = Purse(Tuning())
        self._late = False

    def observe(self, i: int, key: Key, *, client: int, hit: bool, ts: float) -> Iterable[Key]:
        purse = self._purse
        if self._missed[i]:
            purse.granted()
        if not hit and not self._late:
            purse.spent()
        self._late = False
        if not i % REVIEW:
            purse.review()
        wanted = self._wanted.get(i)
        if wanted is None or purse.savings <= 0.0:
            return ()
        return [key for chance, key in wanted if chance > purse.price * (1.0 - chance)]

    def asked(self, key: Key) -> None:
        self._purse.spent()

    def used(self, key: Key) -> None:
        self._purse.requested()

    def late(self, key: Key) -> None:
        self._late = True
        self._purse.requested()

    def wasted(self, key: Key) -> None:
        self._purse.wasted()


class Beside(Prefetcher):
    """The shipped predictor, and what a script asks for besides, from the same purse and in the same reserve.

    Attributes:
        became: of what the script would have asked for. Foreseen: resident, or asked for by the predictor itself.
    """

    def __init__(self, setup: Setup, wanted: Wanted, *, horizon: int) -> None:
        super().__init__(setup)
        self._wanted, self._horizon = wanted, horizon
        self._inner = Ensemble(setup)
        self.became = dict.fromkeys(("foreseen", "too dear", "no savings", "no room", "named"), 0)
        self._duel: Any = None
        self._named: set[Key] = set()
        self._kept: deque[tuple[int, Key]] = deque()
        self._i = 0

    def attach(self, policy: Any) -> None:
        self._duel = policy
        self._inner.attach(policy)

    def observe(self, i: int, key: Key, *, client: int, hit: bool, ts: float) -> Iterable[Key]:
        self._i = i
        named = list(self._inner.observe(i, key, client=client, hit=hit, ts=ts) or ())
        kept, purse, duel = self._kept, self._inner.purse, self._duel
        while kept and kept[0][0] + self._horizon < i:
            duel.release(kept.popleft()[1])
        self._named.clear()
        for chance, other in self._wanted.get(i, ()):
            if other in named or other in duel:
                self.became["foreseen"] += 1
            elif chance <= purse.price * (1.0 - chance):
                self.became["too dear"] += 1
            elif purse.savings <= 0.0:
                self.became["no savings"] += 1
            elif len(duel.reserve) >= duel.room:
                self.became["no room"] += 1
            else:
                self.became["named"] += 1
                named.append(other)
                self._named.add(other)
        return named

    def asked(self, key: Key) -> None:
        if key in self._named:
            self._inner.purse.spent()
            self._kept.append((self._i, key))
        else:
            self._inner.asked(key)

    def used(self, key: Key) -> None:
        self._inner.used(key)

    def late(self, key: Key) -> None:
        self._inner.late(key)

    def wasted(self, key: Key) -> None:
        self._inner.wasted(key)


@dataclass(frozen=True)
class Stretch:
    """A part of the second half. What is over when it begins is learned from."""

    start: int
    stop: int

    def holds(self, rows: np.ndarray) -> np.ndarray:
        return (rows >= self.start) & (rows < self.stop)


@dataclass
class Candidates:
    """Who was proposed after which request, and how likely each is worth it."""

    rows: np.ndarray
    keys: np.ndarray
    chances: np.ndarray


class Case:
    """One trace, prepared."""

    def __init__(self, path: Path, requests: int, *, trainings: int) -> None:
        whole = read(path)
        self.whole = len(whole)
        self.trace = first_of(whole, requests)
        count = len(self.trace)
        self.count, self.half = count, count // 2
        ends = np.linspace(self.half, count, trainings + 1).astype(int).tolist()
        self.stretches = [Stretch(*pair) for pair in itertools.pairwise(ends)]
        self.delay = Delay.parse(BY_CLOCK.get(whole.name, "10"))
        self.capacity = max(1, self.trace.distinct // 100)
        self.horizon = max(32, min(512, self.capacity))
        self.codes = self.trace.codes  # which is which, and nothing more: nobody below reckons with them
        self.clients = np.zeros(count, np.int64) if self.trace.clients is None else self.trace.clients
        self.coded = Trace(
            pa.array(self.codes), name=whole.name, ts=self.trace.ts, clients=self.trace.clients
        )
        self.setup = Setup(
            self.capacity, self.delay, clients=self.trace.clients is not None, clock=self.trace.ts is not None
        )
        requests_at = np.arange(count)
        if self.delay.seconds:
            self.ready = np.searchsorted(self.trace.ts, self.trace.ts + self.delay.wait)
            self.ready = np.maximum(self.ready, requests_at + 1)
        else:
            self.ready = requests_at + self.delay.requests + 1
        self.names: list[Key] = self.trace.keys.take(
            pa.array(np.unique(self.codes, return_index=True)[1])
        ).to_pylist()
        self.lru = self.run(Prefetcher(self.setup), policy="lru")
        self.missed = self.lru.missed

    def templates(self) -> np.ndarray:
        keys = self.trace.keys
        if pa.types.is_integer(keys.type):
            return np.asarray(keys) >> 24  # of numbers: which sixteen million they are of
        return Shapes().of([key.encode() for key in keys.to_pylist()])

    def batch(self) -> Batch:
        return Batch.of_columns(
            self.codes, templates=self.templates(), clients=self.clients, sizes=self.trace.sizes, hits=~self.missed,
            seconds=self.trace.ts,
        )  # fmt: skip

    def run(self, prefetcher: Prefetcher, *, policy: str, coded: bool = True) -> Counted:
        counted = Counted(prefetcher, half=self.half, requests=self.count)
        trace = self.coded if coded else self.trace
        replay(trace, registry.policy(policy, self.capacity), prefetcher=counted)
        return counted

    def wanted(self, *candidates: Candidates) -> dict[int, list[tuple[float, int]]]:
        """What may pay of these in the second half, by request, the likeliest first."""
        best: dict[tuple[int, int], float] = {}
        for some in candidates:
            pays = worth_it(some.chances, price=Tuning().price) & (some.rows >= self.half)
            for row, key, chance in zip(
                some.rows[pays].tolist(), some.keys[pays].tolist(), some.chances[pays].tolist(), strict=True
            ):
                best[row, key] = max(best.get((row, key), 0.0), chance)
        wanted: dict[int, list[tuple[float, int]]] = {}
        for (row, key), chance in sorted(best.items(), key=lambda item: (item[0][0], -item[1])):
            wanted.setdefault(row, []).append((chance, key))
        return wanted

    def scripted(self, *candidates: Candidates) -> Counted:
        """LRU with these."""
        wanted: Any = self.wanted(*candidates)
        return self.run(Scripted(self.setup, wanted, missed=self.missed), policy="lru")

    def beside(self, candidates: Candidates) -> Counted:
        """The shipped predictor with these."""
        wanted: Wanted = {
            row: [(chance, self.names[key]) for chance, key in some]
            for row, some in self.wanted(candidates).items()
        }
        return self.run(Beside(self.setup, wanted, horizon=self.horizon), policy="predis", coded=False)

    def labels(
        self, rows: np.ndarray, keys: np.ndarray, *, until: int, missed: np.ndarray | None = None
    ) -> np.ndarray:
        """What became of candidates, as known after so many requests."""
        missed = self.missed if missed is None else missed
        return outcomes(
            rows, keys, reads=self.codes[:until], missed=missed[:until], ready=self.ready[:until], horizon=self.horizon
        )  # fmt: skip


@dataclass
class Proposed:
    """All candidates of the tables.

    Attributes:
        rows, keys: after which read, and which key.
        shares: what tables alone go by.
        inputs: the 64 features and the tables' columns.
    """

    rows: np.ndarray
    keys: np.ndarray
    shares: np.ndarray
    inputs: np.ndarray

    def over(self, case: Case, stretch: Stretch) -> np.ndarray:
        """Indices of those that are learned from when the stretch begins."""
        return np.flatnonzero(self.rows < stretch.start - case.horizon)[-LEARN["candidates"] :]


def propose(case: Case) -> tuple[Proposed, float]:
    """The tables' candidates, and the microseconds that the features of a row took."""
    timed = case.delay.seconds > 0
    proposer = Proposer(case.delay.wait)
    rows, keys, columns, shares = [], [], [], []
    moments = case.trace.ts.tolist() if timed else [float(i) for i in range(case.count)]
    reads = zip(case.codes.tolist(), moments, case.clients.tolist(), case.missed.tolist(), strict=True)
    for i, (key, when, client, needed) in enumerate(reads):
        for one in proposer.read(key, when, client=client, needed=needed):
            rows.append(i)
            keys.append(one.key)
            columns.append(one[1:])
            shares.append(one.share)
    at, asked = np.array(rows), np.array(keys, np.int64)
    found, us = featured(case, at, asked)
    inputs = np.column_stack([found, np.array(columns, np.float32)])
    return Proposed(at, asked, np.array(shares), inputs), us


def featured(case: Case, rows: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, float]:
    """The 64 features of every candidate, and the microseconds a row took, reads and candidates alike."""
    template_of = np.zeros(int(case.codes.max()) + 1, np.int64)
    template_of[case.codes] = case.templates()
    batch = case.batch().with_questions(rows, keys, templates=template_of[keys])
    began = time.process_time()
    found = Features().answers(batch)
    return found, (time.process_time() - began) / len(batch) * 1e6


def by_tables(case: Case, proposed: Proposed) -> Candidates:
    chances = np.zeros(len(proposed.rows))
    for stretch in case.stretches:
        known = proposed.over(case, stretch)[-round(LATER * LEARN["candidates"]) :]
        worth = case.labels(proposed.rows[known], proposed.keys[known], until=stretch.start)
        ahead = stretch.holds(proposed.rows)
        chances[ahead] = Isotonic.fit(proposed.shares[known], worth)(proposed.shares[ahead])
    return Candidates(proposed.rows, proposed.keys, chances)


def by_boosting(
    case: Case, proposed: Proposed, *, missed: np.ndarray, otherwise: Any = 0.0
) -> tuple[Candidates, dict[str, Any]]:
    """And what training took. Where a stretch has too little before it, chances are the others."""
    chances = np.zeros(len(proposed.rows)) + otherwise
    told: dict[str, Any] = {"trained": 0, "trained_s": 0.0}
    for stretch in case.stretches:
        known = proposed.over(case, stretch)
        worth = case.labels(proposed.rows[known], proposed.keys[known], until=stretch.start, missed=missed)
        began = time.process_time()
        try:
            confidence = Confidence.fit(
                proposed.inputs[known], worth, columns=[*NAMES, *COLUMNS], later=LATER
            )
        except InvalidInput as error:
            told["not_trained"] = error.message
            continue
        told["trained"] += 1
        told["trained_s"] += time.process_time() - began
        ahead = stretch.holds(proposed.rows)
        began = time.process_time()
        chances[ahead] = confidence.chances(proposed.inputs[ahead])
        told["us_per_candidate"] = (time.process_time() - began) / max(ahead.sum(), 1) * 1e6
        told["importance"] = dict(list(confidence.importance().items())[:12])
    return Candidates(proposed.rows, proposed.keys, chances), told


def by_network(case: Case, *, missed: np.ndarray) -> tuple[Candidates, dict[str, Any]]:
    inputs = next_keys.windows(case.codes, case.clients)
    parts: list[Candidates] = []
    told: dict[str, Any] = {"trained": 0, "trained_s": 0.0}
    for stretch in case.stretches:
        began = time.process_time()
        try:
            network, cut = trained(case, stretch, inputs, missed=missed)
        except InvalidInput as error:
            told["not_trained"] = error.message
            continue
        told["trained"] += 1
        told["trained_s"] += time.process_time() - began
        rows = np.arange(cut, stretch.stop)
        found, scores = network.ask(inputs[rows])
        rows, keys, raw = np.repeat(rows, found.shape[1]), found.ravel(), scores.ravel().astype(np.float64)
        some = keys >= 0
        rows, keys, raw = rows[some], keys[some], raw[some]
        known, ahead = rows < stretch.start - case.horizon, stretch.holds(rows)
        labels = case.labels(rows[known], keys[known], until=stretch.start, missed=missed)
        parts.append(Candidates(rows[ahead], keys[ahead], Isotonic.fit(raw[known], labels)(raw[ahead])))
        told["ms_per_batch_of_256"] = batch_ms(network, inputs)
    none = np.empty(0, np.int64)
    columns = [
        np.concatenate([none, *(getattr(part, name) for part in parts)])
        for name in ("rows", "keys", "chances")
    ]
    return Candidates(*columns), told


def trained(case: Case, stretch: Stretch, inputs: np.ndarray, *, missed: np.ndarray) -> tuple[NextKeys, int]:
    """A network, and the first read that it did not learn from."""
    first = max(0, stretch.start - LEARN["reads"])
    cut = round(stretch.start - LATER * (stretch.start - first))
    past = slice(first, cut)
    targets = next_keys.needed_next(
        case.codes[past], case.clients[past], needed=missed[past], ready=case.ready[past] - first, horizon=case.horizon
    )  # fmt: skip
    return lstm.fit(inputs[past], targets), cut


def batch_ms(network: NextKeys, inputs: np.ndarray) -> dict[str, float]:
    """Processor time and time by the clock; the least of the latter is what an idle machine takes."""
    batch = np.resize(inputs, (next_keys.BATCH, inputs.shape[1]))
    took, spent = [], []
    for _ in range(200):
        began, used = time.perf_counter(), time.process_time()
        network.ask(batch)
        spent.append((time.process_time() - used) * 1e3)
        took.append((time.perf_counter() - began) * 1e3)
    return {
        "cpu_median": float(np.median(spent)), "cpu_p95": float(np.quantile(spent, 0.95)), "wall_median": float(np.median(took)),
        "wall_least": min(took),
    }  # fmt: skip


def judged(case: Case, candidates: Candidates) -> dict[str, Any]:
    """How true the chances were in the second half."""
    of = (candidates.rows >= case.half) & (candidates.rows < case.count - case.horizon)
    worth = case.labels(candidates.rows[of], candidates.keys[of], until=case.count)
    chances = candidates.chances[of]
    bins, error = reliability(chances, worth)
    return {
        "candidates": len(worth),
        "worth": float(worth.mean()) if len(worth) else None,
        "brier": float(((chances - worth) ** 2).mean()) if len(worth) else None,
        "calibration_error": error,
        "reliability": bins,
    }


def row_of(case: Case, counted: Counted, base: Counted | None) -> dict[str, Any]:
    asked = counted.counts["asked"]
    right = counted.counts["used"] + counted.counts["late"]
    requests, misses = case.count - case.half, int(counted.misses.sum())
    row: dict[str, Any] = {
        "misses": misses,
        "miss_ratio": misses / requests,
        "loads": misses - counted.counts["late"] + asked,
        "asked": asked,
        "precision": min(1.0, right / asked) if asked else None,
        "on_time": counted.counts["used"] / right if right else None,
    }
    if isinstance(counted.inner, Beside):
        row["became"] = counted.inner.became
    if base is not None:
        difference = (counted.misses - base.misses)[: requests // BLOCK] / BLOCK
        mean = float(difference.mean())
        error = (
            float(student.ppf(0.975, len(difference) - 1) * difference.std(ddof=1)) / len(difference) ** 0.5
        )
        row["difference"] = {"low": mean - error, "mean": mean, "high": mean + error}
        row["adds"] = mean + error < 0.0
    return row


def measured(path: Path, requests: int, *, trainings: int) -> dict[str, Any]:
    began = time.process_time()
    case = Case(path, requests, trainings=trainings)
    told: dict[str, Any] = {
        "requests": case.count, "of": case.whole, "keys": case.trace.distinct, "capacity": case.capacity, "delay": str(case.delay),
        "horizon": case.horizon, "trainings": trainings,
    }  # fmt: skip
    proposed, told["features_us_per_row"] = propose(case)
    told["candidates"] = len(proposed.rows)
    tables = by_tables(case, proposed)
    boosted, told["boosting"] = by_boosting(case, proposed, missed=case.missed, otherwise=tables.chances)
    network, told["lstm"] = by_network(case, missed=case.missed)
    told["judged"] = {
        name: judged(case, some)
        for name, some in (("tables", tables), ("boosting", boosted), ("lstm", network))
    }
    base = case.scripted(tables)
    shipped = case.run(Ensemble(case.setup), policy="predis", coded=False)
    beside, told["predis+boosting"] = by_boosting(case, proposed, missed=shipped.missed)
    beside_network, told["predis+lstm"] = by_network(case, missed=shipped.missed)
    runs = {
        "lru": (case.lru, None),
        "s3-fifo": (case.run(Prefetcher(case.setup), policy="s3-fifo"), None),
        "tables": (base, None),
        "boosting": (case.scripted(boosted), base),
        "lstm": (case.scripted(tables, network), base),
        "both": (case.scripted(boosted, network), base),
        "predis": (shipped, base),
        "predis+boosting": (case.beside(beside), shipped),
        "predis+lstm": (case.beside(beside_network), shipped),
    }
    told["runs"] = {name: row_of(case, *pair) for name, pair in runs.items()}
    for row in told["runs"].values():
        row["loads_to_lru"] = row["loads"] / told["runs"]["lru"]["misses"]
    told["cpu_s"] = time.process_time() - began
    return told


def versions(path: Path, requests: int) -> dict[str, Any]:
    """What the training of a version makes of a trace: the simulator's report, what became of each model, and how long it took."""
    trace = first_of(read(path), requests)
    delay = Delay.parse(BY_CLOCK.get(trace.name, "10"))
    runs: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        pq.write_table(as_recorded(trace, by_clock=delay.seconds > 0), Path(folder, "accesses-1.parquet"))
        for models in MODELS:
            delay_s = delay.seconds or delay.wait * REQUEST_S
            table = recorded.gather(Path(folder), [PATTERN], delay_s=delay_s, models=models)
            began = time.process_time()
            version = training.train(table)
            runs["+".join(models) or "tables"] = {
                **version.metrics, "models": version.lineage["models"], "cpu_s": round(time.process_time() - began, 1),
            }  # fmt: skip
    cpu_s = round(sum(run["cpu_s"] for run in runs.values()), 1)
    return {
        "requests": len(trace), "keys": trace.distinct, "delay": str(delay), "runs": runs, "cpu_s": cpu_s,
    }  # fmt: skip


def as_recorded(trace: Trace, *, by_clock: bool) -> pa.Table:
    """A trace as the learner writes reads."""
    count = len(trace)
    seconds = trace.ts if by_clock else np.arange(count) * REQUEST_S
    keys = [f"k:{str(key).replace(':', '_')}" for key in trace.keys.to_pylist()]
    return pa.table({
        "key": pa.array(keys, pa.large_string()),
        "ts": pa.array(np.rint(seconds * 1e6).astype(np.int64)).cast(pa.timestamp("us", tz="UTC")),
        "client": np.zeros(count, np.int64) if trace.clients is None else trace.clients,
        "whole": np.ones(count, bool),
    })  # fmt: skip


def draw(traces: dict[str, Any], path: Path) -> None:
    """What the models change of the miss ratio, with intervals: beside tables alone, and beside the predictor that is shipped."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "predis", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    panels = (
        ("beside tables alone", (("boosting", "#d98200"), ("lstm", "#2e7d32"), ("both", "#6a4fb3"))),
        ("beside Predis as it is shipped", (("predis+boosting", "#d98200"), ("predis+lstm", "#2e7d32"))),
    )
    labels = {"boosting": "boosting", "lstm": "LSTM", "both": "both"}
    figure, both = pyplot.subplots(1, 2, figsize=(8.6, 3.2), sharex=True, sharey=True)
    for axes, (title, shown) in zip(both, panels, strict=True):
        axes.axvline(0.0, color="#1c2733", linewidth=0.8)
        for at, (name, colour) in enumerate(shown):
            rows = [found["runs"][name]["difference"] for found in traces.values()]
            means = np.array([row["mean"] for row in rows]) * 100.0
            error = (
                np.array([[row["mean"] - row["low"], row["high"] - row["mean"]] for row in rows]).T * 100.0
            )
            place = np.arange(len(rows)) + (at - (len(shown) - 1) / 2) * 0.22
            label = labels[name.removeprefix("predis+")]
            axes.errorbar(
                means, place, xerr=error, fmt="o", color=colour, markersize=4, capsize=2, label=label
            )
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("change of the miss ratio, points (left: fewer misses)")
        axes.set_yticks(np.arange(len(traces)), list(traces))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="#e3e8ee", linewidth=0.6)
    both[0].invert_yaxis()
    both[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=["models", "versions"], default="models")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trace", action="append")
    parser.add_argument("--requests", type=int, default=60_000)
    parser.add_argument("--trainings", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path, help="of the models")
    arguments = parser.parse_args()
    of_versions = arguments.what == "versions"
    traces: dict[str, Any] = {}
    for name in arguments.trace or ((*TRACES, "web07") if of_versions else TRACES):
        path = arguments.folder / f"{name}.parquet"
        if of_versions:
            found = versions(path, arguments.requests)
        else:
            found = measured(path, arguments.requests, trainings=arguments.trainings)
        traces[name] = found
        ratios = "  ".join(f"{variant} {row['miss_ratio']:.4f}" for variant, row in found["runs"].items())
        print(f"{name:17} {ratios}  {found['cpu_s']:.0f} s", flush=True)
    document = {
        "command": " ".join(["python -m bench.cache.learned", *sys.argv[1:]]),
        "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "python": platform.python_version(),
        "gpu": lstm._torch().cuda.is_available(),
        **({} if of_versions else {"learn": LEARN}),
        "tuning": asdict(Tuning()),
        "parameters": {"boosting": boosting._PARAMETERS, "window": next_keys.WINDOW, "classes": next_keys.CLASSES},
        "traces": traces,
    }  # fmt: skip
    if arguments.out:
        arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    if arguments.plot and not of_versions:
        draw(traces, arguments.plot)


if __name__ == "__main__":
    main()
