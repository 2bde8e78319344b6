"""All runs on one trace, beside LRU and the bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from predis.cache.simulator.replay import Progress
from predis.cache.simulator.runs import BOUNDS, YARDSTICK, Outcome, Run, perform, perform_all, split, usual
from predis.cache.simulator.setup import Delay
from predis.cache.simulator.sizes import capacity
from predis.cache.simulator.trace import Trace
from predis.errors import InvalidInput


@dataclass(frozen=True)
class Report:
    """Outcomes of all runs on a trace, by size and then in the order asked for; LRU is always among them."""

    trace: dict[str, Any]
    delay: str
    unit: str
    outcomes: Sequence[Outcome]

    def rows(self) -> list[dict[str, Any]]:
        """One row a run, for programs. Keys without a meaning for a run are None.

        ``coverage``: share of LRU's misses that are misses no more, negative where there are more. ``precision``: share of the
        prefetches that were then asked for. ``on_time``: share of those that were there when asked for. ``loads``: of the
        backend, and ``loads_to_lru`` these against LRU's misses.
        """
        lru = {o.run.size: o.counts.misses for o in self.outcomes if o.run.name == YARDSTICK}
        return [_row(outcome, lru[outcome.run.size]) for outcome in self.outcomes]

    def to_dict(self) -> dict[str, Any]:
        return {"trace": self.trace, "delay": self.delay, "unit": self.unit, "runs": self.rows()}


def _row(outcome: Outcome, lru: int) -> dict[str, Any]:
    run, counts = outcome.run, outcome.counts
    asks = bool(run.prefetcher)
    bound = run.policy in BOUNDS
    by_bytes = run.in_bytes and not bound
    return {
        "run": run.name,
        "policy": run.policy,
        "prefetcher": run.prefetcher or None,
        "size": run.size,
        "capacity": None if run.policy == "unlimited" else run.capacity,
        "requests": counts.requests,
        "misses": counts.misses,
        "miss_ratio": counts.miss_ratio,
        "missed_bytes": counts.missed_bytes if by_bytes else None,
        "coverage": 1.0 - counts.misses / lru,
        "prefetches": counts.asked if asks else None,
        "precision": counts.precision,
        "on_time": counts.on_time,
        "late": counts.late if asks else None,
        "loads": counts.loads,
        "loads_to_lru": counts.loads / lru,
        "bound": bound,
        "seconds": round(outcome.seconds, 3),
    }


@dataclass(frozen=True)
class Plan:
    """What to replay a trace against.

    Attributes:
        sizes: of the cache, such as ``1%``, ``5000`` or ``64MiB``.
        names: such as ``lru``, ``s3-fifo+mithril`` or ``belady``; everything there is, where there is none. LRU always runs.
        delay: how long a prefetch is under way.
        in_bytes: let sizes count.
        events: where to write what the cache did; there must be one name and one size then.
    """

    sizes: Sequence[str] = ("1%",)
    names: Sequence[str] = ()
    delay: Delay = Delay()
    in_bytes: bool = False
    events: Path | None = None


def simulate(
    trace: Trace,
    plan: Plan,
    *,
    processes: int = 1,
    begin: Callable[[int], Progress] = lambda _: lambda _: None,
) -> Report:
    """Replays a trace as planned.

    Args:
        processes: at most as many at a time.
        begin: told how many requests will be replayed in all; returns what is told of each block.

    Raises:
        InvalidInput: a name, a size or a delay that is none, or sizes or a clock that the trace does not have.
    """
    runs = _runs(trace, plan)
    progress = begin(len(runs) * len(trace))
    if plan.events is None:
        outcomes = perform_all(runs, trace, processes=processes, progress=progress)
    else:
        told = runs[-1].name
        outcomes = [
            perform(run, trace, events=plan.events if run.name == told else None, progress=progress)
            for run in runs
        ]
    return Report(_facts(trace), str(plan.delay), "bytes" if plan.in_bytes else "objects", outcomes)


def _runs(trace: Trace, plan: Plan) -> list[Run]:
    if plan.in_bytes and trace.sizes is None:
        raise InvalidInput(f"{trace.name} has no column 'size': objects can be counted, bytes cannot")
    if plan.events is not None and (len(plan.names) != 1 or len(plan.sizes) != 1):
        raise InvalidInput("events are written of one run: name one policy and one size")
    pairs = [split(name) for name in plan.names or usual(trace, in_bytes=plan.in_bytes)]
    if plan.in_bytes and any("predis" in pair for pair in pairs):
        raise InvalidInput(
            "predis counts objects, not bytes: its limit of loads is measured against an LRU cache of as many objects, and would not hold. "
            "Leave --bytes out, or name policies and prefetchers without it"
        )
    if (YARDSTICK, "") not in pairs:
        pairs.insert(0, (YARDSTICK, ""))
    if plan.delay.seconds and trace.ts is None and any(prefetcher for _, prefetcher in pairs):
        raise InvalidInput(f"{trace.name} has no clock (column 'ts'): give the delay as a number of requests")
    return [
        Run(
            policy, prefetcher, size=size, capacity=capacity(size, trace, in_bytes=plan.in_bytes),
            delay=plan.delay, in_bytes=plan.in_bytes,
        )
        for size in dict.fromkeys(plan.sizes)
        for policy, prefetcher in dict.fromkeys(pairs)
    ]  # fmt: skip


def _facts(trace: Trace) -> dict[str, Any]:
    return {
        "name": trace.name,
        "requests": len(trace),
        "distinct_keys": trace.distinct,
        "footprint_bytes": None if trace.sizes is None else trace.footprint,
        "clients": None if trace.clients is None else len(set(trace.clients.tolist())),
        "seconds": None if trace.ts is None else float(trace.ts[-1] - trace.ts[0]),
        "clock_went_back": trace.clock_back,
    }
