"""One source at work in one gateway worker: keys wait for their turn, are called for together, and nothing it does hurts others.

Keys that wait are one call, up to ``batch`` of them; ``concurrency`` calls run at once, in threads of the source's own. A call that takes
longer than ``timeout_s`` has failed, but keeps its place until it is over: threads cannot be stopped, and a source that hangs must not
be given more of them. Keys that have waited as long fail too. So what a bad source may hold is bounded: ``waiting`` keys,
``concurrency`` threads and answers.

Nor does one bad key hurt those that are called for with it: where a source says that a key is at fault (``Unfit``), the others are asked
for again in halves, and the breaker hears nothing of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from predis.cache.sources.breaker import Breaker
from predis.cache.sources.calling import Caller, Change, Unfit
from predis.cache.sources.counting import Counts
from predis.cache.sources.encoding import Payload, encode
from predis.cache.sources.failure import SourceFailed, in_words
from predis.cache.sources.pattern import Arguments
from predis.cache.sources.source import Source
from predis.clock import Clock
from predis.serving.threads import Threads
from predis.telemetry import redact

log = logging.getLogger(__name__)

T = TypeVar("T")
_SHOWN = 300
_GONE = "it is no longer declared"


class _Wanted(NamedTuple):
    arguments: Arguments
    answer: asyncio.Future[Payload | None]
    until: float


class Feed:
    """Loads values of one source, in one event loop."""

    def __init__(self, source: Source, caller: Caller, *, counts: Counts, clock: Clock) -> None:
        self.source = source
        self.counts = counts
        self._caller = caller
        self._breaker = Breaker(source.breaker_failures, open_s=source.breaker_s, clock=clock)
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._threads = Threads(source.concurrency, f"source-{source.name}")
        # A queue is worked off in order: a write that hangs must be over before the next.
        self._writers = Threads(
            1 if source.writes == "behind" else source.concurrency, f"source-{source.name}-write"
        )
        self._writing = 0
        self._wanted: deque[_Wanted] = deque()
        self._running = 0
        self._closed = False
        self._due: asyncio.Handle | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self.load_s = 0.0
        """How long a call takes, smoothed: the delta of early refresh."""

    @property
    def waiting(self) -> int:
        return len(self._wanted)

    @property
    def is_writing(self) -> bool:
        """Whether a write may still be on its way to the source, in time or not."""
        return self._writing > 0

    @property
    def has_room(self) -> bool:
        """Whether a load that can wait may be begun: nobody waits, and fewer than half of the calls run."""
        return (
            not self._wanted
            and 2 * self._running < self.source.concurrency
            and self._breaker.state == "closed"
        )

    async def fetch(self, arguments: Arguments) -> Payload | None:
        """The value for these arguments, encoded; None where the source has none.

        Raises:
            SourceFailed: too much waits, the source is left alone, took too long, failed, gave what cannot be kept, or is declared no more.
        """
        if self._closed:
            raise self.failure(_GONE)
        if len(self._wanted) >= self.source.waiting:
            self.counts.loads["shed"].add()
            raise self.failure(f"{len(self._wanted)} keys wait already; try again later")
        answer: asyncio.Future[Payload | None] = self._loop.create_future()
        self._wanted.append(_Wanted(arguments, answer, self._loop.time() + self.source.timeout_s))
        self._call_soon()
        if self._sweep is None:
            self._sweep = self._loop.call_later(self.source.timeout_s, self._give_up)
        return await answer

    async def apply(self, changes: Sequence[Change]) -> None:
        """Bring writes to the source, all or none of them; from a queue one call at a time.

        Raises:
            SourceFailed: it took too long, too many wait, or it is declared no more.
            Refused: it does not take one of them.
            Exception: whatever else the source raises.
        """
        if self._closed:
            raise self.failure(_GONE)
        if self._writing >= self.source.waiting:
            raise self.failure(f"{self._writing} writes wait already; try again later")
        self._writing += 1
        done = self._in_thread(self._writers, lambda: self._caller.write(changes))
        done.add_done_callback(self._written)
        finished, _ = await asyncio.wait({done}, timeout=self.source.timeout_s)
        if not finished:
            raise self.failure(f"a write took longer than {self.source.timeout_s:g} s")
        done.result()

    def explain(self, arguments: Arguments) -> str:
        return self._caller.explain(arguments)

    def failure(self, reason: str) -> SourceFailed:
        """The error of this source for clients: one line, not too long, without passwords."""
        first_line, _, _ = reason.partition("\n")
        return SourceFailed(f"ERR source {self.source.name}: {redact(first_line)[:_SHOWN]}")

    def close(self) -> None:
        """Whoever waits is told, and whoever comes yet. Calls that run end in their own time."""
        self._closed = True
        for timer in (self._due, self._sweep):
            if timer is not None:
                timer.cancel()
        wanted, self._wanted = self._wanted, deque()
        self._fail(wanted, _GONE)
        self._threads.close()
        self._writers.close()
        self._caller.close()

    def _call_soon(self) -> None:
        """Call when this round of the event loop, or the time to linger, is over: more keys may come."""
        if self._due is None and self._running < self.source.concurrency:
            linger = self.source.linger_ms / 1_000
            self._due = (
                self._loop.call_later(linger, self._call) if linger else self._loop.call_soon(self._call)
            )

    def _call(self) -> None:
        self._due = None
        size = self.source.batch if self.source.batched else 1
        while self._wanted and self._running < self.source.concurrency:
            if not self._breaker.allow():
                wanted, self._wanted = self._wanted, deque()
                self.counts.loads["shed"].add(len(wanted))
                self._fail(
                    wanted,
                    f"it failed {self.source.breaker_failures} times in a row and is left alone for {self._pause()}",
                )
                return
            batch = [self._wanted.popleft() for _ in range(min(size, len(self._wanted)))]
            self._running += 1
            task = self._loop.create_task(self._run(batch))
            task.add_done_callback(_log_failure)

    def _pause(self) -> str:
        return f"{max(self._breaker.retry_in_s, 0):.1f} s more"

    async def _run(self, batch: list[_Wanted]) -> None:
        started = self._clock.monotonic_s()
        self.counts.calls.add()
        asked = [wanted.arguments for wanted in batch]
        until = time.monotonic() + self.source.timeout_s
        call = self._in_thread(self._threads, lambda: self._fetch(asked, until))
        call.add_done_callback(self._over)
        finished, _ = await asyncio.wait({call}, timeout=self.source.timeout_s)
        took = self._clock.monotonic_s() - started
        self.counts.seconds.observe([took])
        if not finished:
            self._settle(ok=False)
            self._fail(batch, f"no answer within {self.source.timeout_s:g} s", count="failed")
        elif error := call.exception():
            self._settle(ok=False)
            log.debug("source %s failed", self.source.name, exc_info=error)
            self._fail(batch, in_words(error), count="failed")
        else:
            self._settle(ok=True)
            self.load_s = took if not self.load_s else 0.8 * self.load_s + 0.2 * took
            self._answer(batch, call.result())

    def _over(self, call: asyncio.Future[Any]) -> None:
        """A call's thread is free again, in time or not."""
        self._running -= 1
        call.cancelled() or call.exception()
        if self._wanted:
            self._call_soon()

    def _written(self, done: asyncio.Future[None]) -> None:
        self._writing -= 1
        done.cancelled() or done.exception()

    def _fetch(self, batch: list[Arguments], until: float) -> list[Payload | Exception | None]:
        """In a thread: what the source gives, encoded. What is wrong with one key, or its value, is that key's failure."""
        try:
            values = self._caller.fetch(batch)
        except Unfit as unfit:
            if len(batch) == 1:
                return [unfit]
            if time.monotonic() > until:  # nobody waits for the rest any more
                raise
            half = len(batch) // 2
            return self._fetch(batch[:half], until) + self._fetch(batch[half:], until)
        if len(values) != len(batch):
            raise ValueError(f"{len(values)} values for {len(batch)} keys")
        return [_encoded(self.source, value) for value in values]

    def _answer(self, batch: list[_Wanted], found: list[Payload | Exception | None]) -> None:
        for wanted, value in zip(batch, found, strict=True):
            if isinstance(value, Exception):
                self._fail([wanted], in_words(value), count="failed")
            elif not wanted.answer.done():
                self.counts.loads["none" if value is None else "loaded"].add()
                wanted.answer.set_result(value)

    def _settle(self, *, ok: bool) -> None:
        self._breaker.succeeded() if ok else self._breaker.failed()
        self.counts.broken.set(self._breaker.state != "closed")

    def _give_up(self) -> None:
        """Keys that have waited too long fail; the calls before them hang."""
        self._sweep = None
        now = self._loop.time()
        while self._wanted and self._wanted[0].until <= now:
            self._fail(
                [self._wanted.popleft()],
                f"no turn within {self.source.timeout_s:g} s; earlier calls hang",
                count="shed",
            )
        if self._wanted:
            self._sweep = self._loop.call_later(self._wanted[0].until - now, self._give_up)

    def _fail(self, wanted: Sequence[_Wanted], reason: str, *, count: str = "") -> None:
        if count:
            self.counts.loads[count].add(len(wanted))
        for each in wanted:
            if not each.answer.done():
                each.answer.set_exception(self.failure(reason))

    def _in_thread(self, threads: Threads, work: Callable[[], T]) -> asyncio.Future[T]:
        """What the work gives, as a future of this event loop."""
        done: asyncio.Future[T] = self._loop.create_future()

        def tell(result: T | None, error: BaseException | None) -> None:
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = work()
            except BaseException as raised:  # of a source's own code, SystemExit too
                error = RuntimeError(repr(raised)) if isinstance(raised, StopIteration) else raised
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(tell, result, error)

        threads.submit(run)
        return done


def _encoded(source: Source, value: Any) -> Payload | Exception | None:
    if isinstance(value, Exception):
        return value
    try:
        return encode(source, value)
    except ValueError as error:
        return error


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception():
        log.error("loading failed", exc_info=task.exception())
