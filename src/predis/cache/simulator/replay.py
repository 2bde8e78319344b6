"""One policy, with or without a prefetcher, against one trace.

Time stands still but for requests. Before request ``i`` every prefetch arrives that is due: asked for at ``j``, with a delay of
``D`` requests, that is ``j + D + 1 <= i``; with a delay in time, the clock of ``i`` is that far ahead of ``j``'s. Then the request
is answered:

- resident: a hit;
- under way: a miss, late; the prefetch turns into the demand's load, so that nothing arrives later and nothing is loaded twice;
- else: a miss, and a load of the backend.

What was loaded is offered to the policy, which makes room at once. The prefetcher sees the request last and asks for keys; those
resident, under way or larger than the cache are left out. The room for a prefetch is made when it arrives, not when it is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from predis.cache.simulator.counts import Counts
from predis.cache.simulator.events import Events
from predis.cache.simulator.policies.base import Policy
from predis.cache.simulator.prefetchers.base import Prefetcher
from predis.cache.simulator.setup import Delay, Key
from predis.cache.simulator.trace import Trace
from predis.errors import InvalidInput

Progress = Callable[[int], None]


def replay(
    trace: Trace,
    policy: Policy,
    *,
    prefetcher: Prefetcher | None = None,
    sizes: bool = False,
    events: Events | None = None,
    progress: Progress = lambda _: None,
) -> Counts:
    """Replays all requests.

    Args:
        prefetcher: its setup tells the delay.
        sizes: count bytes, as the trace has them; the policy's capacity then is in bytes.
        events: where to write what happened.
        progress: told after every block how many requests it had.

    Raises:
        InvalidInput: sizes or a clock are needed that the trace does not have.
    """
    if sizes and trace.sizes is None:
        raise InvalidInput(f"{trace.name} has no column 'size': leave --bytes out, objects are counted then")
    if prefetcher is None and events is None:
        return _demand_only(trace, policy, sizes=sizes, progress=progress)
    if prefetcher is not None and prefetcher.setup.delay.seconds and trace.ts is None:
        raise InvalidInput(f"{trace.name} has no clock (column 'ts'): give the delay as a number of requests")
    return _Replay(trace, policy, prefetcher=prefetcher, sizes=sizes, events=events).run(progress)


def _demand_only(trace: Trace, policy: Policy, *, sizes: bool, progress: Progress) -> Counts:
    """The same without prefetches, in a loop that does nothing else."""
    counts = Counts(requests=len(trace))
    request, admit = policy.request, policy.admit
    for block in trace.blocks(sizes=sizes):
        for key, size in zip(block.keys, block.sizes, strict=False):
            if not request(key):
                counts.misses += 1
                counts.missed_bytes += size
                counts.evicted += len(admit(key, size))
        progress(len(block.keys))
    return counts


class _Replay:
    """The state of one run: what is under way, and what arrived and was not asked for yet."""

    def __init__(
        self,
        trace: Trace,
        policy: Policy,
        *,
        prefetcher: Prefetcher | None,
        sizes: bool,
        events: Events | None,
    ) -> None:
        self.trace, self.policy, self.events, self.sizes = trace, policy, events, sizes
        self.prefetcher = prefetcher
        delay = prefetcher.setup.delay if prefetcher else Delay()
        self.timed, self.wait = delay.seconds > 0, delay.wait
        self.size_of = trace.first_sizes if sizes else {}
        self.usual_size = max(1, trace.footprint // trace.distinct) if sizes else 1
        self.counts = Counts(requests=len(trace))
        self.under_way: dict[Key, int] = {}  # key: request at which it was asked for
        self.due: deque[tuple[float, Key, int]] = deque()  # when, key, asked for at; cancelled ones too
        self.unused: set[Key] = set()

    def run(self, progress: Progress) -> Counts:
        counts, due, unused = self.counts, self.due, self.unused
        request = self.policy.request
        timed, prefetcher = self.timed, self.prefetcher
        observe = prefetcher.observe if prefetcher else None
        if prefetcher is not None:
            prefetcher.attach(self.policy)
        i = 0
        for block in self.trace.blocks(sizes=self.sizes):
            for key, size, client, ts in zip(block.keys, block.sizes, block.clients, block.ts, strict=False):
                now = ts if timed else i
                if due and due[0][0] <= now:
                    self._arrive(i, now)
                hit = request(key)
                if not hit:
                    counts.misses += 1
                    counts.missed_bytes += size
                    self._load(i, key, size=size)
                elif key in unused:
                    unused.discard(key)
                    counts.used += 1
                    prefetcher.used(key)  # type: ignore[union-attr]
                if observe is not None:
                    wanted = observe(i, key, client=client, hit=hit, ts=ts)
                    if wanted:
                        self._ask(i, wanted, now=now)
                i += 1
            progress(len(block.keys))
        if not timed:
            self._arrive(i, i)  # for whoever replays the events; nobody asks any more
        return counts

    def _load(self, i: int, key: Key, *, size: int) -> None:
        """A miss: the key is loaded, or taken from the prefetch under way, and offered to the policy."""
        if key in self.under_way:
            del self.under_way[key]
            self.counts.late += 1
            self.prefetcher.late(key)  # type: ignore[union-attr]
        evicted = self.policy.admit(key, size)
        if evicted:
            self._left(i, [gone for gone in evicted if gone != key])  # its own return: not kept at all
        if self.events is not None and key in self.policy:
            self.events.load(i, key)

    def _ask(self, i: int, wanted: Iterable[Key], *, now: float) -> None:
        assert self.prefetcher is not None
        when = now + self.wait
        for key in wanted:
            if key in self.under_way or key in self.policy or self._size(key) > self.policy.capacity:
                continue
            self.under_way[key] = i
            self.due.append((when, key, i))
            self.counts.asked += 1
            self.prefetcher.asked(key)
            if self.events is not None:
                self.events.prefetch(i, key)

    def _arrive(self, i: int, now: float) -> None:
        """What is due before request ``i`` becomes resident; room for it is made after the request before."""
        due, under_way = self.due, self.under_way
        while due and due[0][0] <= now:
            _, key, asked_at = due.popleft()
            if under_way.get(key) != asked_at:
                continue
            del under_way[key]
            evicted = self.policy.admit_prefetched(key, self._size(key))
            self.unused.add(key)
            if evicted:
                self._left(i - 1, evicted)
            if key in self.unused and key not in self.policy:
                self._left(i - 1, (key,))

    def _left(self, i: int, evicted: Sequence[Key]) -> None:
        self.counts.evicted += len(evicted)
        for key in evicted:
            if key in self.unused:
                self.unused.discard(key)
                self.counts.wasted += 1
                self.prefetcher.wasted(key)  # type: ignore[union-attr]
            if self.events is not None:
                self.events.evict(i, key)

    def _size(self, key: Key) -> int:
        return self.size_of.get(key, self.usual_size) if self.sizes else 1
