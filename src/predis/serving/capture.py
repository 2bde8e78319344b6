"""Capture: what was asked and answered, appended to the journal. One record a batch, made after its answers were given.

Nothing here can fail an answer or wait for anything: an append is a memory copy, and what the disk does not take is counted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson

from predis.clock import Clock
from predis.errors import InvalidInput, PredisError
from predis.serving import runtimes
from predis.serving.batching import Batch, Outputs
from predis.serving.inputs import Inputs, Unseen
from predis.serving.served import ServedVersion
from predis.state.records import Arm, More, Status, reason

_REASON = 200  # characters of why a request was refused


class Sink(Protocol):
    """Where records go: the journal's writer, or nothing."""

    def append(self, payload: bytes, count: int = 1) -> bool: ...


class Record(NamedTuple):
    """A record for the sink, and how many requests are in it."""

    payload: bytes
    requests: int


class Capture:
    """Writes records and counts.

    Args:
        sink: None where predictions are not to be kept.
    """

    def __init__(self, sink: Sink | None, clock: Clock) -> None:
        self._sink = sink
        self._clock = clock

    def batch(self, batch: Batch) -> None:
        """Keep a batch whose calls have been answered."""
        calls = batch.calls
        # A call may have failed after its prediction: an answer that cannot be written.
        if batch.outputs is None or batch.inputs is None or any(call.error for call in calls):
            self.alone(calls)
            return
        self._count(batch)
        self._write(calls, batch.inputs, outputs=batch.outputs)

    def alone(self, calls: Sequence[Any]) -> None:
        """Keep calls that were answered or refused one by one."""
        for call in calls:
            if call.error is not None:
                call.served.metrics.refused(call.error)
                self._write_refused(call)
                continue
            if call.predicted is None:
                call.served.metrics.cached(call.ended - call.started)
            else:
                single = Batch([call], call.inputs.rows, call.inputs, call.outputs)
                single.started, single.ended = call.predicted
                self._count(single)
            self._write([call], call.inputs, outputs=call.outputs)

    def copied(
        self,
        served: ServedVersion,
        calls: Sequence[Any],
        *,
        inputs: Inputs,
        outputs: Outputs,
        took: Sequence[float],
    ) -> Record:
        """The record of calls that were answered, as predicted by a shadow. Any thread may ask for it.

        Args:
            took: seconds of each, as if the shadow had answered.
        """
        answers = [runtimes.scores_of(call.served.signature, call.outputs) for call in calls]
        received, events = self._moments(calls)
        extra = _texts(inputs.unseen) if inputs.unseen else b""
        payload = served.records.encode(
            [call.request.id for call in calls],
            bytes(len(calls)),
            numbers=([call.inputs.rows for call in calls], received, events, [int(s * 1e6) for s in took]),
            scores=runtimes.scores_of(served.signature, outputs),
            features=inputs.features,
            more=More(bytes((Arm.SHADOW,)) * len(calls), np.concatenate(answers), extra),
        )
        return Record(payload, len(calls))

    def copy_refused(self, served: ServedVersion, call: Any, *, error: PredisError) -> Record:
        """The record of a call that was answered, and that a shadow could not. Any thread may ask for it."""
        return Record(self._refused(served, call, error=error, arm=Arm.SHADOW), 1)

    def append(self, record: Record) -> None:
        if self._sink is not None:
            self._sink.append(record.payload, record.requests)

    def _count(self, batch: Batch) -> None:
        batch.calls[0].served.metrics.predicted(
            batch.rows,
            batch.ended - batch.started,
            requests=[call.ended - call.started for call in batch.calls],
            queued=[batch.started - call.started for call in batch.calls],
        )

    def _write(self, calls: Sequence[Any], inputs: Inputs, *, outputs: Outputs) -> None:
        first = calls[0]
        if self._sink is None or not first.applied.config.capture:
            return
        served = first.served
        payload = served.records.encode(
            [call.request.id for call in calls],
            bytes(len(calls)),
            numbers=([call.inputs.rows for call in calls], *self._moments(calls), _latencies(calls)),
            scores=runtimes.scores_of(served.signature, outputs),
            features=inputs.features,
            more=More(
                bytes([call.arm for call in calls]), extra=_texts(inputs.unseen) if inputs.unseen else b""
            ),
        )
        self._sink.append(payload, len(calls))

    def _write_refused(self, call: Any) -> None:
        if self._sink is None or not call.applied.config.capture:
            return
        self._sink.append(self._refused(call.served, call, error=call.error, arm=call.arm), 1)

    def _refused(self, served: ServedVersion, call: Any, *, error: PredisError, arm: int) -> bytes:
        status = Status.REJECTED if isinstance(error, InvalidInput) else Status.FAILED
        (received,), (event,) = self._moments([call])
        (latency,) = _latencies([call])
        why = error.message[:_REASON] if status is Status.REJECTED else ""
        return served.records.refused(
            call.request.id,
            status,
            received_at=received,
            event_at=event,
            latency_us=latency,
            more=More(bytes((arm,)), extra=reason(why)),
        )

    def _moments(self, calls: Sequence[Any]) -> tuple[list[int], list[int]]:
        """When each call came and when its event was, in nanoseconds."""
        # Moments of the calls are those of a clock without a date; what it shows now, and what the wall clock shows, is the bridge.
        epoch_ns = self._clock.time_ns() - int(time.perf_counter() * 1e9)
        received = [epoch_ns + int(call.started * 1e9) for call in calls]
        events = [
            at if call.event_at is None else call.event_at for call, at in zip(calls, received, strict=True)
        ]
        return received, events


def _latencies(calls: Sequence[Any]) -> list[int]:
    """What each call took, in microseconds."""
    return [int((call.ended - call.started) * 1e6) for call in calls]


def _texts(unseen: Unseen) -> bytes:
    return orjson.dumps([[row, column, text] for (row, column), text in unseen.items()])
