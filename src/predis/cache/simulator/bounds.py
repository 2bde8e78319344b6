"""What no policy can beat: Belady's MIN at a size, and the cache without a limit."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from predis.cache.simulator.trace import BLOCK, Trace


def unlimited(trace: Trace) -> int:
    """Misses of a cache in which everything fits: one a key."""
    return trace.distinct


def belady(
    trace: Trace, capacity: int, *, sizes: bool = False, progress: Callable[[int], None] = lambda _: None
) -> int:
    """Misses of MIN, which lets go what is needed again last: the fewest of any policy that keeps what it loads.

    With sizes it lets go of as many such as it takes, which is a good policy that knows the future, and no bound any more.

    References:
        L. A. Belady: A study of replacement algorithms for a virtual-storage computer. IBM Systems Journal 5(2), 1966.
    """
    following = _next_uses(trace.codes)
    weights = trace.sizes if sizes else None
    resident: dict[int, int] = {}  # code: size
    farthest: list[tuple[int, int]] = []  # (-next use, code), with stale entries
    current: dict[int, int] = {}  # code: its next use
    used = misses = 0
    push, pop = heapq.heappush, heapq.heappop
    for start in range(0, len(trace), BLOCK):
        part = slice(start, start + BLOCK)
        block = trace.codes[part].tolist()
        lasting = weights[part].tolist() if weights is not None else [1] * len(block)
        for code, ahead, size in zip(block, following[part].tolist(), lasting, strict=True):
            if code not in resident:
                misses += 1
                if size > capacity:
                    continue
                while used + size > capacity:
                    due, victim = pop(farthest)
                    if current.get(victim) == -due:
                        used -= resident.pop(victim)
                        del current[victim]
                resident[code] = size
                used += size
            current[code] = ahead
            push(farthest, (-ahead, code))
        progress(len(block))
        if len(farthest) > 4 * len(resident) + BLOCK:
            farthest = [(-due, code) for code, due in current.items()]
            heapq.heapify(farthest)
    return misses


def _next_uses(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each request the index of the next for the same key, or the number of requests."""
    order = np.argsort(codes, kind="stable")
    following = np.full(len(codes), len(codes), np.int64)
    same = codes[order[1:]] == codes[order[:-1]]
    following[order[:-1][same]] = order[1:][same]
    return following
