"""Which policies run with which prefetchers, at which sizes, and running them side by side."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

import pyarrow as pa

from predis.cache.simulator import bounds, registry
from predis.cache.simulator.counts import Counts
from predis.cache.simulator.events import Events
from predis.cache.simulator.replay import Progress, replay
from predis.cache.simulator.setup import Delay, Setup
from predis.cache.simulator.trace import Trace
from predis.errors import InvalidInput

BOUNDS = ("belady", "unlimited")
YARDSTICK = "lru"
_POLL_S = 0.2
_LITTLE = 1_000_000  # requests in all, below which starting processes takes longer than they save


@dataclass(frozen=True, slots=True)
class Run:
    """One policy, alone or with a prefetcher, or one of the bounds, at one size.

    Attributes:
        size: as it was written, such as 1%.
        capacity: what that is in objects, or bytes.
        in_bytes: whether sizes count.
    """

    policy: str
    prefetcher: str
    size: str
    capacity: int
    delay: Delay = Delay()
    in_bytes: bool = False

    @property
    def name(self) -> str:
        return f"{self.policy}+{self.prefetcher}" if self.prefetcher else self.policy


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run counted, and the seconds it took."""

    run: Run
    counts: Counts
    seconds: float


def usual(trace: Trace, *, in_bytes: bool = False) -> list[str]:
    """Every policy alone, LRU with every prefetcher that can do anything with the trace, what Predis itself does, and the bounds."""
    numbers = pa.types.is_integer(trace.keys.type)
    left_out = {"none", "predis"} | (set() if numbers else {"obl", "sequence"})
    if trace.clients is None:
        left_out.add("markov1-client")
    names = [name for name in registry.POLICIES if name != "predis"]
    names += [f"{YARDSTICK}+{name}" for name in registry.PREFETCHERS if name not in left_out]
    if not in_bytes:
        names.append("predis")
    return [*names, *BOUNDS]


def split(name: str) -> tuple[str, str]:
    """Policy and prefetcher of ``s3-fifo+mithril``; the second is empty for a policy alone.

    Raises:
        InvalidInput: there is none of that name, or a bound is to prefetch.
    """
    policy, _, prefetcher = name.strip().lower().partition("+")
    if policy == "predis" and not prefetcher:
        prefetcher = "predis"
    if policy in BOUNDS and prefetcher:
        raise InvalidInput(f"{policy} is a bound of what is loaded on demand: it has no prefetcher")
    if policy not in BOUNDS and policy not in registry.POLICIES:
        raise InvalidInput(
            f"there is no policy {policy!r}; there are {', '.join([*registry.POLICIES, *BOUNDS])}"
        )
    if prefetcher and prefetcher not in registry.PREFETCHERS:
        raise InvalidInput(
            f"there is no prefetcher {prefetcher!r}; there are {', '.join(registry.PREFETCHERS)}"
        )
    return policy, prefetcher if prefetcher != "none" else ""


def perform(
    run: Run, trace: Trace, *, events: Path | None = None, progress: Progress = lambda _: None
) -> Outcome:
    """Does one run, here and now."""
    began = time.perf_counter()
    if run.policy in BOUNDS:
        if events is not None:
            raise InvalidInput(f"{run.policy} is a bound and makes no events; name a policy")
        counts = _bound(run, trace, progress=progress)
    else:
        setup = Setup(run.capacity, run.delay, clients=trace.clients is not None, clock=trace.ts is not None)
        prefetcher = registry.prefetcher(run.prefetcher, setup) if run.prefetcher else None
        given: dict[str, Any] = {"prefetcher": prefetcher, "sizes": run.in_bytes, "progress": progress}
        policy = registry.policy(run.policy, run.capacity)
        if events is None:
            counts = replay(trace, policy, **given)
        else:
            with Events(events, trace.keys.type) as written:
                counts = replay(trace, policy, events=written, **given)
    return Outcome(run, counts, time.perf_counter() - began)


def _bound(run: Run, trace: Trace, *, progress: Progress) -> Counts:
    if run.policy == "unlimited":
        progress(len(trace))
        return Counts(requests=len(trace), misses=bounds.unlimited(trace))
    missed = bounds.belady(trace, run.capacity, sizes=run.in_bytes, progress=progress)
    return Counts(requests=len(trace), misses=missed)


def perform_all(
    runs: Sequence[Run], trace: Trace, *, processes: int, progress: Progress = lambda _: None
) -> list[Outcome]:
    """Does many runs, in several processes where it pays; outcomes are in the order of the runs."""
    processes = min(processes, len(runs))
    if processes < 2 or len(runs) * len(trace) < _LITTLE:
        return [perform(run, trace, progress=progress) for run in runs]
    _ = trace.codes  # once, and not in each process
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    longest_first = sorted(range(len(runs)), key=lambda at: not runs[at].prefetcher)
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=_begin, initargs=(trace, done)
    ) as pool:
        try:
            futures = {at: pool.submit(_perform_there, runs[at]) for at in longest_first}
            unfinished = set(futures.values())
            while unfinished:
                finished, unfinished = wait(unfinished, timeout=_POLL_S, return_when="FIRST_EXCEPTION")
                for future in finished:
                    future.result()  # a failure ends all
                progress(_sum(done))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    progress(_sum(done))  # what the processes sent before they ended
    return [futures[at].result() for at in range(len(runs))]


_there: dict[str, Any] = {}  # what a process got at its start: the trace, and where to report


def _begin(trace: Trace, done: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # on Ctrl-C the parent says all there is to say
    _there.update(trace=trace, done=done)


def _perform_there(run: Run) -> Outcome:
    report: Progress = _there["done"].put
    return perform(run, _there["trace"], progress=report)


def _sum(done: Any) -> int:
    """Requests reported since the last look."""
    total = 0
    while True:
        try:
            total += done.get_nowait()
        except Empty:
            return total
