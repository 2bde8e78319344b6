"""Shadows: copies of answered requests, predicted by versions that answer nobody.

A share of the requests that the Route had answered, drawn by their ids, is copied to each shadow. What a shadow does with its copies can
delay or fail no answer: they wait in a queue of their own, which is bounded, and what finds no room is dropped and counted; they are bound,
predicted and encoded in threads of their own, a few milliseconds' worth at a time, and not at all while the worker has much to do. The
loop only puts a copy in the queue, and the finished record in the journal. A shadow that hangs keeps one thread and its queue, no more.

A copy's record bears the request's id and moments, the shadow's scores and those the client got. Its latency is what the request would
have taken had the shadow answered it: what it took, with the prediction's time replaced by the shadow's. Copies are joined far more than
answers are, so the time of a joined prediction is brought to the number of rows that the answer's had, by what the shadow is known to
cost. It is the thread's processor time, for a thread beside a busy event loop waits; of Python functions, which may wait for something
themselves, it is the time on the wall. An answer from the cache would have come from there all the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from predis.errors import PredisError
from predis.serving import runtimes
from predis.serving.capture import Capture, Record
from predis.serving.inputs import Inputs, stack
from predis.serving.route import Route, point
from predis.serving.served import ServedVersion
from predis.serving.threads import Threads

log = logging.getLogger(__name__)

# Copies are gathered for this long before they are predicted together, in predictions of so many rows.
_GATHER_S = 0.01
_JOINED_ROWS = 256
# What may wait for one shadow: requests, and values of all their rows.
_MOST_WAITING = 512
_MOST_VALUES = 1 << 22
_THREADS = 2


class Shadows:
    """The shadows of all endpoints of one worker.

    Args:
        has_room: whether the worker has so little to do that copies may be predicted.
    """

    def __init__(self, capture: Capture, *, has_room: Callable[[], bool]) -> None:
        self.capture = capture
        self.has_room = has_room
        self._threads = Threads(_THREADS, "shadow")

    def of(
        self, route: Route, versions: Mapping[int, ServedVersion], *, before: Sequence[Shadow]
    ) -> tuple[Shadow, ...]:
        """The shadows of a Route that takes the place of another, whose shadows were those ``before``: one that stays goes on."""
        found = []
        for number, share in route.shadows.items():
            made = Shadow(versions[number], share, salt=route.salt, shadows=self)
            found.append(next((shadow for shadow in before if shadow.is_like(made)), made))
        for shadow in before:
            if shadow not in found:
                shadow.close()
        return tuple(found)

    def aside(self, work: Callable[[], list[Record]], after: Callable[[list[Record]], None]) -> None:
        """Do work in a thread, and then ``after`` in the event loop."""
        loop = asyncio.get_running_loop()

        def run() -> None:
            found = []
            try:
                found = work()
            except Exception:
                log.exception("copies of requests could not be worked on")
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(after, found)

        self._threads.submit(run)

    def close(self) -> bool:
        """Predict nothing more. Whether nothing is being predicted: what is cannot be stopped."""
        return self._threads.close()


class Shadow:
    """One shadow of an applied Route. It lives in the event loop, but for what its methods say."""

    def __init__(self, served: ServedVersion, share: float, *, salt: str, shadows: Shadows) -> None:
        self.served = served
        self._share = share
        self._salt = salt
        self._shadows = shadows
        self._width = max(1, len(served.signature.feature_names))
        self._waiting: deque[Any] = deque()
        self._values = 0
        self._at_work = False
        self._closed = False
        self._alike: dict[int, bool] = {}

    def is_like(self, other: Shadow) -> bool:
        """Whether the other would do the same."""
        mine, theirs = (self.served, self._share, self._salt), (other.served, other._share, other._salt)
        return mine == theirs

    def close(self) -> None:
        """Take no more copies, and forget those that wait. Any thread may call this."""
        self._closed = True

    def offer(self, call: Any) -> None:
        """Copy a call that was answered, if its id is among the share and there is room."""
        served = self.served
        if self._closed or call.served is served or not self._draws(call.request.id):
            return
        values = call.inputs.rows * self._width
        full = len(self._waiting) >= _MOST_WAITING or self._values + values > _MOST_VALUES
        if full or not self._shadows.has_room():
            served.metrics.shadow_dropped.add()
            return
        self._waiting.append(call)
        self._values += values
        served.pending += 1  # nobody closes a version that has
        if not self._at_work:
            self._at_work = True
            asyncio.get_running_loop().call_later(_GATHER_S, self._go_on)

    def _draws(self, name: str) -> bool:
        return (
            self._share >= 1 or point(self.served.endpoint, name, salt=f"{self._salt} shadow") < self._share
        )

    def _go_on(self) -> None:
        """Have copies predicted that wait."""
        if self._closed:
            self.served.metrics.shadow_dropped.add(len(self._waiting))
            self.served.pending -= len(self._waiting)
            self._waiting.clear()
        if not self._waiting:
            self._at_work = False
        elif not self._shadows.has_room():
            asyncio.get_running_loop().call_later(_GATHER_S, self._go_on)
        else:
            calls = self._take()
            self._shadows.aside(partial(self._work, calls), partial(self._done, len(calls)))

    def _take(self) -> list[Any]:
        calls: list[Any] = []
        rows = 0
        while self._waiting and (not calls or rows + self._waiting[0].inputs.rows <= _JOINED_ROWS):
            call = self._waiting.popleft()
            calls.append(call)
            rows += call.inputs.rows
        self._values -= rows * self._width
        return calls

    def _done(self, count: int, records: list[Record]) -> None:
        self.served.pending -= count
        for record in records:
            self._shadows.capture.append(record)
        self._go_on()

    # -- in a thread -----------------------------------------------------------------------------------------------------

    def _work(self, calls: Sequence[Any]) -> list[Record]:
        """The records of these calls."""
        records, bound = [], []
        for call in calls:
            try:
                bound.append((call, self._inputs(call)))
            except PredisError as error:
                records.append(self._refused(call, error))
        return records + (self._predicted(bound) if bound else [])

    def _inputs(self, call: Any) -> Inputs:
        """The rows as this version takes them.

        Raises:
            InvalidInput: they do not fit its signature.
        """
        alike = self._alike.get(call.served.number)
        if alike is None:
            answered, own = call.served, self.served
            alike = answered.signature.inputs == own.signature.inputs and answered.takes == own.takes
            self._alike[answered.number] = alike
        found: Inputs = call.inputs if alike else self.served.binder.bind(call.request)
        return found

    def _predicted(self, bound: Sequence[tuple[Any, Inputs]]) -> list[Record]:
        served = self.served
        inputs = stack([each for _, each in bound])
        clock = time.perf_counter if served.version.format == "python" else time.thread_time
        started = clock()
        try:
            outputs = runtimes.run(served.runtime, inputs)
        except PredisError as error:
            if len(bound) == 1:
                return [self._refused(bound[0][0], error)]
            return [record for each in bound for record in self._predicted([each])]
        slower = (clock() - started) / served.cost.of(inputs.rows)
        calls = [call for call, _ in bound]
        took = [_latency(call, slower * served.cost.of(call.together)) for call in calls]
        return [self._shadows.capture.copied(served, calls, inputs=inputs, outputs=outputs, took=took)]

    def _refused(self, call: Any, error: PredisError) -> Record:
        return self._shadows.capture.copy_refused(self.served, call, error=error)


def _latency(call: Any, own_s: float) -> float:
    """Seconds that a call would have taken with another's prediction in place of the one that it got."""
    took: float = call.ended - call.started
    if call.predicted is None:
        return took
    started: float = call.predicted[0]
    ended: float = call.predicted[1]
    return took - (ended - started) + own_s
