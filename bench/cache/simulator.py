"""The simulator on a folder of traces: what each policy and prefetcher reaches, beside goals, bounds and figures of others.

    python bench/cache/simulator.py goals FOLDER --out bench/results/NAME.json   the goals of the predictor, trace by trace
    python bench/cache/simulator.py check FOLDER                                  differences to FOLDER/baselines.csv
    python bench/cache/simulator.py ablation FOLDER                               what each part of the predictor is worth

FOLDER holds NAME.parquet files. ``baselines.csv`` has the columns trace, size_objs, policy, delay_requests, miss_ratio: demand
policies by libcachesim, prefetchers by a simulator of its own. Goals are for a cache of 1% of the keys, learning only from the past.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from predis.cache.predictor.ensemble import FAR, FIRST, SECOND, Ensemble, Heard
from predis.cache.predictor.followers import Source
from predis.cache.predictor.guesses import Guess, Opinion
from predis.cache.simulator import registry
from predis.cache.simulator.replay import replay
from predis.cache.simulator.report import Plan, simulate
from predis.cache.simulator.runs import usual
from predis.cache.simulator.setup import Delay, Setup
from predis.cache.simulator.sizes import capacity
from predis.cache.simulator.trace import Trace, read

GOALS = {
    "orm_busy": 0.178, "llm_kv_synthetic": 0.75, "arc_p3": 0.60, "lirs_sprite": 0.72, "arc_oltp": 0.52,
    "cloudphysics_io": 0.80, "nasa_http": 0.41,
}  # fmt: skip
HARMLESS = ("twitter_c52_a", "web07", "corda_vault", "adaptsize_sample")
OTHERS = ("lirs_ps", "lirs_multi2", "lirs_loop", "lirs_zigzag", "lirs_2_pools", "tencent_ns2706")
BY_CLOCK = {"nasa_http": "5ms"}  # so slow that ten requests are half a minute
DEMAND = ("lru", "s3-fifo", "twoq", "arc")
MARKOV = ("lru+markov1", "lru+markov1-client", "lru+markov-chain")
SHOWN = (*DEMAND, "w-tinylfu", *MARKOV, "lru+sequence", "lru+mithril", "predis", "belady", "unlimited")
ABLATED = ["nasa_http", "llm_kv_synthetic", "cloudphysics_io", "lirs_sprite", "lirs_multi2"]
PRECISION, LOADS, MORE_MISSES, MORE_LOADS = 0.7, 1.10, 1.01, 1.02

THEIR_POLICIES = {
    "fifo": "FIFO", "lru": "LRU", "lfu": "LFU", "clock": "Clock", "slru": "SLRU", "sieve": "Sieve", "s3-fifo": "S3FIFO",
    "twoq": "TwoQ", "arc": "ARC", "lirs": "LIRS", "w-tinylfu": "WTinyLFU", "belady": "Belady",
}  # fmt: skip
THEIR_PREFETCHERS = {
    "obl": "LRU+OBL(key+1 always)", "sequence": "LRU+seq(detected,deg4)", "markov1": "LRU+Markov1(conf.3,deg2)",
    "markov1-careful": "LRU+Markov1(conf.6,deg1)", "markov1-client": "LRU+Markov1 per client(conf.3,deg2)",
    "markov-chain": "LRU+Markov-chain(conf.5,deg8)", "mithril": "LRU+Mithril-like(deg2,d100)",
}  # fmt: skip


def goals(folder: Path, *, names: list[str], out: Path | None, processes: int) -> None:
    """One line a trace, and all rows in the file; traces in it that are not named stay as they are."""
    kept: dict[str, Any] = json.loads(out.read_bytes())["traces"] if out is not None and out.exists() else {}
    print(
        f"{'trace':17} {'delay':>5} {'LRU':>6} {'S3FIFO':>6} {'TwoQ':>6} {'ARC':>6} {'Markov':>6} {'Mithril':>7} {'Belady':>6} {'goal':>6}"
        f" {'predis':>6} {'prec.':>6} {'timely':>6} {'loads':>6}  verdict"
    )
    for name in names:
        path = folder / f"{name}.parquet"
        delay = BY_CLOCK.get(name, "10")
        trace = read(path)
        plan = Plan(names=[run for run in usual(trace) if run in SHOWN], delay=Delay.parse(delay))
        found = simulate(trace, plan, processes=processes)
        rows = {row["run"]: row for row in found.rows()}
        about = {
            "command": " ".join(["python", *sys.argv]),
            "at": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        }
        kept[name] = {**about, **found.to_dict(), "goal": GOALS.get(name), "faults": faults(name, rows)}
        print(line(name, delay, rows=rows), flush=True)
        if out is not None:
            keep(kept, out)


def keep(kept: dict[str, Any], out: Path) -> None:
    about = {"python": platform.python_version(), "cores": str(os.cpu_count())}
    out.write_text(json.dumps({**about, "traces": kept}, indent=1) + "\n", "utf-8")


def line(name: str, delay: str, *, rows: dict[str, Any]) -> str:
    four = " ".join(f"{rows[policy]['miss_ratio']:6.3f}" for policy in DEMAND)
    markov = min(rows[run]["miss_ratio"] for run in MARKOV if run in rows)
    others = f"{markov:6.3f} {rows['lru+mithril']['miss_ratio']:7.3f} {rows['belady']['miss_ratio']:6.3f}"
    goal = f"{GOALS[name]:6.3f}" if name in GOALS else f"{'-':>6}"
    start = f"{name:17} {delay:>5} {four} {others} {goal}"
    ours = predis(rows)
    figures = " ".join(
        f"{ours[key] or 0:6.3f}" for key in ("miss_ratio", "precision", "on_time", "loads_to_lru")
    )
    return f"{start} {figures}  {'; '.join(faults(name, rows)) or 'reached'}"


def faults(name: str, rows: dict[str, Any]) -> list[str]:
    """What the predictor does not reach."""
    ours = predis(rows)
    least = min(rows[policy]["misses"] for policy in DEMAND)
    found = []
    if name in GOALS and ours["miss_ratio"] > GOALS[name]:
        found.append(f"misses {ours['miss_ratio']:.3f} > {GOALS[name]}")
    if name in GOALS and (ours["precision"] or 0.0) < PRECISION:
        found.append(f"precision {ours['precision'] or 0:.2f} < {PRECISION}")
    if name not in GOALS and ours["misses"] > MORE_MISSES * least:
        found.append(f"{ours['misses'] / least - 1:+.1%} misses")
    if name in HARMLESS and ours["loads"] > MORE_LOADS * max(ours["misses"], least):
        found.append(f"{ours['loads'] / max(ours['misses'], least) - 1:+.1%} loads")
    if ours["loads_to_lru"] > LOADS:
        found.append(f"loads {ours['loads_to_lru']:.2f}x LRU's misses")
    return found


def predis(rows: dict[str, Any]) -> dict[str, Any]:
    return next(row for run, row in rows.items() if run.endswith("+predis"))


def check(folder: Path, *, names: list[str]) -> None:
    """Ours beside baselines.csv, in hundredths of a miss ratio: one line a trace, size and delay."""
    theirs: dict[tuple[str, str, str, str], float] = {}
    with (folder / "baselines.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            key = (row["trace"], row["size_objs"], row["policy"], row["delay_requests"])
            theirs[key] = float(row["miss_ratio"])
    for name in names:
        trace = read(folder / f"{name}.parquet")
        for size in sorted({int(key[1]) for key in theirs if key[0] == name}):
            for delay in ("", "0", "10", "100"):
                pairs = _pairs(theirs, name, size=size, delay=delay)
                if pairs:
                    plan = Plan(sizes=[str(size)], names=list(pairs), delay=Delay(int(delay or 0)))
                    found = simulate(trace, plan, processes=os.cpu_count() or 1)
                    _print_differences(
                        f"{name} {size} {delay and 'delay ' + delay}", found.rows(), theirs=pairs
                    )


def _pairs(
    theirs: dict[tuple[str, str, str, str], float], name: str, *, size: int, delay: str
) -> dict[str, float]:
    """Our name of a run: their miss ratio."""
    known: Iterable[tuple[str, str]] = THEIR_POLICIES.items()
    if delay:
        known = ((f"lru+{ours}", other) for ours, other in THEIR_PREFETCHERS.items())
    keys = ((ours, (name, str(size), other, delay)) for ours, other in known)
    return {ours: theirs[key] for ours, key in keys if key in theirs}


def _print_differences(title: str, rows: list[dict[str, Any]], *, theirs: dict[str, float]) -> None:
    said = [
        f"{row['run'].removeprefix('lru+')} {row['miss_ratio']:.4f} ({(row['miss_ratio'] - theirs[row['run']]) * 100:+.2f})"
        for row in rows
        if row["run"] in theirs
    ]
    print(f"{title}: {', '.join(said)}", flush=True)


class Without(Ensemble):
    """The predictor without one of its parts; everything else learns and decides as it does."""

    def __init__(self, setup: Setup, *, part: str) -> None:
        super().__init__(dataclasses.replace(setup, clients=setup.clients and part != "held"))
        self.part = part
        if part == "look-ahead":  # as a Markov chain learns what comes next; in time or not is still judged
            self.wait = 0.0 if self.timed else 1.0

    def _hear(self, source: Source, rule: int, **given: Any) -> None:
        if rule != RULES.get(self.part):
            super()._hear(source, rule, **given)

    def _stride(self, key: int, confirmed: bool, **given: Any) -> None:
        if self.part != "stride":
            super()._stride(key, confirmed, **given)

    def _opinion(self, heard: Sequence[Heard], before: Guess | None, **given: Any) -> Opinion:
        if self.part == "mixtures":  # the surest rule alone speaks
            heard, before = [max(heard, key=lambda one: one[1].true / one[1].all)], None
        return super()._opinion(heard, before, **given)


RULES = {"first": FIRST, "second": SECOND, "far": FAR}
PARTS = ("", *RULES, "stride", "held", "look-ahead", "mixtures", "duel")


def ablation(folder: Path, *, names: list[str], requests: int) -> None:
    """Misses and precision of the predictor without one of its parts, as the rows of a Markdown table."""
    print("| trace |", " | ".join(f"no {part}" if part else "whole" for part in PARTS), "|")
    print("|---|", *["---|"] * len(PARTS), sep="")
    for name in names:
        trace = first_of(read(folder / f"{name}.parquet"), requests)
        setup = Setup(
            capacity("1%", trace, in_bytes=False),
            Delay.parse(BY_CLOCK.get(name, "10")),
            clients=trace.clients is not None,
            clock=trace.ts is not None,
        )
        print(f"| {name} |", end="", flush=True)
        for part in PARTS:
            policy = registry.policy("s3-fifo" if part == "duel" else "predis", setup.capacity)
            counts = replay(trace, policy, prefetcher=Without(setup, part=part))
            print(f" {counts.miss_ratio:.3f} ({counts.precision or 0:.2f}) |", end="", flush=True)
        print()


def first_of(trace: Trace, requests: int) -> Trace:
    columns = {name: getattr(trace, name) for name in ("ts", "sizes", "clients")}
    given = {name: column[:requests] for name, column in columns.items() if column is not None}
    return Trace(trace.keys.slice(0, requests), name=trace.name, **given)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["goals", "check", "ablation"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trace", action="append", help="only this one; may be given several times")
    parser.add_argument("--out", type=Path, help="write all figures there, JSON")
    parser.add_argument("--requests", type=int, default=10**9, help="of each trace, for the ablation")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="runs at a time")
    given = parser.parse_args()
    names = given.trace or [*GOALS, *HARMLESS, *OTHERS]
    if given.what == "check":
        check(given.folder, names=names)
    elif given.what == "ablation":
        ablation(given.folder, names=given.trace or ABLATED, requests=given.requests)
    else:
        goals(given.folder, names=names, out=given.out, processes=given.processes)


if __name__ == "__main__":
    main()
