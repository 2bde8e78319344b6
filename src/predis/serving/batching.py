"""Adaptive batching: what already waits is predicted together; a lone request never waits.

Calls that arrive in the same round of the event loop are joined when the round ends. Is the joined prediction cheap, by a measured cost,
it runs right there, in the loop; is it dear, it runs in a thread, and what arrives meanwhile is the next batch. So batches grow with the
load and shrink with it, and no timer adds to any request: a fixed wait of 2 ms made a peer 4.4 times slower at one connection.

A batch is bounded in rows and in the time it is expected to take. If joined rows fail, each request is tried alone, so that nobody fails
for a neighbour.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from predis.errors import PredisError
from predis.serving.inputs import Inputs, stack

Outputs = Sequence[NDArray[Any]]
_TRUST = 0.1  # weight of the newest observation in the running correction of the cost


class Waiting(Protocol):
    """A request as a batcher sees it."""

    inputs: Inputs
    deadline: float
    cancelled: bool


@dataclass(frozen=True)
class BatchPolicy:
    """How far waiting requests may be joined.

    Args:
        rows: most rows of one prediction; 1 turns joining off.
        seconds: longest that one prediction of several requests may be expected to take.
        inline_s: predictions expected to take longer run in a thread.
    """

    rows: int = 256
    seconds: float = 0.02
    inline_s: float = 0.002


class Cost:
    """What a prediction of n rows takes: measured when the version is warmed, corrected by every batch since.

    >>> cost = Cost(fixed_s=0.001, row_s=0.0001)
    >>> round(cost.of(10), 6)
    0.002
    >>> cost.rows_within(0.002)
    10
    """

    def __init__(self, fixed_s: float, row_s: float) -> None:
        self.fixed_s = fixed_s
        self.row_s = max(row_s, 1e-9)
        self._scale = 1.0

    def of(self, rows: int, *, batches: int = 1) -> float:
        """Seconds expected for so many rows, in so many predictions."""
        return self._scale * (self.fixed_s * batches + self.row_s * rows)

    def rows_within(self, seconds: float) -> int:
        """Most rows expected to be done in that time."""
        return int((seconds / self._scale - self.fixed_s) / self.row_s + 1e-9)

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from a batch. One slow batch (a page fault, a neighbour) counts for at most four."""
        ratio = min(seconds / (self.fixed_s + self.row_s * rows), 4.0 * self._scale)
        self._scale += _TRUST * (ratio - self._scale)


@dataclass(slots=True)
class Batch:
    """Calls predicted together: their joined inputs and outputs, or an answer (or error) for each alone.

    ``started`` and ``ended`` are moments of ``time.perf_counter``.
    """

    calls: list[Any]
    rows: int
    inputs: Inputs | None = None
    outputs: Outputs | None = None
    each: list[Outputs | PredisError] | None = None
    started: float = 0.0
    ended: float = 0.0


class Scheduler(Protocol):
    """What a batcher needs of the plane; all of it is called in the event loop."""

    def done(self, batch: Batch) -> None:
        """A batch is finished: answer its calls."""

    def expired(self, call: Any) -> None:
        """A call's deadline passed while it waited, or its client went away."""

    def wake(self, batcher: Batcher) -> None:
        """Call ``batcher.work`` when the loop's current round has ended."""

    def aside(self, work: Callable[[], None], after: Callable[[], None]) -> None:
        """Do work in a thread, and then ``after`` in the event loop."""


class Batcher:
    """The queue in front of one version. Lives in the event loop; only ``predict`` is ever called elsewhere.

    Args:
        predict: the version's prediction.
        scheduler: where batches run and how the loop is told.
    """

    def __init__(
        self,
        predict: Callable[[Inputs], Outputs],
        cost: Cost,
        *,
        policy: BatchPolicy,
        scheduler: Scheduler,
    ) -> None:
        self._predict = predict
        self.cost = cost
        self.policy = policy
        self._done, self._expired = scheduler.done, scheduler.expired
        self._wake, self._aside = scheduler.wake, scheduler.aside
        self._calls: deque[Any] = deque()
        self._rows = 0
        self._most = self._joined_at_most()  # as it was when a batch was last taken
        # Of the batch in a thread: when it was handed over, and how long it is expected to take.
        self.running = False
        self._begun = self._expected = 0.0
        # How much longer than its prediction a batch has taken of late: threads wait for each other, and for the interpreter.
        self._stretch = 1.0

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def idle(self) -> bool:
        return not self.running and not self._calls

    def add(self, call: Waiting) -> None:
        self._calls.append(call)
        self._rows += call.inputs.rows

    def drop(self, call: Waiting) -> bool:
        """Let a call wait no longer. False: it does not, for its prediction has begun."""
        try:
            self._calls.remove(call)
        except ValueError:
            return False
        self._rows -= call.inputs.rows
        return True

    def expected_wait_s(self, now: float) -> float:
        """How long a request that comes now is expected to wait for its turn."""
        waiting, rows = 0.0, self._rows
        if rows:
            batches = 1 if rows <= self._most else min(len(self._calls), -(-rows // self._most))
            waiting = self.cost.of(rows, batches=batches)
        if not self.running:
            return waiting
        return self._stretch * waiting + max(0.0, self._begun + self._expected - now)

    def work(self) -> None:
        """Predict what waits. What is left when the loop should look at its sockets again is done in its next round."""
        until = time.perf_counter() + self.policy.inline_s
        while self._calls and not self.running:
            batch = self._take()
            if batch is None:
                continue
            expected = self.cost.of(batch.rows)
            if expected <= self.policy.inline_s and self._joined(batch):
                self._done(batch)
                if batch.ended >= until and self._calls:
                    self._wake(self)
                    return
            else:
                self.running = True
                self._begun, self._expected = time.perf_counter(), self._stretch * expected
                self._aside(lambda batch=batch: self._run(batch), lambda batch=batch: self._back(batch))  # type: ignore[misc]

    def _back(self, batch: Batch) -> None:
        self.running = False
        took = (time.perf_counter() - self._begun) / self._expected * self._stretch
        self._stretch += _TRUST * (max(1.0, min(took, 2.0 * self._stretch)) - self._stretch)
        self._done(batch)
        self.work()

    def _joined_at_most(self) -> int:
        """Most rows of several requests that go together."""
        return max(1, min(self.policy.rows, self.cost.rows_within(self.policy.seconds)))

    def _take(self) -> Batch | None:
        """The next calls that may go together; None where all that waited have gone or expired."""
        most = self._most = self._joined_at_most()
        now = time.perf_counter()
        calls: list[Any] = []
        rows = 0
        while self._calls:
            call = self._calls[0]
            if calls and rows + call.inputs.rows > most:
                break
            self._calls.popleft()
            self._rows -= call.inputs.rows
            if call.deadline <= now or call.cancelled:
                self._expired(call)
                continue
            calls.append(call)
            rows += call.inputs.rows
        return Batch(calls, rows) if calls else None

    def _run(self, batch: Batch) -> None:
        """Predict the batch in a thread; every call gets its outputs or its own error, whatever happens."""
        if batch.each is not None or not self._joined(batch):
            batch.each = [self._alone(call) for call in batch.calls]
            batch.ended = time.perf_counter()

    def _joined(self, batch: Batch) -> bool:
        """Predict the calls together. False where that failed and each is to be tried alone: in a thread, for that takes many times as
        long as was expected of the batch.
        """
        batch.started = time.perf_counter()
        try:
            inputs = stack([call.inputs for call in batch.calls])
            batch.outputs = self._predict(inputs)
        except Exception as error:
            batch.each = [] if len(batch.calls) > 1 else [_failure(error)]
            batch.ended = time.perf_counter()
            return len(batch.calls) == 1
        batch.inputs = inputs
        batch.ended = time.perf_counter()
        self.cost.observe(batch.rows, batch.ended - batch.started)
        return True

    def _alone(self, call: Waiting) -> Outputs | PredisError:
        try:
            return self._predict(call.inputs)
        except Exception as error:
            return _failure(error)


def _failure(error: Exception) -> PredisError:
    if isinstance(error, PredisError):
        return error
    return PredisError(f"{type(error).__name__} while predicting: {error}")
