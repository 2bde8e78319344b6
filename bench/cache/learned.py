"""What boosted confidence and an LSTM add to prefetching by tables alone, trace by trace.

    python -m bench.cache.learned FOLDER --out bench/results/NAME.json --plot docs/explanation/images/learned.svg

FOLDER holds NAME.parquet files. Of each trace the first requests are taken (``--requests``). The first half trains; the second is what is
counted. All variants run on LRU at 1% of the keys, with the same delay, through the simulator's replay:

- tables: each candidate's share, calibrated (isotonic) on the last 30% of the first half;
- boosting: the same candidates, judged by trees over the 64 features and the tables' columns, calibrated on the same 30%;
- lstm: the tables, and the four likeliest keys of a network trained on the first 70% of the first half, calibrated on the rest;
- both: boosting, and the network's keys.

All keep to the budget of the predictor that is shipped: at most 1.085 loads for each miss of LRU, some saved up, and a price that
rises where precision is poor.

Then the question that decides the default: ``predis`` is that predictor itself (own policy, several tables, learning online, no model);
``predis+boosting`` and ``predis+lstm`` ask beside it for what the models name, both trained on what *it* misses. Differences have a 95%
interval over blocks of 1,000 requests.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from predis.cache.predictor import boosting, lstm, next_keys
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
BY_CLOCK = {"nasa_http": "5ms"}
REVIEW = 1_024  # requests
LATER = 0.3
BLOCK = 1_000
BATCH = 4_096
ON_TABLES = ("boosting", "lstm", "both")
ON_PREDIS = ("predis+boosting", "predis+lstm")


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
    """The shipped predictor, and what a script asks for besides, from the same purse and in the same reserve."""

    def __init__(self, setup: Setup, wanted: Wanted, *, horizon: int) -> None:
        super().__init__(setup)
        self._wanted, self._horizon = wanted, horizon
        self._inner = Ensemble(setup)
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
        if purse.savings > 0.0 and len(duel.reserve) < duel.room:
            for chance, other in self._wanted.get(i, ()):
                if chance > purse.price * (1.0 - chance) and other not in named:
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


@dataclass
class Candidates:
    """Who was proposed after which request, and how likely each is worth it."""

    rows: np.ndarray
    keys: np.ndarray
    chances: np.ndarray


class Case:
    """One trace, prepared."""

    def __init__(self, path: Path, requests: int) -> None:
        whole = read(path)
        count = min(requests, len(whole))

        def cut(column: Any) -> Any:
            return None if column is None else column[:count]

        self.trace = Trace(
            whole.keys.slice(0, count), name=whole.name, ts=cut(whole.ts), sizes=cut(whole.sizes), clients=cut(whole.clients)
        )  # fmt: skip
        self.count, self.half = count, count // 2
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
            self.ready = np.searchsorted(self.trace.ts, self.trace.ts + self.delay.seconds - 1e-9)
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

    def scripted(self, *candidates: Candidates | None) -> Counted:
        """LRU with these."""
        wanted: Any = self.wanted(*[some for some in candidates if some is not None])
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


def proposed(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All candidates of the tables: rows, keys, ``COLUMNS``, and the share that tables alone go by."""
    timed = case.delay.seconds > 0
    proposer = Proposer(case.delay.seconds - 1e-9 if timed else case.delay.requests + 1.0)
    rows, keys, columns, shares = [], [], [], []
    moments = case.trace.ts.tolist() if timed else [float(i) for i in range(case.count)]
    reads = zip(case.codes.tolist(), moments, case.clients.tolist(), case.missed.tolist(), strict=True)
    for i, (key, when, client, needed) in enumerate(reads):
        for one in proposer.read(key, when, client=client, needed=needed):
            rows.append(i)
            keys.append(one.key)
            columns.append(one[1:])
            shares.append(one.share)
    return np.array(rows), np.array(keys, np.int64), np.array(columns, np.float32), np.array(shares)


def featured(case: Case, rows: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, float]:
    """The 64 features of every candidate, and the microseconds a row took, reads and candidates alike."""
    template_of = np.zeros(int(case.codes.max()) + 1, np.int64)
    template_of[case.codes] = case.templates()
    batch = case.batch().with_questions(rows, keys, template_of[keys])
    features, found = Features(), []
    began = time.process_time()
    for start in range(0, len(batch), BATCH):
        part = slice(start, start + BATCH)
        cut = Batch(*(getattr(batch, field.name)[part] for field in fields(Batch)))
        found.append(features.take(cut)[~cut.learn])
    return np.concatenate(found), (time.process_time() - began) / len(batch) * 1e6


def by_tables(case: Case, rows: np.ndarray, keys: np.ndarray, shares: np.ndarray) -> Candidates:
    known = rows < case.half - case.horizon
    worth = case.labels(rows[known], keys[known], until=case.half)
    cut = round(len(worth) * (1.0 - LATER))
    calibration = Isotonic.fit(shares[known][cut:], worth[cut:])
    return Candidates(rows, keys, calibration(shares))


def by_boosting(
    case: Case,
    rows: np.ndarray,
    keys: np.ndarray,
    inputs: np.ndarray,
    missed: np.ndarray,
    told: dict[str, Any],
) -> Candidates | None:
    known = rows < case.half - case.horizon
    worth = case.labels(rows[known], keys[known], until=case.half, missed=missed)
    began = time.process_time()
    try:
        confidence = Confidence.fit(inputs[known], worth, columns=[*NAMES, *COLUMNS], later=LATER)
    except InvalidInput as error:
        told["why_no_boosting"] = error.message
        return None
    told["boosting_trained_s"] = time.process_time() - began
    began = time.process_time()
    chances = confidence.chances(inputs)
    told["boosting_us_per_candidate"] = (time.process_time() - began) / len(inputs) * 1e6
    told["importance"] = dict(list(confidence.importance().items())[:12])
    return Candidates(rows, keys, chances)


def by_network(case: Case, missed: np.ndarray, told: dict[str, Any]) -> Candidates | None:
    cut = round(case.half * (1.0 - LATER))
    inputs = next_keys.windows(case.codes, case.clients)
    targets = next_keys.needed_next(
        case.codes[:cut], case.clients[:cut], needed=missed[:cut], ready=case.ready[:cut], horizon=case.horizon
    )  # fmt: skip
    began = time.process_time()
    try:
        network = lstm.fit(inputs[:cut], targets)
    except InvalidInput as error:
        told["why_no_lstm"] = error.message
        return None
    told["lstm_trained_s"] = time.process_time() - began
    rows = np.arange(cut, case.count)
    found, scores = network.ask(inputs[rows])
    rows = np.repeat(rows, found.shape[1])
    keys, raw = found.ravel(), scores.ravel().astype(np.float64)
    some = keys >= 0
    rows, keys, raw = rows[some], keys[some], raw[some]
    known = rows < case.half - case.horizon
    labels = case.labels(rows[known], keys[known], until=case.half, missed=missed)
    calibration = Isotonic.fit(raw[known], labels)
    told["lstm_ms_per_batch_of_256"] = batch_ms(network, inputs)
    return Candidates(rows, keys, calibration(raw))


def batch_ms(network: NextKeys, inputs: np.ndarray) -> dict[str, float]:
    batch = np.resize(inputs, (next_keys.BATCH, inputs.shape[1]))
    took = []
    for _ in range(200):
        began = time.perf_counter()
        network.ask(batch)
        took.append((time.perf_counter() - began) * 1e3)
    return {"median": float(np.median(took)), "p95": float(np.quantile(took, 0.95)), "least": min(took)}


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
    if base is not None:
        difference = (counted.misses - base.misses)[: requests // BLOCK] / BLOCK
        mean = float(difference.mean())
        error = 1.96 * float(difference.std(ddof=1)) / len(difference) ** 0.5
        row["difference"] = {"low": mean - error, "mean": mean, "high": mean + error}
        row["adds"] = mean + error < 0.0
    return row


def measured(path: Path, requests: int) -> dict[str, Any]:
    began = time.perf_counter()
    case = Case(path, requests)
    told: dict[str, Any] = {
        "requests": case.count, "keys": case.trace.distinct, "capacity": case.capacity, "delay": str(case.delay), "horizon": case.horizon,
    }  # fmt: skip
    rows, keys, columns, shares = proposed(case)
    found, told["features_us_per_row"] = featured(case, rows, keys)
    inputs = np.column_stack([found, columns])
    tables = by_tables(case, rows, keys, shares)
    boosted = by_boosting(case, rows, keys, inputs, case.missed, told)
    network = by_network(case, case.missed, told)
    told["judged"] = {
        name: judged(case, some) for name, some in (("tables", tables), ("boosting", boosted), ("lstm", network)) if some
    }  # fmt: skip
    base = case.scripted(tables)
    shipped = case.run(Ensemble(case.setup), policy="predis", coded=False)
    runs = {
        "lru": (case.lru, None),
        "s3-fifo": (case.run(Prefetcher(case.setup), policy="s3-fifo"), None),
        "tables": (base, None),
        "boosting": (case.scripted(boosted or tables), base),
        "lstm": (case.scripted(tables, network), base),
        "both": (case.scripted(boosted or tables, network), base),
        "predis": (shipped, base),
    }
    for name, more in (
        ("predis+boosting", by_boosting(case, rows, keys, inputs, shipped.missed, {})),
        ("predis+lstm", by_network(case, shipped.missed, {})),
    ):
        runs[name] = (case.beside(more) if more else shipped, shipped)
    told["runs"] = {name: row_of(case, *pair) for name, pair in runs.items()}
    for row in told["runs"].values():
        row["loads_to_lru"] = row["loads"] / told["runs"]["lru"]["misses"]
    told["seconds"] = time.perf_counter() - began
    return told


def draw(traces: dict[str, Any], path: Path) -> None:
    """Bars of the miss ratio, a group a trace."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "predis", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8.6, 3.4))
    shown = ("lru", "tables", *ON_TABLES, "predis", *ON_PREDIS)
    labels = (
        "LRU",
        "tables",
        "+ boosting",
        "+ LSTM",
        "+ both",
        "as shipped",
        "shipped + boosting",
        "shipped + LSTM",
    )
    colours = ("#b8c4d0", "#2f6db5", "#d98200", "#2e7d32", "#6a4fb3", "#1c2733", "#f0b860", "#8bc48e")
    wide = 0.8 / len(shown)
    for at, (name, label, colour) in enumerate(zip(shown, labels, colours, strict=True)):
        heights = [found["runs"][name]["miss_ratio"] for found in traces.values()]
        axes.bar(np.arange(len(traces)) + (at - 3.5) * wide, heights, wide * 0.92, label=label, color=colour)
    axes.set_xticks(np.arange(len(traces)), list(traces))
    axes.set_ylabel("miss ratio, second half")
    axes.legend(ncols=4, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.22))
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trace", action="append")
    parser.add_argument("--requests", type=int, default=60_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    lstm._torch().set_num_threads(1)
    traces: dict[str, Any] = {}
    for name in arguments.trace or TRACES:
        found = traces[name] = measured(arguments.folder / f"{name}.parquet", arguments.requests)
        ratios = "  ".join(f"{variant} {row['miss_ratio']:.4f}" for variant, row in found["runs"].items())
        print(f"{name:17} {ratios}  {found['seconds']:.0f} s", flush=True)
    document = {
        "command": " ".join(["python -m bench.cache.learned", *sys.argv[1:]]),
        "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "python": platform.python_version(),
        "tuning": asdict(Tuning()),
        "parameters": {"boosting": boosting._PARAMETERS, "window": next_keys.WINDOW, "classes": next_keys.CLASSES},
        "traces": traces,
    }  # fmt: skip
    if arguments.out:
        arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    if arguments.plot:
        draw(traces, arguments.plot)


if __name__ == "__main__":
    main()
